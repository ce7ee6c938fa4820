"""The names that a released pickle may hold: data types, tensors, and the release's own classes."""

import math
import mmap
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from polyinr_core.errors import CheckpointError, ConfigError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.atomic_io import PathLike, explain
from polyinr_core.runtime.rng import no_start_values
from polyinr_core.runtime.safe_unpickler import (
    LONGEST_NAME,
    Made,
    Name,
    PickleProblem,
    Reference,
    bytes_of,
    read_pickle,
    shown,
)
from polyinr_core.runtime.tensor_files import (
    METADATA,
    TensorFileError,
    check_values,
    is_utf8,
    read_header,
    read_tensors,
)

from .checkpoint import METADATA_KEY, Checkpoint, check_drawing

FUNCTIONS = frozenset(
    {
        "_codecs.encode",  # how protocol 2 spells bytes
        "collections.OrderedDict",
        "collections.defaultdict",
        "copyreg._reconstructor",
        "copy_reg._reconstructor",  # protocol 2 writes the old names of standard modules
        "dill._dill._create_cell",
        "dill._dill._create_code",
        "dill._dill._create_function",
        "dill._dill._get_attr",
        "dill._dill._import_module",
        "dill._dill._load_type",
        "functools.partial",
        "numpy.core._multiarray_umath._reconstruct",
        "numpy.core._multiarray_umath.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Size",
        "torch.device",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor_v2",
        "torch.storage._load_from_bytes",
    }
)
TYPES = frozenset(
    {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object"}
    | {"range", "set", "slice", "str", "tuple", "unicode"}
)
INNER_TYPES = frozenset(  # as dill names them
    {"BuiltinMethodType", "CellType", "CodeType", "EllipsisType", "FunctionType", "MethodType", "NoneType"}
)
DTYPE_NAMES = frozenset({"bfloat16", "bool", "float16", "float32", "float64", "int32", "int64", "uint8"})
RELEASE = ("dnnlib.", "feature_networks.", "pg_modules.", "torch_utils.", "training.")
LIBRARIES = ("timm.layers.", "timm.models.", "torch.nn.", "torchvision.transforms.")
ACTIVATIONS = frozenset({"torch.nn.functional", "torch._C._nn"})


def is_released_name(module: str, name: str) -> bool:
    """Say whether a released checkpoint may mention `module.name`; nothing of that name is ever run.

    Of libraries only classes, which begin with a capital letter, and activation functions pass.
    """
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    if module in ("builtins", "__builtin__"):
        return name in TYPES
    if module == "types":
        return name in INNER_TYPES
    if module == "torch" and name in DTYPE_NAMES:
        return True
    return (
        f"{module}.{name}" in FUNCTIONS
        or f"{module}.".startswith(RELEASE)
        or (f"{module}.".startswith(LIBRARIES) and name[0].isupper())
        or module in ACTIVATIONS
    )


MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGE_DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
MAX_STEPS = 200  # of each of a blob's little pickles
MAX_AXES = 8


class StoredTensor:
    """A tensor as a pickle describes it: its shape now, its numbers when asked for."""

    def __init__(self, name: str, made: Any) -> None:
        """Look at the record of a parameter or tensor. Raises PickleProblem if it is none."""
        self.name = name
        if isinstance(made, Made) and str(made.function) == "torch._utils._rebuild_parameter" and made.arguments:
            made = made.arguments[0]
        if not isinstance(made, Made) or str(made.function) != "torch._utils._rebuild_tensor_v2":
            raise PickleProblem(f"{name} is no tensor")
        match made.arguments:
            case (Made() as storage, int(offset), tuple(shape), tuple(strides), *_):
                self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
            case _:
                raise PickleProblem(f"tensor {name} is described by the wrong values")
        if len(shape) != len(strides) or len(shape) > MAX_AXES:
            raise PickleProblem(f"tensor {name} has {len(shape)} axes and {len(strides)} strides")
        if not all(type(size) is int and 0 <= size < 2**48 for size in (offset, *shape, *strides)):
            raise PickleProblem(f"tensor {name} has sizes that no tensor has")

    def numbers(self) -> Tensor:
        """Return a contiguous copy of the tensor; its strides must stay inside its storage."""
        if str(self.storage.function) != "torch.storage._load_from_bytes" or len(self.storage.arguments) != 1:
            raise PickleProblem(f"tensor {self.name} has no storage")
        count = math.prod(self.shape)
        try:
            storage = read_storage(bytes_of(self.storage.arguments[0], most=4096 + 32 * count))
        except PickleProblem as problem:
            raise PickleProblem(f"the storage of tensor {self.name}: {problem}") from problem
        reach = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        if not 0 < count <= len(storage) or self.offset + reach >= len(storage):
            shape = "x".join(map(str, self.shape)) or "1"
            raise PickleProblem(f"tensor {self.name} of {shape} values reaches outside its storage of {len(storage):,}")
        strides = [stride * storage.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)
        return torch.from_numpy(np.array(view, dtype=storage.dtype.newbyteorder("="), order="C"))


def read_storage(blob: memoryview) -> np.ndarray:
    """Return a view of a blob's numbers [count], float32 or int64, whatever device it was written on.

    Raises PickleProblem.
    """
    parts, at = [], 0
    for _ in range(5):
        part, at = read_pickle(blob, known=is_storage_name, start=at, most_steps=MAX_STEPS)
        parts.append(part)
    magic, protocol, system, reference, keys = parts
    if magic != MAGIC or protocol != PROTOCOL:
        raise PickleProblem("a form that torch's old files do not have")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleProblem("not written on a little-endian machine")
    match reference:
        case Reference(key=("storage", Name() as kind, str(key), str(), int(count), None)) if keys == [key]:
            dtype = STORAGE_DTYPES[kind.name]
        case _:
            raise PickleProblem("described by the wrong values")
    stored = int.from_bytes(blob[at : at + 8], "little", signed=True)
    raw = blob[at + 8 :]
    if not 0 <= count == stored or len(raw) != count * dtype.itemsize:
        raise PickleProblem(f"{count:,} elements announced, {len(raw):,} bytes of numbers there")
    return np.frombuffer(raw, dtype=dtype)


def is_storage_name(module: str, name: str) -> bool:
    """Say whether `module.name` is a kind of storage that a released file has."""
    return module == "torch" and name in STORAGE_DTYPES


MAX_VALUES = 2**28  # five times the largest released generator
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


def checkpoint_of(stored: Mapping[str, Stored], *, kimg: float) -> Checkpoint:
    """Build a checkpoint from the tensors of a released generator, by their released names.

    Widths are read from the shapes, weights are bit for bit the same. The learned grid becomes points (x, y),
    its side the checkpoint's resolution. Raises PickleProblem for a tensor missing, misshapen or unknown.
    """
    if sum(math.prod(tensor.shape) for tensor in stored.values()) > MAX_VALUES:
        raise PickleProblem(f"its tensors have more than {MAX_VALUES:,} values; no released generator has")
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
    return Checkpoint(
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


NETWORK = "G_ema"
TEST_VECTORS = ("input.", "output.", "output64.", "debug.", "post_train.")
MAX_MODULES = 500
MAX_TENSORS = 2_000
LONGEST_HEADER = 2**22
MAX_DEPTH = 8
OURS = "it is a polyinr checkpoint already; use it as it is, or make it smaller with --half"


def read_released(path: PathLike) -> Checkpoint:
    """Read a released pickle, or its tensors under their released names in a safetensors file.

    Weights are bit for bit those of G_ema; nothing in the file is executed. `origin` tells the file's name and
    SHA-256. Raises CheckpointError, FileError.
    """
    path = Path(path)
    try:
        data = map_file(path)
        if is_safetensors(data):
            stored, kimg = stored_in_safetensors(path, data), 0.0
        else:
            stored, kimg = stored_in_pickle(data)
        checkpoint = checkpoint_of(stored, kimg=kimg)
        check_values(checkpoint.generator.state_dict())
        check_drawing(checkpoint.generator)
        digest = sha256(data).hexdigest()
        origin = {"converter": f"polyinr {version('polyinr')}", "file": path.name, "sha256": digest}
        return replace(checkpoint, origin=origin)
    except PickleProblem as problem:
        raise CheckpointError(path, f"not a released checkpoint: {problem}") from problem
    except TensorFileError as error:
        raise CheckpointError(path, f"not a sound checkpoint: {error}") from error
    except SafetensorError as error:
        raise CheckpointError(path, f"a damaged safetensors file ({shown(str(error))})") from error
    except OSError as error:
        raise explain(path, error) from error


def map_file(path: Path) -> memoryview:
    """Return the file's bytes, read from the disk only where they are looked at."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise PickleProblem("it is not a regular file")
    if not status.st_size:
        raise PickleProblem("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_safetensors(data: memoryview) -> bool:
    """Say whether a file begins as safetensors do: with the length of a JSON object that follows."""
    return len(data) > 8 and int.from_bytes(data[:8], "little") <= len(data) - 8 and data[8:9] == b"{"


def stored_in_safetensors(path: Path, data: memoryview) -> dict[str, Stored]:
    """Return the tensors of a safetensors file by name, test vectors left out. Raises PickleProblem."""
    if int.from_bytes(data[:8], "little") > LONGEST_HEADER:
        raise PickleProblem("its safetensors header is longer than that of any released generator")
    if not is_utf8(path):
        held = read_tensors(bytes(data))
        if METADATA_KEY in read_header(path)[METADATA]:
            raise PickleProblem(OURS)
        return {
            name: Stored(tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]
            for name, tensor in held.items()
            if not name.startswith(TEST_VECTORS)
        }
    file = safe_open(path, framework="pt")  # stays open while its tensors may be read
    if METADATA_KEY in (file.metadata() or {}):
        raise PickleProblem(OURS)
    names = [name for name in file.keys() if not name.startswith(TEST_VECTORS)]  # noqa: SIM118  not iterable
    return {name: Stored(tuple(file.get_slice(name).get_shape()), partial(file.get_tensor, name)) for name in names}


def stored_in_pickle(data: memoryview) -> tuple[dict[str, Stored], float]:
    """Return the tensors of G_ema by name, and the thousands of images it has seen. Raises PickleProblem."""
    if data[:2] == b"PK":
        raise PickleProblem("a zip archive; the released checkpoints are plain pickles")
    top, end = read_pickle(data, known=is_released_name)
    if end != len(data):
        raise PickleProblem(f"{len(data) - end:,} bytes follow after the pickle's end")
    if not isinstance(top, dict) or NETWORK not in top:
        raise PickleProblem(f"it holds no network {NETWORK}; released checkpoints are dictionaries with one")
    stored = stored_in_modules(top[NETWORK])
    if 4 * sum(math.prod(tensor.shape) for tensor in stored.values()) > 2 * len(data):
        raise PickleProblem("its tensors claim more values than the file has bytes for")
    return stored, kimg_of(top.get("progress"))


def stored_in_modules(network: Any) -> dict[str, Stored]:
    """Walk a network's `_parameters`, `_buffers`, `_modules`; return its tensors by their dotted names.

    Raises PickleProblem.
    """
    found: dict[str, Stored] = {}
    waiting = [("", network, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return found
        prefix, module, depth = waiting.pop()
        state = state_of(module, prefix)
        for kind in ("_parameters", "_buffers"):
            for name, value in members_of(state, kind, most=MAX_TENSORS - len(found)).items():
                if value is not None:
                    tensor = StoredTensor(shown(prefix + name), value)
                    found[prefix + name] = Stored(tensor.shape, tensor.numbers)
        inner = members_of(state, "_modules", most=MAX_MODULES)
        if inner and depth == MAX_DEPTH:
            raise PickleProblem(f"modules nested deeper than {MAX_DEPTH} in {NETWORK}")
        waiting += [(f"{prefix}{name}.", value, depth + 1) for name, value in inner.items() if value is not None]
    raise PickleProblem(f"more than {MAX_MODULES:,} modules in {NETWORK}")


def members_of(state: Mapping[str, Any], kind: str, *, most: int) -> Mapping[str, Any]:
    """Return a module's tensors or inner modules by their names. Raises PickleProblem for more than `most`."""
    members = items_of(state.get(kind))
    if len(members) > most or len(max(members, key=len, default="")) > LONGEST_NAME:
        raise PickleProblem(f"too many {kind.strip('_')} in {NETWORK}, or too long a name")
    return members


def state_of(module: Any, prefix: str) -> Mapping[str, Any]:
    """Return the attributes of a module that is stored by reference or through the persistence wrapper."""
    if isinstance(module, Made):
        state = module.state
        if module.function.name == "_reconstruct_persistent_obj" and module.arguments:
            state = items_of(module.arguments[0]).get("state")
        if items_of(state):
            return items_of(state)
    raise PickleProblem(f"{shown(f'{NETWORK}.{prefix}').rstrip('.')} is no network module")


def items_of(value: Any) -> Mapping[str, Any]:
    """Return the items of a plain dictionary, or of an object that is one (OrderedDict, EasyDict)."""
    if isinstance(value, Made):
        return value.items
    return value if isinstance(value, dict) else {}


def kimg_of(progress: Any) -> float:
    """Return how many thousands of images were seen, 0 if the file does not say."""
    counted = items_of(progress).get("cur_nimg")
    if isinstance(counted, Made):
        tensor = StoredTensor("cur_nimg", counted)
        numbers = tensor.numbers() if math.prod(tensor.shape) == 1 else None
        counted = None if numbers is None or numbers.is_floating_point() else int(numbers)
    return counted / 1000 if type(counted) is int and 0 <= counted < 2**53 else 0.0
