"""A short look at what training costs on this machine: seconds and bytes of a pixel, an image, a parameter."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Adam

from polyinr_core.data.dataset import ImageSet
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator, Weights
from polyinr_core.discriminator.losses import generator_loss, hinge_disc_real
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.pretrained import SOURCES, expected_shapes
from polyinr_core.runtime.rng import seeded_init

from .classifier_guidance import OWN_CLASSES, Classifier, check_classes, is_guided
from .config import Stage, TrainingConfig
from .loop import chunk_of

LONG_ENOUGH = 0.25  # seconds of the last measurement
FIRST_PIXELS = 512
FEWEST = 2  # images: BatchNorm needs two
VALUES = 2**20


@dataclass(frozen=True)
class Cost:
    """What one more pixel, image or value costs: seconds, and bytes kept for the backward pass.

    `fixed` bytes are kept once a pass, however many there are.
    """

    seconds: float
    bytes: float = 0.0
    fixed: float = 0.0


def cost_of(
    step: Callable[[int], Tensor],
    *,
    start: int,
    most: int,
    device: torch.device,
    known: nn.Module,
    fixed: float = 0.0,
) -> Cost:
    """Return what `step(count)` and the backward pass of the loss that it returns cost for each of `count`.

    The count grows from `start` to at most `most` until the measurement is long enough. Tensors of `known` are
    not counted as kept; `fixed` are the bytes taken as kept once where a single measurement cannot tell.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in [*known.parameters(), *known.buffers()]}
    count, seconds, bytes_kept = start, *once(step, start, device=device, own=own)
    slope = max(0.0, bytes_kept - fixed) / count
    while (seconds < LONG_ENOUGH or count == start) and count < most:  # two counts tell what an image adds
        growth = 4 if seconds < LONG_ENOUGH / 4 else 2
        before, kept_before = count, bytes_kept
        count = min(most, growth * count)
        seconds, bytes_kept = once(step, count, device=device, own=own)
        slope = (bytes_kept - kept_before) / (count - before)
    if seconds < LONG_ENOUGH:  # all that a pass can hold is still quick: the first time is not the best
        seconds = min(seconds, once(step, count, device=device, own=own)[0])
    return Cost(seconds / count, slope, max(0.0, bytes_kept - slope * count))


def once(step: Callable[[int], Tensor], count: int, *, device: torch.device, own: set[int]) -> tuple[float, int]:
    """Take one step and its backward pass; return the seconds, and the bytes of all storages kept in between."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    start = now(device)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step(count)
        total = sum(kept.values())
        if loss.requires_grad:
            loss.backward()
    return now(device) - start, total


def now(device: torch.device) -> float:
    """Return the time in seconds, once the device has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def probe_drawing(generator: Generator, *, most: int) -> tuple[Cost, Cost]:
    """Return the cost of a pixel that is only drawn, and of one drawn with a backward pass.

    `most` is the number of pixels that a pass of the training draws: no more are drawn here.
    """
    config, mean = generator.config, generator.mapping.w_avg

    def step(pixels: int) -> Tensor:
        points = RegularGrid(pixels // FEWEST, 1).points(0, pixels // FEWEST, dtype=mean.dtype, device=mean.device)
        z = torch.linspace(-1, 1, FEWEST * config.z_dim, dtype=mean.dtype, device=mean.device).view(FEWEST, -1)
        label = torch.arange(FEWEST, device=mean.device) % config.classes if config.classes else None
        return generator(z, points, label).square().mean()

    def only_drawn(pixels: int) -> Tensor:
        with torch.no_grad():
            return step(pixels)

    costs = []
    for way in (only_drawn, step):
        costs.append(cost_of(way, start=min(FIRST_PIXELS, most), most=most, device=mean.device, known=generator))
        generator.zero_grad(set_to_none=True)
    return costs[0], costs[1]


def probe_disc(
    discriminator: ProjectedDiscriminator, *, side: int, most: int, dtype: torch.dtype | None, device: torch.device
) -> tuple[Cost, Cost]:
    """Return the cost of an image of this side in the generator's step, and in the discriminator's.

    `dtype` is a narrower format than the weights', None for theirs. At most `most` images are shown.
    """
    wide = next(discriminator.heads.parameters()).dtype
    classes = discriminator.config.classes

    def look(count: int, *, of_generator: bool) -> Tensor:
        images = torch.zeros(count, 3, side, side, dtype=wide, device=device, requires_grad=of_generator)
        label = torch.arange(count, device=device) % classes if classes else None
        discriminator.heads.requires_grad_(not of_generator)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = discriminator(images, label)
        return generator_loss(logits) if of_generator else hinge_disc_real(logits)

    own_copies = sum(p.numel() * p.element_size() for p in discriminator.heads.parameters())  # weights, normalized
    costs = []
    for of_generator in (True, False):
        cost = cost_of(
            partial(look, of_generator=of_generator),
            start=min(FEWEST, most),
            most=most,
            device=device,
            known=discriminator,
            fixed=own_copies,
        )
        costs.append(cost)
        discriminator.zero_grad(set_to_none=True)
    return costs[0], costs[1]


def probe_guide(guide: nn.Module, *, side: int, most: int, dtype: torch.dtype | None, device: torch.device) -> Cost:
    """Return the cost of an image of this side that a classifier guides."""

    def look(count: int) -> Tensor:
        images = torch.zeros(count, 3, side, side, device=device, requires_grad=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss: Tensor = guide(images, torch.zeros(count, dtype=torch.int64, device=device))
        return loss

    return cost_of(look, start=min(FEWEST, most), most=most, device=device, known=guide)


def probe_optimizer(device: torch.device) -> Cost:
    """Return the seconds that a parameter's step and its place in the average cost."""
    values = nn.Parameter(torch.zeros(VALUES, device=device))
    values.grad = torch.ones_like(values)
    average = torch.zeros_like(values)
    optimizer = Adam([values], lr=1e-3)
    measured = []
    for _ in range(3):
        start = now(device)
        optimizer.step()
        torch._foreach_lerp_([average], [values.data], 0.5)
        measured.append(now(device) - start)
    return Cost(min(measured) / VALUES)


def stand_in(name: str) -> Mapping[str, Tensor]:
    """Return weights of the shapes of the pretrained network of `name`, to measure with where it is missing."""
    shapes = expected_shapes(SOURCES[name].model)
    return {
        key: torch.ones(shape) if key.endswith("running_var") else torch.full(shape, 0.01)
        for key, shape in shapes.items()
    }


IMAGE_COPIES = 4  # of a micro-batch: drawn, resized or mixed, and their gradients


@dataclass(frozen=True)
class StagePlan:
    """A stage: what is asked of it, and what it would cost. Rates, mirror and guidance are those used there.

    `blur` is the blur's width in pixels at the start; `chunk` the pixels of the generator's backward pass at
    once (0: all); `memory` the bytes at the peak.
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
    """What a run would do. `data` are facts; `parameters` count by part, the frozen ones apart."""

    data: dict[str, Any]
    parameters: dict[str, int]
    stages: tuple[StagePlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Return the seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        """Return the bytes at the highest peak."""
        return max(stage.memory for stage in self.stages)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the plan as JSON objects, each with its `kind`: data, parameters, stages, notes, the sum."""
        return [
            {"kind": "data", **self.data},
            {"kind": "parameters", **self.parameters},
            *({"kind": "stage", **asdict(stage)} for stage in self.stages),
            *({"kind": "note", "note": note} for note in self.notes),
            {"kind": "total", "seconds": self.seconds, "memory": self.memory},
        ]


@dataclass(frozen=True)
class Costs:
    """What the probe found; the discriminator's by backbone, seen at the side of the first stage's images."""

    drawn: Cost  # a pixel
    learned: Cost  # a pixel, with the backward pass
    fooled: dict[str, Cost]  # an image in the generator's step
    judged: dict[str, Cost]  # an image in the discriminator's
    guided: Cost
    stepped: Cost  # a parameter


def make_plan(
    config: TrainingConfig,
    data: ImageSet,
    weights: Weights,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    memory: int | None = None,
) -> Plan:
    """Return the plan of a run, its times and bytes from a probe of a few seconds at the real widths.

    `weights` as for the run; for a network that is missing there, others of its shapes are measured, and a
    note says so. `dtype` is the number format, `memory` what the device has, in bytes. Times are those of this
    process alone, without reading, measuring or keeping records; memory is that of tensors alone. Raises
    ConfigError.
    """
    check_classes(config, data)
    classes = config.classes_of(data.classes)
    wide = torch.promote_types(dtype, torch.float32)
    narrow = dtype if dtype != wide else None
    names = [*config.backbones, *([config.classifier] if is_guided(config) else [])]
    missing = [name for name in names if name not in weights]
    networks = {**weights, **{name: stand_in(name) for name in missing}}
    most = {stage: config.micro_batch or config.at(stage).batch for stage in config.stages}
    first = min(config.stages, key=lambda stage: stage.resolution)
    side, shown = first.resolution, most[first]

    with seeded_init("plan"):
        generator = Generator(config.generator(classes)).to(device, wide)
    parameters = {"generator": size_of(generator)}
    generator.synthesis.product_dtype = narrow
    drawn, learned = probe_drawing(generator, most=shown * side**2)
    del generator
    fooled, judged, frozen = {}, {}, 0
    for name in config.backbones:
        discriminator = ProjectedDiscriminator(replace(config, backbones=(name,)).discriminator(classes), networks)
        discriminator = discriminator.to(device, wide).train()
        fooled[name], judged[name] = probe_disc(discriminator, side=side, most=shown, dtype=narrow, device=device)
        parameters["discriminator"] = parameters.get("discriminator", 0) + size_of(discriminator.heads)
        frozen += size_of(discriminator) - size_of(discriminator.heads)
    parameters["backbones"] = frozen
    guided = Cost(0)
    if is_guided(config):
        head = None if classes == OWN_CLASSES else nn.Identity()
        guide = Classifier(config.classifier, networks[config.classifier], side=config.disc_res, head=head)
        guided = probe_guide(guide.to(device), side=side, most=shown, dtype=narrow, device=device)
        parameters["classifier"] = size_of(guide)
    costs = Costs(drawn, learned, fooled, judged, guided, probe_optimizer(device))
    stages = tuple(
        plan_stage(
            config.at(stage),
            stage,
            costs,
            classes=classes,
            parameters=parameters,
            chunk=chunk_of(config.at(stage), most[stage] * stage.resolution**2, memory=memory),
            size=wide.itemsize,
        )
        for stage in config.stages
    )
    facts = {
        "name": data.path.name,
        "images": len(data),
        "resolution": data.resolution,
        "classes": classes,
        "held_out": config.held_out_of(len(data)),
    }
    notes = [f"the {name} weights are missing here: measured with others of their shapes" for name in missing]
    return Plan(facts, parameters, stages, tuple(notes))


def plan_stage(
    config: TrainingConfig,
    stage: Stage,
    costs: Costs,
    *,
    classes: int,
    parameters: dict[str, int],
    chunk: int,
    size: int,
) -> StagePlan:
    """Return the plan of a stage, `config` being the one at that stage; `size` is a value's in bytes."""
    batch = config.batch
    micro_batch = config.micro_batch or batch
    iterations = -(-stage.images // batch)
    area = stage.resolution**2
    guidance = config.guidance if classes else 0.0
    discriminator = config.discriminator(classes)
    base = min(one.resolution for one in config.stages)
    wider = {
        name: (discriminator.view(name, stage.resolution) / discriminator.view(name, base)) ** 2
        for name in costs.fooled
    }
    fooled = sum(wider[name] * cost.seconds for name, cost in costs.fooled.items())
    judged = sum(wider[name] * cost.seconds for name, cost in costs.judged.items())
    pixel = costs.drawn.seconds + costs.learned.seconds + (costs.drawn.seconds if chunk else 0.0)
    image = area * pixel + fooled + 2 * judged + (costs.guided.seconds if guidance else 0.0)
    trained = parameters["generator"] + parameters["discriminator"]
    seconds = batch * image + trained * costs.stepped.seconds

    pixels = min(chunk, micro_batch * area) if chunk else micro_batch * area
    learning = costs.learned.fixed + pixels * costs.learned.bytes
    looking = sum(cost.fixed + micro_batch * wider[name] * cost.bytes for name, cost in costs.fooled.items())
    if guidance:
        looking += costs.guided.fixed + micro_batch * costs.guided.bytes
    judging = sum(cost.fixed + micro_batch * wider[name] * cost.bytes for name, cost in costs.judged.items())
    # chunks are drawn again after the discriminator's graph has gone
    busiest = max(learning, looking, judging) if chunk else max(learning + looking, judging)
    still = size * (
        parameters["generator"] * 5  # weights, average, gradients, two moments
        + parameters["discriminator"] * 4
        + parameters["backbones"]
        + parameters.get("classifier", 0)
        + IMAGE_COPIES * 3 * micro_batch * area
    )
    return StagePlan(
        resolution=stage.resolution,
        kimg=stage.kimg,
        batch=batch,
        micro_batch=micro_batch,
        iterations=iterations,
        g_lr=config.g_lr,
        d_lr=config.d_lr,
        mirror=config.mirror,
        guidance=guidance,
        blur=config.blur_at(0, stage),
        chunk=chunk,
        seconds_per_iteration=seconds,
        seconds=iterations * seconds,
        memory=round(still + busiest),
    )


def size_of(network: nn.Module) -> int:
    """Return the number of a network's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
