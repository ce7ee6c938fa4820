"""The dry run: what a configuration would train, with time and memory measured on a few real iterations a stage."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor, nn

from polyinr_core.data.dataset import ImageDataset
from polyinr_core.discriminator.discriminator import Weights
from polyinr_core.errors import WeightsError
from polyinr_core.runtime.device import synchronize
from polyinr_core.runtime.pretrained import SOURCES, expected_shapes, load_pretrained
from polyinr_core.runtime.resources import total_memory

from .classifier_guidance import OWN_CLASSES, Classifier, check_classes, uses_guidance
from .config import Stage, TrainingConfig
from .logging import duration, resident_bytes
from .loop import Trainer, check_run
from .state import TrainingState, check_state_memory, create_generator, required_networks
from .step import chunk_size

ITERATIONS = 2  # of each measured size, after one that is not counted
MIN_IMAGES = 2  # BatchNorm needs two
MAX_SECONDS = 5.0  # of an iteration that is measured only because a larger one is more exact
MAX_SECONDS_SMALLEST = 30.0  # of the smallest iteration of a stage; beyond, the stage is extrapolated
HEADINGS = ("stage", "kimg", "batch", "iterations", "g_lr", "d_lr", "mirror", "guidance", "blur", "chunk")
COSTS = ("images/s", "time", "memory")
SAMPLING_PERIOD = 0.01  # seconds between two looks at the resident size


@dataclass(frozen=True)
class StagePlan:
    """What a stage would do and cost. Rates, mirror and guidance are those in effect there.

    `blur` is the width of the blur at the start, in pixels; `chunk` the pixels of the generator's backward pass at a
    time (0: all); `memory` the peak in bytes: of tensors on a GPU, of the process on a CPU.
    """

    resolution: int
    kimg: float
    batch: int
    micro_batch: int
    iterations: int
    g_lr: float
    d_lr: float
    mirror: bool
    guidance: float
    blur: float
    chunk: int
    seconds_per_iteration: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """What a run would do. `data` are facts about the dataset; `parameters` are counts by network."""

    data: dict[str, Any]
    parameters: dict[str, int]
    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        """Bytes at the highest peak."""
        return max(stage.memory for stage in self.stages)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the plan as JSON objects, each with its `kind`: data, parameters, stage, note, total."""
        return [
            {"kind": "data", **self.data},
            {"kind": "parameters", **self.parameters},
            *({"kind": "stage", **asdict(stage)} for stage in self.stages),
            *({"kind": "note", "note": note} for note in self.notes),
            {"kind": "total", "seconds": self.seconds, "memory": self.memory},
        ]


@dataclass(frozen=True)
class Cost:
    """Seconds and peak bytes of an iteration."""

    seconds: float
    memory: float

    def scaled(self, factor: float) -> "Cost":
        """Return the cost times a factor."""
        return Cost(self.seconds * factor, self.memory * factor)

    def extended(self, smaller: "Cost", *, steps: float) -> "Cost":
        """Return the cost on the line through `smaller` and this one, `steps` such distances further."""
        return Cost(
            self.seconds + steps * max(0.0, self.seconds - smaller.seconds),
            self.memory + steps * max(0.0, self.memory - smaller.memory),
        )


def make_plan(
    config: TrainingConfig,
    data: ImageDataset,
    weights: Weights,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    device_memory: int | None = None,
) -> Plan:
    """Return the plan of a run. Nothing is written.

    Each stage is measured by the real training step on the real networks: at two images, then at as many images of a
    micro-batch as an iteration of a few seconds takes; larger batches are extrapolated along that line. A stage whose
    smallest iteration would take too long is extrapolated from the measured ones by its pixels, and a note says so.
    Times are those of one process without metrics and checkpoints.

    Args:
        config, data, device, dtype, device_memory: As for `loop.train`.
        weights: The pretrained networks by name. One that is missing is measured with arbitrary values of its shapes,
            and a note says so.

    Raises:
        ConfigError.
    """
    check_classes(config, data)
    names = [name for name in required_networks(config) if name in {*config.backbones, "lite0", config.classifier}]
    missing = [name for name in names if name not in weights]
    networks = {**weights, **{name: random_weights(name) for name in missing}}
    notes = [f"the {name} weights are missing here: measured with random ones" for name in missing]
    trainer = Trainer(config, data, weights=networks, device=device, dtype=dtype, device_memory=device_memory)
    trainer.__dict__["classifier"] = unfitted_classifier(trainer)
    costs: dict[tuple[Any, ...], Cost] = {}
    measured: dict[int, Cost] = {}  # of a micro-batch's smallest iteration, by resolution
    parameters: dict[str, int] = {}
    for index, stage in sorted(enumerate(config.stages), key=lambda item: item[1].resolution):
        key = cost_key(config, stage)
        if key in costs:
            continue
        last = max(measured, default=None)
        growth = 1.0 if last is None else (stage.resolution / last) ** 2
        if last is not None and measured[last].seconds * growth > MAX_SECONDS_SMALLEST:
            (_, batch, *_), cost = next(item for item in reversed(costs.items()) if item[0][0] == last)
            costs[key] = cost.scaled(growth * key[1] / batch)
            notes.append(f"{stage.resolution} px was not measured, but extrapolated from {last} px by its pixels")
            continue
        state = trainer.start_stage(index, create_generator(config, trainer.classes), resumed=True)  # no class means
        parameters = parameters or count_parameters(trainer, state)
        smallest, costs[key] = measure_stage(trainer, state)
        measured[stage.resolution] = smallest
        del state
    facts = {
        "name": data.path.name,
        "images": len(data),
        "resolution": data.resolution,
        "classes": trainer.classes,
        "held_out": config.held_out_count(len(data)),
    }
    stages = tuple(plan_stage(trainer, stage, costs[cost_key(config, stage)]) for stage in config.stages)
    return Plan(facts, parameters, stages, tuple(notes))


def cost_key(config: TrainingConfig, stage: Stage) -> tuple[Any, ...]:
    """Return what an iteration's cost depends on: resolution, batch, micro-batch, and whether there is guidance."""
    stage_config = config.at(stage)
    return stage.resolution, stage_config.batch, config.micro_batch, bool(stage_config.guidance)


def measure_stage(trainer: Trainer, state: TrainingState) -> tuple[Cost, Cost]:
    """Return the costs of the smallest iteration, two images, and of a whole batch of the state's stage."""
    stage = trainer.config.stages[state.stage]
    config = trainer.config.at(stage)
    micro_batch = config.micro_batch or config.batch
    smallest = measure_iteration(trainer, state, images=min(MIN_IMAGES, micro_batch))
    images, cost = MIN_IMAGES, smallest
    if micro_batch > MIN_IMAGES:
        affordable = int(MAX_SECONDS / max(smallest.seconds / MIN_IMAGES, 1e-9))
        images = max(2 * MIN_IMAGES, min(micro_batch, affordable))
        images = min(images, micro_batch)
        cost = measure_iteration(trainer, state, images=images)
        cost = cost.extended(smallest, steps=(micro_batch - images) / (images - MIN_IMAGES))
    parts = config.batch // micro_batch
    return smallest, Cost(cost.seconds * parts, cost.memory)  # micro-batches follow one another in the same memory


def measure_iteration(trainer: Trainer, state: TrainingState, *, images: int) -> Cost:
    """Return the cost of training iterations on `images` images: the faster of two, and the peak of all.

    Of a gradient penalty that is due every few iterations, the mean over these.
    """
    stages = list(trainer.config.stages)
    stage = stages[state.stage]
    chunk = plan_stage(trainer, stage, Cost(0, 0)).chunk  # of the whole micro-batch
    stages[state.stage] = replace(stage, batch=images)
    config = replace(trainer.config, micro_batch=0, chunk=chunk, stages=tuple(stages), penalty_every=1)
    due = 1 / trainer.config.penalty_every if config.penalty else 0.0  # share of the iterations with a penalty
    shares = {0.0: 1 - due, config.penalty: due} if due else {0.0: 1.0}
    loader = trainer.loader(stages[state.stage])
    reals = loader.batch(0, images)
    mean = 0.0
    with PeakMemory(trainer.device) as peak:
        for penalty, share in shares.items():
            small = replace(trainer, config=replace(config, penalty=penalty))
            small.__dict__["classifier"] = trainer.classifier  # built once
            seconds = []
            for _ in range(1 + ITERATIONS):
                synchronize(trainer.device)
                start = time.perf_counter()
                small.train_iteration(state, loader, reals)
                synchronize(trainer.device)
                seconds.append(time.perf_counter() - start)
            mean += share * min(seconds[1:])
    return Cost(mean, peak.bytes)


def unfitted_classifier(trainer: Trainer) -> Classifier | None:
    """Return the classifier of guidance with a head of the right shape, as fitting one to the data takes long."""
    config = trainer.config
    if not uses_guidance(config):
        return None
    own_head = trainer.classes == OWN_CLASSES
    name, head = config.classifier, None if own_head else nn.Identity()
    classifier = Classifier(name, trainer.weights[name], side=config.disc_res, head=head)
    if not own_head:
        classifier.head = nn.Linear(classifier.network.num_features, trainer.classes)
        classifier.freeze()
    return classifier.to(trainer.device)


class PeakMemory:
    """Measures the peak of memory within a `with` block: of tensors on a GPU, else the process's resident size."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self.done = Event()

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self.thread = Thread(target=self.sample, daemon=True)
            self.thread.start()
        return self

    def sample(self) -> None:
        """Look at the resident size until the block ends."""
        while True:
            self.bytes = max(self.bytes, resident_bytes() or 0)
            if self.done.wait(SAMPLING_PERIOD):
                return

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self.done.set()
            self.thread.join()


def count_parameters(trainer: Trainer, state: TrainingState) -> dict[str, int]:
    """Return the number of parameters of each network."""
    heads = sum(p.numel() for p in state.discriminator.head_parameters())
    counts = {
        "generator": parameter_count(state.generator),
        "discriminator": heads,
        "backbones": parameter_count(state.discriminator) - heads,
    }
    if isinstance(trainer.classifier, nn.Module):
        counts["classifier"] = parameter_count(trainer.classifier)
    return counts


def parameter_count(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def plan_stage(trainer: Trainer, stage: Stage, cost: Cost) -> StagePlan:
    """Return the plan of a stage."""
    config = trainer.config.at(stage)
    micro_batch = config.micro_batch or config.batch
    iterations = -(-stage.images // config.batch)
    return StagePlan(
        resolution=stage.resolution,
        kimg=stage.kimg,
        batch=config.batch,
        micro_batch=micro_batch,
        iterations=iterations,
        g_lr=config.g_lr,
        d_lr=config.d_lr,
        mirror=config.mirror,
        guidance=config.guidance if trainer.classes else 0.0,
        blur=config.blur_at(0, stage),
        chunk=chunk_size(config, micro_batch * stage.resolution**2, device_memory=trainer.device_memory),
        seconds_per_iteration=cost.seconds,
        seconds=iterations * cost.seconds,
        memory=round(cost.memory),
    )


def random_weights(name: str) -> Mapping[str, Tensor]:
    """Return values of the shapes of the pretrained network of `name`, to measure with where it is missing."""
    shapes = expected_shapes(SOURCES[name].model)
    return {
        key: torch.ones(shape) if key.endswith("running_var") else torch.full(shape, 0.01)
        for key, shape in shapes.items()
    }


def plan_run(
    config: TrainingConfig,
    data: ImageDataset,
    files: Mapping[str, Path] | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Plan:
    """Plan a run with the pretrained networks that are on this machine, or in `files`; notes name the missing ones.

    Raises PolyinrError.
    """
    check_state_memory(config, device)
    check_run(config, data)
    weights, missing = weights_at_hand({*required_networks(config, files)} - {"inception"}, files or {})
    plan = make_plan(config, data, weights, device=device, dtype=dtype, device_memory=total_memory(device))
    return replace(plan, notes=(*plan.notes, *missing))


def plan_lines(plan: Plan) -> list[str]:
    """Return the lines of a plan as a person reads them."""
    data = plan.data
    classes = f"{data['classes'] or 'no'} classes"
    held_out = f" ({data['held_out']:,} held out)" if data["held_out"] else ""
    images = f"{data['images']:,} images{held_out}"
    parts = {"trained": ("generator", "discriminator"), "frozen": ("backbones", "classifier")}
    counted = {
        kind: [f"{name} {plan.parameters[name]:,}" for name in names if name in plan.parameters]
        for kind, names in parts.items()
    }
    return [
        f"data        {data['name']}: {images} of {data['resolution']} px, {classes}",
        f"parameters  trained: {', '.join(counted['trained'])}; frozen: {', '.join(counted['frozen'])}",
        "",
        *aligned([(*HEADINGS, *COSTS), *(stage_cells(stage) for stage in plan.stages)]),
        "",
        f"total       about {duration(plan.seconds)}, peak memory {size(plan.memory)}, measured on a few iterations",
        *(f"note        {note}" for note in plan.notes),
    ]


def stage_cells(stage: StagePlan) -> tuple[str, ...]:
    """Return a stage's row of the table."""
    parts = stage.batch // stage.micro_batch
    return (
        f"{stage.resolution} px",
        f"{stage.kimg:,.6g}",
        f"{stage.batch}" if parts == 1 else f"{parts}x{stage.micro_batch}",
        f"{stage.iterations:,}",
        f"{stage.g_lr:.3g}",
        f"{stage.d_lr:.3g}",
        "yes" if stage.mirror else "no",
        f"{stage.guidance:g}" if stage.guidance else "-",
        f"{stage.blur:g} px" if stage.blur else "-",
        f"{stage.chunk:,}" if stage.chunk else "-",
        f"{stage.batch / stage.seconds_per_iteration:,.3g}",
        duration(stage.seconds),
        size(stage.memory),
    )


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, each column as wide as its widest cell, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def size(count: int) -> str:
    """Return bytes in MiB or GiB."""
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def weights_at_hand(names: set[str], files: Mapping[str, Path]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Return the pretrained networks that are here, and a line about each that is not; nothing is fetched.

    Raises WeightsError for a file that was named and cannot be used.
    """
    found, lines = {}, []
    for name in sorted(names):
        try:
            found[name] = load_pretrained(name, file=files.get(name))
        except WeightsError as error:
            if name in files:
                raise
            lines.append(str(error))
    return found, lines
