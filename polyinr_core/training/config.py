"""What a training run is made of: flat, frozen, saved beside what it makes."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..critic.config import CriticConfig
from ..errors import ConfigError
from ..model import GeneratorConfig
from ..model.config import Form
from .sights import DISTANCES
from .stages import SETTINGS, Stage, check_batch, check_guidance, check_rate, format_stages

Start = Literal["release", "balanced"]
Precision = Literal["auto", "float32", "bfloat16", "float64"]
Classifier = Literal["lite2", "deit-small"]
COUNTS = {"chunk": 2**31, "held_out": 2**31, "workers": 256, "auto_advance": 1000, "keep": 10**6}  # the largest


@dataclass(frozen=True)
class TrainingConfig:
    """A run from start to end. The optimisers' values are the release's effective ones. Raises ConfigError."""

    stages: tuple[Stage, ...] = (Stage(32, 200), Stage(64, 100))
    batch: int = 64
    micro_batch: int = 0  # pictures a forward pass, of all processes together; 0: the whole batch
    chunk: int | None = None  # pixels of the generator's backward pass at once; 0: all, None: by need
    precision: Precision = "auto"  # bfloat16 where the hardware has it; weights stay float32
    seed: int = 0
    mirror: bool = False
    cond: bool = True  # class-conditional where the data has classes
    held_out: int | None = None  # pictures never trained on; None: 2 % of a set of 500 or more, at most 512
    workers: int | None = None  # processes that read pictures; None: by need
    init_from: str = ""  # SHA-256 of the snapshot that the run starts from
    form: Form = "release"
    levels: int = 10
    channels: int = 1024
    z_dim: int = 64
    w_dim: int = 512
    start: Start = "release"  # values of a fresh generator
    backbones: tuple[str, ...] = ("deit-base", "lite0")
    critic_res: int = 224  # side at which the backbones look
    critic_channels: int = 64
    head_divisor: int = 1  # the critic's heads are narrower than the release's by this
    head_resolution: int = 256  # their depth is made for pictures of this side
    g_lr: float = 8e-5
    g_beta2: float = 0.991992
    d_lr: float = 1.88235e-4
    d_beta2: float = 0.990585
    classifier: Classifier = "deit-small"
    guidance: float = 0.0  # weight of the classifier's loss
    blur_sigma: float = 2.0
    blur_kimg: float = 300.0  # the blur fades over this or the whole stage, whichever is shorter
    state_every: float = 4.0  # kimg
    snapshot_every: float = 40.0  # kimg
    metric_every: float = 0.0  # kimg; 0: never
    metrics: tuple[str, ...] = ("fd-lite2",)  # the first one is watched
    auto_advance: int = 0  # a stage ends after so many measurements without improvement; 0: by kimg alone
    keep: int = 0  # snapshots kept, beside the best; 0: all

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
        if self.auto_advance and not self.metric_every:
            raise ConfigError("auto_advance watches a distance: give --metric-every, too")
        for name in ("state_every", "snapshot_every", "metric_every"):
            every = getattr(self, name)
            if not (every >= 0.001 or (every == 0 and name == "metric_every")):
                raise ConfigError(f"{name} {every} kimg is less than one picture; 0.001 is one")
        self.generator(0)  # each checks its own fields
        self.critic(0)

    def at(self, stage: Stage) -> "TrainingConfig":
        """Return the configuration with a stage's own settings in place of the run's."""
        own = {name: value for name in SETTINGS if (value := getattr(stage, name)) is not None}
        return replace(self, **own) if own else self

    @property
    def lengths(self) -> list[tuple[int, int]]:
        """Return each stage's resolution and the pictures that it sees, in whole batches."""
        sizes = [(stage.resolution, stage.images, stage.batch or self.batch) for stage in self.stages]
        return [(resolution, -(-images // batch) * batch) for resolution, images, batch in sizes]

    @property
    def images(self) -> int:
        """Return the pictures that the run sees."""
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

    def critic(self, classes: int) -> CriticConfig:
        """Return the critic's configuration for data of that many classes (0: unconditional)."""
        return CriticConfig(
            backbones=self.backbones,
            resolution=self.critic_res,
            channels=self.critic_channels,
            head_divisor=self.head_divisor,
            head_resolution=self.head_resolution,
            classes=classes,
        )

    def blur_at(self, images: int, stage: Stage) -> float:
        """Return the blur's width in pixels after `images` pictures of a stage, falling linearly to 0."""
        fade = min(self.blur_kimg, stage.kimg) * 1000
        return self.blur_sigma * max(1 - images / fade, 0.0) if fade else 0.0

    def classes_of(self, classes: int) -> int:
        """Return how many of a data set's classes are learned: all, or 0 in an unconditional run."""
        return classes if self.cond else 0

    def held_out_of(self, pictures: int) -> int:
        """Return how many of a data set's pictures are never trained on."""
        if self.held_out is not None:
            return self.held_out
        return min(pictures // 50, 512) if pictures >= 500 else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            **asdict(self),
            "stages": format_stages(self.stages),
            "backbones": list(self.backbones),
            "metrics": list(self.metrics),
        }


def check_micro_batch(micro_batch: int, batch: int) -> None:
    """Raise ConfigError unless micro-batches of that size make up the batch."""
    if micro_batch < 2 or batch % micro_batch:
        raise ConfigError(
            f"micro-batch {micro_batch} does not divide the batch of {batch} into parts of two or more"
        )
