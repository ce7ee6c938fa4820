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


def degree_shares(affine: Tensor) -> Tensor:
    """Return the share of every order 0 .. L after every level, along x and along y: [2, L, L + 1] in float64.

    From an image's affine maps [L, 3, n] alone. Level i multiplies its features by a_c x + b_c y + c_c in
    channel c. With the root mean squares |a|, |b|, |c| over the channels that is the polynomial |a| X + |c|
    along x and |b| Y + |c| along y; the shares are the coefficients of the product of levels 0 .. i, over their
    sum. A factor that is nil counts as 1.

    This is the polynomial's skeleton. Left out are the kinks of LeakyReLU, which make the image a different
    polynomial from piece to piece of the plane, the products between the levels with their biases, which mix
    orders and can cancel them, and terms in x and y together. Paper, Eq. 3 and 4.
    """
    across, down, constant = affine.double().square().mean(dim=-1).sqrt().unbind(dim=1)  # each [L]
    return torch.stack([_shares(slope, constant) for slope in (across, down)])


def mean_orders(shares: Tensor) -> Tensor:
    """Return the mean order of shares [..., L + 1], weighted by them: [...]."""
    return shares @ torch.arange(shares.shape[-1], dtype=shares.dtype, device=shares.device)


def _shares(slopes: Tensor, constants: Tensor) -> Tensor:
    """Return the shares [L, L + 1] of the orders in the products of slope X + constant, level after level."""
    levels = len(slopes)
    shares = slopes.new_zeros(levels + 1)
    shares[0] = 1.0
    rows = []
    for slope, constant in zip(slopes, constants, strict=True):
        whole = slope + constant
        if whole > 0:
            raised = torch.cat([shares.new_zeros(1), shares[:-1]])  # times X
            shares = (constant / whole) * shares + (slope / whole) * raised
        rows.append(shares)
    return torch.stack(rows)
