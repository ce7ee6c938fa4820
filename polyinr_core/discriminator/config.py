"""The configuration of the projected discriminator, and the image sizes that its backbones take."""

import math
from dataclasses import dataclass

from polyinr_core.errors import ConfigError

BACKBONES = ("lite0", "deit-base", "deit-tiny")
MAX_INPUT_RESOLUTION = 4096  # as of a stage's resolution
MIN_HEAD_INPUT = 4  # of a head's last convolution, 4 x 4 without padding


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the projected discriminator; the defaults are the release's with EfficientNet-lite0 alone.

    `resolution` is that of the backbones' input; None never resizes. `taps` counts the scales, from
    the finest. `channels` is the width c of the random projections (c to 8c). A head's depth is that for an
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
                self.check_input_resolution(name, self.resolution)

    def head_input(self, tap: int) -> int:
        """Return the nominal size of the map that the head of `tap` reads: `head_resolution` / 2, / 4, ..."""
        return self.head_resolution >> (tap + 1)

    def input_resolution(self, backbone: str, size: int) -> int:
        """Return the resolution to which images of `size` pixels are resized for `backbone`. Raises ConfigError.

        That of a transformer is always `resolution`; a convolutional network gets smaller images enlarged to it and
        larger ones as they are, as in the release.
        """
        resized = size
        if self.resolution is not None and (backbone != "lite0" or size < self.resolution):
            resized = self.resolution
        self.check_input_resolution(backbone, resized)
        return resized

    def check_input_resolution(self, backbone: str, size: int) -> None:
        """Raise ConfigError if the scales of `backbone` do not halve evenly or are too small for a head."""
        step = 2 ** (self.taps + 1)  # the stride of the deepest tap
        if backbone != "lite0":
            step = math.lcm(step, 16)  # the patches of the transformer
        smallest = MIN_HEAD_INPUT * self.head_resolution // 8
        if not isinstance(size, int) or size % step or not smallest <= size <= MAX_INPUT_RESOLUTION:
            fitting = 1 << (2 * size).bit_length() - 1 if isinstance(size, int) and size > 0 else 0
            remedy = f"; or use --head-resolution {fitting}" if size < smallest and fitting >= 8 << self.taps else ""
            raise ConfigError(
                f"the discriminator cannot take an input of {size} pixels: {backbone} with {self.taps} taps and heads "
                f"made for {self.head_resolution} needs a multiple of {step}, at least {smallest}, at most "
                f"{MAX_INPUT_RESOLUTION}{remedy}"
            )
