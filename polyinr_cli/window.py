"""From the options that say how large and where, to a view: size, window, turn, shear, map, warp, supersample."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

from .notes import Note

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.models.coordinates import Bounds
    from polyinr_core.rendering.viewport import Matrix, Viewport

WHOLE = "0:1"
MAX_SUPERSAMPLE = 64
LARGEST = 1e12  # of a coordinate or angle


@dataclass(frozen=True)
class Window:
    """What was asked for; the model may still have to say the size."""

    sides: "tuple[int, int] | None" = None
    bounds: "Bounds" = (0.0, 0.0, 1.0, 1.0)
    center: tuple[float, float] | None = None  # with a zoom, in place of bounds
    zoom: float = 1.0
    rotate: float = 0.0
    shear: tuple[float, float] = (0.0, 0.0)
    transform: "Matrix | None" = None
    warp: str | None = None  # a name, or the file of a map
    supersample: int = 1
    places: "Tensor | None" = None

    @property
    def is_default(self) -> bool:
        """Whether nothing at all was asked for."""
        return self == Window()

    def check_unused(self) -> None:
        """Raise RequestError if anything was asked for, where the result is latents."""
        if not self.is_default:
            raise RequestError("latents have no size and no window: leave what says them out")

    def view(self, side: int) -> "Viewport":
        """Return the view, of side x side pixels where no size was asked for. Raises ConfigError."""
        from polyinr_core.rendering.viewport import IDENTITY, Viewport, compose, rotation, shear

        width, height = self.sides or self._mapped_sides() or (side, side)
        bounds = self.bounds
        if self.center is not None:
            bounds = around(self.center, self.zoom, width, height)
        middle = ((bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2)
        matrix = self.transform or IDENTITY
        if self.shear != (0.0, 0.0):
            matrix = compose(shear(*self.shear, middle), matrix)
        if self.rotate:
            matrix = compose(rotation(self.rotate, middle), matrix)
        warp = None if self.places is not None else self.warp
        return Viewport(width, height, bounds, matrix, warp, self.places, self.supersample)  # type: ignore[arg-type]

    def note(self, view: "Viewport") -> Note:
        """Return what an image's note says of its view."""
        from polyinr_core.rendering.viewport import IDENTITY

        note: Note = {"size": [view.width, view.height], "window": list(view.window)}
        if view.matrix != IDENTITY:
            note["transform"] = [number for row in view.matrix for number in row]
        if self.warp is not None:
            note["warp"] = self.warp
        if self.supersample > 1:
            note["supersample"] = self.supersample
        return note

    def _mapped_sides(self) -> tuple[int, int] | None:
        return None if self.places is None else (self.places.shape[1], self.places.shape[0])


def parse_window_options(
    *,
    res: int | None = None,
    size: str | None = None,
    grid: str = WHOLE,
    center: str | None = None,
    zoom: float | None = None,
    rotate: float = 0.0,
    shear: str | None = None,
    transform: str | None = None,
    warp: str | None = None,
    supersample: int = 1,
) -> Window:
    """Read the options. Raises RequestError, FileError."""
    from polyinr_core.images.sizes import parse_window

    if grid != WHOLE and (center is not None or zoom is not None):
        raise RequestError("--grid and --center or --zoom both say the window; give one of the two")
    if zoom is not None and not 1e-6 <= zoom <= 1e15:
        raise RequestError(f"--zoom {zoom:g} is outside 1e-6 to 1e15")
    if not 1 <= supersample <= MAX_SUPERSAMPLE:
        raise RequestError(f"--supersample {supersample} is outside 1-{MAX_SUPERSAMPLE}")
    middle = None
    if center is not None or zoom is not None:
        middle = (0.5, 0.5) if center is None else _pair(center, "--center")
    bounds, places = parse_window(grid), None if warp is None else _places(warp)
    if places is not None and (bounds != (0.0, 0.0, 1.0, 1.0) or middle is not None):
        raise RequestError("a map says where every pixel looks: leave --grid, --center and --zoom out")
    return Window(
        sides=parse_sides(res, size),
        bounds=bounds,
        center=middle,
        zoom=zoom or 1.0,
        rotate=_finite(rotate, "--rotate"),
        shear=(0.0, 0.0) if shear is None else _pair(shear if "," in shear else f"{shear},0", "--shear"),
        transform=None if transform is None else _matrix(transform),
        warp=warp,
        supersample=supersample,
        places=places,
    )


def parse_sides(res: int | None, size: str | None) -> tuple[int, int] | None:
    """Return (width, height) as asked for, None if nothing is asked. Raises RequestError."""
    from polyinr_core.images.sizes import parse_size

    if res is not None and size is not None:
        raise RequestError("--res and --size both say the size; give one of the two")
    text = size if res is None else str(res)
    return None if text is None else parse_size(text)


def around(center: tuple[float, float], zoom: float, width: int, height: int) -> "Bounds":
    """Return the window around a point whose shorter side spans 1 / zoom; its pixels are square."""
    shorter = max(1, min(width, height) - 1)
    across, down = ((max(1, side - 1) / shorter / zoom / 2) for side in (width, height))
    x, y = center
    if x - across == x + across or y - down == y + down:
        raise RequestError(f"--zoom {zoom:g} is finer than numbers can tell points apart at {x:g},{y:g}")
    return x - across, y - down, x + across, y + down


def _numbers(text: str, option: str, count: int, example: str) -> list[float]:
    """Read numbers between commas. Raises RequestError."""
    try:
        numbers = [_finite(float(part), option) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise RequestError(f"{option} {text!r} is not understood; write {count} numbers such as {example}")
    return numbers


def _pair(text: str, option: str) -> tuple[float, float]:
    x, y = _numbers(text, option, 2, "0.5,0.25")
    return x, y


def _matrix(text: str) -> "Matrix":
    from polyinr_core.rendering.viewport import determinant

    a, b, c, d, e, f, g, h, i = _numbers(text, "--transform", 9, "1,0,0.1,0,1,0,0,0,1")
    matrix = ((a, b, c), (d, e, f), (g, h, i))
    if determinant(matrix) == 0:
        raise RequestError(f"--transform {text} maps the plane onto a line; its determinant is 0")
    return matrix


def _finite(number: float, option: str) -> float:
    if not abs(number) <= LARGEST:
        raise RequestError(f"{option} {number} is no number that can be drawn with")
    return number


def _places(warp: str) -> "Tensor | None":
    """Return the map that --warp names a file of, None if it names a warp. Raises RequestError, FileError."""
    from polyinr_core.rendering.viewport import WARPS

    if warp in WARPS:
        return None
    path = Path(warp)
    if path.suffix.lower() != ".npy":
        raise RequestError(f"--warp {warp!r} is unknown; use {', '.join(WARPS)}, or the .npy file of a map")
    import numpy as np
    import torch

    from polyinr_core.runtime.atomic_io import explain
    from polyinr_core.runtime.tensor_files import ARRAY_ERRORS

    try:
        places = np.load(path, allow_pickle=False)
    except OSError as error:
        raise explain(path, error) from error
    except ARRAY_ERRORS as error:
        raise FileError(path, "not a .npy file of numbers") from error
    if not isinstance(places, np.ndarray):
        raise FileError(path, "an .npz archive, a .npy file of one array is needed")
    if places.ndim != 3 or places.shape[2] != 2 or 0 in places.shape or places.dtype.kind not in "fiu":
        shape = list(places.shape)
        raise FileError(path, f"{shape} {places.dtype} is no map; x, y of each pixel are needed, [H, W, 2] numbers")
    with np.errstate(over="ignore"):
        places = places.astype(np.float64)
    if not np.isfinite(places).all():
        raise FileError(path, "holds values that are no finite numbers")
    if np.abs(places).max() > LARGEST:
        raise FileError(path, f"holds {np.abs(places).max():g}; numbers up to {LARGEST:g} can be drawn with")
    return torch.from_numpy(places)
