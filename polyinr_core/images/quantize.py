"""From the network's numbers, about [-1, 1], to pixels."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError

from .grid import Pixels


def to_uint8(x: Tensor) -> Pixels:
    """Bring colors [..., 3] to 8 bits: (x + 1) 127.5, clamped to 0-255, then truncated, not rounded.

    The rule of the release's script that draws samples. Its metrics round (`quantize`), which is half a gray
    level more. docs/method.md, "Where paper and release differ".
    """
    x = x if x.dtype == torch.float64 else x.float()
    return ((x + 1.0) * 127.5).clamp_(0.0, 255.0).to(torch.uint8).cpu().numpy()


def to_uint16(x: Tensor) -> Pixels:
    """Bring colors [..., 3] to 16 bits by the same rule: (x + 1) 32767.5, clamped, truncated."""
    x = x if x.dtype == torch.float64 else x.float()
    return ((x + 1.0) * 32767.5).clamp_(0.0, 65535.0).to(torch.int32).cpu().numpy().astype(np.uint16)


def quantize(x: Tensor) -> Tensor:
    """Round colors in [-1, 1] to uint8 as the release's metrics do: x 127.5 + 128, clamped, truncated.

    That is (x + 1) 127.5 to the nearest, half a gray level above the rule for image files (`to_uint8`), and
    gives back the reals as they were.
    """
    return (x * 127.5 + 128).clamp_(0, 255).to(torch.uint8)


def fill_rows(target: Pixels, bands: Iterable[Tensor], *, progress: Callable[[int], None] | None = None) -> None:
    """Draw bands [rows, W, 3] into an image's array [H, W, 3] of 8 or 16 bits, or its place on a sheet.

    `progress` is told the rows of every band. Raises PolyinrError for a color that is no number.
    """
    rounded = to_uint8 if target.dtype == np.uint8 else to_uint16
    top = 0
    for band in check_finite(bands):
        rows = len(band)
        target[top : top + rows] = rounded(band)
        top += rows
        if progress is not None:
            progress(rows)


def check_finite(bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield bands of colors; raise PolyinrError at the first NaN or Inf."""
    for band in bands:
        if not bool(torch.isfinite(band).all()):
            raise PolyinrError(
                "the model produced NaN or Inf in this window; use a smaller window, a psi closer to 1, "
                "or --precision float64"
            )
        yield band
