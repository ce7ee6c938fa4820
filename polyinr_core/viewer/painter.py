"""Tiles drawn as PNG, in the number format of their level, given up as soon as nobody wants them."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import PolyinrError
from ..model import draw_rows
from ..model.drawer import Drawer, drawer_for
from ..model.precision import in_precision
from ..pictures.files import encode_picture
from ..pictures.pixels import fill_rows
from ..pictures.sheet import blank
from ..snapshots.snapshot import Snapshot
from .choice import Choice
from .tiles import SIDE, Tile, format_of

KEPT_PICTURES = 16  # whose affine maps are kept


class GivenUp(PolyinrError):
    """A drawing that nobody waits for any more."""


@dataclass
class TilePainter:
    """A model, on its device, that draws tiles; `coarsest` is the number format of large pixels.

    With a `tolerance`, in steps of 255, tiles are drawn coarse to fine (model/coarse.py): many times as fast.

    For one thread: drawers and affine maps are made when they are first needed.
    """

    snapshot: Snapshot
    coarsest: torch.dtype = torch.float32
    tolerance: float = 0.0
    drawers: dict[torch.dtype, Drawer] = field(default_factory=dict)
    maps: OrderedDict[Choice, Tensor] = field(default_factory=OrderedDict)

    def draw(self, choice: Choice, tile: Tile, *, wanted: Callable[[], bool] = lambda: True) -> bytes:
        """Return a tile as PNG. Raises GivenUp when it is no longer `wanted`, asked before every product."""
        kind = format_of(tile.level, resolution=self.snapshot.resolution, coarsest=self.coarsest)
        wide = torch.float64 if kind == torch.float64 else torch.float32
        affine, drawer = self.affine(choice).to(wide), self.drawer(kind)
        view = tile.view(self.snapshot.resolution)

        def watched(maps: Tensor, points: Tensor) -> Tensor:
            if not wanted():
                raise GivenUp("nobody waits for it")
            return drawer(maps, points)

        pixels = blank((SIDE, SIDE))
        bands = draw_rows(watched, affine, view.grid(), fineness=view.fineness, tolerance=self.tolerance)
        fill_rows(pixels, bands)
        return encode_picture(pixels, format="png")

    def affine(self, choice: Choice) -> Tensor:
        """Return a picture's affine maps [L, 3, n], in the generator's own format."""
        if choice in self.maps:
            self.maps.move_to_end(choice)
            return self.maps[choice]
        maps = choice.latents(self.snapshot).affine
        assert maps is not None
        self.maps[choice] = maps[0]
        if len(self.maps) > KEPT_PICTURES:
            self.maps.popitem(last=False)
        return maps[0]

    def drawer(self, kind: torch.dtype) -> Drawer:
        """Return what draws in a number format."""
        if kind not in self.drawers:
            synthesis = in_precision(copy.deepcopy(self.snapshot.generator.synthesis), kind)
            self.drawers[kind] = drawer_for(synthesis, next(synthesis.parameters()).device)
        return self.drawers[kind]
