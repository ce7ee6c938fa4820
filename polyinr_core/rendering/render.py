"""Draw one image of any size in bands of whole rows, in memory that the size does not touch."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from polyinr_core.models.coordinates import Grid
from polyinr_core.rendering.backends import Backend, select_backend

from .adaptive import has_tiles, tiled

BLOCK = 2048  # pixels a matrix product: fixed, so that a pixel's arithmetic never depends on the image's size
GPU_BLOCK = 2**14  # the same where 2048 would leave most of the device idle
FEW = 512  # pixels a product where it is never known how many there are
CPU_PIXELS, PIXELS = 2**14, 2**17  # a product where several images are drawn together


@torch.no_grad()
def render_rows(
    network: Backend,
    affine: Tensor,
    grid: Grid,
    *,
    rows: int | None = None,
    supersample: int = 1,
    tolerance: float = 0.0,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, 3] of the image of affine [L, 3, n], from top to bottom, about [-1, 1].

    The network is drawn by what suits its device (select_backend), a drawer as it is.
    Pixels are computed in blocks of one fixed shape (the last one filled up), in the dtype and on the device of
    `affine`: an image is the same to the last bit whatever the band and whatever is drawn before it. By
    default a band holds about a block. With a supersample k, each k x k points of the grid are averaged to a pixel.

    With a `tolerance`, in steps of 255, pixels are drawn only where a coarser lattice does not foretell them
    (coarse.tiled). An image less than 65 pixels wide or high is drawn exactly whatever the tolerance.
    """
    drawer = select_backend(network, affine.device)

    def colors(points: Tensor) -> Tensor:
        return drawer(affine.unsqueeze(0), points)[0]

    def at(whole: Grid, index: Tensor) -> Tensor:
        few = [affine.new_empty(0, 3), *in_blocks(colors, whole, affine, index=index, block=FEW)]
        return torch.cat(few)

    if tolerance and has_tiles(grid):
        blocks = tiled(at, grid, tolerance=tolerance, device=affine.device)
    else:
        blocks = in_blocks(colors, grid, affine, block=BLOCK if affine.device.type == "cpu" else GPU_BLOCK)
    yield from in_bands(blocks, grid, rows=rows, supersample=supersample)


def pixels_per_batch(device: torch.device) -> int:
    """Return the pixels that are drawn in one product where several images are drawn together."""
    return CPU_PIXELS if device.type == "cpu" else PIXELS


def in_blocks(
    values: Callable[[Tensor], Tensor],
    grid: Grid,
    like: Tensor,
    *,
    index: Tensor | None = None,
    block: int = BLOCK,
) -> Iterator[Tensor]:
    """Yield values(points [block, 3]) of a grid's pixels, block after block [P, C]; the last is cut short.

    The pixels are those of `index` [K], by default all. The points have the dtype and the device of `like`.
    """
    total = grid.width * grid.height if index is None else len(index)
    for start in range(0, total, block):
        stop = min(start + block, total)
        chosen = torch.arange(start, stop, device=like.device) if index is None else index[start:stop]
        points = grid.at(chosen, dtype=like.dtype)
        if len(points) < block:
            points = torch.cat([points, points.new_zeros(block - len(points), points.shape[1])])
        yield values(points)[: stop - start]


def in_bands(
    blocks: Iterable[Tensor], grid: Grid, *, rows: int | None = None, supersample: int = 1
) -> Iterator[Tensor]:
    """Join blocks [P, C] of a grid's pixels to bands [rows, W, C], each k x k of them averaged to one."""
    rows = supersample * (rows or max(1, BLOCK // (grid.width * supersample)))
    rows = min(grid.height, rows)
    missing = grid.width * grid.height
    waiting: list[Tensor] = []
    held, wanted = 0, rows * grid.width
    for block in blocks:
        waiting.append(block)
        held += len(block)
        missing -= len(block)
        while held >= wanted or (not missing and held):
            joined = torch.cat(waiting) if len(waiting) > 1 else waiting[0]
            take = min(wanted, held)
            yield averaged(joined[:take].unflatten(0, (-1, grid.width)), supersample)
            waiting, held = [joined[take:]], held - take


def averaged(band: Tensor, supersample: int) -> Tensor:
    """Average each k x k values of a band [k R, k W, C] to one: [R, W, C]."""
    if supersample == 1:
        return band
    return band.unflatten(1, (-1, supersample)).unflatten(0, (-1, supersample)).mean(dim=(1, 3))
