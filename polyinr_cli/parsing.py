"""Parse sizes, windows and viewports as a person types them."""

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.models.coordinates import Window
    from polyinr_core.rendering.viewport import Matrix, Viewport

TRAINED_WINDOW = (0.0, 0.0, 1.0, 1.0)
MAX_SIZE = 2**20  # pixels per axis
MAX_WINDOW_COORDINATE = 1e6  # of --grid
MAX_COORDINATE = 1e12  # of the other coordinates, and of angles
MAX_SUPERSAMPLE = 64
MIN_ZOOM, MAX_ZOOM = 1e-6, 1e15


def parse_size(text: str) -> tuple[int, int]:
    """Parse "640x360" or "256" as (width, height). Raises RequestError."""
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", text.strip(), re.ASCII)
    if match is None:
        raise RequestError(f"size {text!r} is invalid; write 256 or 640x360")
    numbers = [match[1], match[2] or match[1]]
    for digits in numbers:
        if len(digits) > 12 or not 1 <= int(digits) <= MAX_SIZE:
            raise RequestError(f"size {text.strip()[:40]} is outside 1-{MAX_SIZE} pixels per axis")
    return int(numbers[0]), int(numbers[1])


def parse_res_or_size(res: int | None, size: str | None) -> tuple[int, int] | None:
    """Return (width, height) by --res or --size, None without both. Raises RequestError."""
    if res is not None and size is not None:
        raise RequestError("--res and --size both give the size; give one of the two")
    text = size if res is None else str(res)
    return None if text is None else parse_size(text)


def parse_window(text: str) -> "Window":
    """Parse "A:B" or "X0:X1,Y0:Y1" as (x0, y0, x1, y1). Raises RequestError."""
    spans = [_parse_span(part, text) for part in text.split(",")]
    if len(spans) > 2:
        raise RequestError(f"window {text!r} has {len(spans)} spans; write A:B or X0:X1,Y0:Y1")
    (x0, x1), (y0, y1) = spans[0], spans[-1]
    return x0, y0, x1, y1


def _parse_span(part: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(number) for number in part.split(":"))
    except ValueError:
        raise RequestError(f"window {text!r} is invalid; write A:B or X0:X1,Y0:Y1") from None
    if not all(math.isfinite(v) and abs(v) <= MAX_WINDOW_COORDINATE for v in (low, high)):
        raise RequestError(f"window {text!r} is outside -{MAX_WINDOW_COORDINATE:g} to {MAX_WINDOW_COORDINATE:g}")
    if low == high:
        raise RequestError(f"window {text!r} is empty: it begins and ends at {low:g}")
    return low, high


@dataclass(frozen=True)
class ViewportOptions:
    """The options --res, --size, --grid ... --supersample; the model may still have to give the size."""

    size: "tuple[int, int] | None" = None
    window: "Window | None" = None  # None: square pixels, the shorter side spans the trained window
    center: tuple[float, float] | None = None  # with a zoom, in place of the window
    zoom: float = 1.0
    rotate: float = 0.0
    shear: tuple[float, float] = (0.0, 0.0)
    transform: "Matrix | None" = None
    warp: str | None = None  # a name, or the file of a coordinate map
    supersample: int = 1
    coordinate_map: "Tensor | None" = None

    @property
    def is_sized(self) -> bool:
        """Whether the options give the size."""
        return self.size is not None or self.coordinate_map is not None

    def check_unused(self) -> None:
        """Raise RequestError if any option was given, where the result is latents."""
        if self != ViewportOptions():
            raise RequestError("latents have no size and no window; leave the options for them out")

    def viewport(self, resolution: int) -> "Viewport":
        """Return the viewport, of resolution x resolution pixels where no size was given. Raises ConfigError."""
        from polyinr_core.rendering.viewport import IDENTITY, Viewport, compose, rotation, shear, window_around

        width, height = self.size or self._map_size() or (resolution, resolution)
        window = self.window
        if self.center is not None:
            window = window_around(self.center, self.zoom, width, height)
        warp = None if self.coordinate_map is not None else self.warp
        plain = Viewport(width, height, window, IDENTITY, warp, self.coordinate_map, self.supersample)  # type: ignore[arg-type]
        window = plain.window
        center = ((window[0] + window[2]) / 2, (window[1] + window[3]) / 2)
        matrix = self.transform or IDENTITY
        if self.shear != (0.0, 0.0):
            matrix = compose(shear(*self.shear, center), matrix)
        if self.rotate:
            matrix = compose(rotation(self.rotate, center), matrix)
        return replace(plain, matrix=matrix)

    def _map_size(self) -> tuple[int, int] | None:
        coordinates = self.coordinate_map
        return None if coordinates is None else (coordinates.shape[1], coordinates.shape[0])


def parse_viewport_options(
    *,
    res: int | None = None,
    size: str | None = None,
    grid: str | None = None,
    stretch: bool = False,
    center: str | None = None,
    zoom: float | None = None,
    rotate: float = 0.0,
    shear: str | None = None,
    transform: str | None = None,
    warp: str | None = None,
    supersample: int = 1,
) -> ViewportOptions:
    """Parse the options. Raises RequestError, FileError."""
    is_centered = center is not None or zoom is not None
    if grid is not None and is_centered:
        raise RequestError("--grid and --center or --zoom both give the window; give one of the two")
    if stretch and (grid is not None or is_centered):
        raise RequestError("--stretch shows the trained window; leave --grid, --center and --zoom out")
    if zoom is not None and not MIN_ZOOM <= zoom <= MAX_ZOOM:
        raise RequestError(f"--zoom {zoom:g} is outside {MIN_ZOOM:g} to {MAX_ZOOM:g}")
    if not 1 <= supersample <= MAX_SUPERSAMPLE:
        raise RequestError(f"--supersample {supersample} is outside 1-{MAX_SUPERSAMPLE}")
    center_point = None
    if center is not None or zoom is not None:
        center_point = (0.5, 0.5) if center is None else _parse_pair(center, "--center")
    window = TRAINED_WINDOW if stretch else None if grid is None else parse_window(grid)
    coordinates = None if warp is None else _load_coordinate_map(warp)
    if coordinates is not None and (window not in (None, TRAINED_WINDOW) or center_point is not None):
        raise RequestError("a coordinate map places every pixel: leave --grid, --center and --zoom out")
    return ViewportOptions(
        size=parse_res_or_size(res, size),
        window=window,
        center=center_point,
        zoom=zoom or 1.0,
        rotate=_check_range(rotate, "--rotate"),
        shear=(0.0, 0.0) if shear is None else _parse_pair(shear if "," in shear else f"{shear},0", "--shear"),
        transform=None if transform is None else _parse_matrix(transform),
        warp=warp,
        supersample=supersample,
        coordinate_map=coordinates,
    )


def _parse_numbers(text: str, option: str, count: int, example: str) -> list[float]:
    try:
        numbers = [_check_range(float(part), option) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise RequestError(f"{option} {text!r} is invalid; write {count} numbers such as {example}")
    return numbers


def _parse_pair(text: str, option: str) -> tuple[float, float]:
    x, y = _parse_numbers(text, option, 2, "0.5,0.25")
    return x, y


def _parse_matrix(text: str) -> "Matrix":
    from polyinr_core.rendering.viewport import determinant

    a, b, c, d, e, f, g, h, i = _parse_numbers(text, "--transform", 9, "1,0,0.1,0,1,0,0,0,1")
    matrix = ((a, b, c), (d, e, f), (g, h, i))
    if determinant(matrix) == 0:
        raise RequestError(f"--transform {text} maps the plane onto a line; its determinant is 0")
    return matrix


def _check_range(number: float, option: str) -> float:
    if not abs(number) <= MAX_COORDINATE:
        raise RequestError(f"{option} {number} is outside -{MAX_COORDINATE:g} to {MAX_COORDINATE:g}")
    return number


def _load_coordinate_map(warp: str) -> "Tensor | None":
    """Load the coordinate map of --warp, None if it names a warp. Raises RequestError, FileError."""
    from polyinr_core.rendering.viewport import WARPS

    if warp in WARPS:
        return None
    path = Path(warp)
    if path.suffix.lower() != ".npy":
        raise RequestError(f"--warp {warp!r} is unknown; use {', '.join(WARPS)}, or the .npy file of a coordinate map")
    import numpy as np
    import torch

    from polyinr_core.runtime.atomic_io import explain
    from polyinr_core.runtime.tensor_files import ARRAY_ERRORS

    try:
        coordinates = np.load(path, allow_pickle=False)
    except OSError as error:
        raise explain(path, error) from error
    except ARRAY_ERRORS as error:
        raise FileError(path, "not a .npy file of numbers") from error
    if not isinstance(coordinates, np.ndarray):
        raise FileError(path, "an .npz archive; a .npy file of one array is needed")
    shape, dtype = list(coordinates.shape), coordinates.dtype
    if coordinates.ndim != 3 or shape[2] != 2 or 0 in shape or dtype.kind not in "fiu":
        raise FileError(path, f"{shape} {dtype} is not a coordinate map; x, y of each pixel are needed, [H, W, 2]")
    with np.errstate(over="ignore"):
        coordinates = coordinates.astype(np.float64)
    if not np.isfinite(coordinates).all():
        raise FileError(path, "holds NaN or Inf")
    if np.abs(coordinates).max() > MAX_COORDINATE:
        raise FileError(path, f"holds {np.abs(coordinates).max():g}; coordinates up to {MAX_COORDINATE:g} are allowed")
    return torch.from_numpy(coordinates)
