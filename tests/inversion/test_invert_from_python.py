"""`polyinr_core.invert`: images given in any form, classes by name, and results that can be saved and rendered."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import polyinr_core as polyinr
from polyinr_core.errors import LabelError, RequestError
from polyinr_core.inversion.invert import comparison_grid


def test_a_path_an_image_and_an_array_give_the_same(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = polyinr.load(tiny_checkpoint)
    pixels = model.sample([3])[0]
    image = Image.fromarray(pixels)
    image.save(tmp_path / "photo.png")
    data = (tmp_path / "photo.png").read_bytes()
    results = [
        polyinr.invert(model, given, steps=8, loss="pixels")
        for given in (tmp_path / "photo.png", str(tmp_path / "photo.png"), data, image, pixels)
    ]
    for result in results:
        assert torch.equal(result.affine, results[0].affine)
        assert np.array_equal(result.target.pixels, pixels)
    first = results[0]
    assert (first.image.shape, first.image.dtype) == ((16, 16, 3), np.uint8)
    assert first.psnr > 15
    assert first.target.name == str(tmp_path / "photo.png")
    assert first.latents.model_sha256 == model.sha256
    first.latents.save(tmp_path / "latents.safetensors")
    latents = polyinr.Latents.load(tmp_path / "latents.safetensors")
    assert model.render(latents).shape == (1, 3, 16, 16)


def test_a_class_by_name_or_number(tiny_class_checkpoint: Path) -> None:
    model = polyinr.load(tiny_class_checkpoint)
    gray = np.full((8, 8), 128, dtype=np.uint8)
    by_name, by_number = (polyinr.invert(model, gray, steps=2, loss="pixels", label=label) for label in ("class c", 2))
    assert by_name.latents.label.tolist() == by_number.latents.label.tolist() == [2]
    assert torch.equal(by_name.affine, by_number.affine)
    with pytest.raises(LabelError, match="'zebra' is unknown"):
        polyinr.invert(model, gray, label="zebra")


def test_sizes_and_progress(tiny_checkpoint: Path) -> None:
    model = polyinr.load(tiny_checkpoint)
    image = np.zeros((20, 10, 3), dtype=np.uint8)
    reported: list[tuple[int, int]] = []
    result = polyinr.invert(
        model,
        image,
        steps=3,
        loss="pixels",
        shorter_side=4,
        progress=lambda done, total, psnr: reported.append((done, total)),
    )
    assert result.image.shape == (8, 4, 3)
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert {total for _, total in reported} == {15}  # three steps of Adam, at most twelve of L-BFGS
    assert comparison_grid([[result.target.pixels, result.image]]).shape == (8, 10, 3)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 4), dtype=np.uint8), np.zeros((4, 4, 3)), np.zeros(4, dtype=np.uint8)]
)
def test_arrays_that_are_no_images(tiny_checkpoint: Path, image: np.ndarray) -> None:
    with pytest.raises(RequestError, match=r"uint8 \[H, W, 3\]"):
        polyinr.invert(polyinr.load(tiny_checkpoint), image)
