"""Draw a lattice of an image's points first, and between them only where they do not foretell the image."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice, product
from typing import NamedTuple

import torch
from torch import Tensor

from polyinr_core.models.coordinates import Grid, Part
from polyinr_core.runtime.rng import generator_for

Values = Callable[[Grid, Tensor], Tensor]  # a grid and the indices [P] of its pixels to their colors [P, C]

SIDE = 64  # pixels of a tile; it also has the next one's first row and column
PITCH = 16  # of the first lattice
PROBES = 16  # pixels of a tile that are drawn only to be compared
GROUP = 62  # tiles in memory at once, 2^18 points
SHADE = 2 / 255  # a step of 255, where colors span [-1, 1]
WARY = 0.75  # so much of the tolerance calls for more points: what lies between them was never seen


def has_tiles(grid: Grid) -> bool:
    """Whether an image is large enough to be drawn by tiles."""
    whole, *_ = _origin(grid)
    return min(whole.width, whole.height) > SIDE


def tiled(values: Values, grid: Grid, *, tolerance: float, device: torch.device) -> Iterator[Tensor]:
    """Yield the colors of a grid's pixels, row by row: [P, C] for the pixels of some whole rows at a time.

    All but a thousandth of them are off by less than `tolerance`, in steps of 255 where colors span [-1, 1]:
    measured, not proven (docs/speed.md). A tile stands at the same pixels of the image whatever part of it
    is drawn, and nothing of another tile goes into it, so neither bands nor parts change a pixel.
    """
    whole, left, top = _origin(grid)
    columns = _spans(whole.width, left, left + grid.width)
    rows = _spans(whole.height, top, top + grid.height)

    def drawn() -> Iterator[Tensor]:
        places = product(rows, columns)
        while some := list(islice(places, GROUP)):
            corners = [row.corner * whole.width + column.corner for row, column in some]
            yield from _Tiles(values, whole, torch.tensor(corners, device=device)).drawn(tolerance * SHADE * WARY)

    tiles = drawn()
    for row in rows:
        strip = [next(tiles)[row.pixels, column.pixels] for column in columns]
        yield torch.cat(strip, dim=1).flatten(0, 1)


class _Tiles:
    """Tiles of an image, T of them, drawn on a lattice whose pitch is halved again and again.

    `colors` [T, R, R, C] are those of the lattice's points, `is_drawn` [T, R, R] tells which of them were
    drawn; the others are interpolated.
    """

    def __init__(self, values: Values, grid: Grid, corners: Tensor) -> None:
        self.values, self.grid, self.corners = values, grid, corners  # the index of their first pixels [T]
        self.pitch = PITCH
        count = SIDE // PITCH + 1
        self.is_drawn = torch.ones(len(corners), count, count, dtype=torch.bool, device=corners.device)
        self.colors = self._at(self.is_drawn.nonzero()).unflatten(0, self.is_drawn.shape)

    def drawn(self, limit: float) -> Tensor:
        """Return the colors of all pixels [T, SIDE + 1, SIDE + 1, C], about within `limit`.

        All points of the second lattice are drawn. From then on a point is drawn if one near it was foretold
        wrong by the lattice before: about a kink the error halves with the pitch, elsewhere it falls faster.
        Last, a tile with a probe that was taken for good and is not is drawn point by point.
        """
        self._halve()
        wrong = self._draw(~self.is_drawn, limit)
        while self.pitch > 2:
            self._halve()
            wrong = self._draw(_near(_near(wrong, 1), 2), limit)
        self._halve()
        doubtful = _near(_near(wrong, 1), 2)
        probe = probes().to(doubtful.device) & ~doubtful
        wrong = self._draw(doubtful | probe, limit) & probe
        self._draw(wrong.any(dim=(1, 2), keepdim=True), limit)
        return self.colors

    def _halve(self) -> None:
        self.pitch //= 2
        self.colors = _between(_between(self.colors, dim=1), dim=2)
        count = SIDE // self.pitch + 1
        drawn = self.is_drawn.new_zeros(len(self.corners), count, count)
        drawn[:, ::2, ::2] = self.is_drawn
        self.is_drawn = drawn

    def _draw(self, wanted: Tensor, limit: float) -> Tensor:
        """Draw what is wanted [T, R, R] and not drawn yet; return which of it was off by more than `limit`."""
        wanted = wanted & ~self.is_drawn
        where = wanted.nonzero()
        colors, at = self._at(where), where.unbind(1)
        off = (self.colors[at] - colors).abs().amax(dim=-1)
        self.colors[at] = colors
        self.is_drawn |= wanted
        wrong = torch.zeros_like(wanted)
        wrong[at] = ~(off <= limit)  # what is no number is wrong, too
        return wrong

    def _at(self, where: Tensor) -> Tensor:
        """Return the colors [K, C] of points (tile, row, column) [K, 3] of the lattice."""
        tile, row, column = where.unbind(1)
        return self.values(self.grid, self.corners[tile] + self.pitch * (row * self.grid.width + column))


class _Span(NamedTuple):
    """A tile's first pixel along an axis, and which of its pixels are asked for."""

    corner: int
    pixels: slice


def _spans(side: int, low: int, high: int) -> list[_Span]:
    """Return the tiles that pixels low .. high - 1 of an axis lie in; the last tile ends where the axis does."""
    corners = [*range(0, side - SIDE - 1, SIDE), side - SIDE - 1]
    spans = []
    for corner, end in zip(corners, [*corners[1:], side], strict=True):
        first, last = max(corner, low), min(end, high)
        if first < last:
            spans.append(_Span(corner, slice(first - corner, last - corner)))
    return spans


def _origin(grid: Grid) -> tuple[Grid, int, int]:
    """Return the whole that a grid is a part of, and the part's left and top."""
    left = top = 0
    while isinstance(grid, Part):
        left, top, grid = left + grid.left, top + grid.top, grid.whole
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
    most = x.narrow(dim, 0, x.shape[dim] - 1)
    pairs = torch.stack([most, middles], dim + 1).flatten(dim, dim + 1)
    return torch.cat([pairs, x.narrow(dim, -1, 1)], dim)


@cache
def probes() -> Tensor:
    """Return the pixels of a tile that are compared, scattered: [SIDE + 1, SIDE + 1]."""
    chosen = torch.zeros(SIDE + 1, SIDE + 1, dtype=torch.bool)
    row, column = torch.randint(SIDE, (2, PROBES), generator=generator_for("coarse to fine", "probes"))
    chosen[row, column] = True
    return chosen
