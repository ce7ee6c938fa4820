"""A model ready to draw, and images drawn with it: in bands, in tiles, at a view."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from .model_lookup import load_model
from .notes import Note, version
from .options import Precision
from .runtime import choose_device, choose_dtype, own_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.images.quantize import Pixels
    from polyinr_core.models.coordinates import Bounds, Grid
    from polyinr_core.models.generator import Synthesis
    from polyinr_core.rendering.backends import Backend
    from polyinr_core.rendering.viewport import Viewport

    from .window import Window

logger = logging.getLogger(__name__)

PROBED = 8  # images that tell whether a model bears bfloat16
FRAME_SHARE = 200  # a frame is a two-hundredth of the shorter side thick
FINE_ENOUGH = 4  # pixels to one of the training's: nothing smaller is in an image than that
SUPERSAMPLE = 4  # of reduced images whose pixels are larger


@dataclass(frozen=True)
class Painter:
    """A model on its device, in its number format."""

    checkpoint: "Checkpoint"
    model_file: Path
    synthesis: "Synthesis"
    drawer: "Backend"  # draws what the synthesis network draws
    dtype: "torch.dtype"
    device: "torch.device"

    def affine(self, maps: "Tensor") -> "Tensor":
        """Bring affine maps [1, L, 3, n] to where they are drawn, [L, 3, n]."""
        import torch

        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        return maps[0].to(device=self.device, dtype=wide)

    @property
    def note(self) -> Note:
        """What every image's note begins with."""
        return {
            "polyinr": version(),
            "model": self.checkpoint.sha256,
            "model_file": self.model_file.name,
            "precision": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


def load_painter(
    model: Path | None,
    *,
    precision: Precision,
    device: str,
    eight_bits: bool,
    quiet: bool,
) -> Painter:
    """Find a model and bring it to its device and number format. Raises PolyinrError.

    A GPU that is named and is not there is a warning, and the CPU draws.
    Precision auto is float32 for a model that bfloat16 would change visibly.
    """
    import torch

    from polyinr_core.rendering.backends import select_backend
    from polyinr_core.rendering.precision import in_precision

    place = own_device(choose_device(device, otherwise_cpu=True))
    dtype = choose_dtype(precision, place, eight_bits=eight_bits)
    checkpoint, model_file = load_model(model, quiet=quiet)
    checkpoint.generator.to(device=place)
    if dtype == torch.float64:
        checkpoint.generator.double()
    synthesis = in_precision(checkpoint.generator.synthesis, dtype)
    if precision is Precision.auto and dtype == torch.bfloat16 and not _bears(checkpoint, synthesis):
        logger.info("bfloat16 would change the images of %s: drawn in float32", model_file.name)
        dtype, synthesis = torch.float32, checkpoint.generator.synthesis
    drawer = select_backend(synthesis, place)
    return Painter(checkpoint, model_file, synthesis, drawer, dtype, place)


def _bears(checkpoint: "Checkpoint", narrow: "Synthesis") -> bool:
    """Whether the model's first images are the same in a narrow format, but for what nobody sees."""
    from polyinr_core.evaluation.image_sources import sample_w
    from polyinr_core.rendering.precision import is_faithful

    generator, seeds = checkpoint.generator, range(PROBED)
    w = sample_w(checkpoint, seeds, psi=1.0, label_seeds=seeds)
    return is_faithful(narrow, generator.synthesis, generator.affine(w).detach())


@dataclass(frozen=True)
class Drawing:
    """How images are drawn: by which model, at which view, in how many bits a color.

    With `shares` [K, H, W] an image is a blend of K, its maps one below the other. `frame` is drawn around a
    part of the plane, in images but not in arrays. With a `tolerance` it is drawn coarse to fine.
    """

    painter: Painter
    view: "Viewport"
    bits: int = 8
    shares: "Tensor | None" = None
    frame: "Bounds | None" = None
    tolerance: float = 0.0  # steps of 255; 0 draws exactly

    @property
    def width(self) -> int:
        return self.view.width

    @property
    def height(self) -> int:
        return self.view.height

    @cached_property
    def grid(self) -> "Grid":
        """The points to draw; the learned grid at exactly its own resolution and window."""
        from polyinr_core.models.coordinates import Blend

        view = self.view
        grid = view.grid()
        if view.is_axis_aligned:
            grid = self.painter.checkpoint.grid(view.width, view.height, bounds=view.window)
        return grid if self.shares is None else Blend(grid, self.shares, view.supersample)

    def note(self, window: "Window") -> Note:
        """Return what notes say of how it is drawn: its window, its bits if they are not 8, its tolerance."""
        note = window.note(self.view)
        if self.bits != 8:
            note["bits"] = self.bits
        if self.tolerance:
            note["tolerance"] = self.tolerance
        return note

    def bands(self, maps: "Tensor") -> "Iterator[Tensor]":
        """Draw affine maps [1, L, 3 K, n] as bands [rows, W, 3]."""
        return self._bands(maps, self.grid)

    def fill(self, target: "Pixels", maps: "Tensor", *, progress: Callable[[int], None] | None = None) -> None:
        """Draw affine maps into an image's array [H, W, 3], or into its place on a sheet."""
        from polyinr_core.images.quantize import fill_rows

        fill_rows(target, self.bands(maps), progress=progress)
        self.draw_frame(target)

    def tile(self, maps: "Tensor", *, left: int, top: int, width: int, height: int) -> "Pixels":
        """Draw a rectangle of the image's pixels: [height, width, 3]."""
        from polyinr_core.images.grid import blank
        from polyinr_core.images.quantize import fill_rows
        from polyinr_core.models.coordinates import Part

        k = self.view.supersample
        part = Part(self.grid, k * left, k * top, k * width, k * height)
        pixels = blank((width, height), bits=self.bits)
        fill_rows(pixels, self._bands(maps, part))
        self.draw_frame(pixels, left=left, top=top)
        return pixels

    def _bands(self, maps: "Tensor", grid: "Grid") -> "Iterator[Tensor]":
        """Draw affine maps at the points of a grid, or of a part of it."""
        from polyinr_core.rendering.render import render_rows

        affine = self.painter.affine(maps)
        supersample, tolerance = self.view.supersample, self.tolerance
        return render_rows(self.painter.drawer, affine, grid, supersample=supersample, tolerance=tolerance)

    def reduced(self, level: int) -> "Drawing":
        """Return how the image is drawn with pixels 2^level times as large, for a pyramid.

        Larger pixels than those that show all a model knows are averages of several points.
        """
        view = self.view.downscaled(level)
        trained = self.painter.checkpoint.resolution
        if level and view.pitch * trained * FINE_ENOUGH > 1:
            view = replace(view, supersample=max(view.supersample, SUPERSAMPLE))
        return replace(self, view=view, shares=self._shares_of(2**level))

    def _shares_of(self, pixels: int) -> "Tensor | None":
        """Return the shares of pixels so many times as large: the means of theirs."""
        from torch.nn import functional

        if self.shares is None or pixels == 1:
            return self.shares
        return functional.avg_pool2d(self.shares, pixels, ceil_mode=True)

    def draw_frame(self, pixels: "Pixels", *, left: int = 0, top: int = 0) -> None:
        """Draw the frame into the image's pixels from `left` and `top` on, in place."""
        if self.frame is None:
            return
        from polyinr_core.images.grid import draw_frame

        columns, rows = self.view.axes()
        x0, y0, x1, y1 = self.frame
        across = [(x - columns.first) / columns.pitch - left for x in (x0, x1)]
        down = [(y - rows.first) / rows.pitch - top for y in (y0, y1)]
        thickness = max(1, round(min(self.width, self.height) / FRAME_SHARE))
        box = (min(across), min(down), max(across) + 1, max(down) + 1)  # the border's pixels lie inside
        draw_frame(pixels, box, thickness=thickness)


def default_side(painter: Painter) -> int:
    """Return the width and height of images where none is asked for. Raises RequestError."""
    if not painter.checkpoint.resolution:
        raise RequestError(f"{painter.model_file} does not say its resolution; give --res or --size")
    return painter.checkpoint.resolution


def drawing_at(
    painter: Painter, window: "Window", *, bits: int = 8, sized: bool = True, tolerance: float = 0.0
) -> Drawing:
    """Return how a window's images are drawn; with `sized` false they never are. Raises RequestError."""
    known = window.sides is not None or window.places is not None or not sized
    side = painter.checkpoint.resolution or 1 if known else default_side(painter)
    return Drawing(painter, window.view(side), bits=bits, tolerance=tolerance)
