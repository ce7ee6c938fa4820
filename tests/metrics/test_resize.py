"""The resizing of the protocols, against clean-fid and Pillow."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.metrics.extractors import smooth_resize
from polyinr_core.metrics.inception import clean_resize


def images(height: int, width: int) -> Tensor:
    rng = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (2, 3, height, width), generator=rng, dtype=torch.uint8)


def by_pillow(pixels: Tensor, resolution: int, filter: Image.Resampling) -> np.ndarray:
    """Resize channel by channel, as floats."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((resolution, resolution), filter))
        for channel in pixels.flatten(0, 1).numpy()
    ]
    return np.stack(channels).reshape(*pixels.shape[:2], resolution, resolution).clip(0, 255)


@pytest.mark.parametrize("shape", [(32, 32), (299, 299), (400, 320)])
def test_clean_resize_equals_clean_fid(shape: tuple[int, int]) -> None:
    """clean-fid's own function image by image, and Pillow alone."""
    from cleanfid.resize import build_resizer

    pixels = images(*shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resized = clean_resize(pixels).numpy()
    theirs = [build_resizer("clean")(image) for image in pixels.permute(0, 2, 3, 1).numpy()]
    np.testing.assert_array_equal(resized, np.stack(theirs).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(resized, by_pillow(pixels, 299, Image.Resampling.BICUBIC))
    assert resized.dtype == np.float32


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(16, 24), (64, 48)])
def test_smooth_resize_equals_pillow(filter: str, shape: tuple[int, int]) -> None:
    """1e-3 of 255: PyTorch sums the filter's weights in float32, Pillow in float64."""
    pixels = images(*shape)
    expected = by_pillow(pixels, 32, Image.Resampling[filter.upper()])
    np.testing.assert_allclose(smooth_resize(pixels, 32, interpolation=filter), expected, rtol=0, atol=1e-3)


def test_smooth_resize_leaves_images_of_the_size_unchanged() -> None:
    pixels = images(32, 32)
    assert torch.equal(smooth_resize(pixels, 32, interpolation="bicubic"), pixels.float())
