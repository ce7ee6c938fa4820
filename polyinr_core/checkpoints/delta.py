"""Delta files: a low-rank change of one checkpoint's synthesis network, as pivotal tuning makes it."""

import copy
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from polyinr_core.errors import CheckpointError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.strict_json import JsonError
from polyinr_core.runtime.tensor_files import METADATA, TensorFileError, check_values, encode_tensors, read_tensors

from .checkpoint import Checkpoint, check_finite, header_metadata, model_header

FORMAT = 1
METADATA_KEY = "polyinr_delta"
AXES = {"up": 3, "down": 3, "bias": 2, "rgb_weight": 2, "rgb_bias": 1}  # of each tensor
DAMAGED = "a damaged delta ({}); make it again"


@dataclass(frozen=True)
class Delta:
    """What is added to the synthesis weights: up [L, n, r] @ down [L, r, n], bias [L, n], and those of to_rgb.

    rgb_weight is [3, n], rgb_bias [3]. `model_sha256` is that of the checkpoint it was tuned for; `sha256` that of the
    delta file.
    """

    up: Tensor
    down: Tensor
    bias: Tensor
    rgb_weight: Tensor
    rgb_bias: Tensor
    model_sha256: str
    origin: dict[str, Any] = field(default_factory=dict)  # how it was made: steps, photos, scores
    sha256: str = ""

    @property
    def rank(self) -> int:
        return self.up.shape[-1]


def save_delta(path: PathLike, delta: Delta, *, overwrite: bool = False) -> Delta:
    """Save a delta file; return the delta with the file's hash. Raises CheckpointError, FileError."""
    path = Path(path)
    facts = {"format": FORMAT, "model_sha256": delta.model_sha256, "rank": delta.rank, "origin": delta.origin}
    tensors = {name: getattr(delta, name) for name in AXES}
    try:
        check_values(tensors)
        data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except (JsonError, TensorFileError) as error:
        raise CheckpointError(path, f"cannot be written as a delta: {error}") from error
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)
    return replace(delta, sha256=hashlib.sha256(data).hexdigest())


def is_delta(path: PathLike) -> bool:
    """Return whether a file is a delta, by its header. Raises CheckpointError if it is no safetensors file."""
    return METADATA_KEY in model_header(Path(path))[METADATA]


def load_delta(path: PathLike) -> Delta:
    """Load a delta file: float32, on the CPU. Raises CheckpointError, FileError."""
    path = Path(path)
    facts = header_metadata(path, METADATA_KEY, DAMAGED)
    if facts is None:
        raise CheckpointError(path, "not a delta; `polyinr invert PHOTO --tune` makes one")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise CheckpointError(path, f"delta format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    data = read_bytes(path)
    try:
        tensors = read_tensors(data)
        if tensors.keys() != AXES.keys():
            raise TensorFileError(f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not {', '.join(AXES)}")
        check_values(tensors)
        for name, count in AXES.items():
            if tensors[name].dim() != count:
                shape = list(tensors[name].shape)
                raise TensorFileError(f"{name} has the shape {shape}, {count} dimensions are needed")
        origin, model = facts.get("origin"), facts.get("model_sha256")
        if not isinstance(origin, dict) or not isinstance(model, str):
            raise TensorFileError("its origin or its model is missing or of another type")
    except TensorFileError as error:
        raise CheckpointError(path, DAMAGED.format(error)) from error
    return Delta(
        **{name: tensor.float() for name, tensor in tensors.items()},
        model_sha256=model,
        origin=origin,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def apply_delta(checkpoint: Checkpoint, delta: Delta, *, source: Path) -> Checkpoint:
    """Return the checkpoint with a delta added to its weights; its `sha256` combines both.

    Raises CheckpointError if the delta was made for another checkpoint, does not fit, or makes it overflow.
    """
    if delta.model_sha256 != checkpoint.sha256:
        raise CheckpointError(
            source,
            f"a delta of the model {delta.model_sha256[:12]}..., not of {checkpoint.sha256[:12]}...; "
            "take the model that it was tuned from",
        )
    check_shapes(checkpoint.generator.config, delta, source=source)
    generator = copy.deepcopy(checkpoint.generator)
    synthesis = generator.synthesis
    with torch.no_grad():
        for level, product in enumerate(synthesis.products):
            linear = cast(nn.Linear, product)
            linear.weight.add_((delta.up[level] @ delta.down[level]).to(linear.weight))
            linear.bias.add_(delta.bias[level].to(linear.bias))
        synthesis.to_rgb.weight.add_(delta.rgb_weight.to(synthesis.to_rgb.weight))
        synthesis.to_rgb.bias.add_(delta.rgb_bias.to(synthesis.to_rgb.bias))
    try:
        check_finite(generator)
    except TensorFileError as error:
        raise CheckpointError(source, f"with this delta the model overflows ({error}); make it again") from error
    origin, sha256 = {**checkpoint.origin, "delta": delta.origin}, combined_sha256(checkpoint.sha256, delta.sha256)
    return replace(checkpoint, generator=generator, origin=origin, sha256=sha256)


def combined_sha256(model: str, delta: str) -> str:
    """Return the hash that names a checkpoint with a delta."""
    return hashlib.sha256(f"{model}+{delta}".encode()).hexdigest()


def check_shapes(config: GeneratorConfig, delta: Delta, *, source: Path) -> None:
    """Raise CheckpointError unless a delta's tensors have the shapes that the model needs."""
    levels, n, rank = config.levels, config.channels, delta.rank
    expected = {"up": (levels, n, rank), "down": (levels, rank, n), "bias": (levels, n)}
    for name, shape in {**expected, "rgb_weight": (3, n), "rgb_bias": (3,)}.items():
        found = list(getattr(delta, name).shape)
        if found != list(shape):
            raise CheckpointError(source, f"{name} is {found}, the model needs {list(shape)}; make the delta again")


def describe_delta(delta: Delta) -> dict[str, Any]:
    """Return a delta's facts: what it was tuned to, its model, its rank and its hash."""
    return {"kind": "delta", **delta.origin, "model": delta.model_sha256, "rank": delta.rank, "sha256": delta.sha256}
