"""The configuration of a training run: stages, presets, and the metrics that are computed during training."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.errors import ConfigError
from polyinr_core.metrics.registry import get_metrics, networks_of
from polyinr_core.models.config import Form, GeneratorConfig

BATCH_RANGE = (2, 65536)  # the discriminator's BatchNorm needs two images


@dataclass(frozen=True)
class Stage:
    """One training resolution, the thousands of images seen there, and its own settings (None: the run's)."""

    resolution: int
    kimg: float
    batch: int | None = None
    g_lr: float | None = None
    d_lr: float | None = None
    mirror: bool | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 4096:
            raise ConfigError(f"stage resolution {self.resolution} is outside 4-4096")
        if not 0 < self.kimg <= 1e9:
            raise ConfigError(f"stage length {self.kimg} kimg is outside 0-1e9")
        if not self.images:
            raise ConfigError(f"stage length {self.kimg} kimg is less than one image; 0.001 is one")
        if self.batch is not None:
            check_batch(self.batch)
        for name in ("g_lr", "d_lr"):
            if (rate := getattr(self, name)) is not None:
                check_rate(name, rate)
        if self.guidance is not None:
            check_guidance(self.guidance)

    @property
    def images(self) -> int:
        """Return the stage's length in images."""
        return round(self.kimg * 1000)


SETTINGS = [field.name for field in fields(Stage)][2:]  # a stage's own


def check_batch(batch: int) -> None:
    """Raise ConfigError if a batch of this size cannot be trained on."""
    low, high = BATCH_RANGE
    if not low <= batch <= high:
        raise ConfigError(f"batch {batch} is outside {low}-{high} (the discriminator's BatchNorm needs two images)")


def check_rate(name: str, rate: float) -> None:
    """Raise ConfigError unless it is a learning rate."""
    if not 0 < rate < 1:
        raise ConfigError(f"{name} {rate} is outside 0-1")


def check_guidance(weight: float) -> None:
    """Raise ConfigError unless it is a weight of the classifier's loss."""
    if not 0 <= weight <= 1e6:
        raise ConfigError(f"guidance {weight} is outside 0-1e6")


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Read `32:200,64:0.5:batch=32:guidance=8`: resolution, kimg, settings. Raises ConfigError."""
    return tuple(parse_stage(part) for part in text.split(","))


def parse_stage(text: str) -> Stage:
    """Read one stage. Raises ConfigError."""
    resolution, _, rest = text.partition(":")
    kimg, *settings = rest.split(":")
    try:
        return Stage(int(resolution), float(kimg), **dict(parse_setting(setting) for setting in settings))
    except ValueError:
        names = ", ".join(SETTINGS)
        raise ConfigError(
            f"stage {text!r} is not RES:KIMG, as 32:200, nor RES:KIMG:NAME=VALUE with a NAME of {names}"
        ) from None


def parse_setting(text: str) -> tuple[str, Any]:
    """Read `batch=32`. Raises ValueError."""
    name, _, value = text.partition("=")
    if name not in SETTINGS:
        raise ValueError(text)
    if name == "mirror":
        return name, ("no", "yes").index(value) == 1
    return name, int(value) if name == "batch" else float(value)


def format_stages(stages: tuple[Stage, ...]) -> str:
    """Write stages the way `parse_stages` reads them."""
    return ",".join(format_stage(stage) for stage in stages)


def format_stage(stage: Stage) -> str:
    """Write one stage."""
    parts = [f"{stage.resolution}:{stage.kimg:.15g}"]
    for name in SETTINGS:
        value = getattr(stage, name)
        if value is not None:
            shown = ("yes" if value else "no") if name == "mirror" else f"{value:.15g}"
            parts.append(f"{name}={shown}")
    return ":".join(parts)


def stage_changes(before: tuple[Stage, ...], now: tuple[Stage, ...], *, reached: tuple[int, int] | None) -> list[str]:
    """Return a phrase for each stage that was trained and is given differently now.

    `reached` is the stage that the run stands in and the images seen there; None: nothing is trained yet.
    Stages before it stay as they were. Its own may be longer, or shorter as long as what was seen fits in. Later
    ones are free.
    """
    if reached is None:
        return []
    current, images = reached
    changes = []
    for index, stage in enumerate(before[: current + 1]):
        shown = format_stage(stage)
        if index >= len(now):
            changes.append(f"the stage {shown} has begun and is missing now")
        elif now[index] != stage:
            given = format_stage(now[index])
            if index < current:
                changes.append(f"the stage {shown} is over and cannot become {given}")
            elif replace(now[index], kimg=stage.kimg) != stage:
                changes.append(f"the stage {shown} has begun and cannot become {given}, only longer")
            elif now[index].images < min(images, stage.images):
                changes.append(f"the stage {given} is shorter than the {images / 1000:g} kimg seen already")
    return changes


Start = Literal["release", "balanced"]
Precision = Literal["auto", "float32", "bfloat16", "float64"]
Classifier = Literal["lite2", "deit-small"]
Loss = Literal["hinge", "relativistic"]
Augment = Literal["none", "diffaugment", "adaptive"]
Schedule = Literal["constant", "cosine"]
# what a stage ends with under the cosine schedule, as a fraction of what it starts with
FINAL_LR, FINAL_PENALTY, FINAL_HALF_LIFE = 0.1, 0.1, 2.0
COUNTS = {"chunk": 2**31, "held_out": 2**31, "workers": 256, "auto_advance": 1000, "keep": 10**6}  # the largest

RANGES = {
    "blur_kimg": (0, 1e9),
    "penalty": (0, 1e6),
    "penalty_every": (1, 1000),
    "lecam": (0, 1e6),
    "class_centering": (0, 1),
}


@dataclass(frozen=True)
class TrainingConfig:
    """A run from start to end. The optimizers' values are the release's effective ones. Raises ConfigError."""

    stages: tuple[Stage, ...] = (Stage(32, 200), Stage(64, 100))
    batch: int = 64
    micro_batch: int = 0  # images a forward pass, of all processes together; 0: the whole batch
    chunk: int | None = None  # pixels of the generator's backward pass at once; 0: all, None: by need
    precision: Precision = "auto"  # bfloat16 where the hardware has it; weights stay float32
    seed: int = 0
    mirror: bool = False
    cond: bool = True  # class-conditional where the data has classes
    held_out: int | None = None  # images never trained on; None: 2 % of a set of 500 or more, at most 512
    workers: int | None = None  # processes that read images; None: by need
    init_from: str = ""  # SHA-256 of the checkpoint that the run starts from
    form: Form = "release"
    levels: int = 10
    channels: int = 1024
    z_dim: int = 64
    w_dim: int = 512
    start: Start = "release"  # values of a fresh generator
    class_centering: float = 0.0  # part of their mean that class tables start without; 0: the release, 1: centered
    backbones: tuple[str, ...] = ("deit-base", "lite0")
    disc_res: int = 224  # resolution of the backbones' input
    disc_channels: int = 64
    head_divisor: int = 1  # the discriminator's heads are narrower than the release's by this
    head_resolution: int = 256  # their depth is made for images of this size
    g_lr: float = 8e-5
    g_beta2: float = 0.991992
    d_lr: float = 1.88235e-4
    d_beta2: float = 0.990585
    classifier: Classifier = "deit-small"
    guidance: float = 0.0  # weight of the classifier's loss
    loss: Loss = "hinge"
    penalty: float = 0.0  # weight of the discriminator's gradient penalty
    penalty_every: int = 4  # iterations from one penalty to the next, whose weight grows as much
    lecam: float = 0.0  # weight of the LeCam penalty
    augment: Augment = "diffaugment"
    schedule: Schedule = "constant"  # of learning rates, blur, penalty and average over a stage
    blur_sigma: float = 2.0
    blur_kimg: float = 300.0  # the blur fades over this or the whole stage, whichever is shorter
    state_every: float = 4.0  # kimg
    checkpoint_every: float = 40.0  # kimg
    metric_every: float = 0.0  # kimg; 0: never
    metrics: tuple[str, ...] = ("fd-lite2",)  # the first one is watched
    auto_advance: int = 0  # a stage ends after so many measurements without improvement; 0: by kimg alone
    keep: int = 0  # checkpoints kept, beside the best; 0: all

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a run needs at least one stage, as 32:200")
        check_batch(self.batch)
        check_guidance(self.guidance)
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed {self.seed} is outside 0-{2**32 - 1}")
        for batch in {self.batch, *(stage.batch or self.batch for stage in self.stages)}:
            check_micro_batch(self.micro_batch or batch, batch)
        for name, choices in (
            ("start", get_args(Start)),
            ("precision", get_args(Precision)),
            ("classifier", get_args(Classifier)),
            ("loss", get_args(Loss)),
            ("augment", get_args(Augment)),
            ("schedule", get_args(Schedule)),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ConfigError(f"{name} {value!r} is unknown; choose from {', '.join(choices)}")
        if not self.metrics or len(set(self.metrics)) != len(self.metrics) or set(self.metrics) - set(DISTANCES):
            raise ConfigError(
                f"metrics {','.join(self.metrics)!r} are not one or more of {', '.join(DISTANCES)}, each once"
            )
        for name in ("g_lr", "d_lr"):
            check_rate(name, getattr(self, name))
        for name, most in COUNTS.items():
            if (count := getattr(self, name)) is not None and not 0 <= count <= most:
                raise ConfigError(f"{name} {count} is outside 0-{most}")
        for name, (low, high) in RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise ConfigError(f"{name} {value:g} is outside {low:g}-{high:g}")
        if self.auto_advance and not self.metric_every:
            raise ConfigError("auto_advance watches a distance: give --metric-every, too")
        for name in ("state_every", "checkpoint_every", "metric_every"):
            every = getattr(self, name)
            if not (every >= 0.001 or (every == 0 and name == "metric_every")):
                raise ConfigError(f"{name} {every} kimg is less than one image; 0.001 is one")
        self.generator(0)  # each checks its own fields
        self.discriminator(0)

    def at(self, stage: Stage) -> "TrainingConfig":
        """Return the configuration with a stage's own settings in place of the run's."""
        own = {name: value for name in SETTINGS if (value := getattr(stage, name)) is not None}
        return replace(self, **own) if own else self

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Return each stage's resolution and the images that it sees, in whole batches."""
        sizes = [(stage.resolution, stage.images, stage.batch or self.batch) for stage in self.stages]
        return [(resolution, -(-images // batch) * batch) for resolution, images, batch in sizes]

    @property
    def images(self) -> int:
        """Return the images that the run sees."""
        return sum(images for _, images in self.lengths)

    def generator(self, classes: int) -> GeneratorConfig:
        """Return the generator's configuration for data of that many classes (0: unconditional)."""
        return GeneratorConfig(
            form=self.form,
            levels=self.levels,
            channels=self.channels,
            z_dim=self.z_dim,
            w_dim=self.w_dim,
            classes=classes,
        )

    def discriminator(self, classes: int) -> DiscriminatorConfig:
        """Return the discriminator's configuration for data of that many classes (0: unconditional)."""
        return DiscriminatorConfig(
            backbones=self.backbones,
            resolution=self.disc_res,
            channels=self.disc_channels,
            head_divisor=self.head_divisor,
            head_resolution=self.head_resolution,
            classes=classes,
        )

    def blur_at(self, images: int, stage: Stage) -> float:
        """Return the blur's width in pixels after `images` images of a stage; it falls to 0."""
        fade = min(self.blur_kimg, stage.kimg) * 1000
        left = max(1 - images / fade, 0.0) if fade else 0.0
        return self.blur_sigma * (left if self.schedule == "constant" else cosine_fade(1 - left, 0.0))

    def scheduled(self, final: float, images: int, stage: Stage) -> float:
        """Return the factor, after `images` images of a stage, of a value that starts at 1 and ends at `final`."""
        return 1.0 if self.schedule == "constant" else cosine_fade(min(images / stage.images, 1.0), final)

    def class_count(self, classes: int) -> int:
        """Return how many of a data set's classes are learned: all, or 0 in an unconditional run."""
        return classes if self.cond else 0

    def held_out_count(self, images: int) -> int:
        """Return how many of a data set's images are never trained on."""
        if self.held_out is not None:
            return self.held_out
        return min(images // 50, 512) if images >= 500 else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            **asdict(self),
            "stages": format_stages(self.stages),
            "backbones": list(self.backbones),
            "metrics": list(self.metrics),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """Read what `to_dict` returned, by this version or an earlier one. Raises ConfigError."""
        names = {field.name for field in fields(cls)}
        if unknown := values.keys() - names:
            raise ConfigError(f"the fields {', '.join(sorted(unknown))} are unknown to this version of polyinr")
        try:
            read = {**values, "stages": parse_stages(values["stages"])}
            read |= {name: tuple(values[name]) for name in ("backbones", "metrics")}
            return cls(**read)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"the training configuration is damaged: {error}") from error


def cosine_fade(progress: float, final: float) -> float:
    """Return what falls (or rises) from 1 to `final` along half a cosine while `progress` goes from 0 to 1."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def check_micro_batch(micro_batch: int, batch: int) -> None:
    """Raise ConfigError unless micro-batches of that size make up the batch."""
    if micro_batch < 2 or batch % micro_batch:
        raise ConfigError(f"micro-batch {micro_batch} does not divide the batch of {batch} into parts of two or more")


@dataclass(frozen=True)
class SampleCount:
    """Images of a metric during training: the maximum of reals (None: all) and of fakes.

    With `balanced`, no more fakes than reals.
    """

    reals: int | None
    fakes: int
    balanced: bool


SAMPLE_COUNTS = {
    "lite2": SampleCount(reals=10_000, fakes=2_000, balanced=True),
    "inception": SampleCount(reals=None, fakes=50_000, balanced=False),  # as StyleGAN-XL: 50k fakes, all reals
}
DISTANCES = get_metrics(("fd-lite2", "kd-lite2", "fid"))  # smaller is better


def metric_networks(distances: Sequence[str]) -> tuple[str, ...]:
    """Return the feature networks of these distances, each once."""
    return networks_of(DISTANCES[name] for name in distances)


LARGE = TrainingConfig(state_every=40.0, checkpoint_every=200.0, metric_every=50.0, keep=5)
SMALL = TrainingConfig(
    stages=(Stage(32, 40), Stage(64, 20)),  # a quarter of an hour each on one core with bfloat16 (docs/training.md)
    batch=32,
    channels=128,
    w_dim=128,
    start="balanced",
    backbones=("lite0",),
    disc_res=64,
    disc_channels=32,
    head_divisor=4,
    head_resolution=128,
    g_lr=5e-4,
    d_lr=2.5e-4,
    class_centering=1.0,
    penalty=0.01,
    blur_kimg=20.0,
    classifier="lite2",
    state_every=1.0,
    checkpoint_every=5.0,
    metric_every=10.0,
)

PRESETS = {
    # the authors train each resolution to 10000 kimg with batch 64 in their example; 1024 wide, both backbones
    # guided above 32 px only, as StyleGAN-XL is; its weight of 8 stands beside a loss summed over 8 images
    "imagenet": replace(
        LARGE,
        stages=(Stage(32, 10000), *(Stage(r, 10000, guidance=1.0) for r in (64, 128, 256, 512))),
    ),
    "ffhq": replace(
        LARGE,
        stages=tuple(Stage(r, 10000) for r in (32, 64, 128, 256)),
        channels=512,
        mirror=True,
        cond=False,
    ),
    "small": SMALL,
    "tiny": replace(
        SMALL,
        stages=(Stage(16, 1),),
        batch=8,
        metric_every=0.0,
        levels=6,
        channels=64,
        w_dim=64,
    ),
}


DEFAULT_PRESET = "small"


def make_config(
    preset: str | TrainingConfig = DEFAULT_PRESET, *, stages: str | Sequence[Stage] | None = None, **changes: Any
) -> TrainingConfig:
    """Return a preset's configuration with fields replaced, also where its stages have values of their own.

    Args:
        preset: A name in PRESETS, or a configuration to start from.
        stages: Text as "32:200,64:100" or stages, in place of the preset's.
        **changes: Fields of `TrainingConfig`; backbones and metrics may be text as "fd-lite2,fid".

    Raises:
        ConfigError: A name is unknown or a value out of range.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise ConfigError(f"preset {preset!r} is unknown; choose from {', '.join(PRESETS)}")
    if unknown := changes.keys() - {field.name for field in fields(TrainingConfig)}:
        raise ConfigError(f"a training configuration has no field {', '.join(sorted(unknown))}")
    for name in ("backbones", "metrics"):
        if name in changes:
            value = changes[name]
            changes[name] = tuple(value.split(",") if isinstance(value, str) else value)
    base = PRESETS[preset] if isinstance(preset, str) else preset
    if stages is None:
        overridden: dict[str, Any] = dict.fromkeys(changes.keys() & SETTINGS)  # the run's value in place of a stage's
        stages = [replace(stage, **overridden) for stage in base.stages]
    elif isinstance(stages, str):
        stages = parse_stages(stages)
    config = replace(base, **{**changes, "stages": tuple(stages)})
    if "metrics" in changes and not config.metric_every:
        raise ConfigError("--metrics names what is never measured: give metric_every (--metric-every KIMG), too")
    return config
