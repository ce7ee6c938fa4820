"""Where and how large a picture is drawn while it is matched, and how many pixels at a time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import UNIT, Bounds, GeneratorConfig, Grid, RegularGrid
from ..model.level import TRACE_BYTES
from ..model.replay import draw_replayed
from ..model.synthesis import Synthesis


@dataclass(frozen=True)
class Canvas:
    """The points [P, 3] of a picture of width x height; `chunk` pixels of it are replayed at a time (0: all)."""

    width: int
    height: int
    points: Tensor
    chunk: int = 0

    def draw(self, synthesis: Synthesis, affine: Tensor) -> Tensor:
        """Draw affine [N, L, 3, n] as colours [N, 3, H, W], about [-1, 1], with gradients."""
        if self.chunk and torch.is_grad_enabled():
            colours = draw_replayed(synthesis, affine, self.points, chunk=self.chunk)
        else:
            colours = synthesis(affine, self.points)
        return colours.unflatten(1, (self.height, self.width)).permute(0, 3, 1, 2)


def canvas_for(
    config: GeneratorConfig,
    *,
    width: int,
    height: int,
    like: Tensor,
    bounds: Bounds = UNIT,
    grid: Grid | None = None,
    memory: int | None = None,
) -> Canvas:
    """Return the canvas of a picture, with points in the dtype and on the device of `like`.

    `grid` is the regular one of `bounds` unless given. What a pass leaves for the backward pass must fit into a
    quarter of `memory` bytes (None: as much as it takes); otherwise it is replayed in chunks that do.
    Raises ConfigError.
    """
    grid = RegularGrid(width, height, bounds) if grid is None else grid
    pixels = width * height
    points = grid.at(torch.arange(pixels, device=like.device), dtype=like.dtype)
    most = (memory or 2**62) // 4 // (TRACE_BYTES * config.channels * config.levels)
    chunk = 0 if pixels <= most else max(1024, 1 << (most // 4).bit_length() - 1)
    return Canvas(width, height, points, chunk if chunk < pixels else 0)
