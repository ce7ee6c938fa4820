"""polyinr train: from an archive to a model, through stages of growing resolution."""

import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console as streams
from polyinr_cli import train_display as live
from polyinr_cli import train_display as plan
from polyinr_cli import train_options as recipe
from polyinr_cli.model_lookup import resolve_folder
from polyinr_cli.options import Device, Json, Precision, Quiet, Verbose, parse_duration
from polyinr_cli.runtime import choose_device, choose_dtype, joined, own_device, own_rank, stopping
from polyinr_core.errors import RequestError
from polyinr_core.runtime.memory import check_gpu_memory, check_memory, total_memory

if TYPE_CHECKING:
    import torch

    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.training.config import TrainingConfig

VALUE_BYTES = 5 * 4  # a weight, its average, gradient and two moments, float32


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="An archive, or tar shards: a folder, a file, a pattern. Without it: the bundled emoji.",
        ),
    ] = None,
    run_dir: recipe.RunDir = None,
    preset: recipe.Preset = "emoji",
    stages: recipe.Stages = None,
    batch: recipe.Batch = None,
    micro_batch: recipe.MicroBatch = None,
    chunk: recipe.Chunk = None,
    precision: recipe.TrainingPrecision = None,
    seed: recipe.Seed = None,
    channels: recipe.Channels = None,
    backbones: recipe.Backbones = None,
    disc_res: recipe.DiscriminatorRes = None,
    cond: recipe.Cond = None,
    mirror: recipe.Mirror = None,
    classifier: recipe.Classifier = None,
    guidance: recipe.Guidance = None,
    weights: recipe.Weights = None,
    download: recipe.Download = False,
    init_from: recipe.InitFrom = None,
    held_out: recipe.HeldOut = None,
    workers: recipe.Workers = None,
    max_time: recipe.MaxTime = None,
    auto_advance: recipe.AutoAdvance = None,
    state_every: recipe.StateEvery = None,
    checkpoint_every: recipe.CheckpointEvery = None,
    keep: recipe.Keep = None,
    metric_every: recipe.MetricEvery = None,
    metrics: recipe.Metrics = None,
    dry_run: recipe.DryRun = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model on an archive, stage by stage, from 32 px up.

    The run folder keeps the log, sample sheets, checkpoints and the state. The same command goes on where it
    stopped: after Ctrl-C, after --max-time, after a crash. Several processes share the work under
    torchrun --nproc-per-node N -m polyinr_cli train ...

    Example: polyinr train cats.zip --stages 32:2000,64:1000 --max-time 9m
    """
    given = recipe.given_fields(locals())
    deadline = None if max_time is None else time.monotonic() + parse_duration(max_time)
    config = recipe.configure(preset, given)
    place = own_device(choose_device(device))
    dtype = choose_dtype(Precision(config.precision), place, eight_bits=True)
    quiet = quiet or own_rank() > 0

    from polyinr_core.data.dataset import bundled_images, open_data
    from polyinr_core.training.loop import Run
    from polyinr_core.training.run_dir import RunFolder

    start, config = start_from(init_from, config, given=set(given), quiet=quiet)
    check_width(config, place)
    files = recipe.parse_weights(weights or [])
    if unused := files.keys() - networks_for(config):
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which this run does not use")
    path = data or bundled_images()
    name = re.sub(r"[^\w.-]+", "_", path.stem)
    folder = RunFolder(run_dir or Path("runs", f"{preset}-{name}"))
    with streams.progress("scanning", quiet=quiet) as scanned:
        images = open_data(
            path,
            index=folder.path if folder.config.exists() else None,
            progress=scanned,
            labels="auto" if config.cond else "none",
        )
    streams.say_notes(path, images.notes, quiet=quiet)
    with images:
        if cond and not images.classes:
            raise RequestError(f"{path}: has no labels, which --cond needs; train with --no-cond")
        if dry_run:
            plan.show_plan(config, images, networks_for(config), files, device=place, dtype=dtype, as_json=as_json)
            return
        networks = {name: load_network(name, files.get(name), download=download) for name in networks_for(config)}
        with (
            stopping() as wish,
            joined(place) as ranks,
            folder.locked() if ranks.leads else nullcontext(),
            live.display(
                folder.path,
                config.lengths,
                metric=config.metrics[0] if config.metric_every else None,
                deadline=deadline,
                quiet=quiet,
                as_json=as_json,
            ) as show,
        ):
            gone: list[BrokenPipeError] = []  # who read our JSON lines: a reason to stop, none to lose work

            def report(event: dict[str, Any]) -> None:
                show.event(event)
                if as_json and "message" not in event and not gone:
                    try:
                        streams.json_line(event)
                    except BrokenPipeError as error:
                        gone.append(error)
                        streams.abandon_stdout()

            run = Run(
                config,
                images,
                folder,
                weights=networks,
                device=place,
                report=report,
                start=start,
                dtype=dtype,
                memory=total_memory(place),
                ranks=ranks,
            )
            ended = run.train(
                stop=lambda: wish.asked() or bool(gone) or (deadline is not None and time.monotonic() > deadline),
                progress=lambda at: show.moved(at.seen, stage=at.stage, images=at.images),
            )
    if ended:
        streams.say(f"done: {folder.path}; draw with `polyinr sample --seeds 0-7 -o images/`", quiet=quiet)
        return
    streams.say(f"polyinr: saved in {folder.path}; the same command goes on", quiet=quiet, always=True)
    if wish.since is not None:
        raise KeyboardInterrupt
    if gone:
        raise gone[0]


def start_from(
    path: Path | None, config: "TrainingConfig", *, given: set[str], quiet: bool = False
) -> tuple["Checkpoint | None", "TrainingConfig"]:
    """Read the model that a run is to start from, of a run folder the newest; the configuration takes its sizes.

    Raises PolyinrError.
    """
    if path is None:
        return None, config
    from polyinr_core.checkpoints.checkpoint import load_checkpoint
    from polyinr_core.training.init import adopt

    checkpoint = load_checkpoint(resolve_folder(path, "--init-from", quiet=quiet))
    return checkpoint, adopt(config, checkpoint, given)


def check_width(config: "TrainingConfig", device: "torch.device") -> None:
    """Raise RequestError if the generator, its average, gradients and moments do not fit into the device."""
    from polyinr_core.models.generator import Generator
    from polyinr_core.runtime.rng import meta_init

    with meta_init():
        values = sum(tensor.numel() for tensor in Generator(config.generator(0)).parameters())
    needed, purpose = values * VALUE_BYTES, f"training a generator of {config.channels} channels"
    if device.type == "cuda":
        check_gpu_memory(needed, device, purpose=purpose, advice="take fewer --channels")
    else:
        check_memory(needed, purpose=purpose, advice="take fewer --channels")


def networks_for(config: "TrainingConfig") -> list[str]:
    """Return the pretrained networks that a run looks through."""
    from polyinr_core.training.classifier_guidance import is_guided
    from polyinr_core.training.config import networks_of

    judges = networks_of(config.metrics) if config.metric_every else ()
    return sorted({*config.backbones, "lite0", *judges, *([config.classifier] if is_guided(config) else [])})


def load_network(name: str, file: Path | None, *, download: bool) -> Any:
    """Load a pretrained network, or its weights under timm's names. Raises WeightsError."""
    from polyinr_core.metrics.inception import load_inception
    from polyinr_core.runtime import pretrained

    if name == "inception":
        return load_inception(file)
    return pretrained.load_pretrained(name, file=file, download=download)
