"""Drawing with Triton: a level's product, with all that stands before and after it, in one kernel."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE

MAX_ROWS = 24  # of an affine map, as the kernels write out each: a blend of eight images


@dataclass(frozen=True)
class Tile:
    """A program's shape: pixels x output channels, input channels a step; its warps; steps loaded ahead."""

    pixels: int
    outputs: int
    inputs: int
    warps: int = 4
    stages: int = 3
    whole: bool = False  # takes its pixels through all levels

    @property
    def options(self) -> dict[str, int]:
        """Return what a kernel is launched with; products and sums in one are asked for, or Triton warns."""
        sizes = {"pixels": self.pixels, "outputs": self.outputs, "inputs": self.inputs}
        return sizes | {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


TILES = {  # the first where there is nothing to time
    torch.bfloat16: (
        Tile(128, 128, 64, warps=8),
        Tile(128, 256, 64, warps=8),
        Tile(64, 256, 64, warps=4),
        Tile(64, 256, 64, warps=8, whole=True),
    ),
    torch.float32: (
        Tile(64, 64, 32),
        Tile(128, 64, 16, warps=8),
        Tile(128, 128, 16, warps=8),
        Tile(64, 128, 16, warps=8, whole=True),
    ),
}
CAPABILITY = (8, 0)  # of a GPU: bfloat16 of its own
MAX_WHOLE = 512  # channels up to which pixels are taken through all levels

CHOSEN: dict[tuple[object, ...], Tile] = {}  # by device, format, network


def has_kernels(synthesis: Synthesis, device: torch.device) -> bool:
    """Say whether a network can be drawn with Triton on a device; PyTorch for a GPU brings it along."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= CAPABILITY
        and importlib.util.find_spec("triton") is not None
        and is_fusible(synthesis)
    )


def is_fusible(synthesis: Synthesis) -> bool:
    """Say whether there are kernels for a network: two levels or more, float32 or bfloat16 products."""
    if len(synthesis.products) < 2:
        return False
    return synthesis.to_rgb.weight.dtype == torch.float32 and of_product(synthesis, 1)[0].dtype in TILES


def of_product(synthesis: Synthesis, level: int) -> tuple[Tensor, Tensor]:
    """Return a level's weight [n, n] and bias [n]."""
    product: Any = synthesis.products[level]
    return product.weight.detach(), product.bias.detach()


class TritonBackend:
    """Draw what a network draws, with a launch a level or, with a `whole` tile, one for all.

    The network may be in a narrow format (precision.in_precision); its weights are copied as they are now.
    Without a `tile`, the fastest is found when the first image is drawn on a GPU, once a process.
    """

    def __init__(self, synthesis: Synthesis, *, tile: Tile | None = None) -> None:
        config = synthesis.config
        self.synthesis, self.tile = synthesis, tile
        pairs = [of_product(synthesis, level) for level in range(1, config.levels)]
        self.weights = torch.stack([weight for weight, _ in pairs])  # [L - 1, n, n]
        self.biases = torch.stack([bias for _, bias in pairs])
        self.rgb = synthesis.to_rgb.weight.detach().contiguous()  # [3, n]
        self.facts = {
            "n": config.channels,
            "bent": config.form == "release",
            "clamped": config.clamp is not None,
            "slope": SLOPE,
        }
        self.limit = config.clamp or 0.0

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3]; likewise of a blend."""
        if affine.dtype != torch.float32 or affine.shape[2] > MAX_ROWS:
            return self.synthesis(affine, points)
        affine, points = affine.contiguous(), points.contiguous()
        with torch.cuda.device_of(affine):  # Triton launches on the current one
            if self.tile is None:
                self.tile = self.choose(affine, points)
            return self.draw(affine, points, self.tile)

    def choose(self, affine: Tensor, points: Tensor) -> Tile:
        """Return the tile that draws these images fastest; on a CPU, where nothing is timed, the first."""
        kind = self.weights.dtype
        if affine.device.type != "cuda":
            return TILES[kind][0]
        n = self.facts["n"]
        key = (affine.device, kind, *self.facts.values())
        if key not in CHOSEN:
            tiles = (tile for tile in TILES[kind] if n <= MAX_WHOLE or not tile.whole)
            CHOSEN[key] = fastest(tiles, lambda tile: self.draw(affine, points, tile))
        return CHOSEN[key]

    def draw(self, affine: Tensor, points: Tensor, tile: Tile) -> Tensor:
        """Draw with programs of one shape."""
        shares = self.through_network if tile.whole else self.through_levels
        return shares(affine, points, tile).sum(dim=2) + self.synthesis.to_rgb.bias

    def through_levels(self, affine: Tensor, points: Tensor, tile: Tile) -> Tensor:
        """Return shares of the colors, [N, P, blocks, 3], a launch a level."""
        from .triton_kernels import level_kernel

        (images, levels, rows, n), count = affine.shape, points.shape[-2]
        blocks = -(-n // tile.outputs)
        shares = affine.new_empty(images, count, blocks, 3)
        folded = self.synthesis.fold_first(affine[:, 0]).contiguous()
        spare = [self.weights.new_empty(images, count, n) for _ in range(min(2, levels - 2))] or [shares]
        for level in range(1, levels):
            last = level == levels - 1
            level_kernel[-(-count // tile.pixels) * blocks, images](
                shares if last else spare[level % len(spare)],
                spare[(level - 1) % len(spare)],
                folded,
                affine[:, level],
                points,
                self.weights[level - 1],
                self.biases[level - 1],
                self.rgb,
                self.limit,
                count,
                affine.stride(0),
                points.stride(0) if points.dim() == 3 else 0,
                rows=rows,
                first=level == 1,
                last=last,
                **tile.options,
                **self.facts,
            )
        return shares

    def through_network(self, affine: Tensor, points: Tensor, tile: Tile) -> Tensor:
        """Return shares of the colors, [N, P, blocks, 3], a launch in all."""
        from .triton_kernels import network_kernel

        (images, levels, rows, n), count = affine.shape, points.shape[-2]
        shares = affine.new_empty(images, count, -(-n // tile.outputs), 3)
        programs = min(images * -(-count // tile.pixels), processors(affine.device))
        network_kernel[(programs,)](
            shares,
            self.weights.new_empty(programs, 2, tile.pixels, n),
            self.synthesis.fold_first(affine[:, 0]).contiguous(),
            affine,
            points,
            self.weights,
            self.biases,
            self.rgb,
            self.limit,
            count,
            images,
            points.stride(0) if points.dim() == 3 else 0,
            levels,
            rows=rows,
            **tile.options,
            **self.facts,
        )
        return shares


def processors(device: torch.device) -> int:
    """Return how many programs a device runs at a time, one a multiprocessor; 2 where Triton is interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def fastest(tiles: Iterable[Tile], draw: Callable[[Tile], object], *, repeats: int = 5) -> Tile:
    """Return the tile that draws fastest, of those whose programs the GPU can hold."""
    from .triton_kernels import OutOfResources

    times: dict[Tile, float] = {}
    for tile in tiles:
        try:
            draw(tile)
        except OutOfResources:
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            draw(tile)
        end.record()
        end.synchronize()
        times[tile] = start.elapsed_time(end)
    return min(times, key=lambda tile: times[tile])
