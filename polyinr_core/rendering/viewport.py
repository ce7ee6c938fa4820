"""The viewport: which part of the plane an image shows, at which size, rotated, sheared, warped, supersampled."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import UNIT, Grid, RegularGrid, Window, copy_on, homogeneous

Matrix = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]
Warp = Literal["fisheye", "polar"]
WARPS: tuple[Warp, ...] = get_args(Warp)
IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
MAX_ANGLE = math.radians(85)  # of a fisheye lens: at 90 degrees there is no image
BORDER_ANGLE = math.radians(45)  # of a fisheye lens, at the nearest border


@dataclass(frozen=True)
class Viewport:
    """An image's size and the coordinates of its pixels.

    Attributes:
        width, height: The size in pixels.
        window: x0, y0, x1, y1, the centers of the outermost pixels; a single row or column is in the middle. By
            default pixels are square and the shorter side spans the trained window: another shape than a square shows
            more of the plane. UNIT stretches the trained window to the size.
        matrix: A homography that maps the window's points (x, y, 1), as columns, to those of the plane.
        warp: "fisheye" or "polar", applied within the window before the matrix.
        coordinate_map: [H', W', 2], in place of a warp: the point (x, y) of each pixel, interpolated where the
            size is another.
        supersample: Samples per pixel and axis, k x k in all, whose colors are averaged.
        parent: The viewport that this one is downscaled from; a warp and a coordinate map refer to its window.

    Raises ConfigError for an empty size or window, or a singular matrix.
    """

    width: int
    height: int
    window: Window = None  # type: ignore[assignment]  # `__post_init__` computes it from the size
    matrix: Matrix = IDENTITY
    warp: Warp | None = None
    coordinate_map: Tensor | None = None
    supersample: int = 1
    parent: "Viewport | None" = None

    def __post_init__(self) -> None:
        if self.window is None:
            shape = window_around((0.5, 0.5), 1.0, self.width, self.height) if self.coordinate_map is None else UNIT
            object.__setattr__(self, "window", shape)
        RegularGrid(self.width, self.height, self.window)  # or it raises ConfigError
        if self.supersample < 1:
            raise ConfigError(f"supersample {self.supersample} is less than 1")
        if not all(math.isfinite(number) for row in self.matrix for number in row):
            raise ConfigError("the matrix holds NaN or Inf")
        if not abs(determinant(self.matrix)) > 0:
            raise ConfigError("the matrix maps the plane onto a line; its determinant is 0")

    @property
    def is_axis_aligned(self) -> bool:
        """Whether this is a plain window: no matrix, warp, map or supersampling."""
        return self.matrix == IDENTITY and self.warp is None and self.coordinate_map is None and self.supersample == 1

    @property
    def pitch(self) -> float:
        """The larger distance between the centers of neighboring pixels."""
        return max(abs(axis.pitch) for axis in self.axes())

    def axes(self) -> "tuple[Axis, Axis]":
        """Return the positions of the columns and of the rows."""
        x0, y0, x1, y1 = self.window
        return Axis.between(x0, x1, self.width), Axis.between(y0, y1, self.height)

    def grid(self) -> Grid:
        """Return the coordinates: one sample per pixel, or k x k in k times as many columns and rows."""
        if self.is_axis_aligned:
            return RegularGrid(self.width, self.height, self.window)
        columns, rows = (axis.divided(self.supersample) for axis in self.axes())
        return ViewportGrid(self, RegularGrid(columns.count, rows.count, _bounds(columns, rows)))

    def downscaled(self, level: int) -> "Viewport":
        """Return the viewport with pixels 2^level times as large, ceil(size / 2^level) per axis.

        A large pixel covers exactly the small ones that it replaces, or would do at the right and lower border.
        """
        if level == 0:
            return self
        columns, rows = (axis.joined(2**level) for axis in self.axes())
        window, parent = _bounds(columns, rows), self.parent or self
        return replace(self, width=columns.count, height=rows.count, window=window, parent=parent)


@dataclass(frozen=True)
class Axis:
    """`count` pixels along an axis: the first is centered at `first`, the next ones follow at distance `pitch`."""

    first: float
    pitch: float
    count: int

    @classmethod
    def between(cls, low: float, high: float, count: int) -> "Axis":
        """Return pixels from low to high, both included; a single one is in the middle and covers all."""
        if count == 1:
            return cls(0.5 * (low + high), high - low, 1)
        return cls(low, (high - low) / (count - 1), count)

    @property
    def ends(self) -> tuple[float, float]:
        """The low and high that `between` makes this axis of."""
        if self.count == 1:
            return self.first - 0.5 * self.pitch, self.first + 0.5 * self.pitch
        return self.first, self.first + (self.count - 1) * self.pitch

    def divided(self, parts: int) -> "Axis":
        """Split each pixel into so many parts."""
        if parts == 1:
            return self
        pitch = self.pitch / parts
        return Axis(self.first - 0.5 * self.pitch + 0.5 * pitch, pitch, self.count * parts)

    def joined(self, pixels: int) -> "Axis":
        """Join so many pixels into one, or all there are."""
        pixels = min(pixels, self.count)
        return Axis(self.first + 0.5 * (pixels - 1) * self.pitch, self.pitch * pixels, -(-self.count // pixels))


@dataclass(frozen=True)
class ViewportGrid:
    """The coordinates of a viewport: a regular grid over its window, warped and mapped."""

    viewport: Viewport
    regular: RegularGrid
    copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def width(self) -> int:
        return self.regular.width

    @property
    def height(self) -> int:
        return self.regular.height

    def at(self, index: Tensor, *, dtype: torch.dtype) -> Tensor:
        """Return coordinates (x, y, 1) [P, 3] of the pixels at `index` [P].

        Raises ConfigError where the matrix sends one to infinity.
        """
        viewport = self.viewport
        parent = viewport.parent or viewport
        xy = self.regular.at(index, dtype=torch.float64)[:, :2]
        x0, y0, x1, y1 = parent.window
        low, extent = xy.new_tensor([x0, y0]), xy.new_tensor([x1 - x0, y1 - y0])
        if viewport.warp is not None:
            half = extent.abs() / 2
            middle = low + extent / 2
            bend = fisheye if viewport.warp == "fisheye" else polar
            aspect = xy.new_tensor([parent.width, parent.height]) / min(parent.width, parent.height)
            xy = middle + half * bend((xy - middle) / half, aspect)  # [-1, 1] in both directions
        if viewport.coordinate_map is not None:
            coordinate_map = copy_on(xy.device, viewport.coordinate_map, self.copies, xy.dtype)
            xy = sample_map((xy - low) / extent, coordinate_map)
        coordinates = homogeneous(xy)  # [P, 3]
        if viewport.matrix != IDENTITY:
            coordinates = coordinates @ xy.new_tensor(viewport.matrix).T
            if not (coordinates[:, 2] != 0).all():
                raise ConfigError("the matrix sends a pixel to infinity; change its last row a little")
            coordinates = coordinates / coordinates[:, 2:]
        return coordinates.to(dtype)


def window_around(center: tuple[float, float], zoom: float, width: int, height: int) -> Window:
    """Return the window around a point whose shorter side spans 1 / zoom, with square pixels. Raises ConfigError."""
    shorter = max(1, min(width, height) - 1)
    half_width, half_height = (max(1, count - 1) / shorter / zoom / 2 for count in (width, height))
    x, y = center
    if x - half_width == x + half_width or y - half_height == y + half_height:
        raise ConfigError(f"zoom {zoom:g} is beyond float64's resolution at {x:g},{y:g}")
    return x - half_width, y - half_height, x + half_width, y + half_height


def scaled_size(size: tuple[int, int], longer_side: int) -> tuple[int, int]:
    """Return (width, height) in pixels of the same aspect ratio with another longer side."""
    scale = longer_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def determinant(matrix: Matrix) -> float:
    """Return the determinant of a 3 x 3 matrix."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def compose(first: Matrix, then: Matrix) -> Matrix:
    """Return the matrix that applies `first`, and then `then`."""
    cells = [[sum(then[i][k] * first[k][j] for k in range(3)) for j in range(3)] for i in range(3)]
    return (tuple(cells[0]), tuple(cells[1]), tuple(cells[2]))  # type: ignore[return-value]


def rotation(degrees: float, center: tuple[float, float]) -> Matrix:
    """Return the matrix that shows the plane rotated clockwise about a point."""
    angle = math.radians(degrees)
    return _about(center, math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle))


def shear(across: float, down: float, center: tuple[float, float]) -> Matrix:
    """Return the matrix that shows the plane sheared about a point: x moves by `across` a unit of y.

    Raises ConfigError.
    """
    det = 1.0 - across * down
    if not abs(det) > 0:
        raise ConfigError(f"a shear by {across:g},{down:g} maps the plane onto a line")
    return _about(center, 1 / det, -across / det, -down / det, 1 / det)


def _about(center: tuple[float, float], a: float, b: float, c: float, d: float) -> Matrix:
    """Return the map (a b; c d) that keeps a point fixed."""
    x, y = center
    return (a, b, x - a * x - b * y), (c, d, y - c * x - d * y), (0.0, 0.0, 1.0)


def _bounds(columns: Axis, rows: Axis) -> Window:
    (x0, x1), (y0, y1) = columns.ends, rows.ends
    return x0, y0, x1, y1


def fisheye(frame: Tensor, aspect: Tensor) -> Tensor:
    """Map frame [P, 2] in [-1, 1] through an equidistant fisheye lens.

    The distance from the middle becomes an angle, 45 degrees at the nearer borders. `aspect` [2] is the image's
    size over the shorter axis, so that circles stay circles.
    """
    point = frame * aspect
    radius = point.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    reach = torch.tan((BORDER_ANGLE * radius).clamp(max=MAX_ANGLE)) / math.tan(BORDER_ANGLE)
    return point * (reach / radius) / aspect


def polar(frame: Tensor, aspect: Tensor) -> Tensor:
    """Map frame [P, 2] in [-1, 1] from polar coordinates around the middle.

    The window's upper border becomes the middle, the lower one the largest circle, and the left and right ones
    meet straight below.
    """
    point = frame * aspect
    angle = torch.atan2(point[:, 0], -point[:, 1])  # 0 straight above, growing clockwise
    return torch.stack([angle / math.pi, 2 * point.norm(dim=-1) - 1], dim=-1)


def sample_map(frame: Tensor, coordinates: Tensor) -> Tensor:
    """Sample coordinates [H, W, 2] bilinearly at frame [P, 2] in [0, 1], extrapolated linearly beyond the border."""
    height, width, _ = coordinates.shape
    where = frame * frame.new_tensor([width - 1, height - 1])
    last = torch.tensor([max(width - 2, 0), max(height - 2, 0)], device=frame.device)
    cell = where.floor().long().clamp(min=0).minimum(last)
    x, y = (where - cell).split(1, dim=-1)
    left, top = cell.unbind(dim=-1)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    upper = torch.lerp(coordinates[top, left], coordinates[top, right], x)
    lower = torch.lerp(coordinates[bottom, left], coordinates[bottom, right], x)
    return torch.lerp(upper, lower, y)
