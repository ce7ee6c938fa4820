"""Released names and shapes become ours: the same numbers, and (row, col) turned into (x, y)."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model import Generator, GeneratorConfig
from ..pickles import PickleProblem, shown
from ..seeds import no_start_values
from .snapshot import Snapshot

MOST_VALUES = 2**28  # five times the largest released generator
GRIDS = ("gridt", "synthesis.grid")  # one parameter under two names


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, and its numbers when asked for."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Layer:
    """A linear layer of ours, the released layers that it joins, and how their rows (outputs) are arranged."""

    ours: str
    released: tuple[str, ...]
    outs: tuple[int, ...]
    in_dim: int
    arrange: Callable[..., Tensor] = lambda rows: rows
    kernel: tuple[int, ...] = ()


def snapshot_of(stored: Mapping[str, Stored], *, kimg: float) -> Snapshot:
    """Build a snapshot from the tensors of a released generator, by their released names.

    Widths are read from the shapes, weights are bit for bit the same. The learned grid becomes points (x, y),
    its side the snapshot's resolution. Raises PickleProblem for a tensor missing, misshapen or unknown.
    """
    if sum(math.prod(tensor.shape) for tensor in stored.values()) > MOST_VALUES:
        raise PickleProblem(f"its tensors have more than {MOST_VALUES:,} values; no released generator has")
    config = config_of(stored)
    layers = list(layers_of(config))
    side = check_shapes(stored, config, layers)
    tensors = {
        "mapping.table.weight": read_tensor(stored, "mapping.embed.weight"),
        "mapping.w_avg": read_tensor(stored, "mapping.w_avg"),
    }
    for layer in layers:
        for kind in ("weight", "bias"):
            parts = [read_tensor(stored, f"{name}.{kind}") for name in layer.released]
            rows = layer.arrange(*parts)
            tensors[f"{layer.ours}.{kind}"] = rows.flatten(1) if rows.dim() > 2 else rows
    grids = [read_tensor(stored, name)[0] for name in GRIDS if name in stored]
    if not torch.equal(grids[0], grids[-1]):
        raise PickleProblem(f"{GRIDS[0]} and {GRIDS[1]} differ, they are one parameter")
    with no_start_values():
        generator = Generator(config)
    generator.load_state_dict(tensors, assign=True)
    return Snapshot(
        generator=generator.eval().requires_grad_(False),
        resolution=side,
        kimg=kimg,
        learned_grid=grids[0].flip(-1),  # (row, col) to (x, y)
    )


def config_of(stored: Mapping[str, Stored]) -> GeneratorConfig:
    """Read the sizes of the generator from its tensors' shapes."""

    def size(name: str, axis: int) -> int:
        if name not in stored:
            raise PickleProblem(f"tensor {name} is missing")
        shape = stored[name].shape
        if axis >= len(shape):
            raise PickleProblem(f"tensor {name} has {len(shape)} axes, too few")
        return shape[axis]

    def count(pattern: str, first: int) -> int:
        return next(i for i in range(first, len(stored) + first + 1) if pattern.format(i) not in stored)

    conditional = "mapping.embed_proj.weight" in stored
    try:
        return GeneratorConfig(
            levels=count("synthesis.fb{}.fb0.fc1.weight", 1),
            channels=size("synthesis.fc0_0.weight", 0),
            z_dim=size("mapping.embed_proj.weight", 0) if conditional else size("mapping.fc0.weight", 1),
            w_dim=size("mapping.fc0.weight", 0),
            classes=size("mapping.w_avg", 0) if conditional else 0,
            table_rows=size("mapping.embed.weight", 0),
            table_dim=size("mapping.embed.weight", 1),
            mapping_layers=count("mapping.fc{}.weight", 0),
        )
    except ConfigError as error:
        raise PickleProblem(str(error)) from error


def layers_of(config: GeneratorConfig) -> Iterator[Layer]:
    """Yield what every linear layer is called here and there. The release's first coordinate is the row."""
    n, z, w = config.channels, config.z_dim, config.w_dim

    def join_map(linear: Tensor, constant: Tensor) -> Tensor:
        return torch.cat([linear[n:], linear[:n], constant])  # rows and columns to x and y

    def join_chain(matrix: Tensor, offset: Tensor) -> Tensor:
        return torch.cat([matrix.flip(0), offset.flip(0)])  # both axes of the 2 x 2 matrix turn round

    if config.classes:
        yield Layer("mapping.label_proj", ("mapping.embed_proj",), (z,), config.table_dim)
    for i in range(config.mapping_layers):
        in_dim = w if i else z * (2 if config.classes else 1)
        yield Layer(f"mapping.layers.{i}", (f"mapping.fc{i}",), (w,), in_dim)
    for i in range(config.levels):
        at, ours, in_dim = "synthesis", f"affine.levels.{i}", w
        product = "synthesis.fc0_0"
        if i > 0:
            at, in_dim = f"synthesis.fb{i}", n
            product = f"{at}.fb0.fc1"
            yield Layer(f"{ours}.style", (f"{at}.fc0_5",), (n,), w)
        yield Layer(f"{ours}.map", (f"{at}.fc0_1", f"{at}.fc0_2"), (2 * n, n), in_dim, join_map)
        yield Layer(f"{ours}.chain", (f"{at}.fc0_3", f"{at}.fc0_4"), (4, 2), in_dim, join_chain)
        yield Layer(f"synthesis.products.{i}", (product,), (n,), n)
    yield Layer("synthesis.to_rgb", ("synthesis.to_rgb",), (3,), n, kernel=(1, 1))


def check_shapes(stored: Mapping[str, Stored], config: GeneratorConfig, layers: list[Layer]) -> int:
    """Return the side of the learned grid. Raises PickleProblem for a tensor missing, misshapen or too many."""
    expected: dict[str, tuple[int, ...]] = {
        "mapping.embed.weight": (config.table_rows or 0, config.table_dim),
        "mapping.w_avg": (config.classes, config.w_dim) if config.classes else (config.w_dim,),
    }
    for layer in layers:
        for name, out in zip(layer.released, layer.outs, strict=True):
            expected |= {f"{name}.weight": (out, layer.in_dim, *layer.kernel), f"{name}.bias": (out,)}
    grids = [name for name in GRIDS if name in stored]
    if not grids:
        raise PickleProblem(f"tensor {GRIDS[0]} is missing")
    side = math.isqrt(stored[grids[0]].shape[1] if len(stored[grids[0]].shape) == 3 else 0)
    expected |= dict.fromkeys(grids, (1, side * side, 2))
    for name, shape in expected.items():
        if name not in stored:
            raise PickleProblem(f"tensor {name} is missing")
        if stored[name].shape != shape:
            raise PickleProblem(f"tensor {name} has shape {list(stored[name].shape)}, expected {list(shape)}")
    if extra := sorted(set(stored) - set(expected)):
        raise PickleProblem(f"tensor {shown(extra[0])} is in no released generator ({len(extra)} such)")
    return side


def read_tensor(stored: Mapping[str, Stored], name: str) -> Tensor:
    """Return a tensor's numbers. Raises PickleProblem unless they are float32 and finite."""
    tensor = stored[name].read()
    if tensor.dtype != torch.float32:
        raise PickleProblem(f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')}, expected float32")
    if not bool(tensor.isfinite().all()):
        raise PickleProblem(f"tensor {name} holds values that are not finite")
    return tensor
