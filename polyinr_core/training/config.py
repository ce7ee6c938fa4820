"""What a training run is made of: flat, frozen, saved beside what it makes."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..critic.config import CriticConfig
from ..errors import ConfigError
from ..model import GeneratorConfig
from ..model.config import Form

Start = Literal["release", "balanced"]


@dataclass(frozen=True)
class Stage:
    """One training resolution and the thousands of pictures seen there."""

    resolution: int
    kimg: float

    def __post_init__(self) -> None:
        if not 4 <= self.resolution <= 4096:
            raise ConfigError(f"stage resolution {self.resolution} is outside 4-4096")
        if not 0 < self.kimg <= 1e9:
            raise ConfigError(f"stage length {self.kimg} kimg is outside 0-1e9")
        if not self.images:
            raise ConfigError(f"stage length {self.kimg} kimg is less than one picture; 0.001 is one")

    @property
    def images(self) -> int:
        """Return the stage's length in pictures."""
        return round(self.kimg * 1000)


@dataclass(frozen=True)
class TrainingConfig:
    """A run from start to end. The optimisers' values are the release's effective ones. Raises ConfigError."""

    stages: tuple[Stage, ...] = (Stage(32, 200), Stage(64, 100))
    batch: int = 64
    micro_batch: int = 0  # pictures a forward pass; 0: the whole batch
    seed: int = 0
    mirror: bool = False
    cond: bool = True  # class-conditional where the data has classes
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
    blur_sigma: float = 2.0
    blur_kimg: float = 300.0  # the blur fades over this or the whole stage, whichever is shorter
    state_every: float = 4.0  # kimg
    snapshot_every: float = 40.0  # kimg
    metric_every: float = 0.0  # kimg; 0: never

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("a run needs at least one stage, as 32:200")
        if self.batch < 2 or self.batch > 65536:
            raise ConfigError(
                f"batch {self.batch} is outside 2-65536 (the critic's BatchNorm needs two pictures)"
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed {self.seed} is outside 0-{2**32 - 1}")
        micro = self.micro_batch or self.batch
        if micro < 2 or self.batch % micro:
            raise ConfigError(
                f"micro-batch {micro} does not divide the batch of {self.batch} into parts of two or more"
            )
        if self.start not in get_args(Start):
            raise ConfigError(f"start {self.start!r} is unknown; choose from {', '.join(get_args(Start))}")
        for name in ("g_lr", "d_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} is outside 0-1")
        for name in ("state_every", "snapshot_every", "metric_every"):
            every = getattr(self, name)
            if not (every >= 0.001 or (every == 0 and name == "metric_every")):
                raise ConfigError(f"{name} {every} kimg is less than one picture; 0.001 is one")
        self.generator(0)  # each checks its own fields
        self.critic(0)

    @property
    def images(self) -> int:
        """Return the pictures that the run sees: each stage's, in whole batches."""
        return sum(-(-stage.images // self.batch) * self.batch for stage in self.stages)

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

    def ema_half_life(self) -> float:
        """Return the half-life of the averaged weights in pictures: batch * 10 / 32 thousand."""
        return self.batch * 10 / 32 * 1000

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {**asdict(self), "stages": format_stages(self.stages), "backbones": list(self.backbones)}


def parse_stages(text: str) -> tuple[Stage, ...]:
    """Read `32:200,64:100` (resolution:kimg, kimg may be fractional). Raises ConfigError."""
    stages = []
    for part in text.split(","):
        resolution, colon, kimg = part.partition(":")
        try:
            if not colon:
                raise ValueError
            stages.append(Stage(int(resolution), float(kimg)))
        except ValueError:
            raise ConfigError(f"stage {part!r} is not RES:KIMG, as 32:200") from None
    return tuple(stages)


def format_stages(stages: tuple[Stage, ...]) -> str:
    """Write stages the way `parse_stages` reads them."""
    return ",".join(f"{stage.resolution}:{stage.kimg:.15g}" for stage in stages)


_LARGE = TrainingConfig(state_every=40.0, snapshot_every=200.0)  # all else by default
_SMALL = TrainingConfig(
    batch=16,
    channels=128,
    w_dim=128,
    start="balanced",
    backbones=("lite0",),
    critic_res=128,
    critic_channels=32,
    head_divisor=4,
    g_lr=2e-4,
    d_lr=1e-4,
    state_every=1.0,
    snapshot_every=5.0,
)

PRESETS = {
    # the authors train each resolution to 10000 kimg with batch 64 in their example; 1024 wide, both backbones
    "imagenet": replace(_LARGE, stages=tuple(Stage(r, 10000) for r in (32, 64, 128, 256, 512))),
    "ffhq": replace(
        _LARGE,
        stages=tuple(Stage(r, 10000) for r in (32, 64, 128, 256)),
        channels=512,
        mirror=True,
        cond=False,
    ),
    "emoji": _SMALL,
    "tiny": replace(
        _SMALL,
        stages=(Stage(16, 1),),
        batch=8,
        levels=6,
        channels=64,
        w_dim=64,
        critic_res=64,
        head_resolution=128,
    ),
}
