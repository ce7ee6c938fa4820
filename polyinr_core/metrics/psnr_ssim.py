"""PSNR and SSIM of 8-bit images."""

import math

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import RequestError

WINDOW = 11  # of SSIM, in pixels


def psnr(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB of 8-bit images of one shape; Inf for equal images.

    The peak is 255, which is 1 on [0, 1]. Raises RequestError.
    """
    _check_shapes(one, two)
    error = float(np.square(one.astype(np.float64) - two).mean())
    return 20 * math.log10(255) - 10 * math.log10(error) if error else math.inf


def ssim(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float | None:
    """Return the structural similarity of 8-bit images [H, W, 3], None below 11 pixels in height or width.

    Gaussian window of 11 x 11, sigma 1.5, covariance divided by N, mean over channels. Wang et al., 2004.
    Raises RequestError.
    """
    from skimage.metrics import structural_similarity

    _check_shapes(one, two)
    if min(one.shape[:2]) < WINDOW:
        return None
    return float(
        structural_similarity(
            one,
            two,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def _check_shapes(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> None:
    if one.shape != two.shape:
        raise RequestError(f"images of {one.shape[1::-1]} and {two.shape[1::-1]} pixels cannot be compared")
