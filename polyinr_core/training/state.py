"""State on disk: all that resuming needs, written whole, with its SHA-256 beside it."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from ..errors import FileError
from ..files import read_bytes, written_beside

KEPT = 2  # the newest state and the one before it


class State(NamedTuple):
    """Tensors by name and the counters that go with them."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]


def write_state(folder: Path, state: State, *, images: int) -> None:
    """Write the state reached after `images` pictures; keep the one before it. Raises FileError.

    The manifest is written last: a state without one, or whose sum differs, was never finished. All other
    states go: older ones, newer ones (which were damaged, or the run would stand there), and half-written ones.
    """
    weights = folder / f"{images:012d}.safetensors"
    data = save({name: tensor.contiguous() for name, tensor in state.tensors.items()})
    with written_beside(weights, overwrite=True) as draft:
        draft.write_bytes(data)
    manifest = {"sha256": hashlib.sha256(data).hexdigest(), "counters": state.counters}
    with written_beside(weights.with_suffix(".json"), overwrite=True) as draft:
        draft.write_text(json.dumps(manifest))
    kept = sorted(path.stem for path in folder.glob("*.json") if path.stem <= weights.stem)[-KEPT:]
    for path in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
        if path.stem not in kept:
            path.unlink(missing_ok=True)
    for draft in folder.glob(".*.part"):
        shutil.rmtree(draft, ignore_errors=True)


def read_state(folder: Path) -> tuple[State | None, list[str]]:
    """Return the newest sound state, if any, and a line about each newer one that is damaged.

    Raises FileError when there are states and none is sound, or one cannot be read: starting anew, or from
    further back, must be the user's choice.
    """
    damaged: list[str] = []
    manifests = sorted(folder.glob("*.json"), reverse=True)
    for manifest in manifests:
        try:
            facts = json.loads(read_bytes(manifest))
            weights = manifest.with_suffix(".safetensors")
            if not weights.exists():
                raise ValueError(f"{weights.name} is missing")
            data = read_bytes(weights)
            if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise ValueError("its SHA-256 differs")
            return State(load(data), facts["counters"]), damaged  # copies: a file mapped to memory may change
        except (ValueError, KeyError, TypeError) as error:
            damaged.append(f"{manifest}: damaged ({error}); the state before it is used")
    if manifests:
        raise FileError(folder, "no state here is sound; move the folder away to start anew")
    return None, damaged


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's moments as named tensors: `<parameter index>.<moment>`."""
    moments = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, slot in moments.items() for name, value in slot.items()}


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` returned."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})
