"""The pickle of an official checkpoint: which names it may hold, and the tensors that lie in it.

The release stores live modules with their source. Here nothing of that is run: `safe_unpickler` returns records of what
would be called, and this module finds the parameters and buffers of `G_ema` among them.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .safe_unpickler import MAX_NAME_LENGTH, Name, PickleProblem, Record, Reference, bytes_of, read_pickle, shown

NETWORK = "G_ema"
MAX_MODULES = 500
MAX_TENSORS = 2_000
MAX_DEPTH = 8
MAX_AXES = 8
MAX_STEPS = 200  # of each of the five small pickles in front of a storage
MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6
PROTOCOL = 1001
STORAGE_DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
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


OTHER_FILES = {  # first bytes, in lower case: what the file is
    b"pk": "a zip archive, such as torch.save writes (.pt, .pth); the released checkpoints are plain pickles",
    b"version https://git-lfs": "a Git LFS pointer; fetch the file itself with `git lfs pull`",
    b"<!doctype": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor in a file: its shape, and a function that reads it."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def tensors_in_pickle(data: memoryview) -> tuple[dict[str, LazyTensor], float]:
    """Return the tensors of G_ema by name, and its kimg. Raises PickleProblem."""
    for start, kind in OTHER_FILES.items():
        if bytes(data[:64]).lstrip().lower().startswith(start):
            raise PickleProblem(kind)
    top, end = read_pickle(data, known=is_allowed_name)
    if end != len(data):
        raise PickleProblem(f"{len(data) - end:,} bytes follow after the pickle's end")
    if not isinstance(top, dict) or NETWORK not in top:
        raise PickleProblem(f"it holds no network {NETWORK}; released checkpoints are dictionaries with one")
    stored = tensors_in_modules(top[NETWORK])
    if 4 * sum(math.prod(tensor.shape) for tensor in stored.values()) > 2 * len(data):
        raise PickleProblem("its tensors claim more values than the file has bytes for")
    return stored, kimg_of(top.get("progress"))


def tensors_in_modules(network: Any) -> dict[str, LazyTensor]:
    """Return the parameters and buffers of a network by their dotted names. Raises PickleProblem."""
    found: dict[str, LazyTensor] = {}
    waiting = [("", network, 0)]
    for _ in range(MAX_MODULES):
        if not waiting:
            return found
        prefix, module, depth = waiting.pop()
        state = state_of(module, prefix)
        for attribute in ("_parameters", "_buffers"):
            for name, value in members_of(state, attribute, max_count=MAX_TENSORS - len(found)).items():
                if value is not None:
                    tensor = PickledTensor(shown(prefix + name), value)
                    found[prefix + name] = LazyTensor(tensor.shape, tensor.read)
        inner = members_of(state, "_modules", max_count=MAX_MODULES)
        if inner and depth == MAX_DEPTH:
            raise PickleProblem(f"modules nested deeper than {MAX_DEPTH} in {NETWORK}")
        waiting += [(f"{prefix}{name}.", value, depth + 1) for name, value in inner.items() if value is not None]
    raise PickleProblem(f"more than {MAX_MODULES:,} modules in {NETWORK}")


def members_of(state: Mapping[str, Any], attribute: str, *, max_count: int) -> Mapping[str, Any]:
    """Return a module's tensors or submodules by name. Raises PickleProblem for more than `max_count`."""
    members = items_of(state.get(attribute))
    if len(members) > max_count or len(max(members, key=len, default="")) > MAX_NAME_LENGTH:
        raise PickleProblem(f"too many {attribute.strip('_')} in {NETWORK}, or too long a name")
    return members


def state_of(module: Any, prefix: str) -> Mapping[str, Any]:
    """Return the attributes of a module, pickled directly or through the persistence wrapper. Raises PickleProblem."""
    if isinstance(module, Record):
        state = module.state
        if module.function.name == "_reconstruct_persistent_obj" and module.arguments:
            state = items_of(module.arguments[0]).get("state")
        if items_of(state):
            return items_of(state)
    raise PickleProblem(f"{shown(f'{NETWORK}.{prefix}').rstrip('.')} is no network module")


def items_of(value: Any) -> Mapping[str, Any]:
    """Return the items of a dictionary or of a record of one (OrderedDict, EasyDict); nothing for other values."""
    if isinstance(value, Record):
        return value.items
    return value if isinstance(value, dict) else {}


def kimg_of(progress: Any) -> float:
    """Return the thousands of training images, 0 if the file does not say."""
    counted = items_of(progress).get("cur_nimg")
    if isinstance(counted, Record):
        tensor = PickledTensor("cur_nimg", counted)
        numbers = tensor.read() if math.prod(tensor.shape) == 1 else None
        counted = None if numbers is None or numbers.is_floating_point() else int(numbers)
    return counted / 1000 if type(counted) is int and 0 <= counted < 2**53 else 0.0


class PickledTensor:
    """A tensor as a pickle describes it; `read` returns its values."""

    def __init__(self, name: str, record: Any) -> None:
        """Check the record of a parameter or tensor. Raises PickleProblem for other values."""
        self.name = name
        if (
            isinstance(record, Record)
            and str(record.function) == "torch._utils._rebuild_parameter"
            and record.arguments
        ):
            record = record.arguments[0]
        if not isinstance(record, Record) or str(record.function) != "torch._utils._rebuild_tensor_v2":
            raise PickleProblem(f"{name} is no tensor")
        match record.arguments:
            case (Record() as storage, int(offset), tuple(shape), tuple(strides), *_):
                self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides
            case _:
                raise PickleProblem(f"tensor {name} is described by the wrong values")
        if len(shape) != len(strides) or len(shape) > MAX_AXES:
            raise PickleProblem(f"tensor {name} has {len(shape)} axes and {len(strides)} strides")
        if not all(type(size) is int and 0 <= size < 2**48 for size in (offset, *shape, *strides)):
            raise PickleProblem(f"tensor {name} has sizes that no tensor has")

    def read(self) -> Tensor:
        """Return a contiguous copy of the tensor. Raises PickleProblem if its strides lead out of its storage."""
        if str(self.storage.function) != "torch.storage._load_from_bytes" or len(self.storage.arguments) != 1:
            raise PickleProblem(f"tensor {self.name} has no storage")
        count = math.prod(self.shape)
        try:
            storage = read_storage(bytes_of(self.storage.arguments[0], max_bytes=4096 + 32 * count))
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
    """Return a view of the values [count] of a storage, float32 or int64, whatever its device. Raises PickleProblem."""

    def is_storage(module: str, name: str) -> bool:
        return module == "torch" and name in STORAGE_DTYPES

    parts, at = [], 0
    for _ in range(5):
        part, at = read_pickle(blob, known=is_storage, start=at, max_steps=MAX_STEPS)
        parts.append(part)
    magic, protocol, system, reference, keys = parts
    if magic != MAGIC or protocol != PROTOCOL:
        raise PickleProblem("a form that torch's old files do not have")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleProblem("not written on a little-endian machine")
    match reference:
        case Reference(key=("storage", Name() as storage_type, str(key), str(), int(count), None)) if keys == [key]:
            dtype = STORAGE_DTYPES[storage_type.name]
        case _:
            raise PickleProblem("described by the wrong values")
    stored = int.from_bytes(blob[at : at + 8], "little", signed=True)
    raw = blob[at + 8 :]
    if not 0 <= count == stored or len(raw) != count * dtype.itemsize:
        raise PickleProblem(f"{count:,} elements announced, {len(raw):,} bytes of numbers there")
    return np.frombuffer(raw, dtype=dtype)


def is_allowed_name(module: str, name: str) -> bool:
    """Return whether an official checkpoint may mention `module.name`; nothing of that name is ever imported or run.

    From libraries only classes, whose names begin with a capital letter, and activation functions are allowed.
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
