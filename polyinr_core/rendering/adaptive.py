"""Adaptive rendering: evaluate a coarse lattice of pixels, and finer ones only where it does not predict the image."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice, product
from typing import NamedTuple

import torch
from torch import Tensor

from polyinr_core.models.coordinates import Grid, SubGrid
from polyinr_core.runtime.rng import generator_for

Values = Callable[[Grid, Tensor], Tensor]  # a grid and the indices [P] of its pixels to their colors [P, C]

TILE_SIZE = 64  # pixels; a tile also has the first row and column of the next one
MAX_PITCH = 16  # of the first lattice
PROBES = 16  # pixels of a tile that are evaluated only to check the prediction
TILES_AT_ONCE = 62  # in memory: 2^18 points
STEP = 2 / 255  # a step of 255, where colors span [-1, 1]
SAFETY = 0.75  # fraction of the tolerance that refines the lattice: the points between were not evaluated


def has_tiles(grid: Grid) -> bool:
    """Return whether an image is large enough to be rendered by tiles."""
    full, *_ = _origin(grid)
    return min(full.width, full.height) > TILE_SIZE


def tiled(values: Values, grid: Grid, *, tolerance: float, device: torch.device) -> Iterator[Tensor]:
    """Yield the colors of a grid's pixels, row by row: [P, C] for the pixels of some complete rows at a time.

    99.9 % of them are off by less than `tolerance`, in steps of 255 where colors span [-1, 1]: measured, not
    proven (docs/speed.md). Tiles lie at the same pixels of the image whatever part of it is rendered, and do not
    depend on each other, so neither bands nor parts change a pixel.
    """
    full, left, top = _origin(grid)
    columns = _spans(full.width, left, left + grid.width)
    rows = _spans(full.height, top, top + grid.height)

    def render() -> Iterator[Tensor]:
        pairs = product(rows, columns)
        while batch := list(islice(pairs, TILES_AT_ONCE)):
            corners = [row.corner * full.width + column.corner for row, column in batch]
            yield from _Tiles(values, full, torch.tensor(corners, device=device)).render(tolerance * STEP * SAFETY)

    tiles = render()
    for row in rows:
        strip = [next(tiles)[row.pixels, column.pixels] for column in columns]
        yield torch.cat(strip, dim=1).flatten(0, 1)


class _Tiles:
    """T tiles of an image on a lattice whose pitch is halved step by step.

    `colors` [T, R, R, C] are those of the lattice's points, of which those in `is_evaluated` [T, R, R] were
    evaluated and the others interpolated.
    """

    def __init__(self, values: Values, grid: Grid, corners: Tensor) -> None:
        self.values, self.grid, self.corners = values, grid, corners  # the index of their first pixels [T]
        self.pitch = MAX_PITCH
        count = TILE_SIZE // MAX_PITCH + 1
        self.is_evaluated = torch.ones(len(corners), count, count, dtype=torch.bool, device=corners.device)
        self.colors = self._at(self.is_evaluated.nonzero()).unflatten(0, self.is_evaluated.shape)

    def render(self, limit: float) -> Tensor:
        """Return the colors of all pixels [T, TILE_SIZE + 1, TILE_SIZE + 1, C], about within `limit`.

        All points of the second lattice are evaluated. From then on a point is evaluated if the previous lattice
        predicted one near it wrongly: near a kink the error halves with the pitch, elsewhere it falls faster.
        Finally, a tile in which a probe was predicted wrongly is evaluated completely.
        """
        self._halve()
        wrong = self._evaluate(~self.is_evaluated, limit)
        while self.pitch > 2:
            self._halve()
            wrong = self._evaluate(_near(_near(wrong, 1), 2), limit)
        self._halve()
        uncertain = _near(_near(wrong, 1), 2)
        probe = probes().to(uncertain.device) & ~uncertain
        wrong = self._evaluate(uncertain | probe, limit) & probe
        self._evaluate(wrong.any(dim=(1, 2), keepdim=True), limit)
        return self.colors

    def _halve(self) -> None:
        self.pitch //= 2
        self.colors = _between(_between(self.colors, dim=1), dim=2)
        count = TILE_SIZE // self.pitch + 1
        evaluated = self.is_evaluated.new_zeros(len(self.corners), count, count)
        evaluated[:, ::2, ::2] = self.is_evaluated
        self.is_evaluated = evaluated

    def _evaluate(self, mask: Tensor, limit: float) -> Tensor:
        """Evaluate the points of a mask [T, R, R] that are not yet; return which were off by more than `limit`."""
        mask = mask & ~self.is_evaluated
        where = mask.nonzero()
        colors, at = self._at(where), where.unbind(1)
        off = (self.colors[at] - colors).abs().amax(dim=-1)
        self.colors[at] = colors
        self.is_evaluated |= mask
        wrong = torch.zeros_like(mask)
        wrong[at] = ~(off <= limit)  # NaN is wrong, too
        return wrong

    def _at(self, where: Tensor) -> Tensor:
        """Return the colors [K, C] of points (tile, row, column) [K, 3] of the lattice."""
        tile, row, column = where.unbind(1)
        return self.values(self.grid, self.corners[tile] + self.pitch * (row * self.grid.width + column))


class _Span(NamedTuple):
    """A tile's first pixel along an axis, and which of its pixels are needed."""

    corner: int
    pixels: slice


def _spans(count: int, low: int, high: int) -> list[_Span]:
    """Return the tiles that pixels low .. high - 1 of an axis lie in; the last tile ends where the axis does."""
    corners = [*range(0, count - TILE_SIZE - 1, TILE_SIZE), count - TILE_SIZE - 1]
    spans = []
    for corner, end in zip(corners, [*corners[1:], count], strict=True):
        first, last = max(corner, low), min(end, high)
        if first < last:
            spans.append(_Span(corner, slice(first - corner, last - corner)))
    return spans


def _origin(grid: Grid) -> tuple[Grid, int, int]:
    """Return the full grid that a grid is a part of, and the part's left and top."""
    left = top = 0
    while isinstance(grid, SubGrid):
        left, top, grid = left + grid.left, top + grid.top, grid.parent
    return grid, left, top


def _between(x: Tensor, dim: int) -> Tensor:
    """Put a value between each two along an axis: that of the cubic through four, at the ends the parabola's."""
    a, b, c, d = (x.narrow(dim, start, x.shape[dim] - 3) for start in range(4))
    inner = (b + c).mul_(9).sub_(a).sub_(d).div_(16)
    first, last = (
        (3 * x.narrow(dim, end, 1) + 6 * x.narrow(dim, end + step, 1) - x.narrow(dim, end + 2 * step, 1)) / 8
        for end, step in ((0, 1), (x.shape[dim] - 1, -1))
    )
    return _interleaved(x, torch.cat([first, inner, last], dim), dim)


def _near(mask: Tensor, dim: int) -> Tensor:
    """Bring a mask to half the pitch along an axis: true three points on either side, one and a half before."""
    count = mask.shape[dim]
    edge = torch.zeros_like(mask.narrow(dim, 0, 1))
    padded = torch.cat([edge, mask, edge], dim)
    wide = padded.narrow(dim, 0, count) | mask | padded.narrow(dim, 2, count)
    return _interleaved(wide, wide.narrow(dim, 0, count - 1) | wide.narrow(dim, 1, count - 1), dim)


def _interleaved(x: Tensor, middles: Tensor, dim: int) -> Tensor:
    """Put each value between two of x, along an axis."""
    first = x.narrow(dim, 0, x.shape[dim] - 1)
    pairs = torch.stack([first, middles], dim + 1).flatten(dim, dim + 1)
    return torch.cat([pairs, x.narrow(dim, -1, 1)], dim)


@cache
def probes() -> Tensor:
    """Return the pixels of a tile that are compared, scattered: [TILE_SIZE + 1, TILE_SIZE + 1]."""
    chosen = torch.zeros(TILE_SIZE + 1, TILE_SIZE + 1, dtype=torch.bool)
    row, column = torch.randint(TILE_SIZE, (2, PROBES), generator=generator_for("coarse to fine", "probes"))
    chosen[row, column] = True
    return chosen
