"""Coordinate grids; knows nothing of networks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError

Bounds = tuple[float, float, float, float]
UNIT: Bounds = (0.0, 0.0, 1.0, 1.0)


class Grid(Protocol):
    """An image's pixels as points of the plane, listed row by row."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] (row-major) as homogeneous points (x, y, 1), [P, 3]."""
        ...


@dataclass(frozen=True)
class RegularGrid:
    """Pixel i of W stands at x0 + i (x1-x0)/(W-1): the borders of the window are pixels, not edges.

    A single row or column stands in the middle of its span. Coordinates are computed in float64 and rounded
    once, so a pixel has the same coordinates in any tile.
    """

    width: int
    height: int
    bounds: Bounds = UNIT

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"a grid of {self.width}x{self.height} pixels is empty")
        x0, y0, x1, y1 = self.bounds
        if not (abs(x0) + abs(x1) + abs(y0) + abs(y1) < float("inf")) or x0 == x1 or y0 == y1:
            raise ConfigError(f"the window {x0}:{x1},{y0}:{y1} has no extent")

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] as points (x, y, 1), [P, 3]."""
        x0, y0, x1, y1 = self.bounds
        x = spread(index % self.width, count=self.width, low=x0, high=x1)
        y = spread(index.div(self.width, rounding_mode="floor"), count=self.height, low=y0, high=y1)
        return torch.stack([x, y, torch.ones_like(x)], dim=-1).to(dtype)  # [P, 3]

    def points(self, start: int, stop: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the pixels from `start` to before `stop`."""
        return self.at(torch.arange(start, stop, device=device), dtype=dtype)


@dataclass(frozen=True)
class LearnedGrid:
    """The grid that a released checkpoint learned with its weights: one free point (x, y) a pixel, [P, 2]."""

    coordinates: Tensor
    width: int
    height: int

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] as points (x, y, 1), [P, 3]."""
        return homogeneous(self.coordinates.to(index.device)[index].to(dtype))


@dataclass(frozen=True)
class Part:
    """A rectangle of a grid's pixels, its corner at column `left` and row `top`."""

    whole: Grid
    left: int
    top: int
    width: int
    height: int

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] as points, [P, 3]."""
        row = index.div(self.width, rounding_mode="floor") + self.top
        return self.whole.at(row * self.whole.width + index % self.width + self.left, dtype=dtype)


@dataclass(frozen=True)
class Blend:
    """Points for a blend of K images: each (x, y, 1) K times, times the shares [K, H, W] of its pixel.

    Shares add up to 1, so affine maps [3 K, n] give the features' factors blended exactly. Where the grid is
    `supersample` times as fine as the shares, a pixel's points have its own.
    """

    grid: Grid
    shares: Tensor
    supersample: int = 1

    @property
    def width(self) -> int:
        return self.grid.width

    @property
    def height(self) -> int:
        return self.grid.height

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] as points [P, 3 K]."""
        row = index.div(self.width, rounding_mode="floor") // self.supersample
        column = index % self.width // self.supersample
        shares = self.shares.to(index.device)[:, row, column].to(dtype)  # [K, P]
        points = self.grid.at(index, dtype=dtype)
        return (shares.T.unsqueeze(-1) * points.unsqueeze(1)).flatten(1)


def spread(index: Tensor, *, count: int, low: float, high: float) -> Tensor:
    """Return positions low + i (high-low)/(count-1) in float64, for integers i [P]."""
    if count == 1:
        return torch.full_like(index, 0.5 * (low + high), dtype=torch.float64)
    return low + index.double() * (high - low) / (count - 1)


def homogeneous(coordinates: Tensor) -> Tensor:
    """Append the constant 1 to points (x, y): [..., 2] to [..., 3]."""
    return torch.cat([coordinates, torch.ones_like(coordinates[..., :1])], dim=-1)
