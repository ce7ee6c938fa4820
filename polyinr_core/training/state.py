"""State on disk: all that resuming needs, written whole, with its SHA-256 beside it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file, save
from torch import Tensor
from torch.optim import Optimizer

from ..errors import FileError
from ..files import explain, sha256_of, written_beside

KEPT = 2  # the newest state and the one before it


class State(NamedTuple):
    """Tensors by name and the counters that go with them."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]


def write_state(folder: Path, state: State, *, images: int) -> None:
    """Write the state reached after `images` pictures; keep the one before it. Raises FileError.

    The manifest is written last: a state without one, or whose sum differs, was never finished.
    """
    weights = folder / f"{images:012d}.safetensors"
    with written_beside(weights, overwrite=True) as draft:
        draft.write_bytes(save({name: tensor.contiguous() for name, tensor in state.tensors.items()}))
    manifest = {"sha256": sha256_of(weights), "counters": state.counters}
    with written_beside(weights.with_suffix(".json"), overwrite=True) as draft:
        draft.write_text(json.dumps(manifest))
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def read_state(folder: Path) -> tuple[State | None, list[str]]:
    """Return the newest sound state, if any, and a line about each newer one that is damaged.

    Raises FileError when there are states and none is sound: starting anew must be the user's choice.
    """
    damaged: list[str] = []
    manifests = sorted(folder.glob("*.json"), reverse=True)
    for manifest in manifests:
        try:
            facts = json.loads(manifest.read_text())
            weights = manifest.with_suffix(".safetensors")
            if sha256_of(weights) != facts["sha256"]:
                raise ValueError("its SHA-256 differs")
            return State(load_file(weights), facts["counters"]), damaged
        except OSError as error:
            raise explain(manifest, error) from error
        except (FileError, ValueError, KeyError, TypeError) as error:
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
