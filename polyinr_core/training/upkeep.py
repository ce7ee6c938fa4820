"""Upkeep: what is due between iterations: the log, models and sheets, distances, warnings, the state."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from ..critic.augment import blurs
from ..data.feed import Feed
from ..data.picture_set import PictureSet
from ..pictures.sheet import sheet
from ..ranks import Ranks
from .config import TrainingConfig
from .diagnosis import Diagnosis
from .folder import RunFolder
from .journal import Event, Journal
from .judge import Judge
from .keeping import Patience, keep_best, prune
from .memory import memory_facts
from .records import COLUMNS, first_reals, save_reals, save_record, snapshot_of
from .session import Session, pack
from .spread import spread
from .state import write_state
from .step import Batch, Losses, Setting, mean_logit

LOG_EVERY = 0.25  # kimg
HELD_OUT_EVERY = 1.0  # kimg: a pass of the critic over pictures that it never learns from


class Upkeep:
    """Keeps a run's folder while it trains; only the first of the `ranks` writes and reports.

    What it remembers of a run lies in the session's notes, as plain JSON, and so in its state.
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
        ranks: Ranks,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.weights = weights
        self.device = device
        self.ranks = ranks
        self.journal = Journal(folder, report)
        self.judge: Judge | None = None
        self.diagnosis = Diagnosis()
        self.patience = Patience()

    def begin(self, session: Session, feed: Feed) -> None:
        """Begin a stage, or go on with it; the first one shows the generator before anything is learned."""
        self.feed, self.judge = feed, None
        if session.images:
            self.diagnosis = Diagnosis.from_dict(session.notes.get("diagnosis", {}))
            self.patience = Patience.from_dict(session.notes.get("patience", {}))
        else:
            self.diagnosis.begin_stage()
            self.patience = Patience()
        if self.ranks.leads:
            reals = first_reals(feed)
            self.data_spread = spread(reals)
            if not session.images:
                save_reals(self.folder, reals)
        if not session.seen:
            self.record(session)
            if self.config.metric_every:
                self.measure(session, blur=self.config.blur_sigma)
        self.seconds, self.counted, self.clock = 0.0, session.images, time.perf_counter()

    def after(self, session: Session, setting: Setting, losses: Losses, *, ended: bool, stopped: bool) -> bool:
        """Do what is due after an iteration, all of it when the stage has ended or the run is to stop.

        Return whether the stage is over although its pictures are not: the watched distance stands still.
        """
        config = self.config
        self.seconds += (took := time.perf_counter() - self.clock)
        self.diagnosis.count_training(took)
        warning = self.diagnosis.hear_signs(
            fake=losses.fake_sign, real=losses.real_sign, images=self.batch(session), seen=session.images
        )
        self.warn(session, warning)
        if self.due(session, LOG_EVERY) or ended or stopped:
            speed = (session.images - self.counted) / self.seconds
            told = asdict(losses)
            if setting.guide is None:
                del told["guidance"]
            self.log(session, {**told, "pictures_per_second": round(speed, 2), **memory_facts(self.device)})
            self.seconds, self.counted = 0.0, session.images
        if self.due(session, HELD_OUT_EVERY):
            self.look_at_held_out(session, setting, losses)
        still = False
        if config.metric_every and (self.due(session, config.metric_every) or ended):
            still = self.measure(session, blur=setting.sigma)
        due = self.due(session, config.snapshot_every) or ended or still
        if due or stopped:
            self.record(session, due=due)
        if self.due(session, config.state_every) or ended or stopped or still:
            self.save(session)
        self.clock = time.perf_counter()
        return still

    def stands_still(self, session: Session) -> bool:
        """Say whether a stage that was left at its measurements' standstill is over."""
        notes = session.notes.get("patience") if session.images else None
        return notes is not None and Patience.from_dict(notes).over(self.config.auto_advance)

    def batch(self, session: Session) -> int:
        """Return the pictures of an iteration of the session's stage."""
        return self.config.at(self.config.stages[session.stage]).batch

    def due(self, session: Session, every: float) -> bool:
        """Say whether the last iteration crossed a multiple of `every` kimg."""
        before = session.seen - self.batch(session)
        return int(before / (1000 * every)) < int(session.seen / (1000 * every))

    def measure(self, session: Session, *, blur: float) -> bool:
        """Log the distances of the averaged generator to the data of the stage, and keep it if it is the best.

        Return whether the watched one has stood still for long enough to end the stage.
        """
        if self.judge is None:
            self.judge = Judge(self.config.metrics, self.weights, self.feed, device=self.device, ranks=self.ranks)
        facts = self.judge.measure(session.averaged)
        self.log(session, facts)
        watched = self.config.metrics[0]
        self.warn(session, self.diagnosis.hear_distance(watched, facts[watched]))
        self.warn(session, self.diagnosis.count_judging(facts["seconds"]))
        if self.ranks.leads:
            snapshot = snapshot_of(session, self.config, self.data)
            labels = facts.get("labels", "")
            keep_best(self.folder.snapshots, snapshot, metric=watched, value=facts[watched], labels=labels)
        self.patience = self.patience.after(watched, facts[watched], blurred=blurs(blur))
        return self.patience.over(self.config.auto_advance)

    def look_at_held_out(self, session: Session, setting: Setting, losses: Losses) -> None:
        """Ask the critic about pictures that it never learns from."""
        count = min(self.config.held_out_of(len(self.data)), setting.micro_batch)
        count -= count % self.ranks.count
        if count < 2:
            return
        pictures, label = self.feed.held_out(count)
        own = self.ranks.share(count)
        labels = label[own] if session.networks.generator.config.classes and label is not None else None
        held_out = Batch(pictures[own].to(setting.points), labels)
        logit = mean_logit(session.networks, setting, held_out, name="held out")
        self.log(session, {"held_out_logit": logit})
        warning = self.diagnosis.hear_logits(training=losses.real_logit, held_out=logit, fakes=losses.fake_logit)
        self.warn(session, warning)

    def record(self, session: Session, *, due: bool = True) -> None:
        """Write the averaged generator as a snapshot and a sheet of its pictures; remove what is too many.

        One that is not `due`, at a stop, is not diagnosed: the run that was never stopped would not hear of it.
        """
        if not self.ranks.leads:
            return
        pixels = save_record(self.folder, snapshot_of(session, self.config, self.data), seen=session.seen)
        prune(self.folder.snapshots, self.config.keep)
        self.journal.picture("samples", sheet(pixels, COLUMNS), seen=session.seen)
        own = spread(pixels)
        self.log(session, {"spread": own})
        if due:
            warning = self.diagnosis.see_spread(samples=own, data=self.data_spread, seen=session.images)
            self.warn(session, warning)

    def save(self, session: Session) -> None:
        """Write the state."""
        session.notes = {"diagnosis": self.diagnosis.to_dict(), "patience": self.patience.to_dict()}
        state = pack(session)
        self.ranks.check_agreement(state.tensors)
        if self.ranks.leads:
            write_state(self.folder.state, state, images=session.seen)

    def warn(self, session: Session, warning: str | None) -> None:
        """Log a warning, if it is one."""
        if warning:
            self.log(session, {"warning": warning})

    def log(self, session: Session, facts: dict[str, Any]) -> None:
        """Write an event of the journal."""
        stage = self.config.stages[session.stage]
        event = {"kimg": session.seen / 1000, "stage": session.stage, "resolution": stage.resolution, **facts}
        if self.ranks.leads:
            self.journal.write(event)

    def say(self, message: str) -> None:
        """Report a message for a person."""
        if self.ranks.leads:
            self.journal.report({"message": message})
