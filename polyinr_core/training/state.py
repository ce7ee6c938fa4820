"""State on disk: all that resuming needs, written whole, with its SHA-256 beside it."""

import copy
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Adam, Optimizer

from polyinr_core.discriminator.discriminator import ProjectedDiscriminator, Weights
from polyinr_core.errors import ConfigError, FileError, TrainingError
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.atomic_io import explain, read_bytes, sha256_of, written_beside
from polyinr_core.runtime.distributed import ALONE, Ranks
from polyinr_core.runtime.format1 import FORMAT, upgrade, upgrade_tensor_name
from polyinr_core.runtime.rng import generator_for, seeded_init
from polyinr_core.runtime.strict_json import JsonError, format_json, is_whole, parse_json, plain_json
from polyinr_core.runtime.tensor_files import read_tensors as mapped_tensors

from .config import TrainingConfig
from .init import balance
from .step import Networks

KEPT = 2  # the newest state and the one before it


class State(NamedTuple):
    """Tensors by name and the counters that go with them: plain JSON, `stage` and `images` among them."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]


def write_state(folder: Path, state: State, *, images: int) -> None:
    """Write the state reached after `images` images; keep the one before it. Raises FileError.

    The manifest is written last: a state without one, or whose sum differs, was never finished. All other
    states go: older ones, newer ones (which were damaged, or the run would stand there), and half-written ones.
    """
    weights = folder / f"{images:012d}.safetensors"
    try:
        counters = checked_counters(plain_json(state.counters))
    except (JsonError, ValueError) as error:
        raise FileError(weights, f"cannot be written: {error}") from error
    with written_beside(weights, overwrite=True) as draft:
        write_tensors(draft, state.tensors)
        sha256 = sha256_of(draft)
    with written_beside(weights.with_suffix(".json"), overwrite=True) as draft:
        manifest = format_json({"format": FORMAT, "sha256": sha256, "counters": counters})
        draft.write_text(manifest, encoding="utf-8")
    clear_others(folder, newest=weights.stem)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors straight to a file, without a copy of all of them in memory. Raises OSError."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # the library wraps what the system says into a text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    path.chmod(mode)  # the library makes it readable to its owner alone


def clear_others(folder: Path, *, newest: str) -> None:
    """Remove all states but the newest and the one before it, manifests first, and drafts. Raises FileError."""
    kept = sorted(path.stem for path in folder.glob("*.json") if path.stem <= newest)[-KEPT:]
    for path in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
        if path.stem not in kept:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise explain(path, error) from error
    for draft in folder.glob(".*.part"):
        shutil.rmtree(draft, ignore_errors=True)


def read_state(folder: Path) -> tuple[State | None, list[str]]:
    """Return the newest sound state, if any, and a line about each newer one that is damaged.

    Raises FileError when there are states and none is sound, or one cannot be read, or is of another format:
    starting anew, or from further back, must be the user's choice.
    """
    damaged: list[str] = []
    manifests = manifests_in(folder)
    for manifest in manifests:
        try:
            sha256, counters = read_manifest(manifest)
            weights = manifest.with_suffix(".safetensors")
            if not weights.exists():
                raise ValueError(f"{weights.name} is missing")
            if sha256_of(weights) != sha256:
                raise ValueError("its SHA-256 differs")
            return State(read_tensors(weights), counters), damaged
        except ValueError as error:
            damaged.append(f"{manifest}: damaged ({error}); the state before it is used")
    if manifests:
        raise FileError(folder, "no state here is sound; move the folder away to start anew")
    return None, damaged


def reached(folder: Path) -> tuple[int, int] | None:
    """Return the stage and the images seen in it by the newest state's counters, None without one.

    The tensors are not looked at. Raises FileError.
    """
    for manifest in manifests_in(folder):
        try:
            _, counters = read_manifest(manifest)
            return counters["stage"], counters["images"]
        except (ValueError, KeyError):
            continue
    return None


def manifests_in(folder: Path) -> list[Path]:
    """Return the manifests of a folder, the newest first. Raises FileError where one may not look."""
    try:
        names = os.listdir(folder)  # a glob would find nothing where it may not look, and the run start anew
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain(folder, error) from error
    return [folder / name for name in sorted(names, reverse=True) if re.fullmatch(r"\d+\.json", name)]


def read_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a state's SHA-256 and counters. Raises FileError; ValueError if damaged."""
    facts = parse_json(read_bytes(path))
    facts = upgrade(facts)
    form = facts.get("format", FORMAT) if isinstance(facts, dict) else FORMAT
    if form != FORMAT:
        raise FileError(path, f"a state of format {form!r}, this polyinr reads {FORMAT}; update polyinr")
    if not isinstance(facts, dict) or not isinstance(facts.get("sha256"), str):
        raise ValueError("it holds no SHA-256")
    return facts["sha256"], checked_counters(facts.get("counters"))


def checked_counters(counters: Any) -> dict[str, Any]:
    """Return a state's counters. Raises ValueError unless each that is there is of its kind."""
    if not isinstance(counters, dict):
        raise ValueError("it holds no counters")
    for name in ("stage", "images", "images_before"):
        if not is_whole(counters.get(name, 0)):
            raise ValueError(f"its counter {name} is no whole number")
    if not isinstance(counters.get("notes", {}), dict):
        raise ValueError("its notes are no object")
    return counters


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors as copies, one after another: a file that is mapped to memory may change."""
    return {upgrade_tensor_name(name): tensor.clone() for name, tensor in mapped_tensors(path).items()}


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments as named tensors: `<parameter index>.<moment>`."""
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


MAX_STAGES = 1000  # of one seed, each with its own discriminator


@dataclass
class Session:
    """What a run carries from iteration to iteration. Every random draw is a function of the seed and of this."""

    networks: Networks
    stage: int = 0
    images: int = 0  # seen in this stage
    images_before: int = 0  # seen in earlier stages
    notes: dict[str, Any] = field(default_factory=dict)  # what those who watch a run remember, as JSON

    @property
    def seen(self) -> int:
        """Return the images seen in all stages."""
        return self.images_before + self.images

    @property
    def averaged(self) -> Generator:
        """Return the averaged generator in float32, as it is kept and judged."""
        ema = self.networks.ema
        return ema if ema.mapping.w_avg.dtype == torch.float32 else copy.deepcopy(ema).float()


def first_generator(config: TrainingConfig, classes: int, table: Tensor | None) -> Generator:
    """Make the generator that the first stage starts from; `table` [classes, 320] starts its class table."""
    with seeded_init("generator", config.seed):
        generator = Generator(config.generator(classes))
    if config.start == "balanced":
        balance(generator, generator_for("start", config.seed))
    if table is not None:
        generator.mapping.table.weight.data[: len(table)] = table
    return generator


def begin_stage(
    config: TrainingConfig,
    generator: Generator,
    *,
    stage: int,
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    table: Tensor | None = None,
    ranks: Ranks = ALONE,
) -> Session:
    """Start a stage: the generator goes on from `generator`; discriminator, optimizers and average start anew.

    `table` [classes, 320] starts the class tables of the discriminator's heads. In float64 all networks compute so; in
    a narrower format weights stay float32.
    """
    discriminator = ProjectedDiscriminator(
        config.discriminator(generator.config.classes), weights, seed=config.seed * MAX_STAGES + stage
    )
    if table is not None:
        discriminator.start_tables(table)
    discriminator.share_statistics(ranks)
    wide = torch.promote_types(dtype, torch.float32)
    generator = generator.to(device, wide).train().requires_grad_(True)
    generator.synthesis.product_dtype = dtype if dtype != wide else None
    discriminator = discriminator.to(device, wide).train()
    ranks.same_as_first([*generator.state_dict().values(), *discriminator.own_state().values()])
    # fused: one pass over the weights, measured five times as fast as PyTorch's default on a CPU
    g_optimizer = Adam(generator.parameters(), lr=config.g_lr, betas=(0.0, config.g_beta2), eps=1e-8, fused=True)
    d_optimizer = Adam(
        discriminator.head_parameters(), lr=config.d_lr, betas=(0.0, config.d_beta2), eps=1e-8, fused=True
    )
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    ema.synthesis.product_dtype = None
    return Session(Networks(generator, ema, discriminator, g_optimizer, d_optimizer), stage)


def pack(session: Session) -> State:
    """Return the session as a state."""
    networks = session.networks
    parts = {
        "generator": networks.generator.state_dict(),
        "ema": networks.ema.state_dict(),
        "discriminator": networks.discriminator.own_state(),
        "g_optimizer": pack_optimizer(networks.g_optimizer),
        "d_optimizer": pack_optimizer(networks.d_optimizer),
    }
    tensors = {f"{part}/{key}": value.detach() for part, values in parts.items() for key, value in values.items()}
    counters = {
        "stage": session.stage,
        "images": session.images,
        "images_before": session.images_before,
        "notes": session.notes,
    }
    return State(tensors, counters)


def unpack(session: Session, state: State) -> None:
    """Put the tensors of a state into a session that has just begun the same stage, and set its counters.

    Raises TrainingError where they do not fit: the state of another run.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.tensors.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    networks = session.networks
    try:
        networks.generator.load_state_dict(parts["generator"])
        networks.ema.load_state_dict(parts["ema"])
        networks.discriminator.load_own_state(parts["discriminator"])
        unpack_optimizer(networks.g_optimizer, parts.get("g_optimizer", {}))
        unpack_optimizer(networks.d_optimizer, parts.get("d_optimizer", {}))
        images, images_before = state.counters["images"], state.counters["images_before"]
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, ConfigError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(
            f"the state does not fit this run ({reason}); put its own state/ back, or move it away to start anew"
        ) from error
    session.images, session.images_before = images, images_before
    session.notes = state.counters.get("notes", {})


def shared_state(state: State | None, ranks: Ranks) -> State | None:
    """Return the first rank's state on every rank; only that one reads files."""
    if ranks.count == 1:
        return state
    layout = ranks.fact(state and (state.counters, {key: (t.shape, t.dtype) for key, t in state.tensors.items()}))
    if layout is None:
        return None
    counters, shapes = layout
    tensors = (
        state.tensors if state else {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in shapes.items()}
    )
    ranks.same_as_first(tensors.values())
    return State(tensors, counters)
