"""Photos of any kind, at the size of matching."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from polyinr_core.errors import FileError
from polyinr_core.images.grid import to_uint8
from polyinr_core.inversion.loss import load_target, target_size


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_every_gray_level_comes_back_from_its_target():
    ramp = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
    photo = load_target(encoded(Image.fromarray(ramp)), name="ramp")
    target = photo.colors(torch.zeros(()))
    assert target.shape == (1, 3, 16, 16)
    assert np.array_equal(to_uint8(target[0].permute(1, 2, 0)), ramp)
    assert not photo.is_resized


@pytest.mark.parametrize(
    ("size", "shorter", "resolution", "expected"),
    [
        ((40, 30), None, 32, (40, 30)),  # never enlarged by itself
        ((4000, 3000), None, 32, (43, 32)),
        ((4000, 3000), None, 0, (341, 256)),  # a model that does not state its resolution
        ((3000, 4000), None, 512, (512, 683)),
        ((40, 30), 60, 32, (80, 60)),
        ((10000, 1), None, 32, (10000, 1)),
        ((1, 1), None, 0, (1, 1)),
    ],
)
def test_the_size_of_a_target(size: tuple[int, int], shorter: int | None, resolution: int, expected: tuple[int, int]):
    assert target_size(*size, shorter_side=shorter, resolution=resolution) == expected


def test_cmyk_and_animations():
    cmyk = load_target(encoded(Image.new("CMYK", (6, 4), (0, 255, 255, 0)), "JPEG"), name="print")
    assert cmyk.pixels[0, 0, 0] > 200 > 60 > cmyk.pixels[0, 0, 1]
    frames = [Image.new("RGB", (5, 5), color) for color in ("red", "blue")]
    moving = load_target(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), name="x.gif")
    assert (moving.frames, moving.pixels[0, 0].tolist()) == (2, [255, 0, 0])


def test_a_size_wins_over_the_shape():
    photo = load_target(encoded(Image.new("RGB", (40, 30))), name="x", size=(8, 8), resolution=16)
    assert (photo.pixels.shape, photo.is_resized) == ((8, 8, 3), True)


def test_no_images():
    for data, words in ((b"", "is empty"), (b"no image", "is not an image of a known format")):
        with pytest.raises(FileError, match=f"x.jpg: {words}"):
            load_target(data, name="x.jpg")
