"""Safetensors files, read and written in one way for every format: header, facts, tensors, all of it checked.

Whatever is wrong with a file's content is a TensorFileError in a few words, to which each format adds its name.
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
from .strict_json import JsonError, format_json, parse_json

LONGEST_HEADER = 100_000_000  # safetensors has the same limit
METADATA = "__metadata__"
# what NumPy raises for a damaged .npy, whose header is Python that it parses, or for one that claims too much
ARRAY_ERRORS = (ValueError, EOFError, SyntaxError, TokenError, TypeError, OverflowError, MemoryError)
LARGEST_VALUE = 1e9  # far above any that a sound file holds, far below where float32's products overflow


class TensorFileError(PolyinrError, ValueError):
    """What is wrong with a safetensors file, or with tensors that were to be written."""


def encode_tensors(tensors: Mapping[str, Tensor], *, key: str, facts: Mapping[str, Any]) -> bytes:
    """Return a safetensors file whose header holds facts as JSON under a key. Raises JsonError."""
    held: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        held[name] = tensor.detach().cpu().contiguous()
        start = held[name].untyped_storage().data_ptr()
        if start in seen:  # which safetensors refuses: two tensors that share memory
            held[name] = held[name].clone()
        seen.add(start)
    return save(held, metadata={key: format_json(facts)})


def read_header(source: Path | bytes) -> dict[str, Any]:
    """Return the JSON header of a file, or of its bytes. Raises TensorFileError, FileError."""
    if isinstance(source, bytes):
        length, text, size = source[:8], source[8:], len(source)
    else:
        refuse_special(source)
        try:
            with source.open("rb") as file:
                size = source.stat().st_size
                length = file.read(8)
                text = file.read(min(int.from_bytes(length, "little"), size, LONGEST_HEADER))
        except OSError as error:
            raise explain(source, error) from error
    count = int.from_bytes(length, "little")
    if len(length) < 8 or not 2 <= count <= min(size - 8, LONGEST_HEADER) or text[:1] != b"{":
        raise TensorFileError("not a safetensors file")
    try:
        header = parse_json(text[:count])
    except JsonError as error:
        raise TensorFileError(f"its header is {error}") from error
    metadata = header.setdefault(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TensorFileError("its header's metadata are no texts")
    return header


def names_in(header: Mapping[str, Any]) -> set[str]:
    """Return the names of a header's tensors."""
    return set(header) - {METADATA}


def facts_in(header: Mapping[str, Any], key: str) -> Any:
    """Return the facts under a key of a header, None without any. Raises TensorFileError."""
    text = header[METADATA].get(key)
    try:
        return None if text is None else parse_json(text)
    except JsonError as error:
        raise TensorFileError(f"its facts are {error}") from error


def is_utf8(path: Path) -> bool:
    """Say whether a path is UTF-8, as the safetensors library needs it to open a file by itself."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_tensors(source: Path | bytes) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped to memory, or of its bytes. Raises TensorFileError, FileError."""
    try:
        if isinstance(source, bytes):
            return load(source)
        if not is_utf8(source):  # no name that the library opens
            return load(source.read_bytes())
        with safe_open(source, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not iterable
    except OSError as error:
        assert isinstance(source, Path)
        raise explain(source, error) from error
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]  # KeyError: a type of numbers that torch does not have
        raise TensorFileError(f"not a whole safetensors file ({reason})") from error


def check_values(tensors: Mapping[str, Tensor], *, largest: float = LARGEST_VALUE) -> None:
    """Raise TensorFileError unless all tensors are real numbers, finite and none larger than `largest`."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TensorFileError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, no real numbers")
        if not tensor.numel():
            continue
        # one pass without a copy, in which a NaN stays a NaN; not every narrow format can be compared
        low, high = map(float, torch.aminmax(tensor.float() if tensor.itemsize < 2 else tensor))
        if not -float("inf") < low <= high < float("inf"):
            raise TensorFileError(f"{name} holds values that are no finite numbers")
        if max(-low, high) > largest:
            raise TensorFileError(f"{name} holds {max(low, high, key=abs):.3g}, more than can be computed with")
