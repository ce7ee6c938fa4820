"""What happens between iterations: logs, metrics, samples, checkpoints, training states, warnings, early stopping."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint, read_facts, save_checkpoint
from polyinr_core.data.dataset import ImageDataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.discriminator.diffaugment import blurs
from polyinr_core.errors import CheckpointError
from polyinr_core.images.grid import make_grid
from polyinr_core.runtime.atomic_io import explain
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.strict_json import is_number, is_whole

from .config import TrainingConfig
from .diagnostics import Diagnostics, class_share, diversity
from .logging import Event, Logger, memory_stats
from .metrics_hook import MetricsHook
from .run_dir import RunFolder
from .samples import COLUMNS, first_reals, make_checkpoint, save_checkpoint_and_samples, save_reals
from .state import TrainingState, pack_state, write_state
from .step import Batch, StepOptions, mean_logit
from .step_stats import DeviceStats, StepStats, read_stats

BEST = "best.safetensors"
LABELS_OF_FORMAT_1 = "uniform"  # how fakes got their labels before checkpoints said so
LOG_EVERY = 0.25  # kimg
READ_EVERY = 16  # iterations whose statistics wait on a GPU, which the host need not wait for, at most
HELD_OUT_EVERY = 1.0  # kimg between two passes of the discriminator over held-out images
# adaptive augmentation: kimg in which the probability can go from 0 to 1 (ADA's 500 are for runs of 25000), and its cap
AUGMENT_KIMG, MAX_AUGMENT_P = 100.0, 0.8


class Hooks:
    """Writes the run folder while a run trains, and decides when a stage ends early. Only rank 0 writes and reports.

    The main loop calls `on_stage_start` once a stage and `on_step_end` after every iteration. What the hooks remember
    is saved with the training state, so that a resumed run warns and stops as an uninterrupted one.
    """

    def __init__(
        self,
        config: TrainingConfig,
        data: ImageDataset,
        folder: RunFolder,
        *,
        weights: Mapping[str, Any],
        device: torch.device,
        report: Callable[[Event], None],
        dist: DistributedContext,
        track: Sequence[str] | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.folder = folder
        self.weights = weights
        self.device = device
        self.dist = dist
        self.logger = Logger(folder, report, track=track, config=config.to_dict())
        if track is not None and dist.is_main:
            self.logger.trackers.open()
        self.metrics: MetricsHook | None = None
        self.diagnostics = Diagnostics()
        self.early_stopping = EarlyStopping()
        self.pending: list[DeviceStats] = []

    def on_stage_start(self, state: TrainingState, loader: TrainLoader) -> None:
        """Prepare for a stage, new or resumed. At the start of the run, save and measure the untrained generator."""
        self.loader, self.metrics = loader, None
        if state.images:
            self.diagnostics = Diagnostics.from_dict(state.hooks.get("diagnostics", {}))
            self.early_stopping = EarlyStopping.from_dict(state.hooks.get("early_stopping", {}))
        else:
            self.diagnostics.start_stage()
            self.early_stopping = EarlyStopping()
        if self.dist.is_main:
            reals = first_reals(loader)
            self.data_diversity = diversity(reals)
            if not state.images:
                save_reals(self.folder, reals)
        if not state.total_images:
            self.save_checkpoint(state)
            if self.config.metric_every:
                self.measure(state, blur_sigma=self.config.blur_sigma)
        self.seconds, self.logged_images, self.clock = 0.0, state.images, time.perf_counter()

    def on_step_end(
        self,
        state: TrainingState,
        options: StepOptions,
        stats: DeviceStats,
        *,
        ended: bool,
        stopped: bool,
        save: bool = False,
    ) -> bool:
        """Do what is due; everything at the end of a stage (`ended`) and when the run is to stop (`stopped`).

        With `save` a training state is saved. On a GPU statistics are read, and a loss that is not finite noticed,
        every few iterations and before anything is due. Return whether the stage ends early because the watched metric
        no longer improves.
        """
        config, reads = self.config, stopped or save or self.reads_now(state, ended=ended)
        self.pending.append(stats)
        if not reads:
            return False
        last = self.read_pending(state)
        self.seconds += (elapsed := time.perf_counter() - self.clock)
        self.diagnostics.add_training_time(elapsed)
        if self.is_due(state, LOG_EVERY) or ended or stopped:
            self.log_stats(state, options, last)
        if self.is_due(state, HELD_OUT_EVERY):
            self.log_held_out(state, options, last)
        early = False
        if config.metric_every and (self.is_due(state, config.metric_every) or ended):
            early = self.measure(state, blur_sigma=options.blur_sigma)
        due = self.is_due(state, config.checkpoint_every) or ended or early
        if due or stopped:
            self.save_checkpoint(state, due=due)
        if self.is_due(state, config.state_every) or ended or stopped or early or save:
            self.save_state(state)
            if save:
                self.info(f"training state of {state.total_images / 1000:g} kimg saved")
        self.clock = time.perf_counter()
        return early

    def reads_now(self, state: TrainingState, *, ended: bool) -> bool:
        """Return whether this iteration's statistics are read at its end, on all ranks alike."""
        config = self.config
        every = (LOG_EVERY, HELD_OUT_EVERY, config.metric_every, config.checkpoint_every, config.state_every)
        is_any_due = ended or any(kimg and self.is_due(state, kimg) for kimg in every)
        return self.device.type == "cpu" or is_any_due or len(self.pending) + 1 >= READ_EVERY

    def read_pending(self, state: TrainingState) -> StepStats:
        """Return the last iteration's statistics, after the diagnosis of all that were pending."""
        pending, self.pending = self.pending, []
        batch = self.batch_size(state)
        stats = read_stats(pending)
        for later, each in zip(reversed(range(len(stats))), stats, strict=True):
            warning = self.diagnostics.update_signs(
                fake=each.d_sign_fake, real=each.d_sign_real, images=batch, stage_images=state.images - later * batch
            )
            self.warn(state, warning)
        return stats[-1]

    def stopped_early(self, state: TrainingState) -> bool:
        """Return whether early stopping had ended the stage when the state was saved."""
        saved = state.hooks.get("early_stopping") if state.images else None
        return saved is not None and EarlyStopping.from_dict(saved).is_over(self.config.auto_advance)

    def batch_size(self, state: TrainingState) -> int:
        """Return the batch size of the state's stage."""
        return self.config.at(self.config.stages[state.stage]).batch

    def is_due(self, state: TrainingState, every: float) -> bool:
        """Return whether the last iteration crossed a multiple of `every` kimg."""
        before = state.total_images - self.batch_size(state)
        return int(before / (1000 * every)) < int(state.total_images / (1000 * every))

    def log_stats(self, state: TrainingState, options: StepOptions, stats: StepStats) -> None:
        """Log the last iteration's losses, the speed since the last such event, and memory."""
        facts = asdict(stats)
        if options.classifier is None:
            del facts["loss_guidance"]
        if options.penalty is None:
            del facts["loss_penalty"]
        img_per_sec = (state.images - self.logged_images) / self.seconds
        self.log(state, {**facts, "img_per_sec": round(img_per_sec, 2), **memory_stats(self.device)})
        self.seconds, self.logged_images = 0.0, state.images

    def log_held_out(self, state: TrainingState, options: StepOptions, stats: StepStats) -> None:
        """Log the mean logit of images that the discriminator is never trained on, and adapt the augmentation."""
        count = min(self.config.held_out_count(len(self.data)), options.micro_batch)
        count -= count % self.dist.world_size
        if count >= 2:
            images, label = self.loader.held_out(count)
            local = self.dist.local_slice(count)
            labels = label[local] if state.generator.config.classes and label is not None else None
            logit = mean_logit(state, options, Batch(images[local].to(options.coordinates), labels), name="held out")
            self.log(state, {"d_logit_held_out": logit})
            warning = self.diagnostics.update_logits(
                training=stats.d_logit_real, held_out=logit, fakes=stats.d_logit_fake
            )
            self.warn(state, warning)
        if self.config.augment == "adaptive":
            step = HELD_OUT_EVERY / AUGMENT_KIMG
            state.augment_p = min(max(state.augment_p + step * self.diagnostics.augment_sign(), 0.0), MAX_AUGMENT_P)
            self.log(state, {"augment_p": state.augment_p})

    def measure(self, state: TrainingState, *, blur_sigma: float) -> bool:
        """Log the metrics of the averaged generator, and keep it if it is the best. Return whether to stop early."""
        if self.metrics is None:
            self.metrics = MetricsHook(
                self.config.metrics, self.weights, self.loader, device=self.device, dist=self.dist
            )
        facts = self.metrics.measure(state.ema_float32)
        self.log(state, facts)
        watched = self.config.metrics[0]
        self.warn(state, self.diagnostics.update_distance(watched, facts[watched]))
        self.warn(state, self.diagnostics.add_metric_time(facts["seconds"]))
        if self.dist.is_main:
            checkpoint = make_checkpoint(state, self.config, self.data)
            labels = facts.get("labels", "")
            keep_best(self.folder.checkpoints, checkpoint, metric=watched, value=facts[watched], labels=labels)
        self.early_stopping = self.early_stopping.after(watched, facts[watched], blurred=blurs(blur_sigma))
        return self.early_stopping.is_over(self.config.auto_advance)

    def save_checkpoint(self, state: TrainingState, *, due: bool = True) -> None:
        """Save the averaged generator and a grid of its samples; remove old checkpoints.

        One that is not `due`, at a stop, is not diagnosed: the uninterrupted run does not make it.
        """
        if not self.dist.is_main:
            return
        checkpoint = make_checkpoint(state, self.config, self.data)
        pixels = save_checkpoint_and_samples(self.folder, checkpoint, images=state.total_images)
        prune_checkpoints(self.folder.checkpoints, self.config.keep)
        self.logger.image("samples", make_grid(pixels, COLUMNS), images=state.total_images)
        value = diversity(pixels)
        facts = {"diversity": value}
        if checkpoint.generator.config.classes:
            facts["class_share"] = round(class_share(checkpoint.generator), 4)
        self.log(state, facts)
        if due:
            warning = self.diagnostics.update_diversity(
                samples=value, data=self.data_diversity, stage_images=state.images
            )
            self.warn(state, warning)

    def save_state(self, state: TrainingState) -> None:
        """Save the training state."""
        state.hooks = {"diagnostics": self.diagnostics.to_dict(), "early_stopping": self.early_stopping.to_dict()}
        saved = pack_state(state)
        self.dist.check_replicas(saved.tensors)
        if self.dist.is_main:
            write_state(self.folder.state, saved, images=state.total_images)

    def warn(self, state: TrainingState, warning: str | None) -> None:
        """Log a warning, if there is one."""
        if warning:
            self.log(state, {"warning": warning})

    def log(self, state: TrainingState, facts: dict[str, Any]) -> None:
        """Write an event to the log, with the time (UTC)."""
        stage = self.config.stages[state.stage]
        event = {"kimg": state.total_images / 1000, "stage": state.stage, "resolution": stage.resolution, **facts}
        event["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        if self.dist.is_main:
            self.logger.write(event)

    def info(self, message: str) -> None:
        """Report a message that is not logged."""
        if self.dist.is_main:
            self.logger.report({"message": message})


@dataclass(frozen=True)
class EarlyStopping:
    """The best value of the watched metric so far, and the measurements since then."""

    metric: str = ""
    best: float | None = None
    waited: int = 0

    def after(self, metric: str, value: float, *, blurred: bool) -> "EarlyStopping":
        """Return the counters after one more measurement. While the discriminator's input is blurred, none counts.

        With another metric than before, counting starts again.
        """
        before = self if metric == self.metric and not blurred else EarlyStopping(metric)
        if blurred:
            return before
        if math.isfinite(value) and (before.best is None or value < before.best):
            return EarlyStopping(metric, value)
        return EarlyStopping(metric, before.best, before.waited + 1)

    def is_over(self, limit: int) -> bool:
        """Return whether `limit` measurements in a row brought no improvement (0: never)."""
        return 0 < limit <= self.waited

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counters: dict[str, Any]) -> Self:
        """Read what `to_dict` returned; missing or damaged counters start again."""
        held = counters if isinstance(counters, dict) else {}
        metric, best, waited = held.get("metric"), held.get("best"), held.get("waited")
        intact = isinstance(metric, str) and (best is None or is_number(best)) and is_whole(waited)
        return cls(metric, best, waited) if intact else cls()  # type: ignore[arg-type]


def keep_best(checkpoints: Path, checkpoint: Checkpoint, *, metric: str, value: float, labels: str = "") -> bool:
    """Save `checkpoint` as best.safetensors if its distance is the smallest so far. Return whether it is.

    An untrained model is never the best.
    The file's own header holds metric and value (`origin`), so that nothing else can contradict it. A best model of
    another metric, resolution, dataset or label distribution is not comparable and is replaced, as a damaged one is.
    Raises FileError.
    """
    if not checkpoint.kimg:
        return False
    path = checkpoints / BEST
    best = best_value(path, checkpoint, metric=metric, labels=labels)
    if not math.isfinite(value) or (best is not None and value >= best):
        return False
    origin = {**checkpoint.origin, "metric": metric, "value": value, **({"labels": labels} if labels else {})}
    save_checkpoint(path, replace(checkpoint, origin=origin), overwrite=True)
    return True


def best_value(path: Path, checkpoint: Checkpoint, *, metric: str, labels: str) -> float | None:
    """Return the distance of the best model so far, None if none is comparable. Raises FileError."""
    if not path.exists():
        return None
    try:
        facts = read_facts(path)
        origin = facts["origin"]
        stored_labels = origin.get("labels", LABELS_OF_FORMAT_1 if labels else "")
        same = (facts["resolution"], facts["data_sha256"], origin["metric"], stored_labels)
        if same != (checkpoint.resolution, checkpoint.data_sha256, metric, labels):
            return None
        return float(origin["value"])
    except (CheckpointError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def prune_checkpoints(checkpoints: Path, keep: int) -> None:
    """Remove all numbered checkpoints but the last `keep` (0: none is removed). Raises FileError.

    Only files whose names are numbers count: the best model stays, and so do files of the user's.
    """
    numbered = sorted(
        (path for path in checkpoints.glob("*.safetensors") if path.stem.isdecimal()), key=lambda path: int(path.stem)
    )
    for path in numbered[:-keep] if keep else []:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(path, error) from error
