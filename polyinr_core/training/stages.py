"""Stages: one training resolution each, with settings of its own; which of them a started run may change."""

from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import ConfigError

BATCH_RANGE = (2, 65536)  # the critic's BatchNorm needs two pictures


@dataclass(frozen=True)
class Stage:
    """One training resolution, the thousands of pictures seen there, and its own settings (None: the run's)."""

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
            raise ConfigError(f"stage length {self.kimg} kimg is less than one picture; 0.001 is one")
        if self.batch is not None:
            check_batch(self.batch)
        for name in ("g_lr", "d_lr"):
            if (rate := getattr(self, name)) is not None:
                check_rate(name, rate)
        if self.guidance is not None:
            check_guidance(self.guidance)

    @property
    def images(self) -> int:
        """Return the stage's length in pictures."""
        return round(self.kimg * 1000)


def check_batch(batch: int) -> None:
    """Raise ConfigError if a batch of this size cannot be trained on."""
    low, high = BATCH_RANGE
    if not low <= batch <= high:
        raise ConfigError(f"batch {batch} is outside {low}-{high} (the critic's BatchNorm needs two pictures)")


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


def stage_changes(
    before: tuple[Stage, ...], now: tuple[Stage, ...], *, reached: tuple[int, int] | None
) -> list[str]:
    """Return a phrase for each stage that was trained and is given differently now.

    `reached` is the stage that the run stands in and the pictures seen there; None: nothing is trained yet.
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


SETTINGS = [field.name for field in fields(Stage)][2:]
