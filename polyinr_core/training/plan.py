"""The plan of a run: what it would do, how long it would take and what it would hold, before it does anything."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from ..critic.classifier import OWN_CLASSES, Classifier
from ..critic.discriminator import ProjectedDiscriminator, Weights
from ..data.picture_set import PictureSet
from ..model import Generator
from ..seeds import start_values_of
from .config import TrainingConfig
from .guidance import check_classes, is_guided
from .iterations import chunk_of
from .probe import Cost, probe_critic, probe_drawing, probe_guide, probe_optimiser, stand_in
from .stages import Stage

PICTURE_COPIES = 4  # of a micro-batch: drawn, resized or mixed, and their gradients


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
    """What the probe found; the critic's by backbone, seen at the side of the first stage's pictures."""

    drawn: Cost  # a pixel
    learned: Cost  # a pixel, with the backward pass
    fooled: dict[str, Cost]  # a picture in the generator's step
    judged: dict[str, Cost]  # a picture in the critic's
    guided: Cost
    stepped: Cost  # a parameter


def make_plan(
    config: TrainingConfig,
    data: PictureSet,
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

    with start_values_of("plan"):
        generator = Generator(config.generator(classes)).to(device, wide)
    parameters = {"generator": size_of(generator)}
    generator.synthesis.product_dtype = narrow
    drawn, learned = probe_drawing(generator, most=shown * side**2)
    del generator
    fooled, judged, frozen = {}, {}, 0
    for name in config.backbones:
        critic = ProjectedDiscriminator(replace(config, backbones=(name,)).critic(classes), networks)
        critic = critic.to(device, wide).train()
        fooled[name], judged[name] = probe_critic(critic, side=side, most=shown, dtype=narrow, device=device)
        parameters["critic"] = parameters.get("critic", 0) + size_of(critic.heads)
        frozen += size_of(critic) - size_of(critic.heads)
    parameters["backbones"] = frozen
    guided = Cost(0)
    if is_guided(config):
        head = None if classes == OWN_CLASSES else nn.Identity()
        guide = Classifier(config.classifier, networks[config.classifier], side=config.critic_res, head=head)
        guided = probe_guide(guide.to(device), side=side, most=shown, dtype=narrow, device=device)
        parameters["classifier"] = size_of(guide)
    costs = Costs(drawn, learned, fooled, judged, guided, probe_optimiser(device))
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
        "pictures": len(data),
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
    critic = config.critic(classes)
    base = min(one.resolution for one in config.stages)
    wider = {name: (critic.view(name, stage.resolution) / critic.view(name, base)) ** 2 for name in costs.fooled}
    fooled = sum(wider[name] * cost.seconds for name, cost in costs.fooled.items())
    judged = sum(wider[name] * cost.seconds for name, cost in costs.judged.items())
    pixel = costs.drawn.seconds + costs.learned.seconds + (costs.drawn.seconds if chunk else 0.0)
    picture = area * pixel + fooled + 2 * judged + (costs.guided.seconds if guidance else 0.0)
    trained = parameters["generator"] + parameters["critic"]
    seconds = batch * picture + trained * costs.stepped.seconds

    pixels = min(chunk, micro_batch * area) if chunk else micro_batch * area
    learning = costs.learned.fixed + pixels * costs.learned.bytes
    looking = sum(cost.fixed + micro_batch * wider[name] * cost.bytes for name, cost in costs.fooled.items())
    if guidance:
        looking += costs.guided.fixed + micro_batch * costs.guided.bytes
    judging = sum(cost.fixed + micro_batch * wider[name] * cost.bytes for name, cost in costs.judged.items())
    # chunks are drawn again after the critic's graph has gone
    busiest = max(learning, looking, judging) if chunk else max(learning + looking, judging)
    still = size * (
        parameters["generator"] * 5  # weights, average, gradients, two moments
        + parameters["critic"] * 4
        + parameters["backbones"]
        + parameters.get("classifier", 0)
        + PICTURE_COPIES * 3 * micro_batch * area
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
