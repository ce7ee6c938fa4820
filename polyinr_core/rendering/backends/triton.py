"""The Triton backend: a level's modulation, product, bias, activation and clamp in one kernel."""

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE

MAX_ROWS = 24  # of affine parameters, which the kernels unroll: a blend of eight images


@dataclass(frozen=True)
class Tile:
    """A program's shape: pixels x output channels, input channels per step; warps; pipeline stages."""

    pixels: int
    outputs: int
    inputs: int
    warps: int = 4
    stages: int = 3
    all_levels: bool = False  # evaluates all levels in one launch

    @property
    def options(self) -> dict[str, int]:
        """Return the launch options; fused multiply-adds are explicit, or Triton warns."""
        sizes = {"pixels": self.pixels, "outputs": self.outputs, "inputs": self.inputs}
        return sizes | {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


TILES = {  # the first is used where nothing is timed
    torch.bfloat16: (
        Tile(128, 128, 64, warps=8),
        Tile(128, 256, 64, warps=8),
        Tile(64, 256, 64, warps=4),
        Tile(64, 256, 64, warps=8, all_levels=True),
    ),
    torch.float32: (
        Tile(64, 64, 32),
        Tile(128, 64, 16, warps=8),
        Tile(128, 128, 16, warps=8),
        Tile(64, 128, 16, warps=8, all_levels=True),
    ),
}
MIN_CAPABILITY = (8, 0)  # native bfloat16
MAX_FUSED_CHANNELS = 512  # of tiles with all levels

TUNED: dict[tuple[object, ...], Tile] = {}  # by device, dtype, network


def has_kernels(synthesis: Synthesis, device: torch.device) -> bool:
    """Return whether Triton can evaluate a network on a device; PyTorch for a GPU includes Triton."""
    return (
        device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= MIN_CAPABILITY
        and importlib.util.find_spec("triton") is not None
        and is_fusible(synthesis)
    )


def is_fusible(synthesis: Synthesis) -> bool:
    """Return whether there are kernels for a network: two levels or more, float32 or bfloat16 products."""
    if len(synthesis.products) < 2:
        return False
    return synthesis.to_rgb.weight.dtype == torch.float32 and of_product(synthesis, 1)[0].dtype in TILES


def of_product(synthesis: Synthesis, level: int) -> tuple[Tensor, Tensor]:
    """Return a level's weight [n, n] and bias [n]."""
    product: Any = synthesis.products[level]
    return product.weight.detach(), product.bias.detach()


class TritonBackend:
    """Evaluate a synthesis network with a launch per level or, with an `all_levels` tile, one for all.

    The network may be in reduced precision (precision.in_precision); its weights are copied. Without a `tile` the
    fastest is found at the first call on a GPU, once per process.
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
            "is_release": config.form == "release",
            "clamped": config.clamp is not None,
            "slope": SLOPE,
        }
        self.limit = config.clamp or 0.0

    @torch.no_grad()
    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]; a blend likewise."""
        if affine.dtype != torch.float32 or affine.shape[2] > MAX_ROWS:
            return self.synthesis(affine, points)
        affine, points = affine.contiguous(), points.contiguous()
        with torch.cuda.device_of(affine):  # Triton launches on the current one
            if self.tile is None:
                self.tile = self.choose(affine, points)
            return self.draw(affine, points, self.tile)

    def choose(self, affine: Tensor, points: Tensor) -> Tile:
        """Return the fastest tile for these inputs; on a CPU, where nothing is timed, the first."""
        dtype = self.weights.dtype
        if affine.device.type != "cuda":
            return TILES[dtype][0]
        n = self.facts["n"]
        key = (affine.device, dtype, *self.facts.values())
        if key not in TUNED:
            tiles = (tile for tile in TILES[dtype] if n <= MAX_FUSED_CHANNELS or not tile.all_levels)
            TUNED[key] = fastest(tiles, lambda tile: self.draw(affine, points, tile))
        return TUNED[key]

    def draw(self, affine: Tensor, points: Tensor, tile: Tile) -> Tensor:
        """Evaluate with programs of one shape."""
        evaluate = self.through_network if tile.all_levels else self.through_levels
        return evaluate(affine, points, tile).sum(dim=2) + self.synthesis.to_rgb.bias

    def through_levels(self, affine: Tensor, points: Tensor, tile: Tile) -> Tensor:
        """Return partial sums of the colors, [N, P, blocks, 3], with a launch per level."""
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
        """Return partial sums of the colors, [N, P, blocks, 3], with one launch."""
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
    """Return how many programs a device runs at a time, one per multiprocessor; 2 where Triton is interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def fastest(tiles: Iterable[Tile], draw: Callable[[Tile], object], *, repeats: int = 5) -> Tile:
    """Return the fastest tile of those whose programs fit the GPU."""
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
