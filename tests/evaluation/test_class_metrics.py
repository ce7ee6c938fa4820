"""Metrics by class equal those of the class's images alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_checkpoint
from evaluation_inputs import LinearExtractor, evaluated, write_images
from thread_ranks import as_ranks

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.errors import FileError, RequestError
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.evaluation.results import format_result, parse_result
from polyinr_core.latents.latents import LabelDistribution
from polyinr_core.runtime.distributed import DistributedContext

METRICS = ("fd-lite2", "kd-lite2", "pr-lite2")


def write_classes(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write a folder of noise with a subfolder for each class."""
    folder.mkdir()
    for number, (name, count) in enumerate(counts.items()):
        write_images(folder / name, count, seed=seed + number)
    return folder


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "reals", {"cat": 12, "dog": 9, "owl": 3})


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "fakes", {"cat": 8, "dog": 10, "owl": 5}, seed=10)


def test_classes_equal_their_images_alone(reals: Path, fakes: Path) -> None:
    """1e-5: float32 features in other batches. Precision needs 4 images of a class."""
    result = evaluated(reals, fakes, METRICS, per_class=True, batch=5)
    assert list(result["classes"]) == ["cat", "dog", "owl"]
    assert [(row["reals"], row["fakes"]) for row in result["classes"].values()] == [(12, 8), (9, 10), (3, 5)]
    for name in ("cat", "dog"):
        alone = evaluated(reals / name, fakes / name, METRICS)["metrics"]
        for metric, estimate in result["classes"][name]["metrics"].items():
            assert estimate["value"] == pytest.approx(alone[metric]["value"], rel=1e-5), metric
    assert set(result["classes"]["owl"]["metrics"]) == {"fd-lite2", "kd-lite2"}
    assert result["metrics"] == evaluated(reals, fakes, METRICS, batch=5)["metrics"]
    assert "classes" not in evaluated(reals, fakes, METRICS)


def test_classes_in_a_result_file(reals: Path, fakes: Path) -> None:
    result = evaluated(reals, fakes, METRICS, per_class=True)
    read = parse_result(format_result(result).encode(), Path("result.json"))
    assert list(read.classes) == ["cat", "dog", "owl"]
    assert read.classes["cat"].metrics == result["classes"]["cat"]["metrics"]
    assert (read.classes["owl"].reals, read.classes["owl"].fakes) == (3, 5)
    for wrong in ([], {"cat": 1}, {"cat": {"reals": -1, "fakes": 2, "metrics": {}}}, {"cat": {"metrics": {}}}):
        data = format_result({**result, "classes": wrong}).encode()
        with pytest.raises(FileError, match="its metrics by class"):
            parse_result(data, Path("result.json"))


def test_classes_of_a_model(tmp_path: Path, reals: Path) -> None:
    """Each seed counts in the class that it draws, with the frequencies of the reals."""
    checkpoint = load_checkpoint(small_checkpoint(tmp_path / "model.safetensors", classes=3))
    result = evaluated(reals, checkpoint, METRICS, per_class=True, count=60, resolution=8)
    frequencies = LabelDistribution(counts=DatasetImages(reals).label_counts)
    labels = GeneratedImages(checkpoint, name="m", count=60, labels=frequencies).image_labels
    assert labels is not None
    assert [row["fakes"] for row in result["classes"].values()] == np.bincount(labels, minlength=3).tolist()
    only = evaluated(reals, checkpoint, METRICS, per_class=True, count=9, resolution=8, label=1)
    assert [row["fakes"] for row in only["classes"].values()] == [0, 9, 0]
    assert only["classes"]["cat"]["metrics"] == {}


def test_ranks_and_a_cache_give_the_same_classes(tmp_path: Path, reals: Path, fakes: Path) -> None:
    alone = evaluated(reals, fakes, METRICS, per_class=True, batch=4, cache=tmp_path / "cache")["classes"]
    extractor = LinearExtractor()
    again = evaluated(reals, fakes, METRICS, per_class=True, batch=4, cache=tmp_path / "cache", extractor=extractor)
    assert (again["classes"], extractor.seen) == (alone, 0)

    def measured(ranks: DistributedContext) -> dict[str, Any]:
        return evaluated(reals, fakes, METRICS, per_class=True, batch=4, ranks=ranks)["classes"]

    for classes in as_ranks(measured, 2):
        for name, row in classes.items():
            for metric, estimate in row["metrics"].items():
                assert estimate["value"] == pytest.approx(alone[name]["metrics"][metric]["value"], rel=1e-9)


def test_classes_need_labels(tmp_path: Path, reals: Path, fakes: Path) -> None:
    plain = write_images(tmp_path / "plain", 12)
    with pytest.raises(RequestError, match=r"needs images with labels; .*plain has none"):
        evaluated(plain, fakes, METRICS, per_class=True)
    two = write_classes(tmp_path / "two", {"cat": 6, "dog": 6})
    with pytest.raises(RequestError, match="the reals have 3 classes, the fakes 2"):
        evaluated(reals, two, METRICS, per_class=True)
    evaluated(reals, fakes, METRICS, save_statistics_to=tmp_path / "s.safetensors")
    with pytest.raises(RequestError, match=r"s\.safetensors has none"):
        evaluated(tmp_path / "s.safetensors", fakes, METRICS, per_class=True)
