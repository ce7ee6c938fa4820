"""Heat maps: what a level has drawn so far, its features' sum weighted by their means over the image."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from polyinr_core.models.coordinates import Grid
from polyinr_core.models.generator import Synthesis

from .render import in_bands, in_blocks


@torch.no_grad()
def feature_means(
    synthesis: Synthesis,
    affine: Tensor,
    grid: Grid,
    *,
    levels: Sequence[int],
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the mean of every channel over a grid's pixels after each of some levels, [K, n] in float64.

    `affine` [L, 3, n] is the image's. `progress` is told the pixels of every block.
    """
    sums = affine.new_zeros(len(levels), affine.shape[-1], dtype=torch.float64)
    for points in in_blocks(lambda points: points, grid, affine):
        for k, x in enumerate(_features(synthesis, affine, points, levels)):
            sums[k] += x.sum(dim=0)
        if progress is not None:
            progress(len(points))
    return sums / (grid.width * grid.height)


@torch.no_grad()
def heat_rows(
    synthesis: Synthesis,
    affine: Tensor,
    grid: Grid,
    means: Tensor,
    *,
    levels: Sequence[int],
    supersample: int = 1,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, K] of the heat maps of some levels, from top to bottom, in float64.

    A level's heat at a point p is sum_c mean_c x_c(p) over the channels c of its features x, with the `means`
    [K, n] of `feature_means`. Nothing but a band is held. Each k x k points are averaged to a pixel, as when
    drawing. Paper, Figure 3.
    """

    def heat(points: Tensor) -> Tensor:
        after = _features(synthesis, affine, points, levels)
        return torch.stack([x @ mean for x, mean in zip(after, means, strict=True)], dim=1)  # [P, K]

    yield from in_bands(in_blocks(heat, grid, affine), grid, supersample=supersample)


def _features(synthesis: Synthesis, affine: Tensor, points: Tensor, levels: Sequence[int]) -> Iterator[Tensor]:
    """Yield the features [P, n] after some levels, rising, in float64; what follows is not computed."""
    wanted = list(levels)
    assert wanted == sorted(set(wanted)), wanted
    for level, x in enumerate(synthesis.features(affine.unsqueeze(0), points)):
        if level in wanted:
            yield x[0].double()
        if level == wanted[-1]:
            return
