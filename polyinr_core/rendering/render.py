"""Render images of any size, as bands of rows, in memory that does not depend on the size."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.images.grid import Pixels, blank, draw_frame, fill_rows
from polyinr_core.latents.latents import Latents
from polyinr_core.models.coordinates import BlendGrid, Grid, SubGrid, Window, coordinates_at

from .adaptive import has_tiles, tiled
from .backends import Backend, select_backend
from .viewport import Viewport

if TYPE_CHECKING:
    from .model import Model

# pixels per product, on a CPU and on a GPU, which few would leave idle: fixed, so that a pixel's arithmetic never
# depends on the image's size; and where the number of pixels is not known in advance
CHUNK, GPU_CHUNK = 2048, 2**14
SMALL_CHUNK, SMALL_GPU_CHUNK = 512, 2**13
CPU_BATCH_PIXELS, GPU_BATCH_PIXELS = 2**14, 2**17  # per product where several images are rendered together
FRAME_FRACTION = 200  # a frame is 1/200 of the shorter side thick
FINE_PITCH = 4  # pixels per training pixel; an image has no finer detail
PYRAMID_SUPERSAMPLE = 4  # of downscaled images with larger pixels than that


@dataclass(frozen=True)
class Renderer:
    """How images are rendered.

    Attributes:
        model: The model.
        viewport: The size and the window.
        bits: 8 or 16 per color channel.
        blend_weights: [K, H, W], where an image is a blend of K images, whose affine parameters are stacked
            (`stack_affine`).
        frame: A window x0, y0, x1, y1 around which a frame is drawn, in images but not in arrays.
        tolerance: Steps of 255 that 99.9 % of the pixels may be off by; 0 is exact.
    """

    model: "Model"
    viewport: Viewport
    bits: int = 8
    blend_weights: Tensor | None = None
    frame: Window | None = None
    tolerance: float = 0.0

    @property
    def width(self) -> int:
        return self.viewport.width

    @property
    def height(self) -> int:
        return self.viewport.height

    @cached_property
    def grid(self) -> Grid:
        """The coordinates of the pixels."""
        grid = self.model.grid(self.viewport)
        return grid if self.blend_weights is None else BlendGrid(grid, self.blend_weights, self.viewport.supersample)

    def rows(self, latents: Latents, grid: Grid | None = None) -> Iterator[Tensor]:
        """Render one image, completed to its affine parameters, as bands [rows, W, 3], about -1 to 1.

        `grid` is a part of this renderer's, by default all of it.
        """
        affine, grid = self.model.affine_of(latents)[0], self.grid if grid is None else grid
        supersample = self.viewport.supersample
        return render_rows(self.model.backend, affine, grid, supersample=supersample, tolerance=self.tolerance)

    def fill(self, target: Pixels, latents: Latents, *, progress: Callable[[int], None] | None = None) -> None:
        """Render one image into an array [H, W, 3]; `progress` is called with the rows of each band."""
        fill_rows(target, self.rows(latents), progress=progress)
        self._draw_frame(target)

    def tile(self, latents: Latents, *, left: int, top: int, width: int, height: int) -> Pixels:
        """Render a rectangle of one image's pixels: [height, width, 3]."""
        k = self.viewport.supersample
        pixels = blank((width, height), bits=self.bits)
        fill_rows(pixels, self.rows(latents, SubGrid(self.grid, k * left, k * top, k * width, k * height)))
        self._draw_frame(pixels, left=left, top=top)
        return pixels

    def downscaled(self, level: int) -> "Renderer":
        """Return the renderer of the image with pixels 2^level times as large, for a pyramid.

        Pixels too large to show all that the model knows are averages of several samples.
        """
        viewport, weights = self.viewport.downscaled(level), self.blend_weights
        if level and viewport.pitch * self.model.resolution * FINE_PITCH > 1:
            viewport = replace(viewport, supersample=max(viewport.supersample, PYRAMID_SUPERSAMPLE))
        if level and weights is not None:
            weights = functional.avg_pool2d(weights, 2**level, ceil_mode=True)
        return replace(self, viewport=viewport, blend_weights=weights)

    def _draw_frame(self, pixels: Pixels, *, left: int = 0, top: int = 0) -> None:
        """Draw the frame into the image's pixels from `left` and `top` on, in place."""
        if self.frame is None:
            return
        columns, rows = self.viewport.axes()
        x0, y0, x1, y1 = self.frame
        xs = [(x - columns.first) / columns.pitch - left for x in (x0, x1)]
        ys = [(y - rows.first) / rows.pitch - top for y in (y0, y1)]
        thickness = max(1, round(min(self.width, self.height) / FRAME_FRACTION))
        draw_frame(pixels, (min(xs), min(ys), max(xs) + 1, max(ys) + 1), thickness=thickness)  # the border is inside


@torch.no_grad()
def render_rows(
    network: Backend,
    affine: Tensor,
    grid: Grid,
    *,
    rows: int | None = None,
    supersample: int = 1,
    tolerance: float = 0.0,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, 3] of one image, from top to bottom, about [-1, 1].

    Pixels are computed in chunks of one fixed shape, the last one padded, so an image is the same to the last
    bit whatever the bands.

    Args:
        network: A synthesis network, or its backend.
        affine: [L, 3, n]; its dtype and device are those of the coordinates.
        grid: The coordinates.
        rows: Per band; by default about a chunk of pixels.
        supersample: k, if each k x k samples of the grid are averaged to a pixel.
        tolerance: Steps of 255 that 99.9 % of the pixels may be off by. Pixels are then evaluated only where a
            coarser lattice does not predict them (`adaptive`); images less than 65 pixels wide or high always
            are.
    """
    backend = select_backend(network, affine.device)

    def colors(coordinates: Tensor) -> Tensor:
        return backend(affine.unsqueeze(0), coordinates)[0]

    def evaluate(grid: Grid, index: Tensor) -> Tensor:
        return torch.cat([affine.new_empty(0, 3), *in_chunks(colors, grid, affine, index=index)])

    if tolerance and has_tiles(grid):
        chunks = tiled(evaluate, grid, tolerance=tolerance, device=affine.device)
    else:
        chunks = in_chunks(colors, grid, affine)
    yield from in_bands(chunks, grid, rows=rows, supersample=supersample)


def pixels_per_chunk(device: torch.device, *, are_scattered: bool = False) -> int:
    """Return the pixels per product of an image, or of scattered pixels of it."""
    on_cpu, on_gpu = (SMALL_CHUNK, SMALL_GPU_CHUNK) if are_scattered else (CHUNK, GPU_CHUNK)
    return on_cpu if device.type == "cpu" else on_gpu


def pixels_per_batch(device: torch.device) -> int:
    """Return the pixels per product where several images are rendered together."""
    return CPU_BATCH_PIXELS if device.type == "cpu" else GPU_BATCH_PIXELS


def in_chunks(
    values: Callable[[Tensor], Tensor], grid: Grid, like: Tensor, *, index: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield values(coordinates [chunk, 3]) of a grid's pixels, chunk after chunk [P, C]; the last is cut short.

    The pixels are those of `index` [K], by default all. The coordinates have the dtype and the device of `like`.
    """
    total = grid.width * grid.height if index is None else len(index)
    chunk = pixels_per_chunk(like.device, are_scattered=index is not None)
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        chosen = torch.arange(start, stop, device=like.device) if index is None else index[start:stop]
        coordinates = coordinates_at(grid, chosen, dtype=like.dtype)
        if len(coordinates) < chunk:
            coordinates = functional.pad(coordinates, (0, 0, 0, chunk - len(coordinates)))
        yield values(coordinates)[: stop - start]


def in_bands(
    chunks: Iterable[Tensor], grid: Grid, *, rows: int | None = None, supersample: int = 1
) -> Iterator[Tensor]:
    """Join chunks [P, C] of a grid's pixels to bands [rows, W, C], each k x k of them averaged to one."""
    missing = grid.width * grid.height
    pending: list[Tensor] = []
    held, needed = 0, 0
    for chunk in chunks:
        if not needed:
            rows = supersample * (rows or max(1, pixels_per_chunk(chunk.device) // (grid.width * supersample)))
            needed = min(grid.height, rows) * grid.width
        pending.append(chunk)
        held += len(chunk)
        missing -= len(chunk)
        while held >= needed or (not missing and held):
            joined = torch.cat(pending) if len(pending) > 1 else pending[0]
            take = min(needed, held)
            yield averaged(joined[:take].unflatten(0, (-1, grid.width)), supersample)
            pending, held = [joined[take:]], held - take


def averaged(band: Tensor, supersample: int) -> Tensor:
    """Average each k x k values of a band [k R, k W, C] to one: [R, W, C]."""
    if supersample == 1:
        return band
    return band.unflatten(1, (-1, supersample)).unflatten(0, (-1, supersample)).mean(dim=(1, 3))
