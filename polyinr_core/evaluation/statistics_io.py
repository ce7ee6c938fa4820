"""Statistics files in place of images: our .safetensors, and .npz of mu and sigma by other programs."""

import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.data.import_tables import IMAGE_ARRAYS
from polyinr_core.errors import FileError
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_pass import MAX_VALUE, digest_tensors
from polyinr_core.metrics.feature_statistics import FeatureStatistics, Requirements
from polyinr_core.metrics.frechet import Gaussian
from polyinr_core.metrics.inception import SPATIAL_CHANNELS
from polyinr_core.metrics.registry import FeatureKey, Tap
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_special, sha256_of, written_beside
from polyinr_core.runtime.strict_json import FORMAT, JsonError, is_whole, upgrade
from polyinr_core.runtime.tensor_files import (
    ARRAY_ERRORS,
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

from .image_sources import ZIP_ERRORS, DatasetImages
from .results import library_versions

METADATA_KEY = "polyinr_statistics"
SUFFIXES = (".safetensors", ".npz")
ANY_NETWORK = "*"  # an .npz does not say which network it is of
MAX_ASYMMETRY = 1e-3  # of the largest entry: sums in float16 stay within this
NPZ_NAMES: dict[Tap, tuple[str, str]] = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
IDENTITY = {"name", "sha256", "resolution"}  # the keys of `extractor_identity`
ADVICE = "give the images, or save statistics again with --save-statistics and these metrics"


@dataclass(frozen=True)
class SavedStatistics:
    """The statistics of images, read from a file.

    Attributes:
        resolution: 0 if the file does not say.
        count: 0 if the file does not say.
        statistics: by network and tap.
        networks: by network, the SHA-256 of the weights and the input resolution.
        label_counts: the number of images in each class; None without labels, or if the file does not say.
    """

    name: str
    resolution: int
    count: int
    sha256: str
    provenance: dict[str, Any]
    statistics: dict[FeatureKey, FeatureStatistics]
    networks: dict[str, dict[str, Any]]
    label_counts: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.count

    def find(self, key: FeatureKey) -> FeatureStatistics | None:
        """Return the statistics of a network and tap, None if the file has none."""
        network, tap = key
        return self.statistics.get((without_folder(network), tap)) or self.statistics.get((ANY_NETWORK, tap))

    def check(
        self, requirements: Mapping[FeatureKey, Requirements], extractors: Mapping[str, FeatureExtractor]
    ) -> None:
        """Raise FileError if required statistics are missing, or are of another network."""
        for (name, tap), required in requirements.items():
            saved, given = self.networks.get(without_folder(name)), extractor_identity(extractors[name])
            if saved is not None and saved != given:
                problem = f"is of {name} {describe_identity(saved)}, not {describe_identity(given)}"
                raise FileError(self.name, f"{problem}: statistics of another network; {ADVICE}")
            statistics = self.find((name, tap))
            if statistics is None:
                known = ", ".join(sorted({f"{other} ({t})" for other, t in self.statistics if other != ANY_NETWORK}))
                lacks = f"has statistics of {known}, not of {name} ({tap})" if known else f"has no {NPZ_NAMES[tap][0]}"
                raise FileError(self.name, f"{lacks}; {ADVICE}")
            if not statistics.satisfies(required):
                lacks = "features, which kernels, neighbors and intervals need" if required.features else "a score"
                raise FileError(self.name, f"holds mean and covariance of {name}, not its {lacks}; {ADVICE}")
            dim = SPATIAL_CHANNELS * 17 * 17 if tap == "spatial" else extractors[name].dim
            if statistics.external is not None and len(statistics.external.mean) != dim:
                problem = f"is of features of dimension {len(statistics.external.mean)}, {name} ({tap}) gives {dim}"
                raise FileError(self.name, f"{problem}: statistics of another network; {ADVICE}")

    def statistics_for(
        self, requirements: Mapping[FeatureKey, Requirements], *, device: torch.device
    ) -> dict[FeatureKey, FeatureStatistics]:
        """Return the required statistics on a device, after `check`."""
        moved = {}
        for key in requirements:
            statistics = self.find(key)
            assert statistics is not None, key
            moved[key] = FeatureStatistics.from_tensors(statistics.to_tensors(), statistics.count, device=device)
            if (external := statistics.external) is not None:
                moved[key].external = Gaussian(external.mean.to(device), external.covariance.to(device))
        return moved


def save_statistics(
    path: PathLike,
    images: DatasetImages,
    statistics: Mapping[FeatureKey, FeatureStatistics],
    extractors: Mapping[str, FeatureExtractor],
    *,
    overwrite: bool = False,
) -> None:
    """Write the statistics of images to a .safetensors file. Raises FileError."""
    path = Path(path)
    tensors = {
        f"{number}.{name}": tensor
        for number, part in enumerate(statistics.values())
        for name, tensor in part.to_tensors().items()
    }
    facts = {
        "format": FORMAT,
        "images": images.provenance,
        "resolution": images.resolution,
        "count": len(images),
        "label_counts": images.label_counts,
        "features": [[without_folder(name), tap] for name, tap in statistics],
        "networks": {without_folder(name): extractor_identity(extractors[name]) for name, _ in statistics},
        "libraries": library_versions(),
        "digest": digest_tensors(tensors),
    }
    try:
        check_values(tensors, max_value=MAX_VALUE)
        data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except (JsonError, TensorFileError) as error:
        raise FileError(path, f"cannot be written as statistics: {error}") from error
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def is_statistics_path(path: Path) -> bool:
    """Return whether a path names a statistics file: .safetensors, or an .npz unless it has only images.

    Raises FileError for a named pipe.
    """
    if path.suffix == ".npz":
        refuse_special(path)
        with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            return "mu" in names or names.isdisjoint(IMAGE_ARRAYS)
    return path.suffix in SUFFIXES


def open_statistics(path: PathLike) -> SavedStatistics:
    """Read a file that `save_statistics` wrote, or an .npz of `mu` and `sigma`. Raises FileError."""
    path = Path(path)
    return read_npz(path) if path.suffix == ".npz" else read_safetensors(path)


def read_safetensors(path: Path) -> SavedStatistics:
    """Read our statistics, of format 1 or 2. Raises FileError."""
    sha256 = sha256_of(path)
    try:
        facts = facts_in(read_header(path), METADATA_KEY)
        if facts is None:
            raise FileError(path, "holds no statistics; polyinr evaluate --save-statistics writes such files")
        tensors = read_tensors(path)
        facts = upgrade_statistics(facts)
        check_facts(facts)
        if facts.get("digest") != digest_tensors(tensors):
            raise TensorFileError("its digest does not match its tensors")
        check_values(tensors, max_value=MAX_VALUE)
        count, statistics = facts["count"], {}
        for number, (network, tap) in enumerate(facts["features"]):
            prefix = f"{number}."
            part = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            check_shapes(part, count)
            statistics[network, tap] = FeatureStatistics.from_tensors(part, count, device=torch.device("cpu"))
    except TensorFileError as error:
        raise FileError(path, f"is damaged, or of another format ({error}); save the statistics again") from error
    origin = {"name": path.name, "sha256": sha256, "libraries": facts["libraries"]}
    label_counts = facts.get("label_counts")
    return SavedStatistics(
        name=str(path),
        resolution=facts["resolution"],
        count=count,
        sha256=sha256,
        provenance={**facts["images"], "statistics": origin},
        statistics=statistics,
        networks=facts["networks"],
        label_counts=None if label_counts is None else tuple(label_counts),
    )


def upgrade_statistics(facts: Any) -> Any:
    """Return the facts of a file of format 1 with the keys of format 2; others as they are."""
    if not isinstance(facts, dict) or facts.get("format") != 1:
        return facts
    names = {"side": "resolution", "senses": "features"}
    upgraded = {names.get(name, name): fact for name, fact in upgrade(facts).items()}
    if isinstance(networks := upgraded.get("networks"), dict):
        upgraded["networks"] = {
            network: {names.get(name, name): fact for name, fact in identity.items()}
            for network, identity in networks.items()
            if isinstance(identity, dict)
        }
    return upgraded


def check_facts(facts: Any) -> None:
    """Raise TensorFileError unless the facts of a statistics file have the right types."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise TensorFileError(f"its metadata is not of format {FORMAT}")
    keys, networks, counts = (facts.get(name) for name in ("features", "networks", "label_counts"))
    are_counts = isinstance(counts, list) and all(is_whole(count, 0, 2**53) for count in counts)
    valid = {
        "images": isinstance(facts.get("images"), dict),
        "resolution": is_whole(facts.get("resolution"), 0, 2**31),
        "count": is_whole(facts.get("count"), 0, 2**53),
        "features": isinstance(keys, list) and all(map(_is_feature_key, keys)),
        "networks": isinstance(networks, dict)
        and all(isinstance(identity, dict) and IDENTITY <= identity.keys() for identity in networks.values()),
        "libraries": isinstance(facts.get("libraries"), dict),
        "label_counts": counts is None or (are_counts and sum(counts) == facts.get("count")),
    }
    if bad := [name for name, is_valid in valid.items() if not is_valid]:
        raise TensorFileError(f"missing or of the wrong type: {', '.join(bad)}")


def _is_feature_key(key: Any) -> bool:
    return isinstance(key, list) and len(key) == 2 and isinstance(key[0], str) and key[1] in list(NPZ_NAMES)


def check_shapes(tensors: Mapping[str, Tensor], count: int) -> None:
    """Raise TensorFileError unless the tensors of one network and tap have matching shapes."""
    mean, features = tensors.get("mean"), tensors.get("features")
    dim = None if mean is None or mean.dim() != 1 else len(mean)
    valid = {
        "mean": mean is None or bool(dim),
        "scatter": (mean is None) == ("scatter" not in tensors)
        and ("scatter" not in tensors or tuple(tensors["scatter"].shape) == (dim, dim)),
        "features": features is None or (features.dim() == 2 and len(features) == count),
        "score": "score" not in tensors or tuple(tensors["score"].shape) == (2,),
    }
    if bad := [name for name, is_valid in valid.items() if not is_valid]:
        raise TensorFileError(f"of the wrong shape: {', '.join(bad)}")


def read_npz(path: Path) -> SavedStatistics:
    """Read an .npz as clean-fid, pytorch-fid, guided-diffusion and StyleGAN write it. Raises FileError."""
    sha256 = sha256_of(path)
    statistics: dict[FeatureKey, FeatureStatistics] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for tap, (mu, sigma) in NPZ_NAMES.items():
                if mu in arrays and sigma in arrays:
                    gaussian = check_gaussian(path, arrays[mu], arrays[sigma])
                    statistics[ANY_NETWORK, tap] = FeatureStatistics(external=gaussian)
    except OSError as error:
        raise explain(path, error) from error
    except (*ZIP_ERRORS, *ARRAY_ERRORS, KeyError, AttributeError) as error:
        raise FileError(path, "cannot be read as .npz of plain arrays; is it complete?") from error
    if (ANY_NETWORK, "pooled") not in statistics:
        raise FileError(path, "holds no mu and sigma, as files of clean-fid, pytorch-fid or guided-diffusion do")
    provenance = {"kind": "statistics", "name": path.name, "sha256": sha256, "network": "not stated"}
    return SavedStatistics(str(path), 0, 0, sha256, provenance, statistics, {})


def check_gaussian(path: Path, mu: Any, sigma: Any) -> Gaussian:
    """Return the Gaussian, float64, of arrays [d] and [d, d]. Raises FileError."""
    if mu.ndim != 1 or sigma.shape != mu.shape * 2 or not len(mu):
        raise FileError(path, f"its mu and sigma have shapes {mu.shape} and {sigma.shape}, not (d,) and (d, d)")
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise FileError(path, "its mu and sigma are not floating-point arrays")
    mean, covariance = (torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in (mu, sigma))
    try:
        check_values({"mu": mean, "sigma": covariance}, max_value=MAX_VALUE)
    except TensorFileError as error:
        raise FileError(path, str(error)) from error
    asymmetry, largest = float((covariance - covariance.T).abs().max()), float(covariance.abs().max())
    if asymmetry > MAX_ASYMMETRY * largest or float(covariance.diagonal().min()) < -MAX_ASYMMETRY * largest:
        raise FileError(path, "its sigma is not a covariance matrix: it is asymmetric, or has negative variances")
    return Gaussian(mean, covariance)


def extractor_identity(extractor: FeatureExtractor) -> dict[str, Any]:
    """Return what identifies an extractor: its name, its weights' SHA-256 and its input resolution."""
    name = "torchscript" if extractor.name.startswith("torchscript:") else extractor.name  # identified by SHA-256
    return {"name": name, "sha256": extractor.sha256, "resolution": getattr(extractor, "resolution", None)}


def describe_identity(identity: Mapping[str, Any]) -> str:
    """Return an extractor's identity in words."""
    return str(identity["sha256"])[:12] + (f" at {identity['resolution']} px" if identity.get("resolution") else "")


def without_folder(name: str) -> str:
    """Return a network's name, that of a TorchScript file without its folder."""
    return f"torchscript:{Path(name.partition(':')[2]).name}" if name.startswith("torchscript:") else name
