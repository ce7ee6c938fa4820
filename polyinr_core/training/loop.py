"""The iterations of one stage: each is a function of the seed, the stage and the images seen."""

from collections import abc
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.data.dataset import ImageSet
from polyinr_core.data.loader import Feed, Images
from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import ConfigError, TrainingError
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.models.layers import TRACE_BYTES
from polyinr_core.runtime.distributed import ALONE, CPU, Ranks
from polyinr_core.runtime.rng import generator_for

from .classifier_guidance import check_classes, is_guided, make_guide
from .config import Stage, TrainingConfig, networks_of
from .hooks import Upkeep
from .init import class_means, describe_start, generator_from
from .logging import Event
from .run_dir import DataFacts, RunFolder
from .state import Session, State, begin_stage, first_generator, read_state, shared_state, unpack
from .step import Batch, Guide, Losses, Setting, ema_beta, half_life, iterate


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

    def reals(self, images: int) -> abc.Generator[Images, None, None]:
        """Yield this rank's images of each iteration from `images` on, read ahead; to be closed."""
        sizes = {"batch": self.config.batch, "micro_batch": self.micro_batch}
        return self.feed.stream(images, **sizes, ranks=self.ranks)

    def train(self, session: Session, reals: Images) -> tuple[Setting, Losses]:
        """Run one iteration and count its images; return how it looked at them and what it tells."""
        images, batch = session.images, self.config.batch
        setting = self.setting(images)
        losses = iterate(
            session.networks,
            setting,
            reals=self.on_device(*reals),
            g_fakes=self.fakes("generator", images),
            d_fakes=self.fakes("discriminator", images),
            beta=ema_beta(batch=batch, images=images, half_life=half_life(batch)),
        )
        session.images += batch
        return setting, losses

    def setting(self, images: int) -> Setting:
        """Return how the iteration after `images` images of the stage looks at images."""
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
        """Bring images or latents to the device, without labels in an unconditional run."""
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


class Run:
    """A training run in its folder.

    `weights` holds pretrained networks under timm's names: each backbone, `lite0` for the class tables of a
    conditional model, the classifier if one guides, and what the judge looks through. `start` is a checkpoint to
    start from. `report` gets each event of the log as a dict, and messages for a person as {"message": ...}.
    `memory` is what the device has, in bytes. Everything random is a function of the seed, the stage and the
    images seen: going on from a state gives the very run that was interrupted (to the bit, on one CPU). Each
    of the `ranks` has a Run of its own; the first one writes. Raises TrainingError, ConfigError, DatasetError,
    FileError, RanksError.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: ImageSet,
        folder: RunFolder,
        *,
        weights: Mapping[str, Any],
        device: torch.device,
        report: Callable[[Event], None],
        start: Checkpoint | None = None,
        dtype: torch.dtype = torch.float32,
        memory: int | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.weights = weights
        self.device = device
        self.start_from = start
        self.dtype = dtype
        self.memory = memory
        self.ranks = ranks
        self.classes = config.classes_of(data.classes)
        check_run(config, data, ranks=ranks)
        if ranks.leads:
            folder.claim(config, DataFacts(data.path.name, data.sha256, len(data), self.classes))
        self.upkeep = Upkeep(config, data, folder, weights=weights, device=device, report=report, ranks=ranks)

    def feed(self, stage: Stage) -> Feed:
        """Return the images of a stage."""
        return feed_of(self.config, self.data, stage, device=self.device)

    @cached_property
    def table(self) -> Tensor | None:
        """The class means of the data, [classes, 320]; None in an unconditional run."""
        if not self.classes:
            return None
        if self.ranks.leads:
            table = class_means(self.data, Lite0Features(self.weights["lite0"]).to(self.device))
        else:
            table = torch.empty(self.classes, Lite0Features.widths[-1])
        self.ranks.same_as_first([table])
        return table

    def train(self, *, stop: Callable[[], bool], progress: Callable[[Session], None] | None = None) -> bool:
        """Train to the end and return True; or, once `stop()` says so on any rank, save all and return False.

        `stop` is asked and `progress` told where the run stands after every iteration.
        """

        def stopping(session: Session) -> bool:
            if progress:
                progress(session)
            return self.ranks.any(stop()) and not self.over(session)

        with closing(self.upkeep.journal):
            session = self.resume() or self.start()
            while self.train_stage(session, stopping=stopping):
                if session.stage + 1 == len(self.config.stages):
                    return True
                session = self.begin(session.stage + 1, session.networks.ema, images_before=session.seen)
        return False

    def over(self, session: Session) -> bool:
        """Say whether nothing is left to train."""
        *before, last = self.config.stages
        return session.stage == len(before) and (session.images >= last.images or self.upkeep.stands_still(session))

    @cached_property
    def guide(self) -> Guide | None:
        """The loss of the classifier that guides, None where there is none."""
        guide = make_guide(self.config, self.data, self.weights, device=self.device)
        if guide is not None:
            self.ranks.same_as_first(guide.head.state_dict().values())
        return guide

    def start(self) -> Session:
        """Begin the first stage."""
        judges = networks_of(self.config.metrics) if self.config.metric_every else ()
        if is_guided(self.config) and self.config.classifier in judges:
            self.upkeep.say(f"{self.config.classifier} guides and judges: its distances flatter; see fid")
        if self.start_from is None:
            return self.begin(0, first_generator(self.config, self.classes, self.table))
        names = self.data.class_names
        for line in describe_start(self.start_from, self.classes, names):
            self.upkeep.say(line)
        generator = generator_from(
            self.start_from, classes=self.classes, class_names=names, table=self.table, seed=self.config.seed
        )
        return self.begin(0, generator)

    def resume(self) -> Session | None:
        """Return the session of the newest sound state, if there is one."""
        state: State | None = None
        if self.ranks.leads:
            state, damaged = read_state(self.folder.state)
            for line in damaged:
                self.upkeep.say(line)
        state = shared_state(state, self.ranks)
        if state is None:
            return None
        generator = Generator(self.config.generator(self.classes))
        stage = state.counters.get("stage")
        if stage is None or stage >= len(self.config.stages):
            raise TrainingError(
                f"the state is of stage {stage}, this run has {len(self.config.stages)}; "
                "put its own state/ back, or move it away to start anew"
            )
        session = self.begin(stage, generator, fresh=False)
        unpack(session, state)
        if not self.over(session):
            self.upkeep.log(session, {"resumed": True})
            self.upkeep.say(f"going on at {session.seen / 1000:g} kimg")
        return session

    def begin(self, stage: int, generator: Generator, *, images_before: int = 0, fresh: bool = True) -> Session:
        """Begin a stage from a generator, with a new discriminator; a fresh one starts from the data's class means."""
        session = begin_stage(
            self.config.at(self.config.stages[stage]),
            generator,
            stage=stage,
            weights=self.weights,
            device=self.device,
            dtype=self.dtype,
            table=self.table if fresh else None,
            ranks=self.ranks,
        )
        session.images_before = images_before
        return session

    def train_stage(self, session: Session, *, stopping: Callable[[Session], bool]) -> bool:
        """Train from where the session stands to its stage's end; see to what is due after each iteration.

        `stopping` is told where the run stands after every iteration; once it says True, save and return False.
        """
        stage = self.config.stages[session.stage]
        if session.images >= stage.images or self.upkeep.stands_still(session):
            return True
        feed = self.feed(stage)
        iterations = Iterations(
            self.config,
            session.stage,
            feed,
            classes=self.classes,
            guide=self.guide,
            device=self.device,
            dtype=self.dtype,
            memory=self.memory,
            ranks=self.ranks,
        )
        self.upkeep.begin(session, feed)
        with closing(iterations.reals(session.images)) as stream:
            for reals in stream:
                setting, losses = iterations.train(session, reals)
                ended, stopped = session.images >= stage.images, stopping(session)
                still = self.upkeep.after(session, setting, losses, ended=ended, stopped=stopped)
                if stopped:
                    return False
                if ended or still:
                    break
        return True


def check_run(config: TrainingConfig, data: ImageSet, *, ranks: Ranks = ALONE) -> None:
    """Refuse what cannot be trained before anything is written. Raises PolyinrError."""
    classes = config.classes_of(data.classes)
    if classes == 1:
        raise TrainingError(f"{data.path}: has one class only; train with --no-cond")
    check_classes(config, data)
    discriminator = config.discriminator(classes)
    for stage in config.stages:
        own, feed = config.at(stage), feed_of(config, data, stage)
        if len(feed) < own.batch:
            apart = f", with {held_out} held out," if (held_out := own.held_out_of(len(data))) else ""
            less = "--batch or --held-out" if held_out else "--batch"
            raise TrainingError(
                f"{data.path}: {len(feed)} images{apart} are fewer than the batch of {own.batch}; give more "
                f"images or a smaller {less}"
            )
        if (micro_batch := own.micro_batch or own.batch) % ranks.count:
            raise ConfigError(f"a micro-batch of {micro_batch} cannot be divided among {ranks.count} processes")
        for backbone in discriminator.backbones:
            discriminator.view(backbone, stage.resolution)


def feed_of(config: TrainingConfig, data: ImageSet, stage: Stage, *, device: torch.device = CPU) -> Feed:
    """Return the images of a stage. Raises DatasetError if they are smaller."""
    own = config.at(stage)
    return Feed(
        data,
        resolution=stage.resolution,
        seed=own.seed,
        mirror=own.mirror,
        held_out=own.held_out_of(len(data)),
        workers=own.workers,
        device=device,
    )
