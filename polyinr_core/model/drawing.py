"""Draw one picture of any size in bands of whole rows, in memory that the size does not touch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .grid import Grid
from .synthesis import Synthesis

BLOCK = 2048  # pixels a matrix product: fixed, so that a pixel's arithmetic never depends on the picture's size


@torch.no_grad()
def draw_rows(
    synthesis: Synthesis, affine: Tensor, grid: Grid, *, rows: int | None = None, fineness: int = 1
) -> Iterator[Tensor]:
    """Yield bands [rows, W, 3] of the picture of affine [L, 3, n], from top to bottom, about [-1, 1].

    Pixels are computed in blocks of one fixed shape (the last one filled up), in the dtype and on the device of
    `affine`: a picture is the same to the last bit whatever the band and whatever is drawn before it. By
    default a band holds about a block. With a fineness k, each k x k points of the grid are averaged to a pixel.
    """
    rows = fineness * (rows or max(1, BLOCK // (grid.width * fineness)))
    rows = min(grid.height, rows)
    total = grid.width * grid.height
    waiting: list[Tensor] = []
    held, wanted = 0, rows * grid.width
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        colours = draw_block(synthesis, affine, grid, start=start, stop=stop)
        waiting.append(colours)
        held += len(colours)
        while held >= wanted or (stop == total and held):
            joined = torch.cat(waiting)
            take = min(wanted, held)
            yield averaged(joined[:take].unflatten(0, (-1, grid.width)), fineness)
            waiting, held = [joined[take:]], held - take


def draw_block(synthesis: Synthesis, affine: Tensor, grid: Grid, *, start: int, stop: int) -> Tensor:
    """Return the colours [stop-start, 3] of at most a block of pixels."""
    points = grid.at(torch.arange(start, stop, device=affine.device), dtype=affine.dtype)
    if len(points) < BLOCK:
        points = torch.cat([points, points.new_zeros(BLOCK - len(points), points.shape[1])])
    return synthesis(affine.unsqueeze(0), points)[0, : stop - start]


def averaged(band: Tensor, fineness: int) -> Tensor:
    """Average each k x k colours of a band [k R, k W, 3] to one: [R, W, 3]."""
    if fineness == 1:
        return band
    return band.unflatten(1, (-1, fineness)).unflatten(0, (-1, fineness)).mean(dim=(1, 3))
