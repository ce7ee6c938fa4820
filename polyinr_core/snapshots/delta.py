"""The delta file: a small change of one model's synthesis network, tuned around some pictures."""

import copy
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..errors import SnapshotError
from ..files import read_bytes, written_beside
from ..model import GeneratorConfig
from .snapshot import Snapshot, read_header

FORMAT = 1
METADATA_KEY = "polyinr_delta"
NAMES = ("up", "down", "bias", "rgb_weight", "rgb_bias")


@dataclass(frozen=True)
class Delta:
    """What is added to a model's weights: up [L, n, r] times down [L, r, n], bias [L, n], and to_rgb's own.

    rgb_weight is [3, n], rgb_bias [3]. `model_sha256` names the model that it fits; `sha256` is that of the
    delta's file.
    """

    up: Tensor
    down: Tensor
    bias: Tensor
    rgb_weight: Tensor
    rgb_bias: Tensor
    model_sha256: str
    origin: dict[str, Any] = field(default_factory=dict)  # how it was made: steps, photos, what it scored
    sha256: str = ""

    @property
    def rank(self) -> int:
        return self.up.shape[-1]


def encode_delta(delta: Delta) -> bytes:
    """Return the bytes of a delta file."""
    facts = {
        "format": FORMAT,
        "model_sha256": delta.model_sha256,
        "rank": delta.rank,
        "origin": delta.origin,
    }
    tensors = {name: getattr(delta, name).detach().cpu().contiguous() for name in NAMES}
    return save(tensors, metadata={METADATA_KEY: json.dumps(facts, sort_keys=True)})


def write_delta(path: Path, delta: Delta, *, overwrite: bool = False) -> Delta:
    """Write a delta file, and return the delta with the file's hash. Raises FileError."""
    data = encode_delta(delta)
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)
    return replace(delta, sha256=hashlib.sha256(data).hexdigest())


def is_delta(path: Path) -> bool:
    """Say whether a file is a delta, by its header alone. Raises SnapshotError if it is no safetensors file."""
    metadata = read_header(path).get("__metadata__")
    return isinstance(metadata, dict) and METADATA_KEY in metadata


def read_delta(path: Path) -> Delta:
    """Read a delta file: float32, on the CPU. Raises SnapshotError, FileError."""
    if not is_delta(path):
        raise SnapshotError(path, "not a delta; `polyinr invert PHOTO --tune` makes one")
    data = read_bytes(path)
    try:
        metadata = read_header(path)["__metadata__"]
        facts = json.loads(metadata[METADATA_KEY])
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            number = facts.get("format") if isinstance(facts, dict) else None
            raise SnapshotError(path, f"delta format {number!r}, this polyinr reads {FORMAT}; update polyinr")
        tensors = {name: tensor.float() for name, tensor in load(data).items()}
        if set(tensors) != set(NAMES):
            raise ValueError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not {', '.join(NAMES)}")
        origin = facts["origin"]
        if not isinstance(origin, dict):
            raise ValueError("its origin is no record")
        delta = Delta(
            **tensors,
            model_sha256=str(facts["model_sha256"]),
            origin=origin,
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise SnapshotError(path, f"a damaged delta ({reason}); make it again") from error
    for name in NAMES:
        if not bool(torch.isfinite(getattr(delta, name)).all()):
            raise SnapshotError(path, f"{name} holds values that are no finite numbers; make the delta again")
    return delta


def apply_delta(snapshot: Snapshot, delta: Delta, *, source: Path) -> Snapshot:
    """Return the model with the delta added to its weights; its sha256 is one of both together.

    Raises SnapshotError if the delta was made for another model, or does not fit.
    """
    if delta.model_sha256 != snapshot.sha256:
        raise SnapshotError(
            source,
            f"a delta of the model {delta.model_sha256[:12]}..., not of {snapshot.sha256[:12]}...; "
            "take the model that it was tuned from",
        )
    check_shapes(snapshot.generator.config, delta, source=source)
    generator = copy.deepcopy(snapshot.generator)
    synthesis = generator.synthesis
    with torch.no_grad():
        for level, product in enumerate(synthesis.products):
            linear = cast(nn.Linear, product)
            linear.weight.add_((delta.up[level] @ delta.down[level]).to(linear.weight))
            linear.bias.add_(delta.bias[level].to(linear.bias))
        synthesis.to_rgb.weight.add_(delta.rgb_weight.to(synthesis.to_rgb.weight))
        synthesis.to_rgb.bias.add_(delta.rgb_bias.to(synthesis.to_rgb.bias))
    origin = {**snapshot.origin, "delta": delta.origin}
    together = combined_sha256(snapshot.sha256, delta.sha256)
    return replace(snapshot, generator=generator, origin=origin, sha256=together)


def combined_sha256(model: str, delta: str) -> str:
    """Return the hash by which pictures and latents remember a model with a delta: that of both hashes."""
    return hashlib.sha256(f"{model}+{delta}".encode()).hexdigest()


def check_shapes(config: GeneratorConfig, delta: Delta, *, source: Path) -> None:
    """Raise SnapshotError unless a delta's tensors have the shapes that the model asks for."""
    levels, n = config.levels, config.channels
    rank = delta.up.shape[-1] if delta.up.dim() == 3 else 0
    expected = {
        "up": (levels, n, rank),
        "down": (levels, rank, n),
        "bias": (levels, n),
        "rgb_weight": (3, n),
        "rgb_bias": (3,),
    }
    for name, shape in expected.items():
        if tuple(getattr(delta, name).shape) != shape:
            found = list(getattr(delta, name).shape)
            raise SnapshotError(source, f"{name} is {found}, the model needs {list(shape)}; make the delta again")
