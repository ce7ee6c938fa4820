"""Coordinate grids; knows nothing of networks."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import ConfigError

Bounds = tuple[float, float, float, float]
UNIT: Bounds = (0.0, 0.0, 1.0, 1.0)


class Grid(Protocol):
    """A picture's pixels as points of the plane, listed row by row."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def points(self, start: int, stop: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return pixels `start` to `stop` (row-major) as homogeneous points (x, y, 1), [stop-start, 3]."""
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

    def points(self, start: int, stop: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        index = torch.arange(start, stop, device=device)
        x0, y0, x1, y1 = self.bounds
        x = spread(index % self.width, count=self.width, low=x0, high=x1)
        y = spread(index.div(self.width, rounding_mode="floor"), count=self.height, low=y0, high=y1)
        return torch.stack([x, y, torch.ones_like(x)], dim=-1).to(dtype)  # [P, 3]


@dataclass(frozen=True)
class LearnedGrid:
    """The grid that a released snapshot learned with its weights: one free point (x, y) a pixel, [P, 2]."""

    coordinates: Tensor
    width: int
    height: int

    def points(self, start: int, stop: int, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return homogeneous(self.coordinates[start:stop].to(device=device, dtype=dtype))


def spread(index: Tensor, *, count: int, low: float, high: float) -> Tensor:
    """Return positions low + i (high-low)/(count-1) in float64, for integers i [P]."""
    if count == 1:
        return torch.full_like(index, 0.5 * (low + high), dtype=torch.float64)
    return low + index.double() * (high - low) / (count - 1)


def homogeneous(coordinates: Tensor) -> Tensor:
    """Append the constant 1 to points (x, y): [..., 2] to [..., 3]."""
    return torch.cat([coordinates, torch.ones_like(coordinates[..., :1])], dim=-1)
