"""polyinr train: train a model on a dataset, through stages of growing resolution."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console, train_display
from polyinr_cli import train_options as options
from polyinr_cli.model_lookup import resolve_folder
from polyinr_cli.options import Device, Json, Precision, Quiet, Verbose, parse_duration
from polyinr_cli.runtime import choose_device, choose_dtype, joined, own_rank, rank_device, stopping
from polyinr_core.errors import RequestError
from polyinr_core.runtime.resources import check_gpu_memory, check_memory, total_memory

if TYPE_CHECKING:
    import torch

    from polyinr_core.training.config import TrainingConfig

BYTES_PER_PARAMETER = 5 * 4  # weight, average, gradient and two moments, in float32


def train(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            show_default=False,
            help="A dataset: a .zip, or tar shards (a folder, a file, a pattern). Default: the bundled animals.",
        ),
    ] = None,
    run_dir: options.RunDir = None,
    preset: options.Preset = "small",
    stages: options.Stages = None,
    batch: options.Batch = None,
    micro_batch: options.MicroBatch = None,
    chunk: options.Chunk = None,
    precision: options.TrainingPrecision = None,
    seed: options.Seed = None,
    channels: options.Channels = None,
    backbones: options.Backbones = None,
    disc_res: options.DiscriminatorRes = None,
    cond: options.Cond = None,
    mirror: options.Mirror = None,
    classifier: options.Classifier = None,
    guidance: options.Guidance = None,
    weights: options.Weights = None,
    download: options.Download = False,
    init_from: options.InitFrom = None,
    held_out: options.HeldOut = None,
    workers: options.Workers = None,
    max_time: options.MaxTime = None,
    auto_advance: options.AutoAdvance = None,
    state_every: options.StateEvery = None,
    checkpoint_every: options.CheckpointEvery = None,
    keep: options.Keep = None,
    metric_every: options.MetricEvery = None,
    metrics: options.Metrics = None,
    dry_run: options.DryRun = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model on a dataset, stage by stage, at growing resolutions.

    The run folder holds the log, samples, checkpoints and training states. The same command resumes a run after Ctrl-C,
    --max-time or a crash. Train with several processes by torchrun --nproc-per-node N -m polyinr_cli train ...

    Example: polyinr train cats.zip --stages 32:2000,64:1000 --max-time 9m
    """
    given = options.given_fields(locals())
    deadline = None if max_time is None else time.monotonic() + parse_duration(max_time)

    from polyinr_core.data.dataset import bundled_dataset, open_dataset
    from polyinr_core.training.config import make_config
    from polyinr_core.training.run_dir import RunFolder

    config = make_config(preset, **given)
    torch_device = rank_device(choose_device(device))
    dtype = choose_dtype(Precision(config.precision), torch_device, is_8_bit=True)
    quiet = quiet or own_rank() > 0

    from polyinr_core.checkpoints.checkpoint import load_checkpoint
    from polyinr_core.training.init import adopt
    from polyinr_core.training.loop import load_networks, required_networks
    from polyinr_core.training.loop import train as train_model

    checkpoint = None
    if init_from is not None:
        checkpoint = load_checkpoint(resolve_folder(init_from, "--init-from", quiet=quiet))
        config = adopt(config, checkpoint, set(given))
    check_width(config, torch_device)
    files = options.parse_weights(weights or [])
    if unused := files.keys() - set(required_networks(config)):
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which this run does not use")
    data = data or bundled_dataset()
    name = re.sub(r"[^\w.-]+", "_", data.stem)
    folder = RunFolder(run_dir or Path("runs", f"{preset}-{name}"))
    with console.progress("scanning", quiet=quiet) as scanned:
        images = open_dataset(
            data,
            index=folder.path if folder.config.exists() else None,
            progress=scanned,
            labels="auto" if config.cond else "none",
        )
    console.say_notes(data, images.notes, quiet=quiet)
    with images:
        if cond and not images.classes:
            raise RequestError(f"{data}: has no labels, which --cond needs; train with --no-cond")
        if dry_run:
            train_display.show_plan(config, images, files, device=torch_device, dtype=dtype, as_json=as_json)
            return
        train_display.announce(config, preset, torch_device, quiet=quiet)
        networks = load_networks(config, files, download=download)
        with (
            stopping() as signal,
            joined(torch_device) as dist,
            train_display.display(
                folder.path,
                config.lengths,
                metric=config.metrics[0] if config.metric_every else None,
                deadline=deadline,
                quiet=quiet,
                as_json=as_json,
            ) as shown,
        ):
            broken: list[BrokenPipeError] = []  # the reader of our JSON lines has gone: save and stop

            def report(event: dict[str, Any]) -> None:
                shown.event(event)
                if as_json and "message" not in event and not broken:
                    try:
                        console.json_line(event)
                    except BrokenPipeError as error:
                        broken.append(error)
                        console.abandon_stdout()

            finished = train_model(
                images,
                run_dir=folder.path,
                config=config,
                init_from=checkpoint,
                weights=networks,
                device=torch_device,
                dtype=dtype,
                device_memory=total_memory(torch_device),
                dist=dist,
                report=report,
                progress=lambda at: shown.moved(at.total_images, stage=at.stage, images=at.images),
                stop=lambda: signal.asked() or bool(broken) or (deadline is not None and time.monotonic() > deadline),
            )
    if finished:
        console.say(
            f"polyinr: finished; the model is in {folder.path}; sample it with `polyinr sample --seeds 0-7 -o images/`",
            quiet=quiet,
        )
        return
    console.say(
        f"polyinr: training state saved to {folder.path}; run the same command again to resume",
        quiet=quiet,
        always=True,
    )
    if signal.since is not None:
        raise KeyboardInterrupt
    if broken:
        raise broken[0]


def check_width(config: "TrainingConfig", device: "torch.device") -> None:
    """Raise RequestError if the generator with its average, gradients and moments does not fit into memory."""
    from polyinr_core.models.generator import Generator
    from polyinr_core.runtime.rng import meta_init

    with meta_init():
        parameters = sum(tensor.numel() for tensor in Generator(config.generator(0)).parameters())
    needed, purpose = parameters * BYTES_PER_PARAMETER, f"training a generator of {config.channels} channels"
    if device.type == "cuda":
        check_gpu_memory(needed, device, purpose=purpose, advice="use fewer --channels")
    else:
        check_memory(needed, purpose=purpose, advice="use fewer --channels")
