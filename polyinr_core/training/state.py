"""The training state: networks, optimizers and counters in memory, and as files that a run resumes from."""

import copy
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Adam, Optimizer

from polyinr_core.discriminator.discriminator import ProjectedDiscriminator, Weights
from polyinr_core.errors import ConfigError, FileError, RequestError, TrainingError
from polyinr_core.metrics.inception import load_inception
from polyinr_core.models.generator import Generator
from polyinr_core.runtime import pretrained
from polyinr_core.runtime.atomic_io import explain, read_bytes, sha256_of, written_beside
from polyinr_core.runtime.device import measure_convolutions
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.resources import check_gpu_memory, check_memory
from polyinr_core.runtime.rng import generator_for, meta_init, seeded_init
from polyinr_core.runtime.strict_json import (
    FORMAT,
    JsonError,
    format_json,
    is_number,
    is_whole,
    parse_json,
    plain_json,
    upgrade,
    upgrade_counters,
    upgrade_tensor_name,
)
from polyinr_core.runtime.tensor_files import read_tensors as map_tensors

from .classifier_guidance import uses_guidance
from .config import TrainingConfig, metric_networks
from .init import balance

KEPT_STATES = 2  # the newest and the one before it
BYTES_PER_PARAMETER = 5 * 4  # weight, average, gradient and two moments, in float32
MAX_STAGES = 1000  # of one seed, each with its own discriminator


@dataclass
class TrainingState:
    """Networks, optimizers and counters. Every random draw of a run is a function of the seed and of the counters.

    Attributes:
        stage: Number of the stage, from 0.
        images: Images seen in this stage.
        images_before: Images seen in earlier stages.
        hooks: What the hooks remember from one iteration to the next, as JSON.
        augment_p: Probability of each operation of adaptive augmentation.
        logit_means: Running means of the discriminator's logits of reals and of fakes [2], None before the first
            iteration.
        max_chunk: Pixels of the generator's backward pass at a time, once memory has run out. Not saved.
        failure: Number of the first loss or gradient that was not finite [], 0 for none (see step_stats). Not saved.
    """

    generator: Generator
    ema: Generator
    discriminator: ProjectedDiscriminator
    g_optimizer: Optimizer
    d_optimizer: Optimizer
    stage: int = 0
    images: int = 0
    images_before: int = 0
    hooks: dict[str, Any] = field(default_factory=dict)
    augment_p: float = 0.0
    logit_means: Tensor | None = None
    max_chunk: int | None = None
    failure: Tensor | None = None

    @property
    def total_images(self) -> int:
        """Images seen in all stages."""
        return self.images_before + self.images

    @property
    def ema_float32(self) -> Generator:
        """The averaged generator in float32, as checkpoints hold it and metrics measure it."""
        ema = self.ema
        return ema if ema.mapping.w_avg.dtype == torch.float32 else copy.deepcopy(ema).float()


def check_state_memory(config: TrainingConfig, device: torch.device) -> None:
    """Raise RequestError if the generator with its average, gradients and moments does not fit into memory."""
    with meta_init():
        parameters = sum(tensor.numel() for tensor in Generator(config.generator(0)).parameters())
    needed, purpose = parameters * BYTES_PER_PARAMETER, f"training a generator of {config.channels} channels"
    if device.type == "cuda":
        check_gpu_memory(needed, device, purpose=purpose, advice="use fewer --channels")
    else:
        check_memory(needed, purpose=purpose, advice="use fewer --channels")


def create_generator(config: TrainingConfig, classes: int, class_means: Tensor | None = None) -> Generator:
    """Build the generator of the first stage; `class_means` [classes, 320] are the first rows of its class table."""
    with seeded_init("generator", config.seed):
        generator = Generator(config.generator(classes))
    if config.start == "balanced":
        balance(generator, generator_for("start", config.seed))
    if class_means is not None:
        generator.mapping.table.weight.data[: len(class_means)] = class_means
    return generator


def required_networks(config: TrainingConfig, given: Mapping[str, Any] | None = None) -> list[str]:
    """Return the names of the pretrained networks that a run uses.

    Raises RequestError if `given`, networks or weight files by name, has the file of another one.
    """
    metrics = metric_networks(config.metrics) if config.metric_every else ()
    names = {*config.backbones, "lite0", *metrics, *([config.classifier] if uses_guidance(config) else [])}
    files = {name for name, network in (given or {}).items() if isinstance(network, str | os.PathLike)}
    if unused := files - names:
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which this run does not use")
    return sorted(names)


def load_networks(
    config: TrainingConfig, given: Mapping[str, Any] | None = None, *, download: bool = False
) -> dict[str, Any]:
    """Return the pretrained networks that a run uses: tensors under timm's names, `inception` as a module.

    `given` has weight files by network, or networks, which are returned as they are. Raises RequestError for the file
    of a network that the run does not use, WeightsError for one that is not on this machine, unless `download`.
    """
    given = given or {}
    networks: dict[str, Any] = {}
    for name in required_networks(config, given):
        file = given.get(name)
        if file is not None and not isinstance(file, str | os.PathLike):
            networks[name] = file
        elif name == "inception":
            networks[name] = load_inception(None if file is None else Path(file))
        else:
            networks[name] = pretrained.load_pretrained(name, file=file, download=download)
    return networks


def start_stage(
    config: TrainingConfig,
    generator: Generator,
    *,
    stage: int = 0,
    weights: Weights,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    class_means: Tensor | None = None,
    dist: DistributedContext = SINGLE_PROCESS,
) -> TrainingState:
    """Build the training state at the start of a stage: the discriminator, the optimizers and the average are new.

    Args:
        config: The configuration at that stage (`TrainingConfig.at`).
        generator: Continues to be trained, in place.
        stage: Number of the stage, from 0.
        weights: The backbones' pretrained weights by name.
        device: Where to train.
        dtype: Of the matrix products. Weights are float64 with float64, otherwise float32.
        class_means: Rows [classes, 320] that the class tables of the discriminator's heads start from.
        dist: The ranks that train together; all start from the values of rank 0.
    """
    discriminator = ProjectedDiscriminator(
        config.discriminator(generator.config.classes), weights, seed=config.seed * MAX_STAGES + stage
    )
    if class_means is not None:
        discriminator.init_class_tables(class_means)
    discriminator.share_statistics(dist)
    weight_dtype = torch.promote_types(dtype, torch.float32)
    generator = generator.to(device, weight_dtype).train().requires_grad_(True)
    generator.synthesis.product_dtype = dtype if dtype != weight_dtype else None
    discriminator = discriminator.to(device, weight_dtype).train()
    measure_convolutions(device)
    # a penalty compares logits in float32; and on a CPU the layout would change the order of sums
    if device.type == "cuda" and dtype == torch.bfloat16 and not config.penalty:
        discriminator.store_pretrained(dtype)
    dist.broadcast([*generator.state_dict().values(), *discriminator.compact_state().values()])
    # fused: one pass over the weights, measured five times as fast as PyTorch's default on a CPU
    g_optimizer = Adam(generator.parameters(), lr=config.g_lr, betas=(0.0, config.g_beta2), eps=1e-8, fused=True)
    d_optimizer = Adam(
        discriminator.head_parameters(), lr=config.d_lr, betas=(0.0, config.d_beta2), eps=1e-8, fused=True
    )
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    ema.synthesis.product_dtype = None
    return TrainingState(generator, ema, discriminator, g_optimizer, d_optimizer, stage)


class SavedState(NamedTuple):
    """A training state as it lies on disk: tensors by name PART/NAME, and counters as plain JSON."""

    tensors: dict[str, Tensor]
    counters: dict[str, Any]


def pack_state(state: TrainingState) -> SavedState:
    """Return what to save of a training state."""
    parts = {
        "generator": state.generator.state_dict(),
        "ema": state.ema.state_dict(),
        "discriminator": state.discriminator.compact_state(),
        "g_optimizer": pack_optimizer(state.g_optimizer),
        "d_optimizer": pack_optimizer(state.d_optimizer),
    }
    tensors = {f"{part}/{key}": value.detach() for part, values in parts.items() for key, value in values.items()}
    counters = {
        "stage": state.stage,
        "images": state.images,
        "images_before": state.images_before,
        "hooks": state.hooks,
        "augment_p": state.augment_p,
        "logit_means": None if state.logit_means is None else state.logit_means.tolist(),
    }
    return SavedState(tensors, counters)


def unpack_state(state: TrainingState, saved: SavedState) -> None:
    """Load a saved state into a training state at the start of the same stage.

    Raises TrainingError if the tensors do not fit: they are those of another run.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in saved.tensors.items():
        part, _, key = name.partition("/")
        parts.setdefault(part, {})[key] = tensor
    try:
        state.generator.load_state_dict(parts["generator"])
        state.ema.load_state_dict(parts["ema"])
        state.discriminator.load_compact_state(parts["discriminator"])
        unpack_optimizer(state.g_optimizer, parts.get("g_optimizer", {}))
        unpack_optimizer(state.d_optimizer, parts.get("d_optimizer", {}))
        images, images_before = saved.counters["images"], saved.counters["images_before"]
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, ConfigError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainingError(
            f"the training state does not fit this run ({reason}); restore the run's own state/, or move it away to "
            "start a new run"
        ) from error
    state.images, state.images_before = images, images_before
    state.hooks = saved.counters.get("hooks", {})
    state.augment_p = saved.counters.get("augment_p", 0.0)
    means = saved.counters.get("logit_means")
    state.logit_means = None if means is None else state.generator.mapping.w_avg.new_tensor(means)


def pack_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments as named tensors: `<parameter index>.<moment>`."""
    moments = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, slot in moments.items() for name, value in slot.items()}


def unpack_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load what `pack_optimizer` returned."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def broadcast_state(saved: SavedState | None, dist: DistributedContext) -> SavedState | None:
    """Return the saved state of rank 0 on every rank; the other ranks read no files."""
    if dist.world_size == 1:
        return saved
    layout = dist.broadcast_object(
        saved and (saved.counters, {key: (t.shape, t.dtype) for key, t in saved.tensors.items()})
    )
    if layout is None:
        return None
    counters, shapes = layout
    tensors = (
        saved.tensors if saved else {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in shapes.items()}
    )
    dist.broadcast(tensors.values())
    return SavedState(tensors, counters)


def write_state(folder: Path, saved: SavedState, *, images: int) -> None:
    """Write the state reached after `images` images and keep the one before it. Raises FileError.

    The manifest with the SHA-256 is written last: a state without one, or whose sum differs, is incomplete. All other
    states are removed: older ones, newer ones (damaged, or the run would have resumed there), and incomplete ones.
    """
    weights = folder / f"{images:012d}.safetensors"
    try:
        counters = check_counters(plain_json(saved.counters))
    except (JsonError, ValueError) as error:
        raise FileError(weights, f"cannot be written: {error}") from error
    with written_beside(weights, overwrite=True) as draft:
        write_tensors(draft, saved.tensors)
        sha256 = sha256_of(draft)
    with written_beside(weights.with_suffix(".json"), overwrite=True) as draft:
        manifest = format_json({"format": FORMAT, "sha256": sha256, "counters": counters})
        draft.write_text(manifest, encoding="utf-8")
    remove_other_states(folder, newest=weights.stem)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file without holding a copy of all tensors in memory. Raises OSError."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # safetensors puts the system's error into a text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    path.chmod(mode)  # safetensors makes it readable to its owner alone


def remove_other_states(folder: Path, *, newest: str) -> None:
    """Remove all states but the newest and the one before it, manifests first, and drafts. Raises FileError."""
    kept = sorted(path.stem for path in folder.glob("*.json") if path.stem <= newest)[-KEPT_STATES:]
    for path in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
        if path.stem not in kept:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise explain(path, error) from error
    for draft in folder.glob(".*.part"):
        shutil.rmtree(draft, ignore_errors=True)


def read_state(folder: Path) -> tuple[SavedState | None, list[str]]:
    """Return the newest intact state, if there is one, and a message about each newer, damaged one.

    Raises FileError when there are states and none is intact, or one cannot be read, or has an unknown format: to start
    over, or from further back, must be the user's decision.
    """
    damaged: list[str] = []
    manifests = list_manifests(folder)
    for manifest in manifests:
        try:
            sha256, counters = read_manifest(manifest)
            weights = manifest.with_suffix(".safetensors")
            if not weights.exists():
                raise ValueError(f"{weights.name} is missing")
            if sha256_of(weights) != sha256:
                raise ValueError("its SHA-256 differs")
            return SavedState(read_state_tensors(weights), counters), damaged
        except ValueError as error:
            damaged.append(f"{manifest}: damaged ({error}); the training state before it is used")
    if manifests:
        raise FileError(folder, "no training state here is intact; move the folder away to start a new run")
    return None, damaged


def read_progress(folder: Path) -> tuple[int, int] | None:
    """Return the stage and the images seen in it, from the newest manifest; None without one. Raises FileError."""
    for manifest in list_manifests(folder):
        try:
            _, counters = read_manifest(manifest)
            return counters["stage"], counters["images"]
        except (ValueError, KeyError):
            continue
    return None


def list_manifests(folder: Path) -> list[Path]:
    """Return the manifests of a folder, the newest first. Raises FileError where the folder cannot be listed."""
    try:
        names = os.listdir(folder)  # where it may not be listed a glob finds nothing, and the run would start over
    except FileNotFoundError:
        return []
    except OSError as error:
        raise explain(folder, error) from error
    return [folder / name for name in sorted(names, reverse=True) if re.fullmatch(r"\d+\.json", name)]


def read_manifest(path: Path) -> tuple[str, dict[str, Any]]:
    """Return a state's SHA-256 and counters. Raises FileError; ValueError if it is damaged."""
    manifest = upgrade(parse_json(read_bytes(path)))
    number = manifest.get("format", FORMAT) if isinstance(manifest, dict) else FORMAT
    if number != FORMAT:
        raise FileError(path, f"has format {number!r}, this polyinr reads {FORMAT} and older; update polyinr")
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), str):
        raise ValueError("it holds no SHA-256")
    return manifest["sha256"], check_counters(upgrade_counters(manifest.get("counters")))


def check_counters(counters: Any) -> dict[str, Any]:
    """Return the counters of a state. Raises ValueError if one of those present has the wrong type."""
    if not isinstance(counters, dict):
        raise ValueError("it holds no counters")
    for name in ("stage", "images", "images_before"):
        if not is_whole(counters.get(name, 0)):
            raise ValueError(f"its counter {name} is no whole number")
    if not isinstance(counters.get("hooks", {}), dict):
        raise ValueError("its counter hooks is no object")
    p, means = counters.get("augment_p", 0.0), counters.get("logit_means")
    if not (is_number(p) and 0 <= p <= 1):
        raise ValueError("its counter augment_p is no probability")
    if not (means is None or (isinstance(means, list) and len(means) == 2 and all(map(is_number, means)))):
        raise ValueError("its counter logit_means is no pair of numbers")
    return counters


def read_state_tensors(path: Path) -> dict[str, Tensor]:
    """Return a file's tensors as copies, one after another: a file that is mapped to memory may change."""
    return {upgrade_tensor_name(name): tensor.clone() for name, tensor in map_tensors(path).items()}
