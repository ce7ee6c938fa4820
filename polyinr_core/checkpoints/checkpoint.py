"""Checkpoints: a generator, its metadata and its model card in one safetensors file."""

import copy
import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.errors import CheckpointError, ConfigError, FileError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import UNIT, Grid, LearnedGrid, RegularGrid, Window
from polyinr_core.models.generator import Generator, count_parameters, flops_per_pixel
from polyinr_core.models.layers import aligned
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, written_beside
from polyinr_core.runtime.rng import meta_init
from polyinr_core.runtime.strict_json import JsonError, are_texts, is_number, is_whole, parse_json
from polyinr_core.runtime.tensor_files import (
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

FORMAT = 1
METADATA_KEY = "polyinr"
OTHER_FILES = {  # metadata key: what a file with it is
    "polyinr_latents": "a latents file; render it by --latents, with the model that it is of",
    "polyinr_directions": "a directions file; give it to `polyinr directions`",
    "polyinr_statistics": "statistics of images; give them to `polyinr evaluate --real`",
}
LEARNED_GRID = "learned_grid"
CARD = "card"  # its key in `Checkpoint.origin`
MAX_CARD_BYTES = 2**20
MAX_PIXELS = 65536  # of a training resolution
PROBES = ((0.0, 0.0, 1.0), (0.5, 0.5, 1.0), (1.0, 1.0, 1.0))  # coordinates at which a model must give finite colors
DAMAGED = "a damaged checkpoint ({}); get or train it again"


@dataclass(frozen=True)
class Checkpoint:
    """A generator for inference (EMA weights) and its metadata.

    `learned_grid` [resolution^2, 2] holds the coordinates (x, y) that an official checkpoint learned with its weights.
    `sha256` is that of the file it was loaded from; images and latents name the model by it.
    """

    generator: Generator
    class_names: tuple[str, ...] = ()
    resolution: int = 0  # of the last training stage; 0: unknown
    kimg: float = 0.0
    data_sha256: str = ""
    origin: dict[str, Any] = field(default_factory=dict)  # how it was made: stages, converter, notices
    learned_grid: Tensor | None = None
    sha256: str = ""

    def grid(self, width: int, height: int, *, window: Window = UNIT) -> Grid:
        """Return the learned grid at exactly its own resolution and window, the regular one everywhere else."""
        if self.learned_grid is not None and (width, height) == (self.resolution,) * 2 and window == UNIT:
            return self._learned
        return RegularGrid(width, height, window)

    @cached_property
    def _learned(self) -> LearnedGrid:
        """The learned grid, one object, so that a GPU gets it once."""
        assert self.learned_grid is not None
        return LearnedGrid(self.learned_grid, self.resolution, self.resolution)


def save_checkpoint(path: PathLike, checkpoint: Checkpoint, *, overwrite: bool = False) -> None:
    """Save a checkpoint as one safetensors file. Raises CheckpointError, FileError."""
    path = Path(path)
    tensors = dict(checkpoint.generator.state_dict())
    if checkpoint.learned_grid is not None:
        tensors[LEARNED_GRID] = checkpoint.learned_grid
    facts = {
        "format": FORMAT,
        "generator": checkpoint.generator.config.to_dict(),
        "class_names": list(checkpoint.class_names),
        "resolution": checkpoint.resolution,
        "kimg": checkpoint.kimg,
        "data_sha256": checkpoint.data_sha256,
        "origin": checkpoint.origin,
    }
    try:
        check_facts(facts)
        check_values(tensors)
        check_finite(checkpoint.generator)
        data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
    except (JsonError, TensorFileError) as error:
        raise CheckpointError(path, f"cannot be written as a checkpoint: {error}") from error
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)


def load_checkpoint(path: PathLike) -> Checkpoint:
    """Load a checkpoint: float32, on the CPU, in eval mode. Raises CheckpointError, FileError."""
    path = Path(path)
    facts = read_facts(path)
    data = read_bytes(path)
    try:
        config = GeneratorConfig.from_dict(facts["generator"])
        held = read_tensors(data)
        check_values(held)
        tensors = {name: aligned(tensor.float()) for name, tensor in held.items()}
        learned_grid = tensors.pop(LEARNED_GRID, None)
        if learned_grid is not None and tuple(learned_grid.shape) != (shape := (facts["resolution"] ** 2, 2)):
            raise TensorFileError(f"{LEARNED_GRID} is {list(learned_grid.shape)}, not {list(shape)}")
        if max(config.levels, config.mapping_layers) > len(tensors):
            raise TensorFileError("more levels than tensors")
        with meta_init():  # and nothing is allocated for what a header merely claims
            generator = Generator(config)
        generator.load_state_dict(tensors, assign=True)
        generator = generator.eval().requires_grad_(False)
        check_finite(generator)
    except (TensorFileError, ConfigError, RuntimeError) as error:  # RuntimeError: names and shapes do not fit
        raise CheckpointError(path, DAMAGED.format(str(error).partition("\n")[0])) from error
    return Checkpoint(
        generator=generator,
        class_names=tuple(facts["class_names"]),
        resolution=facts["resolution"],
        kimg=float(facts["kimg"]),
        data_sha256=facts["data_sha256"],
        origin=facts["origin"],
        learned_grid=learned_grid,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def read_facts(path: PathLike) -> dict[str, Any]:
    """Return a checkpoint's metadata without reading its weights. Raises CheckpointError, FileError."""
    path = Path(path)
    facts = header_metadata(path, METADATA_KEY, DAMAGED)
    if facts is None:
        for key, kind in OTHER_FILES.items():
            if header_metadata(path, key, DAMAGED) is not None:
                raise CheckpointError(path, f"not a polyinr checkpoint, but {kind}")
        raise CheckpointError(path, "not a polyinr checkpoint; `polyinr convert` converts official ones")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise CheckpointError(path, f"checkpoint format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    try:
        check_facts(facts)
    except TensorFileError as error:
        raise CheckpointError(path, DAMAGED.format(error)) from error
    return facts


def header_metadata(path: Path, key: str, damaged: str) -> Any:
    """Return the JSON under a key of a safetensors header, None without it. Raises CheckpointError, FileError."""
    header = model_header(path)
    try:
        return facts_in(header, key)
    except TensorFileError as error:
        raise CheckpointError(path, damaged.format(error)) from error


def model_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file. Raises CheckpointError, FileError."""
    try:
        return read_header(path)
    except TensorFileError as error:
        hint = "`polyinr convert` reads official .pkl files"
        raise CheckpointError(path, f"not a safetensors file; {hint}") from error


def check_facts(facts: dict[str, Any]) -> None:
    """Raise TensorFileError unless all metadata of a checkpoint are there and of the right type."""
    good = {
        "generator": isinstance(facts.get("generator"), dict),
        "class_names": are_texts(facts.get("class_names")),
        "resolution": is_whole(facts.get("resolution"), 0, MAX_PIXELS),
        "kimg": is_number(facts.get("kimg")) and facts["kimg"] >= 0,
        "data_sha256": isinstance(facts.get("data_sha256"), str),
        "origin": isinstance(facts.get("origin"), dict),
    }
    if bad := [name for name, fits in good.items() if not fits]:
        raise TensorFileError(f"missing or of another type: {', '.join(bad)}")


@torch.no_grad()
def check_finite(generator: Generator) -> None:
    """Raise TensorFileError if a generator gives NaN or Inf, as finite weights may overflow."""
    like = generator.mapping.w_avg
    if like.dtype not in (torch.float32, torch.float64):  # stored rounded, evaluated in float32
        generator = copy.deepcopy(generator).float()
        like = generator.mapping.w_avg
    z = like.new_ones(1, generator.config.z_dim)
    label = torch.zeros(1, dtype=torch.int64, device=like.device) if generator.config.classes else None
    if not bool(generator(z, like.new_tensor(PROBES), label).isfinite().all()):
        raise TensorFileError("its weights overflow: its images are NaN or Inf")


def describe_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what `polyinr info` prints of a checkpoint: configuration, parameters, FLOPs per pixel, training."""
    config = checkpoint.generator.config
    return {
        "kind": "model",
        **config.to_dict(),
        "parameters": count_parameters(checkpoint.generator),
        "flops_per_pixel": flops_per_pixel(config),
        "class_names": list(checkpoint.class_names),
        "resolution": checkpoint.resolution,
        "kimg": checkpoint.kimg,
        "learned_grid": checkpoint.learned_grid is not None,
        "data_sha256": checkpoint.data_sha256,
        "origin": checkpoint.origin,
        "sha256": checkpoint.sha256,
    }


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
