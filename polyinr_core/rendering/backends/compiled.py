"""Drawing with torch.compile: one level is compiled, for tiles of one shape, and does for all."""

import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE

from .triton import of_product

TILE, SMALL_TILE = 2048, 512  # pixels: drawing.BLOCK and drawing.FEW


class Compiled:
    """Draw what a network draws in tiles of a fixed number of pixels, the last filled up.

    The network may be in a narrow format (precision.in_precision). The first tile of a process is slow, as the
    level is compiled then, unless its code is still in PyTorch's cache on disk. What a compiler raises is raised
    here as well, of whatever class.
    """

    def __init__(self, synthesis: Synthesis) -> None:
        self.synthesis = synthesis
        self.products = [of_product(synthesis, level) for level in range(1, synthesis.config.levels)]
        self.level = torch.compile(draw_level, dynamic=False, fullgraph=True)

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3]; likewise of a blend."""
        points = points.expand(len(affine), *points.shape[-2:])
        count = points.shape[1]
        tile = SMALL_TILE if count <= SMALL_TILE else TILE
        colors = affine.new_empty(len(affine), -(-count // tile) * tile, 3)
        points = functional.pad(points, (0, 0, 0, colors.shape[1] - count))
        firsts = self.synthesis.fold_first(affine[:, 0])
        for first, maps, own, drawn in zip(firsts, affine[:, 1:], points, colors, strict=True):
            for part, out in zip(own.split(tile), drawn.split(tile), strict=True):
                out.copy_(self.draw([first, *maps], part))
        return colors[:, :count]

    def draw(self, maps: list[Tensor], points: Tensor) -> Tensor:
        """Draw a tile's points [P, 3] as colors [P, 3]."""
        config = self.synthesis.config
        h = self.synthesis.activate(points @ maps[0])  # [P, n]
        for (weight, bias), matrix in zip(self.products, maps[1:], strict=True):
            h = self.level(h, matrix, points, weight, bias, config.form == "release", config.clamp)
        return self.synthesis.to_rgb(h.to(points.dtype))


def draw_level(
    h: Tensor, matrix: Tensor, points: Tensor, weight: Tensor, bias: Tensor, bent: bool, limit: float | None
) -> Tensor:
    """Return a level's features [P, n]; the modulation is written as sums, which a compiler fuses."""
    m = points[:, :1] * matrix[0]
    for row in range(1, len(matrix)):
        m = m + points[:, row : row + 1] * matrix[row]
    if bent:
        m = functional.leaky_relu(m, SLOPE)
    x = functional.leaky_relu(functional.linear((h * m).to(weight.dtype), weight, bias), SLOPE)
    return x if limit is None else x.clamp(-limit, limit)
