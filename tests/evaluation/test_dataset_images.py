"""Stored images: reduced, selected, from folders of one or of many sizes, from arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_inputs import CPU, LinearExtractor, evaluated, moments_from_tensors, write_images
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.evaluation.evaluate import evaluate
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.metrics.frechet import frechet_distance


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


def test_images_are_area_averaged_and_the_subset_is_fixed(reals: Path) -> None:
    whole = torch.cat(list(DatasetImages(reals).batches()))
    halves = torch.cat(list(DatasetImages(reals, resolution=4).batches()))
    means = whole.double().unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    assert (halves.double() - means).abs().max() <= 0.5 + 1e-6
    some = DatasetImages(reals, count=5)
    assert some.indices == DatasetImages(reals, count=5).indices
    assert len(torch.cat(list(some.batches()))) == 5


@pytest.mark.parametrize(("first", "last"), [(0, 24), (5, 7), (24, 24)])
def test_a_range_is_read_alone(reals: Path, first: int, last: int) -> None:
    images = DatasetImages(reals, resolution=4)
    whole = torch.cat(list(images.batches()))
    part = [whole[:0], *images.batches(range(first, last))]
    assert torch.equal(torch.cat(part), whole[first:last])


# Images of different sizes


def write_sizes(folder: Path, sizes: list[tuple[int, int]], *, seed: int = 0) -> Path:
    """Write noise of each height and width."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i, size in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:03d}.png")
    return folder


SIZES = [(8, 8), (8, 8), (12, 8), (20, 20), (8, 30), (9, 9), (8, 8), (16, 12), (7, 21), (8, 8)]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_images_of_different_sizes_are_resized_by_the_network(tmp_path: Path, reals: Path, batch: int) -> None:
    """Oracle: image by image. 1e-6: float32 features in other batches."""
    fakes, warnings = write_sizes(tmp_path / "fakes", SIZES), []
    result = evaluated(reals, fakes, ("fd-lite2", "kd-lite2"), batch=batch, warn=warnings.append)
    extractor = LinearExtractor()
    features = []
    for folder in (fakes, reals):
        images = [np.array(Image.open(path)) for path in sorted(folder.iterdir())]
        features.append(torch.cat([extractor(torch.from_numpy(image).permute(2, 0, 1)[None]) for image in images]))
    expected = frechet_distance(*(moments_from_tensors(part).gaussian() for part in features))
    assert result["metrics"]["fd-lite2"]["value"] == pytest.approx(expected, rel=1e-6)
    assert result["card"]["fakes"]["stored_resolution"] == "various"
    assert any("not of one size" in warning for warning in warnings)


def test_different_sizes_resume_to_the_same_bits(tmp_path: Path, reals: Path) -> None:
    class Interrupted(LinearExtractor):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            if self.seen >= 24 + 4:
                raise KeyboardInterrupt
            return super().forward(pixels)

    fakes = write_sizes(tmp_path / "fakes", SIZES)
    settings: dict[str, Any] = {"batch": 4, "cache": tmp_path / "cache"}
    with pytest.raises(Exception, match="4 of 10 images"):
        evaluated(reals, fakes, extractor=Interrupted(), **settings)
    extractor = LinearExtractor()
    resumed = evaluated(reals, fakes, extractor=extractor, **settings)["metrics"]
    assert extractor.seen == 6
    assert resumed == evaluated(reals, fakes, batch=4)["metrics"]


def test_different_sizes_are_refused_where_one_is_needed(tmp_path: Path, reals: Path) -> None:
    fakes = write_sizes(tmp_path / "fakes", SIZES)
    with pytest.raises(FileError, match="leave out the resolution"):
        evaluated(reals, fakes, resolution=8)
    with pytest.raises(FileError, match="with `polyinr prepare`"):
        DatasetImages(fakes)
    with pytest.raises(FileError, match="not square"):
        DatasetImages(write_sizes(tmp_path / "wide", [(8, 16)] * 4))


# Arrays


def test_an_array_gives_the_values_of_its_images(tmp_path: Path, reals: Path) -> None:
    """As .npy, and as the .npz of guided-diffusion with labels; two sets of images without a model."""
    fakes = write_images(tmp_path / "fakes", 20, seed=1)
    pixels = np.stack([np.array(Image.open(path)) for path in sorted(fakes.iterdir())])
    np.save(tmp_path / "fakes.npy", pixels)
    labels = np.arange(20) % 3
    np.savez(tmp_path / "fakes.npz", pixels, labels)
    expected = evaluated(reals, fakes)["metrics"]
    np.savez(tmp_path / "first.npz", images=pixels.transpose(0, 3, 1, 2), labels=labels)  # as `prepare` takes it, too
    for name in ("fakes.npy", "fakes.npz", "first.npz"):
        found = evaluated(reals, tmp_path / name)
        assert found["metrics"] == expected
        assert found["card"]["fakes"]["name"] == name
    assert DatasetImages(tmp_path / "fakes.npz").label_counts == (7, 7, 6)
    assert DatasetImages(tmp_path / "fakes.npy", count=5, resolution=4).label_counts is None
    swapped = evaluate(str(reals), str(tmp_path / "fakes.npy"), extractors={"lite2": LinearExtractor()}, device=CPU)
    assert swapped["metrics"]["fd-lite2"]["value"] == pytest.approx(expected["fd-lite2"]["value"], rel=1e-9)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"arr_0": np.zeros((4, 8, 8, 3))}, r"holds float64 \[4, 8, 8, 3\]; uint8 .* is needed"),
        ({"arr_0": np.zeros((4, 5, 8, 8), dtype=np.uint8)}, "is needed"),
        ({"arr_0": np.zeros((4, 8, 6, 3), dtype=np.uint8)}, "square"),
        ({"arr_0": np.zeros((0, 8, 8, 3), dtype=np.uint8)}, "images are uint8"),
        ({"arr_0": np.zeros((4, 8, 8, 3), dtype=np.uint8), "arr_1": np.array([0, 1, -1, 0])}, "each of its 4 images"),
        ({"arr_0": np.array([{}])}, "is not a whole"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(FileError, match=message):
        DatasetImages(tmp_path / "images.npz")


def test_an_incomplete_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8, 3), dtype=np.uint8))
    data = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(data[:-100])
    with pytest.raises(FileError, match="is not a whole"):
        DatasetImages(tmp_path / "images.npy")
    with pytest.raises(FileError, match="no such file"):
        DatasetImages(tmp_path / "absent.npy")
    np.save(tmp_path / "images.npy", np.zeros((4, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(RequestError, match="holds 4 images"):
        DatasetImages(tmp_path / "images.npy", count=5)
