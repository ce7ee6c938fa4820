"""A model made anew as a file: from a released one or one of ours, in fewer bits, with a card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import FileError
from ..files import PathLike, read_bytes
from ..pickles import PickleProblem
from ..strict_json import JsonError, parse_json
from ..tensor_files import METADATA, TensorFileError, read_header
from .released import is_safetensors, map_file, read_released
from .snapshot import METADATA_KEY, Snapshot, load_snapshot

CARD = "card"  # under this name a model's origin keeps it
LARGEST_CARD = 2**20


def read_any(path: PathLike) -> Snapshot:
    """Read a model of ours or a released one. Raises SnapshotError, FileError."""
    path = Path(path)
    return load_snapshot(path) if is_ours(path) else read_released(path)


def is_ours(path: PathLike) -> bool:
    """Say whether a file is a snapshot of ours, judging by its header alone."""
    path = Path(path)
    try:
        if not path.is_file() or not is_safetensors(map_file(path)):
            return False
        return METADATA_KEY in read_header(path)[METADATA]
    except (OSError, FileError, TensorFileError, PickleProblem):
        return False


def rounded(snapshot: Snapshot, dtype: torch.dtype) -> Snapshot:
    """Round all weights to `dtype`, as which `save_snapshot` writes them; the origin says so.

    Points of a learned grid stay as they are. Reading the file gives float32 again, of the rounded values.
    """
    origin = {**snapshot.origin, "weights": str(dtype).removeprefix("torch.")}
    if snapshot.sha256:
        origin["rounded_from"] = snapshot.sha256
    return replace(snapshot, generator=snapshot.generator.to(dtype), origin=origin)


def with_card(snapshot: Snapshot, card: dict[str, Any]) -> Snapshot:
    """Let a model carry a card: what its maker says of data, licence, training and figures."""
    return replace(snapshot, origin={**snapshot.origin, CARD: card})


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
