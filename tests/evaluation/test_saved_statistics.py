"""Saved statistics give the values of the images; .npz of other programs; refusals."""

import json
import re
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_checkpoint
from evaluation_inputs import NAMES, LinearExtractor, evaluated, make_backbone, write_images
from safetensors import safe_open
from safetensors.torch import save

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import FileError, RequestError
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.evaluation.protocols import dataset_labels
from polyinr_core.evaluation.statistics_io import (
    METADATA_KEY,
    SavedStatistics,
    is_statistics_path,
    open_statistics,
)
from polyinr_core.metrics.feature_pass import CACHE_KEY as KEPT_KEY
from polyinr_core.metrics.feature_pass import FeatureCache, digest_tensors


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_images(tmp_path / "fakes", 20, seed=1)


def measured(reals: Any, fakes: Any, names: tuple[str, ...] = NAMES, **how: Any) -> dict[str, Any]:
    return evaluated(reals, fakes, names, **how)


def saved(path: Path, reals: Path, fakes: Path, names: tuple[str, ...] = NAMES) -> SavedStatistics:
    """Save the statistics of the reals by an evaluation, and read them."""
    measured(reals, fakes, names, save_statistics_to=path)
    return open_statistics(path)


def test_saved_statistics_give_the_same_values(tmp_path: Path, reals: Path, fakes: Path) -> None:
    statistics = saved(tmp_path / "s.safetensors", reals, fakes)
    extractor = LinearExtractor()
    found, expected = measured(statistics, fakes, extractor=extractor), measured(reals, fakes)
    assert found["metrics"] == expected["metrics"]
    assert extractor.seen == 20
    card, recorded = expected["card"], found["card"]["reals"].pop("statistics")
    assert found["card"] == card
    assert recorded["name"] == "s.safetensors"
    assert recorded["sha256"] == statistics.sha256


def test_saved_statistics_as_fakes(tmp_path: Path, reals: Path, fakes: Path) -> None:
    statistics = saved(tmp_path / "s.safetensors", fakes, reals)
    found, expected = (measured(reals, source, bootstrap=2)["metrics"] for source in (statistics, fakes))
    assert found == expected


def labeled(folder: Path, counts: tuple[int, ...]) -> Path:
    """A folder of noise with a subfolder for each class."""
    folder.mkdir()
    for label, count in enumerate(counts):
        write_images(folder / f"class {label}", count, seed=label)
    return folder


def test_label_counts_are_saved(tmp_path: Path, fakes: Path) -> None:
    """Generated images, and so the metrics, equal those with the images."""
    there = labeled(tmp_path / "set", (14, 2, 6, 4))
    statistics = saved(tmp_path / "s.safetensors", there, fakes)
    assert statistics.label_counts == DatasetImages(there).label_counts == (14, 2, 6, 4)
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "m.safetensors", classes=4, resolution=8))
    found, expected = (
        measured(source, GeneratedImages(checkpoint, name="m", count=20, labels=dataset_labels(source, classes=4)))
        for source in (statistics, DatasetImages(there))
    )
    assert found["metrics"] == expected["metrics"]
    assert found["card"]["fakes"]["label_weights"] == "7 1 3 2"


def test_label_counts_of_a_subset(tmp_path: Path) -> None:
    there = labeled(tmp_path / "set", (14, 2))
    part = DatasetImages(there, count=5)
    names = [part.data.names[number] for number in part.indices]
    assert part.label_counts == tuple(sum(f"class {label}" in name for name in names) for label in range(2))
    assert sum(part.label_counts) == 5


def test_class_frequencies_need_labels(tmp_path: Path, reals: Path, fakes: Path) -> None:
    foreign = write_npz(tmp_path / "s.npz", make_backbone(reals))
    for source, said in (
        (DatasetImages(reals), "reals has no labels"),
        (saved(tmp_path / "s.safetensors", reals, fakes), r"s\.safetensors does not hold labels"),
        (foreign, r"s\.npz does not hold labels"),
        (DatasetImages(labeled(tmp_path / "set", (3, 2))), "set has labels of 2 classes, the model of 4"),
        (None, "give them with --real"),
    ):
        with pytest.raises(RequestError, match=said):
            dataset_labels(source, classes=4)


@pytest.mark.parametrize("counts", ["absent", [24], [25, -1], [20, 3], [20.0, 4], {"0": 24}, "24", [True] * 24])
def test_invalid_label_counts_are_refused(tmp_path: Path, reals: Path, fakes: Path, counts: Any) -> None:
    """A file of an older polyinr has none and is read all the same."""
    path = tmp_path / "s.safetensors"
    saved(path, reals, fakes)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()[METADATA_KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del facts["label_counts"]
    if counts != "absent":
        facts["label_counts"] = counts
    path.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(facts)}))
    if counts in ("absent", [24]):
        assert open_statistics(path).label_counts == (None if counts == "absent" else (24,))
    else:
        with pytest.raises(FileError, match="is damaged"):
            open_statistics(path)


def write_npz(path: Path, features: torch.Tensor, **arrays: Any) -> SavedStatistics:
    numbers = features.double().numpy()
    np.savez(path, **{"mu": numbers.mean(axis=0), "sigma": np.cov(numbers, rowvar=False), **arrays})
    return open_statistics(path)


def test_an_npz_of_mu_and_sigma_gives_the_same_distance(tmp_path: Path, reals: Path, fakes: Path) -> None:
    """NumPy's covariance is by N - 1, as fd-lite2 has it."""
    statistics = write_npz(tmp_path / "s.npz", make_backbone(reals))
    names = ("fd-lite2",)
    expected = pytest.approx(measured(reals, fakes, names)["metrics"]["fd-lite2"]["value"], rel=1e-9)
    found = measured(statistics, fakes, names)
    assert found["metrics"]["fd-lite2"]["value"] == expected
    assert found["card"]["reals"]["network"] == "not stated"
    assert found["card"]["resolution"] == 8
    assert measured(fakes, statistics, names)["metrics"]["fd-lite2"]["value"] == expected


def test_statistics_of_another_network_are_refused(tmp_path: Path, reals: Path, fakes: Path) -> None:
    statistics = saved(tmp_path / "s.safetensors", reals, fakes)
    for name, value in (("sha256", "ef" * 32), ("resolution", 16)):
        other = LinearExtractor()
        setattr(other, name, value)
        with pytest.raises(FileError, match=r"s\.safetensors: is of lite2 cdcd.*of another network"):
            measured(statistics, fakes, extractor=other)
    with pytest.raises(FileError, match=r"has statistics of lite2 \(pooled\), not of dinov2"):
        measured(statistics, fakes, ("fd-dinov2",), networks={"dinov2": LinearExtractor()})
    narrow = write_npz(tmp_path / "n.npz", make_backbone(reals)[:, :5])
    with pytest.raises(FileError, match=r"features of dimension 5, lite2 \(pooled\) gives 6.*another network"):
        measured(narrow, fakes, ("fd-lite2",))


def test_statistics_that_were_not_saved_are_refused(tmp_path: Path, reals: Path, fakes: Path) -> None:
    own = saved(tmp_path / "s.safetensors", reals, fakes, ("fd-lite2",))
    foreign = write_npz(tmp_path / "s.npz", make_backbone(reals))
    for statistics in (own, foreign):
        with pytest.raises(FileError, match=r"not its features.*--save-statistics"):
            measured(statistics, fakes, ("kd-lite2",))
    with pytest.raises(FileError, match=r"not its features, which .*intervals"):
        measured(reals, own, ("fd-lite2",), bootstrap=2)
    with pytest.raises(FileError, match="has no mu_s"):
        measured(foreign, fakes, ("sfid",), networks={"inception": LinearExtractor()})
    with pytest.raises(FileError, match="not of inception"):
        measured(None, own, ("is",), networks={"inception": LinearExtractor()})


def test_statistics_of_another_size_are_refused(tmp_path: Path, reals: Path, fakes: Path) -> None:
    large = write_images(tmp_path / "large", 20, resolution=12)
    statistics = saved(tmp_path / "s.safetensors", reals, fakes)
    with pytest.raises(RequestError, match=r"reals of 8 px.*fakes of 12 px"):
        measured(statistics, large)


def flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


@pytest.mark.parametrize("damage", [flipped, lambda data: data[:100], lambda data: b""])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_damaged_statistics_are_refused(
    tmp_path: Path, reals: Path, fakes: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"s{suffix}"
    if suffix == ".npz":
        write_npz(path, make_backbone(reals))
        damage = (lambda data: data[:200]) if damage is flipped else damage  # its sums cover no trailing bytes
    else:
        saved(path, reals, fakes, ("fd-lite2",))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=r"is damaged|cannot be read as .npz"):
        open_statistics(path)


BAD_ARRAYS = [
    ({"sigma": np.eye(5)}, "shapes"),
    ({"mu": np.zeros((6, 1))}, "shapes"),
    ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, "shapes"),
    ({"mu": np.full(6, np.nan)}, "NaN or Inf"),
    ({"sigma": np.triu(np.ones((6, 6)))}, "not a covariance"),
    ({"sigma": -np.eye(6)}, "not a covariance"),
    ({"mu": np.array(["a"] * 6)}, "not floating-point"),
    ({"mu": np.array([None] * 6, dtype=object)}, "plain arrays"),
]


@pytest.mark.parametrize(("arrays", "said"), BAD_ARRAYS)
def test_an_npz_of_other_arrays_is_refused(tmp_path: Path, reals: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(FileError, match=said):
        write_npz(tmp_path / "s.npz", make_backbone(reals), **arrays)


def huge(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }\n" % 2**50
    with zipfile.ZipFile(path, "w") as file:
        for name in ("mu.npy", "sigma.npy"):
            file.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


def marked(path: Path, local: int, central: int, mark: int) -> None:
    """Write an .npz with a mark at these places of all its zip headers."""
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    data = bytearray(path.read_bytes())
    for start, place in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        for found in re.finditer(re.escape(start), bytes(data)):
            data[found.start() + place] = mark
    path.write_bytes(data)


@pytest.mark.parametrize(
    "write", [huge, partial(marked, local=6, central=8, mark=1), partial(marked, local=8, central=10, mark=97)]
)
def test_a_large_encrypted_or_unusual_npz_is_refused(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "s.npz")
    with pytest.raises(FileError, match=r"cannot be read as \.npz"):
        open_statistics(tmp_path / "s.npz")


@pytest.mark.parametrize("facts", ["[" * 100_000, "[]", '{"count": 1e999}'], ids=lambda facts: facts[:9])
def test_hostile_metadata_is_refused(tmp_path: Path, facts: str) -> None:
    if facts.startswith("{"):
        digest = digest_tensors({"a": torch.zeros(1)})
        facts = json.dumps({"format": 1, "key": {}, "digest": digest, "senses": [], **json.loads(facts)})
    for path, name in (
        (tmp_path / "s.safetensors", "polyinr_statistics"),
        (FeatureCache(tmp_path).path_for({}), KEPT_KEY),
    ):
        path.write_bytes(save({"a": torch.zeros(1)}, metadata={name: facts}))
    with pytest.raises(FileError, match="is damaged"):
        open_statistics(tmp_path / "s.safetensors")
    assert FeatureCache(tmp_path).load({}) is None


def test_files_without_statistics_are_refused(tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(FileError, match="holds no statistics"):
        open_statistics(tiny_checkpoint)
    np.savez(tmp_path / "x.npz", arr_0=np.zeros(3))
    with pytest.raises(FileError, match="holds no mu and sigma"):
        open_statistics(tmp_path / "x.npz")
    for name in ("nowhere.npz", "nowhere.safetensors"):
        with pytest.raises(FileError, match="no such file"):
            open_statistics(tmp_path / name)
    assert not is_statistics_path(tmp_path / "x.zip")
