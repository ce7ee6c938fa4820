"""Saved statistics in images' place: ours with all that they depend on, others' .npz of mu and sigma."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_statistics import LARGEST, Need, Seen, digest_of
from polyinr_core.metrics.frechet import Gaussian
from polyinr_core.metrics.inception import SPATIAL_CHANNELS
from polyinr_core.metrics.registry import Sense, Tap
from polyinr_core.runtime.atomic_io import PathLike, explain, sha256_of, written_beside
from polyinr_core.runtime.format1 import FORMAT, upgrade
from polyinr_core.runtime.strict_json import JsonError, is_whole
from polyinr_core.runtime.tensor_files import (
    ARRAY_ERRORS,
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

from .image_sources import StoredImages
from .provenance import versions

METADATA_KEY = "polyinr_statistics"
SUFFIXES = (".safetensors", ".npz")
PACKED = (zipfile.BadZipFile, zlib.error, RuntimeError)  # torn, locked
ANY = "*"  # an .npz does not say whose features it is of
ASYMMETRY = 1e-3  # of the largest entry: that of sums in half precision passes
TAPS: dict[Tap, tuple[str, str]] = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
AGAIN = "give the images, or save statistics of them anew with --save-statistics and these metrics"


@dataclass(frozen=True)
class SavedStatistics:
    """What was once seen of images: `side` and `count` are 0 where the file does not tell.

    `networks` holds of each network's name what makes it that one: SHA-256 of the weights and side.
    `label_counts` is how many of the images are in each class, None where they have no labels, or a file of
    others, or of an older polyinr, does not say.
    """

    name: str
    side: int
    count: int
    sha256: str
    facts: dict[str, Any]
    seen: dict[tuple[str, Tap], Seen]
    networks: dict[str, dict[str, Any]]
    label_counts: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.count

    def find(self, sense: Sense) -> Seen | None:
        """Return what was seen in that sense, as far as the file knows."""
        network, tap = sense
        return self.seen.get((plain(network), tap)) or self.seen.get((ANY, tap))

    def check(self, needs: Mapping[Sense, Need], networks: Mapping[str, FeatureNetwork]) -> None:
        """Raise FileError if what is needed was not saved, or was seen by another network."""
        for (name, tap), need in needs.items():
            self._check_network(name, networks[name])
            found = self.find((name, tap))
            if found is None:
                known = ", ".join(sorted({f"{other} ({t})" for other, t in self.seen if other != ANY}))
                lacks = f"has statistics of {known}, none of {name} ({tap})" if known else f"has no {TAPS[tap][0]}"
                raise FileError(self.name, f"{lacks}; {AGAIN}")
            if not found.serves(need):
                wanted = "features, which kernels, neighbors and intervals need" if need.features else "a score"
                raise FileError(self.name, f"holds mean and covariance of {name}, not its {wanted}; {AGAIN}")
            dim = dim_of(networks[name], tap)
            if found.given is not None and len(found.given.mean) != dim:
                problem = f"is of features of {len(found.given.mean)} numbers, {name} ({tap}) gives {dim}"
                raise FileError(self.name, f"{problem}: statistics of another network; {AGAIN}")

    def _check_network(self, name: str, network: FeatureNetwork) -> None:
        saved, here = self.networks.get(plain(name)), identity(network)
        if saved is not None and saved != here:
            problem = f"was seen by {name} {words_of(saved)}, the one here is {words_of(here)}"
            raise FileError(self.name, f"{problem}: statistics of another network; {AGAIN}")

    def seen_in(self, needs: Mapping[Sense, Need], *, device: torch.device) -> dict[Sense, Seen]:
        """Return what was seen in the senses needed, on the device."""
        found = {}
        for sense in needs:
            seen = self.find(sense)
            assert seen is not None, sense
            moved = Seen.of(seen.tensors(), seen.count, device=device)
            if seen.given is not None:
                moved.given = Gaussian(seen.given.mean.to(device), seen.given.covariance.to(device))
            found[sense] = moved
        return found


def save_statistics(
    path: PathLike,
    images: StoredImages,
    seen: Mapping[Sense, Seen],
    networks: Mapping[str, FeatureNetwork],
    *,
    overwrite: bool = False,
) -> None:
    """Write what was seen of images, to be read in their place. Raises FileError."""
    path = Path(path)
    tensors = {
        f"{number}.{name}": tensor
        for number, part in enumerate(seen.values())
        for name, tensor in part.tensors().items()
    }
    facts = {
        "format": FORMAT,
        "images": images.facts,
        "side": images.side,
        "count": len(images),
        "label_counts": images.label_counts,
        "senses": [[plain(name), tap] for name, tap in seen],
        "networks": {plain(name): identity(networks[name]) for name, _ in seen},
        "libraries": versions(),
        "digest": digest_of(tensors),
    }
    try:
        check_values(tensors, max_value=LARGEST)
        data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except (JsonError, TensorFileError) as error:
        raise FileError(path, f"cannot be written as statistics: {error}") from error
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def means_statistics(path: Path) -> bool:
    """Say whether a path is named as saved statistics are."""
    return path.suffix in SUFFIXES


def open_statistics(path: PathLike) -> SavedStatistics:
    """Read statistics that `save_statistics` wrote, or an .npz with `mu` and `sigma`. Raises FileError."""
    path = Path(path)
    return read_foreign(path) if path.suffix == ".npz" else read_own(path)


def read_own(path: Path) -> SavedStatistics:
    """Read a .safetensors of ours. Raises FileError."""
    sha256 = sha256_of(path)
    try:
        facts = upgrade(facts_in(read_header(path), METADATA_KEY))
        if facts is None:
            raise FileError(path, "holds no statistics; polyinr evaluate --save-statistics writes such files")
        tensors = read_tensors(path)
        check_facts(facts)
        if facts.get("digest") != digest_of(tensors):
            raise TensorFileError("its numbers are not those that were written")
        check_values(tensors, max_value=LARGEST)
        count, seen = facts["count"], {}
        for number, (network, tap) in enumerate(facts["senses"]):
            own = {
                name.partition(".")[2]: tensor
                for name, tensor in tensors.items()
                if name.partition(".")[0] == str(number)
            }
            check_seen(own, count)
            seen[network, tap] = Seen.of(own, count, device=torch.device("cpu"))
    except TensorFileError as error:
        raise FileError(path, f"is damaged, or of another format ({error}); save the statistics anew") from error
    told = {"name": path.name, "sha256": sha256, "libraries": facts["libraries"]}
    images = {**facts["images"], "statistics": told}
    label_counts = facts.get("label_counts")
    return SavedStatistics(
        str(path),
        facts["side"],
        count,
        sha256,
        images,
        seen,
        facts["networks"],
        None if label_counts is None else tuple(label_counts),
    )


def check_facts(facts: Any) -> None:
    """Raise TensorFileError unless the facts of a file of statistics are each of their kind."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise TensorFileError(f"its facts are not of format {FORMAT}")
    senses, networks = facts.get("senses"), facts.get("networks")
    good = {
        "images": isinstance(facts.get("images"), dict),
        "side": is_whole(facts.get("side"), 0, 2**31),
        "count": is_whole(facts.get("count"), 0, 2**53),
        "senses": isinstance(senses, list) and all(map(_is_sense, senses)),
        "networks": isinstance(networks, dict) and all(map(_is_identity, networks.values())),
        "libraries": isinstance(facts.get("libraries"), dict),
        "label_counts": _are_counts(facts.get("label_counts"), facts.get("count")),
    }
    if bad := [name for name, fits in good.items() if not fits]:
        raise TensorFileError(f"missing or of another kind: {', '.join(bad)}")


def _are_counts(stored: Any, count: Any) -> bool:
    """Say whether the images in each class, where a file holds them, add up to `count`."""
    if stored is None:
        return True
    return isinstance(stored, list) and all(is_whole(part, 0, 2**53) for part in stored) and sum(stored) == count


def _is_sense(sense: Any) -> bool:
    return isinstance(sense, list) and len(sense) == 2 and isinstance(sense[0], str) and sense[1] in list(TAPS)


def _is_identity(facts: Any) -> bool:
    return isinstance(facts, dict) and {"name", "sha256", "side"} <= facts.keys()


def check_seen(tensors: Mapping[str, Tensor], count: int) -> None:
    """Raise TensorFileError unless what was seen in one sense has the shapes that belong together."""
    mean, features = tensors.get("mean"), tensors.get("features")
    dim = None if mean is None or mean.dim() != 1 else len(mean)
    shapes = {
        "mean": mean is None or bool(dim),
        "scatter": (mean is None) == ("scatter" not in tensors)
        and ("scatter" not in tensors or tuple(tensors["scatter"].shape) == (dim, dim)),
        "features": features is None or (features.dim() == 2 and len(features) == count),
        "score": "score" not in tensors or tuple(tensors["score"].shape) == (2,),
    }
    if bad := [name for name, fits in shapes.items() if not fits]:
        raise TensorFileError(f"of another shape than is needed: {', '.join(bad)}")


def read_foreign(path: Path) -> SavedStatistics:
    """Read an .npz as clean-fid, pytorch-fid, guided-diffusion and StyleGAN's kin write it. Raises FileError."""
    sha256 = sha256_of(path)
    seen: dict[tuple[str, Tap], Seen] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for tap, (mean, covariance) in TAPS.items():
                if mean in arrays and covariance in arrays:
                    seen[ANY, tap] = Seen(given=gaussian_of(path, arrays[mean], arrays[covariance]))
    except OSError as error:
        raise explain(path, error) from error
    except (*PACKED, *ARRAY_ERRORS, KeyError, AttributeError) as error:
        raise FileError(path, "cannot be read as .npz of plain arrays; is it whole?") from error
    if (ANY, "pooled") not in seen:
        raise FileError(path, "holds no mu and sigma, as files of clean-fid, pytorch-fid or guided-diffusion do")
    facts = {"kind": "statistics", "name": path.name, "sha256": sha256, "network": "taken on trust"}
    return SavedStatistics(str(path), 0, 0, sha256, facts, seen, {})


def gaussian_of(path: Path, mean: Any, covariance: Any) -> Gaussian:
    """Return a Gaussian, float64, of arrays [d] and [d, d]. Raises FileError."""
    if mean.ndim != 1 or covariance.shape != mean.shape * 2 or not len(mean):
        problem = f"its mu and sigma are of shapes {mean.shape} and {covariance.shape}, not (d,) and (d, d)"
        raise FileError(path, problem)
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise FileError(path, "its mu and sigma are no real numbers")
    parts: list[Tensor] = [torch.from_numpy(np.asarray(array, dtype=np.float64)) for array in (mean, covariance)]
    try:
        check_values({"mu": parts[0], "sigma": parts[1]}, max_value=LARGEST)
    except TensorFileError as error:
        raise FileError(path, str(error)) from error
    sigma = parts[1]
    asymmetry, largest = float((sigma - sigma.T).abs().max()), float(sigma.abs().max())
    if asymmetry > ASYMMETRY * largest or float(sigma.diagonal().min()) < -ASYMMETRY * largest:
        raise FileError(path, "its sigma is no covariance: it is not symmetric, or has negative variances")
    return Gaussian(*parts)


def identity(network: FeatureNetwork) -> dict[str, Any]:
    """Return what makes a network the one that it is."""
    name = "torchscript" if network.name.startswith("torchscript:") else network.name  # the SHA-256 says which
    return {"name": name, "sha256": network.sha256, "side": getattr(network, "side", None)}


def plain(name: str) -> str:
    """Return a network's name; that of a file without its place."""
    return f"torchscript:{Path(name.partition(':')[2]).name}" if name.startswith("torchscript:") else name


def words_of(facts: Mapping[str, Any]) -> str:
    """Return an identity in words."""
    return str(facts["sha256"])[:12] + (f" at {facts['side']} px" if facts.get("side") else "")


def dim_of(network: FeatureNetwork, tap: Tap) -> int:
    """Return how many numbers an image's features have."""
    return SPATIAL_CHANNELS * 17 * 17 if tap == "spatial" else network.dim
