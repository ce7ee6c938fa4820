"""From the network's numbers, about [-1, 1], to pixels."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import PolyinrError
from .sheet import Pixels


def to_uint8(x: Tensor) -> Pixels:
    """Round colours [..., 3] to 8 bits: (x + 1) 127.5, clamped to 0-255, its fraction dropped.

    The release's rule for pictures. Its metrics take half a grey level more. method: section 11.
    """
    return _scaled(x, 127.5).to(torch.uint8).cpu().numpy()


def to_uint16(x: Tensor) -> NDArray[np.uint16]:
    """Round colours [..., 3] to 16 bits by the rule of `to_uint8`: (x + 1) 32767.5 in 0-65535."""
    return _scaled(x, 32767.5).to(torch.int32).cpu().numpy().astype(np.uint16)


def _scaled(x: Tensor, half: float) -> Tensor:
    x = x if x.dtype == torch.float64 else x.float()
    return ((x + 1.0) * half).clamp_(0.0, 2.0 * half)


def fill_rows(target: Pixels, bands: Iterable[Tensor], *, progress: Callable[[int], None] | None = None) -> None:
    """Draw bands [rows, W, 3] into a picture's array [H, W, 3], or into its place on a sheet.

    `progress` is told the rows of every band. Raises PolyinrError for a colour that is no number.
    """
    top = 0
    for band in checked(bands):
        rows = len(band)
        target[top : top + rows] = to_uint8(band)
        top += rows
        if progress is not None:
            progress(rows)


def checked(bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pass bands on, and raise PolyinrError at the first colour that is not a finite number."""
    for band in bands:
        if not bool(torch.isfinite(band).all()):
            raise PolyinrError(
                "the model gives colours that are no numbers here; take a smaller window, psi nearer 1, "
                "or --precision float64"
            )
        yield band
