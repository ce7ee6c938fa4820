"""The Triton backend: a level's modulation, product, bias, activation and clamp in one kernel."""

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import SLOPE
from polyinr_core.runtime.device import is_bfloat16_gpu

MAX_ROWS = 24  # of affine parameters, which the kernels unroll: a blend of eight images


@dataclass(frozen=True)
class Tile:
    """A program's shape: pixels x output channels, input channels per step; warps; pipeline stages.

    `precision` is that of float32 products: "ieee" on CUDA cores, or "tf32x3", three products of TF32 on tensor cores,
    which keep about float32's digits.
    """

    pixels: int
    outputs: int
    inputs: int
    warps: int = 4
    stages: int = 3
    all_levels: bool = False  # evaluates all levels in one launch
    precision: Literal["ieee", "tf32x3"] = "ieee"

    @property
    def options(self) -> dict[str, Any]:
        """Return the launch options; fused multiply-adds are explicit, or Triton warns."""
        sizes = {"pixels": self.pixels, "outputs": self.outputs, "inputs": self.inputs, "precision": self.precision}
        return sizes | {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


CUBLAS = Tile(0, 0, 0)  # no program's: the products are cuBLAS's, with training's kernels between them


LARGE = {(9, 0), (10, 0)}  # compute capabilities with 227 KiB of shared memory; others have 99 or more
# The tile by dtype, compute capabilities (None: any) and most channels; the first match is taken. The choice is fixed
# because tiles differ in the order of their sums, and a seed has to be the same image in every process.
# benchmarks/gpu.py times tiles; none has been timed yet: these fit into shared memory and fill the GPU with programs.
TILES: tuple[tuple[torch.dtype, set[tuple[int, int]] | None, int, Tile], ...] = (
    (torch.bfloat16, LARGE, 128, Tile(128, 128, 64, warps=8)),
    (torch.bfloat16, LARGE, 65536, Tile(128, 256, 64, warps=8)),
    (torch.bfloat16, None, 65536, Tile(64, 128, 64)),
    (torch.float32, None, 65536, Tile(64, 64, 32)),
)


def has_kernels(synthesis: Synthesis, device: torch.device) -> bool:
    """Return whether Triton can evaluate a network on a device; PyTorch for a GPU includes Triton."""
    return is_bfloat16_gpu(device) and importlib.util.find_spec("triton") is not None and is_fusible(synthesis)


def is_fusible(synthesis: Synthesis) -> bool:
    """Return whether there are kernels for a network: two levels or more, float32 or bfloat16 products."""
    if len(synthesis.products) < 2:
        return False
    product_dtypes = {dtype for dtype, *_ in TILES}
    return synthesis.to_rgb.weight.dtype == torch.float32 and weights_of(synthesis, 1)[0].dtype in product_dtypes


def weights_of(synthesis: Synthesis, level: int) -> tuple[Tensor, Tensor]:
    """Return a level's weight [n, n] and bias [n]."""
    product: Any = synthesis.products[level]
    return product.weight.detach(), product.bias.detach()


class TritonBackend:
    """Evaluate a synthesis network with a launch per level or, with an `all_levels` tile, one for all.

    The network may be in reduced precision (`in_precision`); its weights are copied. `tile` defaults to that of TILES
    for the device.
    """

    def __init__(self, synthesis: Synthesis, *, tile: Tile | None = None) -> None:
        config = synthesis.config
        self.synthesis, self.tile = synthesis, tile
        pairs = [weights_of(synthesis, level) for level in range(1, config.levels)]
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
    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3]; a blend likewise."""
        if affine.dtype != torch.float32 or affine.shape[2] > MAX_ROWS:
            return self.synthesis(affine, coordinates)
        affine, coordinates = affine.contiguous(), coordinates.contiguous()
        with torch.cuda.device_of(affine):  # Triton launches on the current one
            tile = self.tile or select_tile(self.weights.dtype, affine.shape[-1], affine.device)
            if tile == CUBLAS:
                return self.through_products(affine, coordinates)
            evaluate = self.through_network if tile.all_levels else self.through_levels
            return evaluate(affine, coordinates, tile).sum(dim=2) + self.synthesis.to_rgb.bias

    def through_products(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Return the colors [N, P, 3], with cuBLAS's products; of a blend by PyTorch alone."""
        if affine.shape[2] != 3:
            return self.synthesis(affine, coordinates)
        from polyinr_core.models.level_triton import FusedLevelFunction

        config = self.synthesis.config
        options = config.form == "release", config.clamp, self.weights.dtype
        h = self.synthesis.activate(torch.matmul(coordinates, self.synthesis.fold_first(affine[:, 0])))  # [N, P, n]
        for matrix, weight, bias in zip(affine.unbind(1)[1:], self.weights, self.biases, strict=True):
            h = FusedLevelFunction.apply(h, matrix, coordinates, weight, bias, *options)
        return self.synthesis.to_rgb(h.float())

    def through_levels(self, affine: Tensor, coordinates: Tensor, tile: Tile) -> Tensor:
        """Return partial sums of the colors, [N, P, blocks, 3], with a launch per level."""
        from .triton_kernels import level_kernel

        (images, levels, rows, n), count = affine.shape, coordinates.shape[-2]
        blocks = -(-n // tile.outputs)
        partial_colors = affine.new_empty(images, count, blocks, 3)
        folded = self.synthesis.fold_first(affine[:, 0]).contiguous()
        buffers = [self.weights.new_empty(images, count, n) for _ in range(min(2, levels - 2))] or [partial_colors]
        for level in range(1, levels):
            last = level == levels - 1
            level_kernel[-(-count // tile.pixels) * blocks, images](
                partial_colors if last else buffers[level % len(buffers)],
                buffers[(level - 1) % len(buffers)],
                folded,
                affine[:, level],
                coordinates,
                self.weights[level - 1],
                self.biases[level - 1],
                self.rgb,
                self.limit,
                count,
                affine.stride(0),
                coordinates.stride(0) if coordinates.dim() == 3 else 0,
                rows=rows,
                first=level == 1,
                last=last,
                **tile.options,
                **self.facts,
            )
        return partial_colors

    def through_network(self, affine: Tensor, coordinates: Tensor, tile: Tile) -> Tensor:
        """Return partial sums of the colors, [N, P, blocks, 3], with one launch."""
        from .triton_kernels import network_kernel

        (images, levels, rows, n), count = affine.shape, coordinates.shape[-2]
        partial_colors = affine.new_empty(images, count, -(-n // tile.outputs), 3)
        programs = min(images * -(-count // tile.pixels), processors(affine.device))
        network_kernel[(programs,)](
            partial_colors,
            self.weights.new_empty(programs, 2, tile.pixels, n),
            self.synthesis.fold_first(affine[:, 0]).contiguous(),
            affine,
            coordinates,
            self.weights,
            self.biases,
            self.rgb,
            self.limit,
            count,
            images,
            coordinates.stride(0) if coordinates.dim() == 3 else 0,
            levels,
            rows=rows,
            **tile.options,
            **self.facts,
        )
        return partial_colors


def select_tile(dtype: torch.dtype, channels: int, device: torch.device) -> Tile:
    """Return the tile of TILES for a network of `channels` on a device."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    return next(
        tile
        for product_dtype, capabilities, max_channels, tile in TILES
        if product_dtype == dtype and (capabilities is None or capability in capabilities) and channels <= max_channels
    )


def processors(device: torch.device) -> int:
    """Return the number of programs that run at a time, one per multiprocessor; 2 in Triton's interpreter."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
