"""The run: all stages, one after another, from whatever state the run folder holds."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..critic.backbones import Lite0Features
from ..data.feed import Feed
from ..data.picture_set import PictureSet
from ..errors import ConfigError, TrainingError
from ..model import Generator
from ..ranks import ALONE, CPU, Ranks
from ..snapshots.snapshot import Snapshot
from .class_table import class_means
from .config import TrainingConfig
from .fine_tune import describe_start, generator_from
from .folder import DataFacts, RunFolder
from .guidance import check_classes, is_guided, make_guide
from .iterations import Iterations
from .journal import Event
from .session import Session, begin_stage, first_generator, shared_state, unpack
from .sights import networks_of
from .stages import Stage
from .state import State, read_state
from .step import Guide
from .upkeep import Upkeep


class Run:
    """A training run in its folder.

    `weights` holds pretrained networks under timm's names: each backbone, `lite0` for the class tables of a
    conditional model, the classifier if one guides, and what the judge looks through. `start` is a snapshot to
    start from. `report` gets each event of the log as a dict, and messages for a person as {"message": ...}.
    `memory` is what the device has, in bytes. Everything random is a function of the seed, the stage and the
    pictures seen: going on from a state gives the very run that was interrupted (to the bit, on one CPU). Each
    of the `ranks` has a Run of its own; the first one writes. Raises TrainingError, ConfigError, ArchiveError,
    FileError, RanksError.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: PictureSet,
        folder: RunFolder,
        *,
        weights: Mapping[str, Any],
        device: torch.device,
        report: Callable[[Event], None],
        start: Snapshot | None = None,
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
        """Return the pictures of a stage."""
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
        return session.stage == len(before) and (
            session.images >= last.images or self.upkeep.stands_still(session)
        )

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
        """Begin a stage from a generator, with a new critic; a fresh one starts from the data's class means."""
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


def check_run(config: TrainingConfig, data: PictureSet, *, ranks: Ranks = ALONE) -> None:
    """Refuse what cannot be trained before anything is written. Raises PolyinrError."""
    classes = config.classes_of(data.classes)
    if classes == 1:
        raise TrainingError(f"{data.path}: has one class only; train with --no-cond")
    check_classes(config, data)
    critic = config.critic(classes)
    for stage in config.stages:
        own, feed = config.at(stage), feed_of(config, data, stage)
        if len(feed) < own.batch:
            apart = f", with {held_out} held out," if (held_out := own.held_out_of(len(data))) else ""
            less = "--batch or --held-out" if held_out else "--batch"
            raise TrainingError(
                f"{data.path}: {len(feed)} pictures{apart} are fewer than the batch of {own.batch}; give more "
                f"pictures or a smaller {less}"
            )
        if (micro_batch := own.micro_batch or own.batch) % ranks.count:
            raise ConfigError(f"a micro-batch of {micro_batch} cannot be divided among {ranks.count} processes")
        for backbone in critic.backbones:
            critic.view(backbone, stage.resolution)


def feed_of(config: TrainingConfig, data: PictureSet, stage: Stage, *, device: torch.device = CPU) -> Feed:
    """Return the pictures of a stage. Raises ArchiveError if they are smaller."""
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
