"""The snapshot: one safetensors file that holds a generator and the facts about it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import ConfigError, SnapshotError
from ..files import explain, read_bytes, refuse_special, written_beside
from ..model import UNIT, Bounds, Generator, GeneratorConfig, Grid, LearnedGrid, RegularGrid
from ..model.generator import count_parameters
from ..model.layers import aligned
from ..model.synthesis import flops_per_pixel
from ..seeds import no_start_values

FORMAT = 1
LEARNED_GRID = "learned_grid"
LONGEST_HEADER = 100_000_000  # safetensors has the same limit


@dataclass(frozen=True)
class Snapshot:
    """A model for use: EMA weights and what a user must know about them.

    `learned_grid` [resolution^2, 2] holds the points (x, y) that a released file learned with its weights.
    `sha256` is that of the file it was read from, the name by which pictures and latents remember it.
    """

    generator: Generator
    class_names: tuple[str, ...] = ()
    resolution: int = 0  # last training resolution; 0: unknown
    kimg: float = 0.0
    data_sha256: str = ""
    origin: dict[str, Any] = field(default_factory=dict)  # how it was made: stages, converter, notices
    learned_grid: Tensor | None = None
    sha256: str = ""

    def grid(self, width: int, height: int, *, bounds: Bounds = UNIT) -> Grid:
        """Return the learned grid at exactly its own resolution and window, the regular one everywhere else."""
        if self.learned_grid is not None and (width, height) == (self.resolution,) * 2 and bounds == UNIT:
            return LearnedGrid(self.learned_grid, width, height)
        return RegularGrid(width, height, bounds)


def save_snapshot(path: Path, snapshot: Snapshot, *, overwrite: bool = False) -> None:
    """Write a snapshot as one safetensors file. Raises FileError."""
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.generator.state_dict().items()}
    if snapshot.learned_grid is not None:
        tensors[LEARNED_GRID] = snapshot.learned_grid.contiguous()
    facts = {
        "format": FORMAT,
        "generator": snapshot.generator.config.to_dict(),
        "class_names": list(snapshot.class_names),
        "resolution": snapshot.resolution,
        "kimg": snapshot.kimg,
        "data_sha256": snapshot.data_sha256,
        "origin": snapshot.origin,
    }
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(save(tensors, metadata={"polyinr": json.dumps(facts, sort_keys=True)}))


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot: float32, on the CPU, in eval mode. Raises SnapshotError, FileError."""
    facts = read_facts(path)
    data = read_bytes(path)
    try:
        config = GeneratorConfig.from_dict(facts["generator"])
        tensors = {name: aligned(tensor.float()) for name, tensor in load(data).items()}
        learned_grid = tensors.pop(LEARNED_GRID, None)
        if max(config.levels, config.mapping_layers) > len(tensors):
            raise ValueError("more levels than tensors")
        with no_start_values():  # and nothing is allocated for what a header merely claims
            generator = Generator(config)
        generator.load_state_dict(tensors, assign=True)
        if not isinstance(facts["origin"], dict) or not all(isinstance(x, str) for x in facts["class_names"]):
            raise TypeError("class names are text, its origin is an object")
        return Snapshot(
            generator=generator.eval().requires_grad_(False),
            class_names=tuple(facts["class_names"]),
            resolution=int(facts["resolution"]),
            kimg=float(facts["kimg"]),
            data_sha256=str(facts["data_sha256"]),
            origin=facts["origin"],
            learned_grid=learned_grid,
            sha256=hashlib.sha256(data).hexdigest(),
        )
    except (SafetensorError, ConfigError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise SnapshotError(path, f"a damaged snapshot ({reason}); get or train it again") from error


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in a snapshot's header, without reading its weights. Raises SnapshotError, FileError."""
    metadata = read_header(path).get("__metadata__")
    if not isinstance(metadata, dict) or "polyinr" not in metadata:
        raise SnapshotError(path, "not a polyinr snapshot; `polyinr convert` turns released models into one")
    try:
        facts = strict_json(metadata["polyinr"])
    except (ValueError, TypeError, RecursionError) as error:
        raise SnapshotError(path, "a damaged snapshot (its header is no JSON); get or train it again") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        number = facts.get("format") if isinstance(facts, dict) else None
        raise SnapshotError(path, f"snapshot format {number!r}, this polyinr reads {FORMAT}; update polyinr")
    return facts


def strict_json(text: str | bytes) -> Any:
    """Read JSON that can be written again: finite numbers, whole letters. Raises ValueError, TypeError."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    return value


def read_header(path: Path) -> dict[str, Any]:
    """Return a safetensors file's JSON header. Raises SnapshotError when it has none, FileError."""
    wrong = SnapshotError(path, "not a safetensors file; `polyinr convert` reads released .pkl files")
    refuse_special(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size, LONGEST_HEADER):
                raise wrong
            header = json.loads(file.read(length))
    except OSError as error:
        raise explain(path, error) from error
    except (ValueError, RecursionError) as error:
        raise wrong from error
    if not isinstance(header, dict):
        raise wrong
    return header


def model_note(snapshot: Snapshot) -> dict[str, Any]:
    """Return what `polyinr info MODEL` prints: form, widths, parameters by part, FLOPs a pixel, training."""
    config = snapshot.generator.config
    return {
        "kind": "model",
        **config.to_dict(),
        "parameters": count_parameters(snapshot.generator),
        "flops_per_pixel": flops_per_pixel(config),
        "class_names": list(snapshot.class_names),
        "resolution": snapshot.resolution,
        "kimg": snapshot.kimg,
        "learned_grid": snapshot.learned_grid is not None,
        "data_sha256": snapshot.data_sha256,
        "origin": snapshot.origin,
        "sha256": snapshot.sha256,
    }
