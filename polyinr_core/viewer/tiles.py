"""Tiles: which part of the plane each looks at, and the number format that can tell its pixels apart.

The plane's square WORLD is an image of 2^level pixels a side, cut into tiles of SIDE pixels. Its pixels are
cells without overlap, each drawn at its middle. Up to LAST these middles are whole in float64, so tiles of a
level join as if they were drawn as one image."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import blank
from polyinr_core.images.io import encode_image
from polyinr_core.images.quantize import fill_rows
from polyinr_core.models.coordinates import Bounds
from polyinr_core.rendering.backends import Backend, select_backend
from polyinr_core.rendering.precision import in_precision
from polyinr_core.rendering.render import render_rows
from polyinr_core.rendering.viewport import Viewport

from .selection import Choice

SIDE = 256  # pixels of a tile
LOW, EXTENT = -7.5, 16.0  # the world's lower end and its side: the trained square 0..1 is in its middle
FIRST = 8  # the level whose one tile shows the world
LAST = 50  # an eighth of a pixel is the last bit of a position in the world, also in a page's own arithmetic
SINGLE = 20  # the last level that float32 draws: there it tells 16 places apart in a pixel anywhere in the world
NARROW = 16  # pixels to one of the training's: those that bfloat16 may draw
SUPERSAMPLE = 4  # points a side of pixels that are larger than those of the training


@dataclass(frozen=True, order=True)
class Tile:
    """A tile by its level, column and row, counted from the left and from the top. Raises RequestError."""

    level: int
    column: int
    row: int

    def __post_init__(self) -> None:
        if not FIRST <= self.level <= LAST:
            raise RequestError(f"level {self.level} is outside {FIRST}-{LAST}")
        last = tiles_across(self.level) - 1
        for name, index in (("column", self.column), ("row", self.row)):
            if not 0 <= index <= last:
                raise RequestError(f"{name} {index} is outside 0-{last} (level {self.level})")

    @property
    def bounds(self) -> Bounds:
        """The middles of the outermost pixels, x0, y0, x1, y1."""
        step = pitch(self.level)
        x, y = (LOW + (index * SIDE + 0.5) * step for index in (self.column, self.row))
        return x, y, x + (SIDE - 1) * step, y + (SIDE - 1) * step

    def view(self, resolution: int) -> Viewport:
        """Return what the tile shows of a model trained at a resolution (0: unknown).

        Pixels larger than those of the training are the means of several points.
        """
        across = pitch(self.level) * resolution  # of the training's pixels
        supersample = 1 if across <= 1 else 2 if across <= 2 else SUPERSAMPLE
        return Viewport(SIDE, SIDE, self.bounds, supersample=supersample)


def pitch(level: int) -> float:
    """Return the side of a level's pixels in units of the plane."""
    return EXTENT / 2**level


def tiles_across(level: int) -> int:
    """Return how many tiles a level has, in a row and in a column."""
    return 2 ** (level - FIRST)


def format_of(level: int, *, resolution: int, coarsest: torch.dtype) -> torch.dtype:
    """Return the number format that a level is drawn in: the coarsest one in which its pixels differ.

    `coarsest` is bfloat16 where that is wanted, float32, or float64. What bfloat16 rounds off would show in
    pixels that are much smaller than those of the training at `resolution`.
    """
    if level > SINGLE or coarsest == torch.float64:
        return torch.float64
    if coarsest == torch.bfloat16 and pitch(level) * resolution * NARROW >= 1:
        return torch.bfloat16
    return torch.float32


KEPT_IMAGES = 16  # whose affine maps are kept


class GivenUp(PolyinrError):
    """A drawing that nobody waits for any more."""


@dataclass
class TilePainter:
    """A model, on its device, that draws tiles; `coarsest` is the number format of large pixels.

    With a `tolerance`, in steps of 255, tiles are drawn coarse to fine (model/coarse.py): many times as fast.

    For one thread: drawers and affine maps are made when they are first needed.
    """

    checkpoint: Checkpoint
    coarsest: torch.dtype = torch.float32
    tolerance: float = 0.0
    drawers: dict[torch.dtype, Backend] = field(default_factory=dict)
    maps: OrderedDict[Choice, Tensor] = field(default_factory=OrderedDict)

    def draw(self, choice: Choice, tile: Tile, *, wanted: Callable[[], bool] = lambda: True) -> bytes:
        """Return a tile as PNG. Raises GivenUp when it is no longer `wanted`, asked before every product."""
        kind = format_of(tile.level, resolution=self.checkpoint.resolution, coarsest=self.coarsest)
        wide = torch.float64 if kind == torch.float64 else torch.float32
        affine, drawer = self.affine(choice).to(wide), self.drawer(kind)
        view = tile.view(self.checkpoint.resolution)

        def watched(maps: Tensor, points: Tensor) -> Tensor:
            if not wanted():
                raise GivenUp("nobody waits for it")
            return drawer(maps, points)

        pixels = blank((SIDE, SIDE))
        bands = render_rows(watched, affine, view.grid(), supersample=view.supersample, tolerance=self.tolerance)
        fill_rows(pixels, bands)
        return encode_image(pixels, format="png")

    def affine(self, choice: Choice) -> Tensor:
        """Return an image's affine maps [L, 3, n], in the generator's own format."""
        if choice in self.maps:
            self.maps.move_to_end(choice)
            return self.maps[choice]
        maps = choice.latents(self.checkpoint).affine
        assert maps is not None
        self.maps[choice] = maps[0]
        if len(self.maps) > KEPT_IMAGES:
            self.maps.popitem(last=False)
        return maps[0]

    def drawer(self, kind: torch.dtype) -> Backend:
        """Return what draws in a number format."""
        if kind not in self.drawers:
            synthesis = in_precision(copy.deepcopy(self.checkpoint.generator.synthesis), kind)
            self.drawers[kind] = select_backend(synthesis, next(synthesis.parameters()).device)
        return self.drawers[kind]
