"""What a discriminator is made of, and which image sizes it can look at."""

import math
from dataclasses import dataclass

from polyinr_core.errors import ConfigError

BACKBONES = ("lite0", "deit-base", "deit-tiny")
LARGEST_VIEW = 4096  # as of a stage's resolution
SMALLEST_HEAD_INPUT = 4  # of a head's last convolution, 4 x 4 without padding


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the projected discriminator; the defaults are the release's with EfficientNet-lite0 alone.

    `resolution` is the size at which the backbones look; None never resizes. `taps` counts the scales, from
    the finest. `channels` is the width c of the random projections (c to 8c). A head's depth is that for a
    image of `head_resolution`, whatever the real size; the widths of the heads are the release's divided by
    `head_divisor`. Each head of a conditional discriminator has a class table of its own. Raises ConfigError.
    """

    backbones: tuple[str, ...] = ("lite0",)
    resolution: int | None = 224
    channels: int = 64
    taps: int = 4
    classes: int = 0  # 0: unconditional
    table_rows: int | None = None  # None: one row a class
    table_dim: int = 320
    head_dim: int = 64
    head_divisor: int = 1
    head_resolution: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "backbones", tuple(self.backbones))
        if not self.backbones or len(set(self.backbones)) != len(self.backbones):
            raise ConfigError("a discriminator needs at least one backbone, each named once")
        for name in self.backbones:
            if name not in BACKBONES:
                raise ConfigError(f"backbone {name!r} is unknown; choose from {', '.join(BACKBONES)}")
        for field, low, high in (
            ("channels", 1, 1024),
            ("taps", 1, 4),
            ("classes", 0, 2**20),
            ("table_dim", 1, 65536),
            ("head_dim", 1, 65536),
            ("head_divisor", 1, 32),
            ("head_resolution", 32, 4096),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"discriminator {field} {value!r} is outside {low}-{high}")
        if self.head_resolution.bit_count() != 1:
            raise ConfigError(f"discriminator head_resolution {self.head_resolution} is not a power of two")
        if self.head_input(self.taps - 1) < 8:
            raise ConfigError(
                f"discriminator head_resolution {self.head_resolution} is too small for {self.taps} taps; "
                f"use fewer taps or at least {8 * 2**self.taps}"
            )
        if self.table_rows is None:
            object.__setattr__(self, "table_rows", self.classes)
        if not isinstance(self.table_rows, int) or not self.classes <= self.table_rows <= 2**20:
            raise ConfigError(f"a class table of {self.table_rows!r} rows cannot hold {self.classes} classes")
        if self.resolution is not None:
            for name in self.backbones:
                self.check_view(name, self.resolution)

    def head_input(self, tap: int) -> int:
        """The nominal side of the map that the head of `tap` reads: half of `head_resolution`, then quarters."""
        return self.head_resolution >> (tap + 1)

    def view(self, backbone: str, size: int) -> int:
        """The side at which `backbone` looks at images of side `size`. Raises ConfigError if it cannot.

        A transformer always looks at `resolution`; a convolutional network enlarges smaller images to it and
        takes larger ones as they are, as in the release.
        """
        side = size
        if self.resolution is not None and (backbone != "lite0" or size < self.resolution):
            side = self.resolution
        self.check_view(backbone, side)
        return side

    def check_view(self, backbone: str, side: int) -> None:
        """Raise ConfigError if the scales of `backbone` at this side do not halve evenly or starve a head."""
        step = 2 ** (self.taps + 1)  # the stride of the deepest tap
        if backbone != "lite0":
            step = math.lcm(step, 16)  # the patches of the transformer
        smallest = SMALLEST_HEAD_INPUT * self.head_resolution // 8
        if not isinstance(side, int) or side % step or not smallest <= side <= LARGEST_VIEW:
            fitting = 1 << (2 * side).bit_length() - 1 if isinstance(side, int) and side > 0 else 0
            remedy = f"; or use --head-resolution {fitting}" if side < smallest and fitting >= 8 << self.taps else ""
            raise ConfigError(
                f"the discriminator cannot look at {side} pixels: {backbone} with {self.taps} taps and heads made for "
                f"{self.head_resolution} needs a multiple of {step}, at least {smallest}, at most {LARGEST_VIEW}"
                f"{remedy}"
            )
