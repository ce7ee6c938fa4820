"""Torch's old storage blobs, taken apart by hand: five little pickles, a count, raw numbers."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pickles import Made, Name, PickleProblem, Reference, bytes_of, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
MOST_STEPS = 200  # of each of a blob's little pickles
MOST_AXES = 8


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
        if len(shape) != len(strides) or len(shape) > MOST_AXES:
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
            raise PickleProblem(
                f"tensor {self.name} of {shape} values reaches outside its storage of {len(storage):,}"
            )
        strides = [stride * storage.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)
        return torch.from_numpy(np.array(view, dtype=storage.dtype.newbyteorder("="), order="C"))


def read_storage(blob: memoryview) -> np.ndarray:
    """Return a view of a blob's numbers [count], float32 or int64, whatever device it was written on.

    Raises PickleProblem.
    """
    parts, at = [], 0
    for _ in range(5):
        part, at = read_pickle(blob, known=is_storage_name, start=at, most_steps=MOST_STEPS)
        parts.append(part)
    magic, protocol, system, reference, keys = parts
    if magic != MAGIC or protocol != PROTOCOL:
        raise PickleProblem("a form that torch's old files do not have")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleProblem("not written on a little-endian machine")
    match reference:
        case Reference(key=("storage", Name() as kind, str(key), str(), int(count), None)) if keys == [key]:
            dtype = DTYPES[kind.name]
        case _:
            raise PickleProblem("described by the wrong values")
    stored = int.from_bytes(blob[at : at + 8], "little", signed=True)
    raw = blob[at + 8 :]
    if not 0 <= count == stored or len(raw) != count * dtype.itemsize:
        raise PickleProblem(f"{count:,} elements announced, {len(raw):,} bytes of numbers there")
    return np.frombuffer(raw, dtype=dtype)


def is_storage_name(module: str, name: str) -> bool:
    """Say whether `module.name` is a kind of storage that a released file has."""
    return module == "torch" and name in DTYPES
