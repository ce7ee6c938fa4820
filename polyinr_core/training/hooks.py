"""Which models a run keeps: the best by the watched distance, the last few; and when waiting for better ends."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, read_facts, save_checkpoint
from polyinr_core.data.dataset import ImageSet
from polyinr_core.data.loader import Feed
from polyinr_core.discriminator.diffaugment import blurs
from polyinr_core.errors import CheckpointError
from polyinr_core.images.grid import make_grid
from polyinr_core.runtime.atomic_io import explain
from polyinr_core.runtime.distributed import Ranks
from polyinr_core.runtime.strict_json import is_number, is_whole

from .config import TrainingConfig
from .diagnostics import Diagnosis, spread
from .logging import Event, Journal, memory_facts
from .metrics_hook import Judge
from .run_dir import RunFolder
from .samples import COLUMNS, checkpoint_of, first_reals, save_reals, save_record
from .state import Session, pack, write_state
from .step import Batch, Losses, Setting, mean_logit

BEST = "best.safetensors"
OLDER_LABELS = "uniform"  # of models that were measured before they said so


def keep_best(checkpoints: Path, checkpoint: Checkpoint, *, metric: str, value: float, labels: str = "") -> bool:
    """Keep `checkpoint` in the folder as best.safetensors if its distance is the least; return whether it is.

    The file's own header says what it reached (`origin`: metric and value), so that there is nothing else to go
    out of step with it. Distances of another metric, resolution or data set, or of images whose `labels` were
    drawn in another way, are no measure for this one: such a model, or a damaged one, gives way. Raises
    FileError.
    """
    path = checkpoints / BEST
    best = kept_value(path, checkpoint, metric=metric, labels=labels)
    if not math.isfinite(value) or (best is not None and value >= best):
        return False
    origin = {**checkpoint.origin, "metric": metric, "value": value, **({"labels": labels} if labels else {})}
    save_checkpoint(path, replace(checkpoint, origin=origin), overwrite=True)
    return True


def kept_value(path: Path, checkpoint: Checkpoint, *, metric: str, labels: str) -> float | None:
    """Return the distance that the best model reached, None if none compares. Raises FileError."""
    if not path.exists():
        return None
    try:
        facts = read_facts(path)
        origin = facts["origin"]
        drawn = origin.get("labels", OLDER_LABELS if labels else "")
        same = (facts["resolution"], facts["data_sha256"], origin["metric"], drawn)
        if same != (checkpoint.resolution, checkpoint.data_sha256, metric, labels):
            return None
        return float(origin["value"])
    except (CheckpointError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def prune(checkpoints: Path, keep: int) -> None:
    """Remove all numbered checkpoints but the last `keep` (0: none is removed). Raises FileError.

    Only files whose names are numbers count: the best model stays, and so does what a user put there.
    """
    numbered = sorted((path for path in checkpoints.glob("*.safetensors") if path.stem.isdecimal()), key=number)
    for path in numbered[:-keep] if keep else []:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(path, error) from error


def number(path: Path) -> int:
    """Return the images that a numbered checkpoint had seen."""
    return int(path.stem)


@dataclass(frozen=True)
class Patience:
    """How long a stage has waited for a better distance: the least so far, and the measurements since then."""

    metric: str = ""  # whose distances these are
    best: float | None = None
    waited: int = 0

    def after(self, metric: str, value: float, *, blurred: bool) -> "Patience":
        """Return the patience after one more measurement; while the discriminator sees through a blur, none counts.

        With another metric than before the waiting begins anew.
        """
        before = self if metric == self.metric and not blurred else Patience(metric)
        if blurred:
            return before
        if math.isfinite(value) and (before.best is None or value < before.best):
            return Patience(metric, value)
        return Patience(metric, before.best, before.waited + 1)

    def over(self, limit: int) -> bool:
        """Say whether `limit` measurements in a row brought nothing better (0: never)."""
        return 0 < limit <= self.waited

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as plain JSON values, for the state."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counters: dict[str, Any]) -> Self:
        """Take up what `to_dict` returned; what an older state does not hold, or holds damaged, begins anew."""
        held = counters if isinstance(counters, dict) else {}
        metric, best, waited = held.get("metric"), held.get("best"), held.get("waited")
        good = isinstance(metric, str) and (best is None or is_number(best)) and is_whole(waited)
        return cls(metric, best, waited) if good else cls()  # type: ignore[arg-type]


LOG_EVERY = 0.25  # kimg
HELD_OUT_EVERY = 1.0  # kimg: a pass of the discriminator over images that it never learns from


class Upkeep:
    """Keeps a run's folder while it trains; only the first of the `ranks` writes and reports.

    What it remembers of a run lies in the session's notes, as plain JSON, and so in its state.
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

        Return whether the stage is over although its images are not: the watched distance stands still.
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
            self.log(session, {**told, "img_per_sec": round(speed, 2), **memory_facts(self.device)})
            self.seconds, self.counted = 0.0, session.images
        if self.due(session, HELD_OUT_EVERY):
            self.look_at_held_out(session, setting, losses)
        still = False
        if config.metric_every and (self.due(session, config.metric_every) or ended):
            still = self.measure(session, blur=setting.sigma)
        due = self.due(session, config.checkpoint_every) or ended or still
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
        """Return the images of an iteration of the session's stage."""
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
            checkpoint = checkpoint_of(session, self.config, self.data)
            labels = facts.get("labels", "")
            keep_best(self.folder.checkpoints, checkpoint, metric=watched, value=facts[watched], labels=labels)
        self.patience = self.patience.after(watched, facts[watched], blurred=blurs(blur))
        return self.patience.over(self.config.auto_advance)

    def look_at_held_out(self, session: Session, setting: Setting, losses: Losses) -> None:
        """Ask the discriminator about images that it never learns from."""
        count = min(self.config.held_out_of(len(self.data)), setting.micro_batch)
        count -= count % self.ranks.count
        if count < 2:
            return
        images, label = self.feed.held_out(count)
        own = self.ranks.share(count)
        labels = label[own] if session.networks.generator.config.classes and label is not None else None
        held_out = Batch(images[own].to(setting.points), labels)
        logit = mean_logit(session.networks, setting, held_out, name="held out")
        self.log(session, {"held_out_logit": logit})
        warning = self.diagnosis.hear_logits(training=losses.real_logit, held_out=logit, fakes=losses.fake_logit)
        self.warn(session, warning)

    def record(self, session: Session, *, due: bool = True) -> None:
        """Write the averaged generator as a checkpoint and a sheet of its images; remove what is too many.

        One that is not `due`, at a stop, is not diagnosed: the run that was never stopped would not hear of it.
        """
        if not self.ranks.leads:
            return
        pixels = save_record(self.folder, checkpoint_of(session, self.config, self.data), seen=session.seen)
        prune(self.folder.checkpoints, self.config.keep)
        self.journal.image("samples", make_grid(pixels, COLUMNS), seen=session.seen)
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
