"""Export: load official checkpoints and ours alike, round weights to fewer bits, add a model card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from polyinr_core.checkpoints.safe_unpickler import PickleProblem
from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, read_bytes
from polyinr_core.runtime.strict_json import JsonError, parse_json
from polyinr_core.runtime.tensor_files import METADATA, TensorFileError, read_header

from .checkpoint import METADATA_KEY, Checkpoint, load_checkpoint
from .official import is_safetensors, load_official_checkpoint, map_file

CARD = "card"  # its key in `Checkpoint.origin`
MAX_CARD_BYTES = 2**20


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


def round_weights(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """Return a checkpoint with its weights rounded to `dtype`, in which `save_checkpoint` stores them.

    A learned grid stays as it is. Loading the file gives float32 again, of the rounded values.
    """
    origin = {**checkpoint.origin, "weights": str(dtype).removeprefix("torch.")}
    if checkpoint.sha256:
        origin["rounded_from"] = checkpoint.sha256
    return replace(checkpoint, generator=checkpoint.generator.to(dtype), origin=origin)


def add_card(checkpoint: Checkpoint, card: dict[str, Any]) -> Checkpoint:
    """Return a checkpoint with a model card: what its author says of data, license, training and metrics."""
    return replace(checkpoint, origin={**checkpoint.origin, CARD: card})


def read_card(path: PathLike) -> dict[str, Any]:
    """Read a model card, a JSON object of at most 1 MiB. Raises FileError."""
    path = Path(path)
    data = read_bytes(path)
    if len(data) > MAX_CARD_BYTES:
        raise FileError(path, f"{len(data):,} bytes; a card has at most {MAX_CARD_BYTES:,}")
    try:
        card = parse_json(data)
    except JsonError as error:
        raise FileError(path, f"{error}; a card is a JSON object") from error
    if not isinstance(card, dict):
        raise FileError(path, f"a JSON {type(card).__name__}; a card is a JSON object, {{...}}")
    return card
