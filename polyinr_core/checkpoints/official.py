"""Official Poly-INR checkpoints: their tensors under the names of this project, bit for bit."""

import math
import mmap
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from polyinr_core.errors import CheckpointError, ConfigError, FileError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.atomic_io import PathLike, explain
from polyinr_core.runtime.rng import meta_init
from polyinr_core.runtime.tensor_files import METADATA, TensorFileError, check_values, read_header, read_tensors

from .checkpoint import METADATA_KEY, Checkpoint, check_finite, load_checkpoint
from .official_pickle import LazyTensor, tensors_in_pickle
from .safe_unpickler import PickleProblem, shown

MAX_VALUES = 2**28  # five times the largest official generator
MAX_HEADER_BYTES = 2**22
GRIDS = ("gridt", "synthesis.grid")  # one parameter under two names
# what golden files hold beside the weights
TEST_VECTORS = ("input.", "output.", "output64.", "debug.", "post_train.")
OURS = "it is a polyinr checkpoint already; use it as it is, or make it smaller with --half"


def load_any_checkpoint(path: PathLike) -> Checkpoint:
    """Load a polyinr checkpoint or an official one. Raises CheckpointError, FileError."""
    path = Path(path)
    return load_checkpoint(path) if is_own_checkpoint(path) else load_official_checkpoint(path)


def is_own_checkpoint(path: PathLike) -> bool:
    """Return whether a file is a polyinr checkpoint, by its header."""
    path = Path(path)
    try:
        if not path.is_file() or not is_safetensors(map_file(path)):
            return False
        return METADATA_KEY in read_header(path)[METADATA]
    except (OSError, FileError, TensorFileError, PickleProblem):
        return False


def load_official_checkpoint(path: PathLike) -> Checkpoint:
    """Load an official Poly-INR checkpoint: a pickle, or a safetensors file of its tensors under their official names.

    Weights are bit for bit those of G_ema; nothing in the file is executed. `origin` holds the file's name and SHA-256.
    Raises CheckpointError, FileError.
    """
    path = Path(path)
    try:
        data = map_file(path)
        if is_safetensors(data):
            stored, kimg = tensors_in_safetensors(path, data), 0.0
        else:
            stored, kimg = tensors_in_pickle(data)
        checkpoint = convert_tensors(stored, kimg=kimg)
        check_values(checkpoint.generator.state_dict())
        check_finite(checkpoint.generator)
        digest = sha256(data).hexdigest()
        origin = {"converter": f"polyinr {version('polyinr')}", "file": path.name, "sha256": digest}
        return replace(checkpoint, origin=origin)
    except PickleProblem as problem:
        raise CheckpointError(path, f"not a released checkpoint: {problem}") from problem
    except TensorFileError as error:
        raise CheckpointError(path, f"not a sound checkpoint: {error}") from error
    except OSError as error:
        raise explain(path, error) from error


def map_file(path: Path) -> memoryview:
    """Map a file to memory. Raises PickleProblem for what is no regular file or empty, OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PickleProblem("it is not a regular file")
    if not status.st_size:
        raise PickleProblem("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_safetensors(data: memoryview) -> bool:
    """Return whether a file begins as safetensors do: with the length of the JSON object that follows."""
    return len(data) > 8 and int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{"


def tensors_in_safetensors(path: Path, data: memoryview) -> dict[str, LazyTensor]:
    """Return a safetensors file's tensors by name, without test vectors. Raises PickleProblem, CheckpointError."""
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise PickleProblem("its safetensors header is longer than that of any released generator")
    try:
        header, held = read_header(path), read_tensors(path)
    except TensorFileError as error:
        raise CheckpointError(path, f"a damaged safetensors file ({shown(str(error))})") from error
    if METADATA_KEY in header[METADATA]:
        raise PickleProblem(OURS)
    return {
        name: LazyTensor(tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]
        for name, tensor in held.items()
        if not name.startswith(TEST_VECTORS)
    }


def convert_tensors(stored: Mapping[str, LazyTensor], *, kimg: float) -> Checkpoint:
    """Build a checkpoint from the tensors of an official generator under their official names.

    The configuration follows from the shapes. The learned grid becomes coordinates (x, y), and its side length the
    checkpoint's resolution. Raises PickleProblem for a tensor that is missing, misshapen or unknown.
    """
    if sum(math.prod(tensor.shape) for tensor in stored.values()) > MAX_VALUES:
        raise PickleProblem(f"its tensors have more than {MAX_VALUES:,} values; no released generator has")
    config = infer_config(stored)
    layers = list(linear_layers(config))
    resolution = check_shapes(stored, config, layers)
    tensors = {
        "mapping.table.weight": read_float32(stored, "mapping.embed.weight"),
        "mapping.w_avg": read_float32(stored, "mapping.w_avg"),
    }
    for layer in layers:
        for parameter in ("weight", "bias"):
            parts = [read_float32(stored, f"{name}.{parameter}") for name in layer.released]
            rows = layer.arrange(*parts)
            tensors[f"{layer.ours}.{parameter}"] = rows.flatten(1) if rows.dim() > 2 else rows
    grids = [read_float32(stored, name)[0] for name in GRIDS if name in stored]
    if not torch.equal(grids[0], grids[-1]):
        raise PickleProblem(f"{GRIDS[0]} and {GRIDS[1]} differ, they are one parameter")
    with meta_init():
        generator = Generator(config)
    generator.load_state_dict(tensors, assign=True)
    return Checkpoint(
        generator=generator.eval().requires_grad_(False),
        resolution=resolution,
        kimg=kimg,
        learned_grid=grids[0].flip(-1),  # (row, col) to (x, y)
    )


@dataclass(frozen=True)
class Layer:
    """A linear layer of this project, the official layers that it joins, and how their rows (outputs) are arranged."""

    ours: str
    released: tuple[str, ...]
    outs: tuple[int, ...]
    in_dim: int
    arrange: Callable[..., Tensor] = lambda rows: rows
    kernel: tuple[int, ...] = ()


def linear_layers(config: GeneratorConfig) -> Iterator[Layer]:
    """Yield each linear layer with its official names. The first coordinate of the release is the row."""
    n, z, w = config.channels, config.z_dim, config.w_dim

    def join_map(linear: Tensor, constant: Tensor) -> Tensor:
        return torch.cat([linear[n:], linear[:n], constant])  # rows and columns to x and y

    def join_chain(matrix: Tensor, offset: Tensor) -> Tensor:
        return torch.cat([matrix.flip(0), offset.flip(0)])  # both axes of the 2 x 2 matrix are reversed

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


def infer_config(stored: Mapping[str, LazyTensor]) -> GeneratorConfig:
    """Infer the configuration of a generator from the shapes of its tensors. Raises PickleProblem."""

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


def check_shapes(stored: Mapping[str, LazyTensor], config: GeneratorConfig, layers: list[Layer]) -> int:
    """Return the resolution of the learned grid. Raises PickleProblem for a missing, misshapen or unknown tensor."""
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
    resolution = math.isqrt(stored[grids[0]].shape[1] if len(stored[grids[0]].shape) == 3 else 0)
    expected |= dict.fromkeys(grids, (1, resolution**2, 2))
    for name, shape in expected.items():
        if name not in stored:
            raise PickleProblem(f"tensor {name} is missing")
        if stored[name].shape != shape:
            raise PickleProblem(f"tensor {name} has shape {list(stored[name].shape)}, expected {list(shape)}")
    if extra := sorted(set(stored) - set(expected)):
        raise PickleProblem(f"tensor {shown(extra[0])} is in no released generator ({len(extra)} such)")
    return resolution


def read_float32(stored: Mapping[str, LazyTensor], name: str) -> Tensor:
    """Read a tensor. Raises PickleProblem unless it is float32 and finite."""
    tensor = stored[name].read()
    if tensor.dtype != torch.float32:
        raise PickleProblem(f"tensor {name} is {str(tensor.dtype).removeprefix('torch.')}, expected float32")
    if not bool(tensor.isfinite().all()):
        raise PickleProblem(f"tensor {name} holds values that are not finite")
    return tensor
