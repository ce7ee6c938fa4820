"""Coordinate grids: where an image's pixels lie in the plane. Nothing here knows of networks."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError

Window = tuple[float, float, float, float]  # x0, y0, x1, y1; x to the right, y down
UNIT: Window = (0.0, 0.0, 1.0, 1.0)  # the window that models are trained on


class Grid(Protocol):
    """The coordinates of an image's pixels, in row-major order."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return homogeneous coordinates (x, y, 1) [P, 3] of the pixels at row-major indices `index` [P]."""
        ...


@dataclass(frozen=True)
class RegularGrid:
    """Pixel i of W lies at x0 + i (x1-x0)/(W-1): the outermost pixels lie on the window's borders.

    A single row or column lies in the middle of the window. Coordinates are computed in float64 and rounded once, so
    a pixel has the same coordinates in any tile. Raises ConfigError.
    """

    width: int
    height: int
    window: Window = UNIT

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"a grid of {self.width}x{self.height} pixels is empty")
        x0, y0, x1, y1 = self.window
        if not (abs(x0) + abs(x1) + abs(y0) + abs(y1) < float("inf")) or x0 == x1 or y0 == y1:
            raise ConfigError(f"the window {x0}:{x1},{y0}:{y1} has no extent")

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return coordinates (x, y, 1) [P, 3] of the pixels at `index` [P]."""
        x0, y0, x1, y1 = self.window
        x = positions(index % self.width, count=self.width, low=x0, high=x1)
        y = positions(index.div(self.width, rounding_mode="floor"), count=self.height, low=y0, high=y1)
        return torch.stack([x, y, torch.ones_like(x)], dim=-1).to(dtype)  # [P, 3]

    def coordinates(self, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """Return coordinates (x, y, 1) [H W, 3] of all pixels."""
        return coordinates_at(self, torch.arange(self.width * self.height, device=device), dtype=dtype)


@dataclass(frozen=True)
class LearnedGrid:
    """The grid that an official checkpoint learned with its weights: free coordinates (x, y) for each pixel, [P, 2]."""

    xy: Tensor
    width: int
    height: int
    copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return coordinates (x, y, 1) [P, 3] of the pixels at `index` [P]."""
        return homogeneous(copy_on(index.device, self.xy, self.copies)[index].to(dtype))


@dataclass(frozen=True)
class SubGrid:
    """A rectangle of a grid's pixels whose upper left corner is at column `left` and row `top`."""

    parent: Grid
    left: int
    top: int
    width: int
    height: int

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return coordinates [P, 3] of the pixels at `index` [P] of the rectangle."""
        row = index.div(self.width, rounding_mode="floor") + self.top
        return self.parent.at(row * self.parent.width + index % self.width + self.left, dtype=dtype)


@dataclass(frozen=True)
class BlendGrid:
    """Coordinates for a blend of K images: each (x, y, 1) K times, multiplied by the pixel's weights [K, H, W].

    The weights of a pixel add up to 1, so K images' affine parameters stacked to [3 K, n] give exactly the blend of
    their modulations. A `grid` that is `supersample` times as fine shares the weights among k x k pixels.
    """

    grid: Grid
    weights: Tensor
    supersample: int = 1
    copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def width(self) -> int:
        return self.grid.width

    @property
    def height(self) -> int:
        return self.grid.height

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return weighted coordinates [P, 3 K] of the pixels at `index` [P]."""
        row = index.div(self.width, rounding_mode="floor") // self.supersample
        column = index % self.width // self.supersample
        weights = copy_on(index.device, self.weights, self.copies)[:, row, column].to(dtype)  # [K, P]
        coordinates = self.grid.at(index, dtype=dtype)
        return (weights.T.unsqueeze(-1) * coordinates.unsqueeze(1)).flatten(1)  # [P, 3 K]


def copy_on(
    device: torch.device, tensor: Tensor, copies: dict[torch.device, Tensor], dtype: torch.dtype | None = None
) -> Tensor:
    """Return a tensor on a device, in `dtype` if given: it is copied once, however many chunks of pixels ask for it."""
    if tensor.device == device and dtype in (None, tensor.dtype):
        return tensor
    if device not in copies:
        copies[device] = tensor.to(device, dtype)
    return copies[device]


def coordinates_at(grid: Grid, index: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Return `grid.at(index)` on the device of `index`, computed on the CPU if that device has no float64."""
    return grid.at(without_metal(index), dtype=dtype).to(index.device)


def without_metal(tensor: Tensor) -> Tensor:
    """Return a tensor on a device that has float64: itself, or its copy on the CPU if it is on Apple's Metal (MPS)."""
    return tensor.cpu() if tensor.device.type == "mps" else tensor


def positions(index: Tensor, *, count: int, low: float, high: float) -> Tensor:
    """Return low + i (high-low)/(count-1) in float64 for integers i [P]; the middle where `count` is 1."""
    if count == 1:
        return torch.full_like(index, 0.5 * (low + high), dtype=torch.float64)
    return low + index.double() * (high - low) / (count - 1)


def homogeneous(xy: Tensor) -> Tensor:
    """Append the constant 1 to coordinates (x, y): [..., 2] to [..., 3]."""
    return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
