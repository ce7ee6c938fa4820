"""The run: all stages, one after another, from whatever state the run folder holds."""

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..critic.backbones import Lite0Features
from ..data.archive import Archive
from ..data.feed import Feed
from ..errors import TrainingError
from ..model import Generator, RegularGrid
from ..seeds import generator_for
from .class_table import class_means
from .config import TrainingConfig
from .ema import ema_beta, half_life
from .folder import DataFacts, RunFolder
from .judge import Judge
from .records import save_reals, save_record
from .session import Session, Weights, begin_stage, first_generator, pack, unpack
from .stages import Stage
from .state import read_state, write_state
from .step import Batch, Losses, Setting, iterate

LOG_EVERY = 0.25  # kimg


class Run:
    """A training run in its folder.

    `weights` holds pretrained networks under timm's names: each backbone, `lite0` for the class tables of a
    conditional model, `lite2` if distances are wanted. `report` gets each event of the log as a dict, and
    messages for a person as {"message": ...}. Everything random is a function of the seed, the stage and the
    pictures seen: going on from a state gives the very run that was interrupted (to the bit, on one CPU).
    Raises TrainingError, ConfigError, ArchiveError, FileError.
    """

    def __init__(
        self,
        config: TrainingConfig,
        archive: Archive,
        folder: RunFolder,
        *,
        weights: Weights,
        device: torch.device,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config = config
        self.archive = archive
        self.folder = folder
        self.weights = weights
        self.device = device
        self.report = report
        self.classes = archive.classes if config.cond else 0
        self.judge: Judge | None = None
        self.check()
        folder.claim(config, DataFacts(archive.path.name, archive.sha256, len(archive), self.classes))

    def check(self) -> None:
        """Refuse what cannot be trained before anything is written. Raises PolyinrError."""
        if len(self.archive) < self.config.batch:
            raise TrainingError(
                f"{self.archive.path}: {len(self.archive)} pictures are fewer than the batch of "
                f"{self.config.batch}; give more pictures or a smaller --batch"
            )
        if self.classes == 1:
            raise TrainingError(f"{self.archive.path}: has one class only; train with --no-cond")
        critic = self.config.critic(self.classes)
        for stage in self.config.stages:
            self.feed(stage)
            for backbone in critic.backbones:
                critic.view(backbone, stage.resolution)

    def feed(self, stage: Stage) -> Feed:
        """Return the pictures of a stage."""
        config = self.config
        return Feed(self.archive, resolution=stage.resolution, seed=config.seed, mirror=config.mirror)

    @cached_property
    def table(self) -> Tensor | None:
        """The class means of the data, [classes, 320]; None in an unconditional run."""
        if not self.classes:
            return None
        return class_means(self.archive, Lite0Features(self.weights["lite0"]).to(self.device))

    def train(self, *, stop: Callable[[], bool], progress: Callable[[int, int], None] | None = None) -> bool:
        """Train to the end and return True; or, once `stop()` says so, save all and return False.

        `stop` is asked and `progress` told (pictures seen, pictures in all) after every iteration.
        """

        def stopping(seen: int) -> bool:
            if progress:
                progress(seen, self.config.images)
            return stop() and seen < self.config.images

        session = self.resume() or self.start()
        while self.train_stage(session, stopping=stopping):
            if session.stage + 1 == len(self.config.stages):
                return True
            session = self.begin(session.stage + 1, session.networks.ema, images_before=session.seen)
        return False

    def start(self) -> Session:
        """Begin the first stage."""
        session = self.begin(0, first_generator(self.config, self.classes, self.table))
        save_reals(self.folder, self.feed(self.config.stages[0]))
        self.record(session)
        if self.config.metric_every:
            self.measure(session)
        return session

    def resume(self) -> Session | None:
        """Return the session of the newest sound state, if there is one."""
        state, damaged = read_state(self.folder.state)
        for line in damaged:
            self.report({"message": line})
        if state is None:
            return None
        generator = first_generator(self.config, self.classes, None)
        session = begin_stage(
            self.config, generator, stage=state.counters["stage"], weights=self.weights, device=self.device
        )
        unpack(session, state)
        if session.seen < self.config.images:
            self.log(session, {"resumed": True})
            self.report({"message": f"going on at {session.seen / 1000:g} kimg"})
        return session

    def begin(self, stage: int, generator: Generator, *, images_before: int = 0) -> Session:
        """Begin a stage from a generator, with a new critic that starts from the data's class means."""
        session = begin_stage(
            self.config, generator, stage=stage, weights=self.weights, device=self.device, table=self.table
        )
        session.images_before = images_before
        return session

    def train_stage(self, session: Session, *, stopping: Callable[[int], bool]) -> bool:
        """Train from where the session stands to its stage's end, and keep the records when they are due.

        `stopping` is told the pictures seen after every iteration; once it says True, save and return False.
        """
        config, stage = self.config, self.config.stages[session.stage]
        feed, points = self.feed(stage), self.points(stage)
        seconds, counted = 0.0, session.images
        while session.images < stage.images:
            clock = time.perf_counter()
            losses = self.iteration(session, stage, feed, points)
            seconds += time.perf_counter() - clock
            ended, stopped = session.images >= stage.images, stopping(session.seen)
            if self.due(session, LOG_EVERY, now=ended):
                self.tell(session, losses, speed=(session.images - counted) / seconds)
                seconds, counted = 0.0, session.images
            if self.due(session, config.snapshot_every, now=ended or stopped):
                self.record(session)
            if self.due(session, config.state_every, now=ended or stopped):
                self.save(session)
            if config.metric_every and self.due(session, config.metric_every, now=ended):
                self.measure(session)
            if stopped:
                return False
        return True

    def iteration(self, session: Session, stage: Stage, feed: Feed, points: Tensor) -> Losses:
        """Run one iteration and count its pictures."""
        config, images = self.config, session.images
        key = (config.seed, session.stage, images)

        def fakes(name: str) -> Batch:
            rng = generator_for("z", name, *key)
            z = torch.randn(config.batch, config.z_dim, generator=rng)
            return self.to_device(z, feed.labels(rng, config.batch))

        setting = Setting(
            points,
            micro_batch=config.micro_batch or config.batch,
            sigma=config.blur_at(images, stage),
            rng=lambda name, part: generator_for("augment", name, part, *key),
        )
        losses = iterate(
            session.networks,
            setting,
            reals=self.to_device(*feed.batch(images, config.batch)),
            g_fakes=fakes("generator"),
            d_fakes=fakes("critic"),
            beta=ema_beta(batch=config.batch, images=images, half_life=half_life(config.batch)),
        )
        session.images += config.batch
        return losses

    def to_device(self, content: Tensor, label: Tensor | None) -> Batch:
        """Bring pictures or latents to the device, without labels in an unconditional run."""
        return Batch(
            content.to(self.device), label.to(self.device) if self.classes and label is not None else None
        )

    def points(self, stage: Stage) -> Tensor:
        """Return the grid of a stage, [r*r, 3]."""
        grid = RegularGrid(stage.resolution, stage.resolution)
        return grid.points(0, stage.resolution**2, dtype=torch.float32, device=self.device)

    def due(self, session: Session, every: float, *, now: bool) -> bool:
        """Say whether the last iteration crossed a multiple of `every` kimg; `now` says so in any case."""
        before = session.seen - self.config.batch
        return now or int(before / (1000 * every)) < int(session.seen / (1000 * every))

    def measure(self, session: Session) -> None:
        """Log the distance of the averaged generator's pictures to the data of the stage."""
        if self.judge is None or self.judge.feed.resolution != self.config.stages[session.stage].resolution:
            feed = self.feed(self.config.stages[session.stage])
            self.judge = Judge(self.weights["lite2"], feed, device=self.device)
        self.log(session, self.judge.measure(session.networks.ema))

    def tell(self, session: Session, losses: Losses, *, speed: float) -> None:
        """Log the losses."""
        self.log(session, {**asdict(losses), "pictures_per_second": round(speed, 2)})

    def log(self, session: Session, facts: dict[str, Any]) -> None:
        """Append an event to the log and report it."""
        stage = self.config.stages[session.stage]
        event = {"kimg": session.seen / 1000, "stage": session.stage, "resolution": stage.resolution, **facts}
        self.folder.append(event)
        self.report(event)

    def save(self, session: Session) -> None:
        """Write the state."""
        write_state(self.folder.state, pack(session), images=session.seen)

    def record(self, session: Session) -> None:
        """Write a snapshot of the averaged generator and a sheet of its pictures."""
        save_record(self.folder, session, self.config, self.archive)
