"""PSNR and SSIM against plain formulas."""

import math

import numpy as np
import pytest
from scipy.ndimage import correlate1d

from polyinr_core.errors import RequestError
from polyinr_core.metrics.image_similarity import psnr, ssim


def images(resolution: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, (resolution, resolution + 5, 3), dtype=np.uint8)
    return one, np.clip(one.astype(int) + rng.integers(-20, 21, one.shape), 0, 255).astype(np.uint8)


def test_psnr_by_its_formula():
    one, two = images()
    error = np.mean((one / 255 - two / 255) ** 2)
    assert psnr(one, two) == pytest.approx(-10 * math.log10(error), abs=1e-9)
    assert psnr(one, one) == math.inf


def test_ssim_by_its_formula():
    """Wang et al., 2004: an 11 x 11 Gaussian of sigma 1.5; means over the inside, where the window fits."""
    one, two = images()
    kernel = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    kernel /= kernel.sum()

    def blurred(x: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(x, kernel, axis=0), kernel, axis=1)[5:-5, 5:-5]

    x, y = one.astype(float), two.astype(float)
    ux, uy = blurred(x), blurred(y)
    vx, vy, vxy = blurred(x * x) - ux * ux, blurred(y * y) - uy * uy, blurred(x * y) - ux * uy
    a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = np.mean((2 * ux * uy + a) * (2 * vxy + b) / ((ux**2 + uy**2 + a) * (vx + vy + b)))
    assert ssim(one, two) == pytest.approx(expected, abs=1e-6)
    assert ssim(one, one) == pytest.approx(1.0)


def test_small_and_unequal_images():
    small = np.zeros((10, 40, 3), dtype=np.uint8)
    assert ssim(small, small) is None
    with pytest.raises(RequestError, match="cannot be compared"):
        psnr(small, small[:5])
