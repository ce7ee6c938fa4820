"""The iterations of one stage: each is a function of the seed, the stage and the pictures seen."""

from collections.abc import Generator

import torch
from torch import Tensor

from ..data.feed import Feed, Pictures
from ..model import RegularGrid
from ..model.level import TRACE_BYTES
from ..ranks import Ranks
from ..seeds import generator_for
from .config import TrainingConfig
from .ema import ema_beta, half_life
from .session import Session
from .step import Batch, Guide, Losses, Setting, iterate


class Iterations:
    """Trains a session, one iteration after another, on this rank's part of each batch.

    `config` is the run's at stage number `index`, `memory` what the device has, in bytes (None: unknown).
    """

    def __init__(
        self,
        config: TrainingConfig,
        index: int,
        feed: Feed,
        *,
        classes: int,
        guide: Guide | None,
        device: torch.device,
        dtype: torch.dtype,
        memory: int | None,
        ranks: Ranks,
    ) -> None:
        self.stage = config.stages[index]
        self.config = config.at(self.stage)
        self.index = index
        self.feed = feed
        self.classes = classes
        self.guide = guide if self.config.guidance else None
        self.device = device
        self.dtype = torch.promote_types(dtype, torch.float32)
        self.ranks = ranks
        self.micro_batch = self.config.micro_batch or self.config.batch
        side = self.stage.resolution
        grid = RegularGrid(side, side)
        self.points = grid.points(0, side**2, dtype=self.dtype, device=device)
        pixels = self.micro_batch // ranks.count * side**2
        self.chunk = chunk_of(self.config, pixels, memory=memory)
        self.own = ranks.rows(self.config.batch, self.micro_batch)

    def reals(self, images: int) -> Generator[Pictures, None, None]:
        """Yield this rank's pictures of each iteration from `images` on, read ahead; to be closed."""
        sizes = {"batch": self.config.batch, "micro_batch": self.micro_batch}
        return self.feed.stream(images, **sizes, ranks=self.ranks)

    def train(self, session: Session, reals: Pictures) -> tuple[Setting, Losses]:
        """Run one iteration and count its pictures; return how it looked at them and what it tells."""
        images, batch = session.images, self.config.batch
        setting = self.setting(images)
        losses = iterate(
            session.networks,
            setting,
            reals=self.on_device(*reals),
            g_fakes=self.fakes("generator", images),
            d_fakes=self.fakes("critic", images),
            beta=ema_beta(batch=batch, images=images, half_life=half_life(batch)),
        )
        session.images += batch
        return setting, losses

    def setting(self, images: int) -> Setting:
        """Return how the iteration after `images` pictures of the stage looks at pictures."""
        config, key = self.config, (self.config.seed, self.index, images)
        return Setting(
            self.points,
            micro_batch=self.micro_batch,
            sigma=config.blur_at(images, self.stage),
            rng=lambda name, part: generator_for("augment", name, part, *key),
            ranks=self.ranks,
            chunk=self.chunk,
            guide=self.guide,
            guidance=config.guidance,
        )

    def fakes(self, name: str, images: int) -> Batch:
        """Draw the latents of a pass: those of the whole batch, of which this rank takes its own."""
        config = self.config
        rng = generator_for("z", name, config.seed, self.index, images)
        z = torch.randn(config.batch, config.z_dim, generator=rng)
        label = self.feed.labels(rng, config.batch)
        return self.on_device(z[self.own], None if label is None else label[self.own])

    def on_device(self, content: Tensor, label: Tensor | None) -> Batch:
        """Bring pictures or latents to the device, without labels in an unconditional run."""
        labels = label.to(self.device) if self.classes and label is not None else None
        return Batch(content.to(self.device, self.dtype), labels)


def chunk_of(config: TrainingConfig, pixels: int, *, memory: int | None) -> int:
    """Return how many of a pass's pixels the generator's backward pass takes at once, 0 for all.

    By need: all, as long as what they leave in memory is less than a quarter of the device's.
    """
    chunk = config.chunk
    if chunk is None:
        most = (memory or 2**62) // 4 // (TRACE_BYTES * config.channels * config.levels)
        chunk = 0 if pixels <= most else max(1024, 1 << (most // 4).bit_length() - 1)
    return chunk if chunk < pixels else 0
