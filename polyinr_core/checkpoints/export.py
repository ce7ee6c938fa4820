"""A model made anew as a file: from a released one or one of ours, in fewer bits, with a card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, read_bytes
from polyinr_core.runtime.safe_unpickler import PickleProblem
from polyinr_core.runtime.strict_json import JsonError, parse_json
from polyinr_core.runtime.tensor_files import METADATA, TensorFileError, read_header

from .checkpoint import METADATA_KEY, Checkpoint, load_checkpoint
from .official import is_safetensors, map_file, read_released

CARD = "card"  # under this name a model's origin keeps it
LARGEST_CARD = 2**20


def read_any(path: PathLike) -> Checkpoint:
    """Read a model of ours or a released one. Raises CheckpointError, FileError."""
    path = Path(path)
    return load_checkpoint(path) if is_ours(path) else read_released(path)


def is_ours(path: PathLike) -> bool:
    """Say whether a file is a checkpoint of ours, judging by its header alone."""
    path = Path(path)
    try:
        if not path.is_file() or not is_safetensors(map_file(path)):
            return False
        return METADATA_KEY in read_header(path)[METADATA]
    except (OSError, FileError, TensorFileError, PickleProblem):
        return False


def rounded(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """Round all weights to `dtype`, as which `save_checkpoint` writes them; the origin says so.

    Points of a learned grid stay as they are. Reading the file gives float32 again, of the rounded values.
    """
    origin = {**checkpoint.origin, "weights": str(dtype).removeprefix("torch.")}
    if checkpoint.sha256:
        origin["rounded_from"] = checkpoint.sha256
    return replace(checkpoint, generator=checkpoint.generator.to(dtype), origin=origin)


def with_card(checkpoint: Checkpoint, card: dict[str, Any]) -> Checkpoint:
    """Let a model carry a card: what its maker says of data, license, training and figures."""
    return replace(checkpoint, origin={**checkpoint.origin, CARD: card})


def read_card(path: PathLike) -> dict[str, Any]:
    """Read a card, a JSON object of at most a mebibyte. Raises FileError."""
    path = Path(path)
    data = read_bytes(path)
    if len(data) > LARGEST_CARD:
        raise FileError(path, f"{len(data):,} bytes; a card has at most {LARGEST_CARD:,}")
    try:
        card = parse_json(data)
    except JsonError as error:
        raise FileError(path, f"{error}; a card is a JSON object") from error
    if not isinstance(card, dict):
        raise FileError(path, f"a JSON {type(card).__name__}; a card is a JSON object, {{...}}")
    return card
