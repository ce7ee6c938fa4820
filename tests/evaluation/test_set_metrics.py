"""Metrics of sets equal those of the metric functions; what cannot be evaluated."""

from pathlib import Path

import pytest
import torch
from evaluation_inputs import LinearExtractor, evaluated, make_backbone, moments_from_tensors, values, write_images
from PIL import Image
from torch import Tensor

from polyinr_core.errors import FileError, PolyinrError, RequestError
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.metrics.bootstrap import bootstrap, frechet_to
from polyinr_core.metrics.frechet import frechet_distance
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.metrics.prdc import compute_prdc, manifold


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_images(tmp_path / "fakes", 20, seed=1)


def test_values_equal_the_metric_functions(reals: Path, fakes: Path) -> None:
    x, y = make_backbone(fakes), make_backbone(reals)
    found = values(reals, fakes)
    shared = compute_prdc(manifold(x), manifold(y))
    expected = {
        "fd-lite2": frechet_distance(moments_from_tensors(x).gaussian(), moments_from_tensors(y).gaussian()),
        "kd-lite2": KernelReference(y, len(x)).distance(x),
        "pr-lite2/precision": shared.precision,
        "pr-lite2/recall": shared.recall,
        "dc-lite2/density": shared.density,
        "dc-lite2/coverage": shared.coverage,
    }
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_batch_changes_nothing(reals: Path, fakes: Path, batch: int) -> None:
    assert values(reals, fakes, batch=batch) == pytest.approx(values(reals, fakes), rel=1e-4)


def test_the_order_changes_nothing(tmp_path: Path, reals: Path, fakes: Path) -> None:
    there = write_images(tmp_path / "backwards", 24, backwards=True)
    names = ("fd-lite2", "pr-lite2", "dc-lite2")
    assert values(there, fakes, names) == pytest.approx(values(reals, fakes, names), rel=1e-4)


def test_each_image_passes_the_network_once(reals: Path, fakes: Path) -> None:
    extractor = LinearExtractor()
    evaluated(reals, fakes, extractor=extractor)
    assert extractor.seen == 24 + 20


def test_intervals_equal_the_bootstrap(reals: Path, fakes: Path) -> None:
    rows = evaluated(reals, fakes, bootstrap=5)["metrics"]
    distance = frechet_to(moments_from_tensors(make_backbone(reals)).gaussian())
    interval = bootstrap(lambda features: {"fd": distance(features)}, make_backbone(fakes), resamples=5)["fd"]
    assert rows["fd-lite2"]["low"] == pytest.approx(interval["low"], rel=1e-9)
    assert rows["fd-lite2"]["bias"] > 0
    assert all(row["resamples"] == 5 for row in rows.values())


def gray_images(folder: Path) -> Path:
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (90, 90, 90)).save(folder / f"{i}.png")
    return folder


def test_equal_reals_are_refused(tmp_path: Path, fakes: Path) -> None:
    gray = gray_images(tmp_path / "gray")
    for names in (("fd-lite2",), ("kd-lite2",)):
        with pytest.raises(FileError, match="all 8 reals have the same features in lite2"):
            values(gray, fakes, names)


def test_equal_fakes_are_evaluated_with_a_warning(tmp_path: Path, reals: Path) -> None:
    gray, warnings = gray_images(tmp_path / "gray"), []
    result = evaluated(reals, gray, warn=warnings.append)
    assert result["metrics"]["fd-lite2"]["value"] > 0
    assert len(warnings) == 2
    assert "all 8 fakes have the same features" in warnings[0]
    assert "under 10000" in warnings[1]


def test_too_few_images_are_refused(tmp_path: Path, fakes: Path) -> None:
    few = write_images(tmp_path / "few", 3)
    with pytest.raises(RequestError, match="pr-lite2 needs 4 reals or more"):
        values(few, fakes, ("pr-lite2",))
    with pytest.raises(RequestError, match="dc-lite2 needs 6 fakes or more"):
        values(fakes, few, ("dc-lite2",))
    with pytest.raises(RequestError, match="with intervals needs 4 fakes"):
        values(fakes, few, ("fd-lite2",), bootstrap=2)


def test_sets_of_different_sizes_are_refused(tmp_path: Path, reals: Path) -> None:
    large = write_images(tmp_path / "large", 6, resolution=12)
    with pytest.raises(RequestError, match=r"reals of 8 px.*fakes of 12 px.*--res 8"):
        values(reals, large)
    with pytest.raises(FileError, match="none is enlarged"):
        DatasetImages(reals, resolution=9)
    Image.new("RGB", (9, 9)).save(reals / "999.png")
    with pytest.raises(FileError, match=r"not of one size \(000\.png 8x8, 999\.png 9x9\)"):
        list(DatasetImages(reals).batches())


def test_nan_features_are_refused(reals: Path, fakes: Path) -> None:
    class Blind(LinearExtractor):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * torch.nan

    with pytest.raises(PolyinrError, match=r"lite2 gives NaN or Inf for images of .*reals"):
        evaluated(reals, fakes, ["fd-lite2"], extractor=Blind())
