"""A view: how many pixels look at which part of the plane, turned, sheared or warped, finely or coarsely."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import UNIT, Bounds, Grid, RegularGrid

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Warp = Literal["fisheye", "polar"]
WARPS: tuple[Warp, ...] = get_args(Warp)
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Viewport:
    """An image's size and where its pixels stand.

    The window `bounds` is laid under the pixels, its borders under the outermost ones. A `warp`, or `places`
    [H', W', 2] (x, y of a pixel, interpolated where the size is another), changes where in the window they
    stand, and `matrix` maps the window's points (x, y, 1), as columns, to those of the plane.

    `supersample` k divides every pixel into k x k that cover it, also half of it beyond the window's border. To
    average their colors is `render_rows`'s business. `whole` is the view that this one is reduced from, whose
    window a warp and `places` go by.
    """

    width: int
    height: int
    bounds: Bounds = UNIT
    matrix: Matrix = IDENTITY
    warp: Warp | None = None
    places: Tensor | None = None
    supersample: int = 1
    whole: "Viewport | None" = None

    def __post_init__(self) -> None:
        RegularGrid(self.width, self.height, self.bounds)  # or it raises ConfigError
        if self.supersample < 1:
            raise ConfigError(f"{self.supersample} x {self.supersample} points a pixel are none; 1 is the least")
        if not all(math.isfinite(number) for row in self.matrix for number in row):
            raise ConfigError("the matrix holds values that are no finite numbers")
        if not abs(determinant(self.matrix)) > 0:
            raise ConfigError("the matrix maps the plane onto a line; its determinant is 0")

    @property
    def is_axis_aligned(self) -> bool:
        """Whether this is a window and no more."""
        return self.matrix == IDENTITY and self.warp is None and self.places is None and self.supersample == 1

    @property
    def pitch(self) -> float:
        """The larger distance between neighboring pixels, in the window's units."""
        return max(abs(axis.pitch) for axis in self.axes())

    def axes(self) -> "tuple[Axis, Axis]":
        """Return where the columns stand, and the rows."""
        x0, y0, x1, y1 = self.bounds
        return Axis.between(x0, x1, self.width), Axis.between(y0, y1, self.height)

    def grid(self) -> Grid:
        """Return the points to draw: one a pixel, or supersample^2, in supersample x as many columns and rows."""
        if self.is_axis_aligned:
            return RegularGrid(self.width, self.height, self.bounds)
        columns, rows = (axis.divided(self.supersample) for axis in self.axes())
        return ViewportGrid(self, RegularGrid(columns.count, rows.count, _bounds(columns, rows)))

    def reduced(self, level: int) -> "Viewport":
        """Return the view with pixels 2^level times as large, ceil(side / 2^level) of them a side.

        A large pixel covers exactly the small ones that it stands for, or would do at the right and lower end.
        """
        if level == 0:
            return self
        columns, rows = (axis.joined(2**level) for axis in self.axes())
        bounds, whole = _bounds(columns, rows), self.whole or self
        return replace(self, width=columns.count, height=rows.count, bounds=bounds, whole=whole)


@dataclass(frozen=True)
class Axis:
    """`count` pixels, the first centerd at `first`, `pitch` from each to the next."""

    first: float
    pitch: float
    count: int

    @classmethod
    def between(cls, low: float, high: float, count: int) -> "Axis":
        """Pixels from low to high, both included; a single one stands in the middle and covers all."""
        if count == 1:
            return cls(0.5 * (low + high), high - low, 1)
        return cls(low, (high - low) / (count - 1), count)

    @property
    def ends(self) -> tuple[float, float]:
        """What `between` makes this axis of."""
        if self.count == 1:
            return self.first - 0.5 * self.pitch, self.first + 0.5 * self.pitch
        return self.first, self.first + (self.count - 1) * self.pitch

    def divided(self, parts: int) -> "Axis":
        """Each pixel in so many parts."""
        if parts == 1:
            return self
        pitch = self.pitch / parts
        return Axis(self.first - 0.5 * self.pitch + 0.5 * pitch, pitch, self.count * parts)

    def joined(self, pixels: int) -> "Axis":
        """So many pixels in one, or all there are."""
        pixels = min(pixels, self.count)
        return Axis(self.first + 0.5 * (pixels - 1) * self.pitch, self.pitch * pixels, -(-self.count // pixels))


@dataclass(frozen=True)
class ViewportGrid:
    """The points of a view: those of a regular grid over its window, warped and mapped."""

    view: Viewport
    regular: RegularGrid

    @property
    def width(self) -> int:
        return self.regular.width

    @property
    def height(self) -> int:
        return self.regular.height

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return the pixels of `index` [P] as points (x, y, 1), [P, 3].

        Raises ConfigError where the matrix sends one to infinity.
        """
        view, whole = self.view, self.view.whole or self.view
        points = self.regular.at(index, dtype=torch.float64)
        x0, y0, x1, y1 = whole.bounds
        low, extent = points.new_tensor([x0, y0]), points.new_tensor([x1 - x0, y1 - y0])
        if view.warp is not None:
            half = extent.abs() / 2
            middle = low + extent / 2
            bend = fisheye if view.warp == "fisheye" else polar
            aspect = points.new_tensor([whole.width, whole.height]) / min(whole.width, whole.height)
            frame = (points[:, :2] - middle) / half  # [-1, 1] in both directions
            points[:, :2] = middle + half * bend(frame, aspect)
        if view.places is not None:
            points[:, :2] = mapped((points[:, :2] - low) / extent, view.places.to(points))
        if view.matrix != IDENTITY:
            points = points @ points.new_tensor(view.matrix).T
            if not (points[:, 2] != 0).all():
                raise ConfigError("the matrix sends a pixel to infinity; change its last row a little")
            points = points / points[:, 2:]  # [P, 3]
        return points.to(dtype)


def determinant(matrix: Matrix) -> float:
    """Return the determinant of a 3 x 3 matrix."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def product(first: Matrix, then: Matrix) -> Matrix:
    """Return the matrix that does `first`, and then `then`."""
    cells = [[sum(then[i][k] * first[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
    return (tuple(cells[0]), tuple(cells[1]), tuple(cells[2]))  # type: ignore[return-value]


def turned(degrees: float, center: tuple[float, float]) -> Matrix:
    """Return the matrix that shows the plane turned clockwise about a point."""
    angle = math.radians(degrees)
    return _about(center, math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle))


def sheared(across: float, down: float, center: tuple[float, float]) -> Matrix:
    """Return the matrix that shows the plane sheared about a point: x moves by `across` a unit of y.

    Raises ConfigError.
    """
    whole = 1.0 - across * down
    if not abs(whole) > 0:
        raise ConfigError(f"a shear by {across:g},{down:g} maps the plane onto a line")
    return _about(center, 1 / whole, -across / whole, -down / whole, 1 / whole)


def _about(center: tuple[float, float], a: float, b: float, c: float, d: float) -> Matrix:
    """Return the map (a b; c d) with a point that stays."""
    x, y = center
    return (a, b, x - a * x - b * y), (c, d, y - c * x - d * y), (0.0, 0.0, 1.0)


def _bounds(columns: Axis, rows: Axis) -> Bounds:
    (x0, x1), (y0, y1) = columns.ends, rows.ends
    return x0, y0, x1, y1


WIDEST = math.radians(85)  # of a lens: straight to the side there is no image
LENS = math.radians(45)  # what a fisheye bends at the nearest border


def fisheye(frame: Tensor, aspect: Tensor) -> Tensor:
    """See the window [-1, 1]^2 through an equidistant fisheye lens: frame [P, 2] to frame [P, 2].

    The distance from the middle is an angle, 45 degrees at the nearer borders, and the window a flat wall.
    `aspect` [2] is the image's sides over the shorter one, so that circles stay circles.
    """
    point = frame * aspect
    radius = point.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    reach = torch.tan((LENS * radius).clamp(max=WIDEST)) / math.tan(LENS)
    return point * (reach / radius) / aspect


def polar(frame: Tensor, aspect: Tensor) -> Tensor:
    """Bend the window around its middle: frame [P, 2] to frame [P, 2].

    The window's upper border becomes the middle, the lower one the largest circle, and the left and right ones
    meet straight below.
    """
    point = frame * aspect
    angle = torch.atan2(point[:, 0], -point[:, 1])  # 0 straight above, growing clockwise
    return torch.stack([angle / math.pi, 2 * point.norm(dim=-1) - 1], dim=-1)


def mapped(frame: Tensor, places: Tensor) -> Tensor:
    """Look up places [H, W, 2] at frame [P, 2] in [0, 1], bilinearly; beyond the border it goes on straight."""
    height, width, _ = places.shape
    where = frame * frame.new_tensor([width - 1, height - 1])
    last = torch.tensor([max(width - 2, 0), max(height - 2, 0)], device=frame.device)
    cell = where.floor().long().clamp(min=0).minimum(last)
    x, y = (where - cell).split(1, dim=-1)
    left, top = cell.unbind(dim=-1)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    upper = torch.lerp(places[top, left], places[top, right], x)
    lower = torch.lerp(places[bottom, left], places[bottom, right], x)
    return torch.lerp(upper, lower, y)
