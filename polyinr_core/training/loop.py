"""The training loop: `train` runs the stages of a configuration in a run folder, and resumes an interrupted run."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.data.dataset import ImageDataset, as_image_dataset
from polyinr_core.data.loader import Images, TrainLoader
from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import ConfigError, TrainingError
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.device import to_device
from polyinr_core.runtime.distributed import CPU, SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.resources import keep_freed_memory
from polyinr_core.runtime.rng import generator_for

from .classifier_guidance import check_classes, make_classifier, uses_guidance
from .config import (
    DEFAULT_PRESET,
    FINAL_HALF_LIFE,
    FINAL_LR,
    FINAL_PENALTY,
    Stage,
    TrainingConfig,
    make_config,
    metric_networks,
)
from .hooks import Hooks
from .init import center_rows, class_means, describe_start, generator_from, start_from
from .logging import Event
from .run_dir import DataFacts, RunFolder
from .state import (
    TrainingState,
    broadcast_state,
    check_state_memory,
    create_generator,
    load_networks,
    read_state,
    start_stage,
    unpack_state,
)
from .step import Batch, ClassifierLoss, Penalty, StepOptions, chunk_size, ema_beta, ema_half_life, train_step
from .step_stats import DeviceStats
from .tracking import check_trackers

STOP, SAVE = 1, 2  # bits: what a rank asks for after an iteration
PENALTY_SIGMA = 0.05  # of the perturbation of images in [-1, 1]: about six gray levels
# a fake's latents depend on this key; the second one keeps its first name, so that runs of format 1 resume exactly
LATENT_KEYS = {"g_fakes": "generator", "d_fakes": "critic"}


def train(
    data: PathLike | ImageDataset | Dataset[Any],
    *,
    run_dir: PathLike,
    stages: str | Sequence[Stage] | None = None,
    preset: str | None = None,
    config: TrainingConfig | None = None,
    init_from: PathLike | Checkpoint | None = None,
    weights: Mapping[str, Any] | None = None,
    download: bool = False,
    device: str | torch.device = CPU,
    dtype: torch.dtype = torch.float32,
    device_memory: int | None = None,
    dist: DistributedContext = SINGLE_PROCESS,
    track: Sequence[str] | None = None,
    report: Callable[[Event], None] | None = None,
    progress: Callable[[TrainingState], None] | None = None,
    stop: Callable[[], bool] | None = None,
    save: Callable[[], bool] | None = None,
    **fields: Any,
) -> bool:
    """Train a model, stage by stage. The same call resumes where an earlier one stopped.

    Every random draw is a function of the seed, the stage and the images seen, so a resumed run is the uninterrupted
    one: bit for bit on one CPU.

    Args:
        data: Path of a dataset (.zip, .tar shards), or a map-style torch Dataset of (image, label) pairs: uint8
            [3, H, W] or [H, W, 3], all square and of one size; a class number, or None.
        run_dir: The run folder; made if it does not exist.
        stages: Resolutions and lengths in kimg, as "32:200,64:100". Default: the preset's.
        preset: A name in `config.PRESETS`, whose values `fields` replace. Default: the settings of the run in `run_dir`
            if there is one, else "small".
        config: The whole configuration, in place of preset, stages and fields.
        init_from: The model to start from, named as for `polyinr_core.load`, instead of new weights.
        weights: Pretrained networks, or their weight files, by name. Default: those that are on this machine.
        download: Download pretrained weights that are not on this machine.
        device: Where to train.
        dtype: Of the matrix products: bfloat16, float32 or float64.
        device_memory: Bytes of the device, from which `chunk` is chosen. None: unknown.
        dist: The ranks that train together. All of them call this; rank 0 writes the run folder.
        track: Where the run can be followed: "tensorboard", "wandb", "trackio". None: TensorBoard, if it is installed.
        report: Called with each event of the log, and with {"message": ...} for messages.
        progress: Called with the training state after every iteration.
        stop: Asked after every iteration; once it returns True on any rank, everything is saved. Several GPUs tell one
            another when their statistics are read, every few iterations.
        save: Likewise; when it returns True on any rank, a training state is saved.
        **fields: Fields of `TrainingConfig`, as `batch=16` or `mirror=True`.

    Returns:
        True at the end of the last stage, False when stopped.

    Raises:
        ConfigError, TrainingError, DatasetError, FileError, WeightsError, DistributedError.
    """
    folder = RunFolder(Path(run_dir))
    if config is None:
        config = make_config(preset or folder.settings() or DEFAULT_PRESET, stages=stages, **fields)
    elif stages is not None or fields:
        raise ConfigError("give either a config, or stages and fields")
    config, checkpoint = start_from(config, init_from, set(fields))
    check_trackers(track or ())
    check_state_memory(config, torch.device(device))
    with ExitStack() as stack:
        images = as_image_dataset(data, index=folder.scan_index, labels="auto" if config.cond else "none")
        if images is not data:
            stack.enter_context(images)
        check_run(config, images, dist=dist)
        networks = load_networks(config, weights, download=download)
        if dist.is_main:
            stack.enter_context(folder.locked())
        trainer = Trainer(
            config,
            images,
            weights=networks,
            device=torch.device(device),
            dtype=dtype,
            device_memory=device_memory,
            dist=dist,
        )
        if dist.is_main:
            folder.claim(config, DataFacts(images.path.name, images.sha256, len(images), trainer.classes))
        hooks = Hooks(
            config,
            images,
            folder,
            weights=trainer.weights,
            device=trainer.device,
            report=report or (lambda event: None),
            dist=dist,
            track=track,
        )
        stack.enter_context(closing(hooks.logger))
        return run_stages(trainer, hooks, init_from=checkpoint, progress=progress, stop=stop, save=save)


def run_stages(
    trainer: "Trainer",
    hooks: Hooks,
    *,
    init_from: Checkpoint | None = None,
    progress: Callable[[TrainingState], None] | None = None,
    stop: Callable[[], bool] | None = None,
    save: Callable[[], bool] | None = None,
) -> bool:
    """Resume or start, and train to the end of the last stage. Return False if `stop` returned True before that."""
    stages, dist = trainer.config.stages, trainer.dist
    state = resume(trainer, hooks) or start(trainer, hooks, init_from)
    asked = 0  # since the ranks were last asked
    while True:
        stage = stages[state.stage]
        is_last = state.stage + 1 == len(stages)
        if not is_finished(state, stage, hooks):
            loader = trainer.loader(stage)
            hooks.on_stage_start(state, loader)
            config = trainer.config.at(stage)
            sizes = {"batch": config.batch, "micro_batch": config.micro_batch or config.batch}
            with closing(loader.batches(state.images, **sizes, dist=dist)) as batches:
                for reals in batches:
                    options, stats = trainer.train_iteration(state, loader, reals)
                    ended = state.images >= stage.images
                    if progress:
                        progress(state)
                    run_is_over = is_last and is_finished(state, stage, hooks)
                    asked |= STOP * (stop is not None and stop()) | SAVE * (save is not None and save())
                    asked_by_any: list[int] = []
                    if dist.world_size == 1 or hooks.reads_now(state, ended=ended):  # else the host would wait
                        asked_by_any, asked = dist.all_gather_int(asked), 0
                    stopped = any(STOP & one for one in asked_by_any) and not run_is_over
                    wanted = any(SAVE & one for one in asked_by_any)
                    early = hooks.on_step_end(state, options, stats, ended=ended, stopped=stopped, save=wanted)
                    if stopped:
                        return False
                    if ended or early:
                        break
        if is_last:
            return True
        state = trainer.start_stage(state.stage + 1, state.ema, images_before=state.total_images)


def is_finished(state: TrainingState, stage: Stage, hooks: Hooks) -> bool:
    """Return whether the state's stage has seen all its images, or early stopping has ended it."""
    return state.images >= stage.images or hooks.stopped_early(state)


def resume(trainer: "Trainer", hooks: Hooks) -> TrainingState | None:
    """Return the newest intact training state of the run folder, None if there is none."""
    config, dist = trainer.config, trainer.dist
    saved = None
    if dist.is_main:
        saved, damaged = read_state(hooks.folder.state)
        for message in damaged:
            hooks.info(message)
    saved = broadcast_state(saved, dist)
    if saved is None:
        return None
    stage = saved.counters.get("stage")
    if stage is None or stage >= len(config.stages):
        raise TrainingError(
            f"the training state is of stage {stage}, but this run has {len(config.stages)} stages; restore the run's "
            "own state/, or move it away to start a new run"
        )
    state = trainer.start_stage(stage, Generator(config.generator(trainer.classes)), resumed=True)
    unpack_state(state, saved)
    if stage + 1 < len(config.stages) or not is_finished(state, config.stages[stage], hooks):
        hooks.log(state, {"resumed": True})
        hooks.info(f"resuming at {state.total_images / 1000:g} kimg")
    return state


def start(trainer: "Trainer", hooks: Hooks, init_from: Checkpoint | None) -> TrainingState:
    """Return the training state at the start of the first stage."""
    config, names = trainer.config, trainer.data.class_names
    if uses_guidance(config) and config.metric_every and config.classifier in metric_networks(config.metrics):
        hooks.info(f"{config.classifier} both guides and measures the generator: its distances are too small; see fid")
    if init_from is None:
        if config.init_from:
            raise TrainingError(
                f"{hooks.folder.path}: this run starts from the checkpoint of SHA-256 {config.init_from[:12]}; give it "
                "again as --init-from"
            )
        generator = create_generator(config, trainer.classes, trainer.class_means)
    else:
        for message in describe_start(init_from, trainer.classes, names):
            hooks.info(message)
        generator = generator_from(
            init_from, classes=trainer.classes, class_names=names, table=trainer.class_means, seed=config.seed
        )
    return trainer.start_stage(0, generator)


@dataclass
class Trainer:
    """The computation of a run, without files: makes training states and trains them, one iteration at a time.

    Args:
        config: The run's configuration.
        data: The images.
        weights: The pretrained networks by name (see `load_networks`).
        device, dtype, device_memory, dist: As for `train`.
    """

    config: TrainingConfig
    data: ImageDataset
    weights: Mapping[str, Any]
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    device_memory: int | None = None
    dist: DistributedContext = SINGLE_PROCESS

    def __post_init__(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()

    @property
    def classes(self) -> int:
        """Number of classes that the model learns, 0 for an unconditional one."""
        return self.config.class_count(self.data.classes)

    @cached_property
    def class_means(self) -> Tensor | None:
        """Mean features of each class, [classes, 320], from which class tables start; None without classes."""
        if not self.classes:
            return None
        if self.dist.is_main:
            means = class_means(self.data, Lite0Features(self.weights["lite0"]).to(self.device))
            means = center_rows(means, self.config.class_centering)
        else:
            means = torch.empty(self.classes, Lite0Features.widths[-1])
        self.dist.broadcast([means])
        return means

    @cached_property
    def classifier(self) -> ClassifierLoss | None:
        """The loss of classifier guidance, None if no stage uses it."""
        classifier = make_classifier(self.config, self.data, self.weights, device=self.device, dtype=self.dtype)
        if classifier is not None:
            self.dist.broadcast(classifier.head.state_dict().values())
        return classifier

    def loader(self, stage: Stage) -> TrainLoader:
        """Return the images of a stage."""
        return make_loader(self.config, self.data, stage, device=self.device)

    def start_stage(
        self, stage: int, generator: Generator, *, images_before: int = 0, resumed: bool = False
    ) -> TrainingState:
        """Return the state at the start of a stage; a resumed one gets its class tables from its saved state."""
        state = start_stage(
            self.config.at(self.config.stages[stage]),
            generator,
            stage=stage,
            weights=self.weights,
            device=self.device,
            dtype=self.dtype,
            class_means=None if resumed else self.class_means,
            dist=self.dist,
        )
        state.images_before = images_before
        return state

    def train_iteration(
        self, state: TrainingState, loader: TrainLoader, reals: Images
    ) -> tuple[StepOptions, DeviceStats]:
        """Train one iteration on this rank's images, and count those of all ranks."""
        options = self.step_options(state)
        stage = self.config.stages[state.stage]
        config, images = self.config.at(stage), state.images
        batch = config.batch
        for optimizer, lr in ((state.g_optimizer, config.g_lr), (state.d_optimizer, config.d_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * config.scheduled(FINAL_LR, images, stage)
        half_life = ema_half_life(batch) * config.scheduled(FINAL_HALF_LIFE, images, stage)
        label = reals[1] if config.loss == "relativistic" else None  # a pair is of one class
        stats = train_step(
            state,
            options,
            reals=self.to_device(*reals),
            g_fakes=self.latents(state, loader, "g_fakes", label=label),
            d_fakes=self.latents(state, loader, "d_fakes", label=label),
            ema_beta=ema_beta(batch=batch, images=images, half_life=half_life),
        )
        state.images += batch
        return options, stats

    def step_options(self, state: TrainingState) -> StepOptions:
        """Return the options of the next iteration."""
        stage = self.config.stages[state.stage]
        config, resolution = self.config.at(stage), stage.resolution
        micro_batch = config.micro_batch or config.batch
        dtype = torch.promote_types(self.dtype, torch.float32)
        key = (config.seed, state.stage, state.images)
        pixels = micro_batch // self.dist.world_size * resolution**2
        return StepOptions(
            RegularGrid(resolution, resolution).coordinates(dtype=dtype, device=self.device),
            micro_batch=micro_batch,
            blur_sigma=config.blur_at(state.images, stage),
            augment_rng=None if config.augment == "none" else rng_by_pass("augment", *key),
            augment_p=state.augment_p if config.augment == "adaptive" else None,
            relativistic=config.loss == "relativistic",
            penalty=self.penalty(state, stage),
            lecam=config.lecam,
            chunk=chunk_size(config, pixels, device_memory=self.device_memory),
            classifier=self.classifier if config.guidance else None,
            guidance=config.guidance,
            dist=self.dist,
        )

    def penalty(self, state: TrainingState, stage: Stage) -> Penalty | None:
        """Return the gradient penalty of the next iteration, None if none is due."""
        config = self.config.at(stage)
        every = config.penalty_every
        if not config.penalty or state.images // config.batch % every:
            return None
        weight = every * config.penalty * config.scheduled(FINAL_PENALTY, state.images, stage)
        return Penalty(weight, PENALTY_SIGMA, rng_by_pass("penalty", config.seed, state.stage, state.images))

    def latents(self, state: TrainingState, loader: TrainLoader, name: str, *, label: Tensor | None = None) -> Batch:
        """Return this rank's z and labels of the next iteration's fakes, drawn for the whole batch.

        `label`, this rank's labels, replaces the drawn ones.
        """
        config = self.config.at(self.config.stages[state.stage])
        rng = generator_for("z", LATENT_KEYS[name], config.seed, state.stage, state.images)
        z = torch.randn(config.batch, config.z_dim, generator=rng)
        local = self.dist.local_rows(config.batch, config.micro_batch or config.batch)
        if label is None and (drawn := loader.sample_labels(rng, config.batch)) is not None:
            label = drawn[local]
        return self.to_device(z[local], label)

    def to_device(self, data: Tensor, label: Tensor | None) -> Batch:
        """Return images or latents on the device; an unconditional run ignores labels."""
        labels = to_device(label, self.device) if self.classes and label is not None else None
        return Batch(to_device(data, self.device, torch.promote_types(self.dtype, torch.float32)), labels)


def rng_by_pass(purpose: str, *key: int) -> Callable[[str, int], torch.Generator]:
    """Return the function from a pass and the index of a micro-batch to the CPU generator of an iteration."""
    return lambda name, index: generator_for(purpose, name, index, *key)


def check_run(config: TrainingConfig, data: ImageDataset, *, dist: DistributedContext = SINGLE_PROCESS) -> None:
    """Raise PolyinrError if the configuration cannot be trained on the data, before anything is written."""
    classes = config.class_count(data.classes)
    if classes == 1:
        raise TrainingError(f"{data.path}: has only one class; train with --no-cond")
    check_classes(config, data)
    discriminator = config.discriminator(classes)
    for stage in config.stages:
        stage_config, loader = config.at(stage), make_loader(config, data, stage)
        if len(loader) < stage_config.batch:
            held_out = stage_config.held_out_count(len(data))
            without, options = (
                (f" without the {held_out} held out", "--batch or --held-out") if held_out else ("", "--batch")
            )
            raise TrainingError(
                f"{data.path}: {len(loader)} images{without} are fewer than the batch of {stage_config.batch}; "
                f"add images, or reduce {options}"
            )
        if (micro_batch := stage_config.micro_batch or stage_config.batch) % dist.world_size:
            raise ConfigError(f"a micro-batch of {micro_batch} cannot be divided among {dist.world_size} processes")
        for backbone in discriminator.backbones:
            discriminator.input_resolution(backbone, stage.resolution)


def make_loader(config: TrainingConfig, data: ImageDataset, stage: Stage, *, device: torch.device = CPU) -> TrainLoader:
    """Return the images of a stage. Raises DatasetError if they are smaller than its resolution."""
    config = config.at(stage)
    return TrainLoader(
        data,
        resolution=stage.resolution,
        seed=config.seed,
        mirror=config.mirror,
        held_out=config.held_out_count(len(data)),
        workers=config.workers,
        device=device,
    )
