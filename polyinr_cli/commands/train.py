"""polyinr train: train a model on a dataset, through stages of growing resolution."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console, train_display
from polyinr_cli.options import (
    Device,
    Download,
    Json,
    Quiet,
    TrainingSettings,
    Verbose,
    Weights,
    check_paths,
    parse_duration,
    parse_weights,
    with_groups,
)
from polyinr_cli.rendering import resolve_folder
from polyinr_cli.runtime import choose_device, choose_dtype, joined, own_rank, rank_device, stopping
from polyinr_core.errors import RequestError


@with_groups
def train(
    *,
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="A dataset: a .zip, or tar shards (a folder, a file, a pattern). Default: the bundled animals.",
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="The run folder. Default: runs/PRESET-DATA.", metavar="DIR")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Start from these settings: small, tiny, imagenet or ffhq. Options override them; their help shows "
            "the presets' values. Default: the settings of the run in --run-dir if there is one, else small.",
        ),
    ] = None,
    settings: TrainingSettings,
    weights: Weights = None,
    download: Download = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            help="Start from this model; a run folder means its newest, bundled the one that comes along.",
            metavar="MODEL",
        ),
    ] = None,
    max_time: Annotated[
        str | None, typer.Option(help="Save and exit after this time: 90s, 9m, 24h. Default: no limit.", metavar="TIME")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            help="Follow the run with these: tensorboard, wandb, trackio, or none. Default: tensorboard, if installed.",
            metavar="A,B",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, with time and memory measured on a few iterations, and exit."),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model on a dataset, stage by stage, at growing resolutions.

    The run folder holds the log, samples, checkpoints and training states. The same command resumes a run after Ctrl-C,
    --max-time or a crash; SIGUSR1 saves a training state, and the run goes on. Train with several processes by
    torchrun --nproc-per-node N -m polyinr_cli train ...

    Example: polyinr train cats.zip --stages 32:2000,64:1000 --max-time 9m
    """
    deadline = None if max_time is None else time.monotonic() + parse_duration(max_time)
    files = parse_weights(weights or [])
    check_paths(data, init_from)

    from polyinr_core.data.dataset import bundled_dataset, open_dataset
    from polyinr_core.training.config import DEFAULT_PRESET, make_config
    from polyinr_core.training.run_dir import RunFolder, default_run_dir
    from polyinr_core.training.tracking import check_trackers

    trackers = None if track is None else [] if track == "none" else track.split(",")
    check_trackers(trackers or [])
    data = data or bundled_dataset()
    folder = RunFolder(run_dir or default_run_dir(data, preset or DEFAULT_PRESET))
    config = make_config(preset or folder.settings() or DEFAULT_PRESET, **settings)
    torch_device = rank_device(choose_device(device))
    dtype = choose_dtype(config.precision, torch_device, is_8_bit=True)
    quiet = quiet or own_rank() > 0

    from polyinr_core.runtime.resources import total_memory
    from polyinr_core.training.dry_run import plan_lines, plan_run
    from polyinr_core.training.init import start_from
    from polyinr_core.training.loop import train as train_model

    start = None if init_from is None else resolve_folder(init_from, "--init-from", quiet=quiet)
    config, checkpoint = start_from(config, start, set(settings))
    with console.progress("scanning", quiet=quiet) as scanned:
        images = open_dataset(data, index=folder.scan_index, progress=scanned, labels="auto" if config.cond else "none")
    console.say_notes(data, images.notes, quiet=quiet)
    with images:
        if settings.get("cond") and not images.classes:
            raise RequestError(f"{data}: has no labels, which --cond needs; train with --no-cond")
        if dry_run:
            plan = plan_run(config, images, files, device=torch_device, dtype=dtype)
            if as_json:
                console.json_lines(plan.to_dicts())
            else:
                console.lines(plan_lines(plan))
            return
        with (
            stopping() as signal,
            joined(torch_device) as dist,
            train_display.display(
                folder.path,
                config.lengths,
                metric=config.metrics[0] if config.metric_every else None,
                deadline=deadline,
                opening=train_display.expectations(config, torch_device),
                quiet=quiet,
                as_json=as_json,
            ) as shown,
        ):
            finished = train_model(
                images,
                run_dir=folder.path,
                config=config,
                init_from=checkpoint,
                weights=files,
                download=download,
                device=torch_device,
                dtype=dtype,
                device_memory=total_memory(torch_device),
                dist=dist,
                track=trackers,
                report=shown.event,
                progress=shown.progress,
                stop=lambda: signal.asked() or shown.is_over,
                save=signal.save_asked,
            )
    command = shlex.join(["polyinr", "sample", "-m", str(folder.path), "--seeds", "0-7", "-o", "images/"])
    console.say(f"polyinr: render images of this run with: {command}", quiet=quiet, always=True)
    if finished:
        return
    saved = f"polyinr: training state saved to {folder.path}; run the same command again to resume"
    console.say(saved, quiet=quiet, always=True)
    if signal.since is not None:
        raise KeyboardInterrupt
    if shown.broken_pipe is not None:
        raise shown.broken_pipe
