"""Safetensors files: header, JSON metadata and tensors, read and written with the same checks for every format.

Errors in a file's content are TensorFileError with a short text, to which each format adds the file name.
"""

from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from polyinr_core.errors import PolyinrError

from .atomic_io import explain, refuse_special
from .strict_json import SURROGATE, JsonError, format_json, parse_json

MAX_HEADER_BYTES = 100_000_000  # the limit of safetensors
METADATA = "__metadata__"
# what NumPy raises for a damaged .npy, whose header is a Python literal, or one that claims too much
ARRAY_ERRORS = (ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, MemoryError)
MAX_VALUE = 1e9  # far above valid values, far below where products overflow in float32


class TensorFileError(PolyinrError, ValueError):
    """A damaged safetensors file, or tensors that cannot be written."""


def encode_tensors(tensors: Mapping[str, Tensor], *, key: str, facts: Mapping[str, Any]) -> bytes:
    """Return a safetensors file with JSON metadata under a key of its header. Raises JsonError."""
    held: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held[name] = tensor.detach().cpu().contiguous()
        start = held[name].untyped_storage().data_ptr()
        if start in seen:  # safetensors refuses tensors that share memory
            held[name] = held[name].clone()
        seen.add(start)
    return save(held, metadata={key: format_json(facts)})


def read_header(source: Path | bytes) -> dict[str, Any]:
    """Read the JSON header of a file or of its bytes. Raises TensorFileError, FileError."""
    if isinstance(source, bytes):
        length, text, size = source[:8], source[8:], len(source)
    else:
        refuse_special(source)
        try:
            with source.open("rb") as file:
                size = source.stat().st_size
                length = file.read(8)
                text = file.read(min(int.from_bytes(length, "little"), size, MAX_HEADER_BYTES))
        except OSError as error:
            raise explain(source, error) from error
    count = int.from_bytes(length, "little")
    if len(length) < 8 or not 2 <= count <= min(size - 8, MAX_HEADER_BYTES) or text[:1] != b"{":
        raise TensorFileError("not a safetensors file")
    try:
        header = parse_json(text[:count])
    except JsonError as error:
        raise TensorFileError(f"its header is {error}") from error
    metadata = header.setdefault(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TensorFileError("the metadata in its header are not strings")
    return header


def names_in(header: Mapping[str, Any]) -> set[str]:
    """Return the tensor names in a header."""
    return set(header) - {METADATA}


def facts_in(header: Mapping[str, Any], key: str) -> Any:
    """Return the JSON metadata under a key of a header, None without it. Raises TensorFileError."""
    text = header[METADATA].get(key)
    try:
        return None if text is None else parse_json(text)
    except JsonError as error:
        raise TensorFileError(f"its metadata are {error}") from error


def read_tensors(source: Path | bytes) -> dict[str, Tensor]:
    """Read the tensors of a file, memory-mapped, or of its bytes. Raises TensorFileError, FileError."""
    try:
        if isinstance(source, bytes):
            return load(source)
        if SURROGATE.search(str(source)):  # a name that is not UTF-8, which the library cannot open
            return load(source.read_bytes())
        with safe_open(source, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not iterable
    except OSError as error:
        assert isinstance(source, Path)
        raise explain(source, error) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]  # KeyError: a dtype that torch does not have
        raise TensorFileError(f"not a complete safetensors file ({reason})") from error


def check_values(tensors: Mapping[str, Tensor], *, max_value: float = MAX_VALUE) -> None:
    """Raise TensorFileError unless all tensors are floating-point, finite and at most `max_value` in magnitude."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise TensorFileError(f"{name} holds {dtype}, not floating-point numbers")
        if not tensor.numel():
            continue
        # one pass without a copy that propagates NaN; not every 8-bit dtype can be compared
        low, high = map(float, torch.aminmax(tensor.float() if tensor.itemsize < 2 else tensor))
        if not -float("inf") < low <= high < float("inf"):
            raise TensorFileError(f"{name} holds NaN or Inf")
        if max(-low, high) > max_value:
            raise TensorFileError(f"{name} holds {max(low, high, key=abs):.3g}, above {max_value:g}")
