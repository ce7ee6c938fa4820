"""polyinr train: train a model on a dataset, through stages of growing resolution."""

import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console, train_display
from polyinr_cli.options import (
    Device,
    Download,
    Json,
    Precision,
    Quiet,
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
from polyinr_core.runtime.resources import total_memory

if TYPE_CHECKING:
    pass

# the groups of --help
STAGES = "Stages and batches"
NETWORKS = "Networks"
DISCRIMINATOR = "Discriminator"
DATA = "Data"
SAVING = "Saving and measuring"


@dataclass(frozen=True)
class SettingOptions:
    """The settings of a run, each named as in TrainingConfig; None is the preset's."""

    stages: Annotated[
        str | None,
        typer.Option(
            help="Resolution and length of each stage, as 32:200,64:100 (px:kimg). A stage can override batch, g_lr, "
            "d_lr, mirror and guidance: 64:100:batch=32.",
            metavar="RES:KIMG,...",
            rich_help_panel=STAGES,
        ),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(
            help="Images per iteration, of all processes together (2-65536).", metavar="N", rich_help_panel=STAGES
        ),
    ] = None
    micro_batch: Annotated[
        int | None,
        typer.Option(
            help="Images per forward pass, of all processes together; a divisor of --batch. 0: --batch.",
            metavar="N",
            rich_help_panel=STAGES,
        ),
    ] = None
    chunk: Annotated[
        int | None,
        typer.Option(
            help="Pixels of the generator's backward pass at a time, to save memory. 0: all. "
            "Default: as memory requires.",
            metavar="PIXELS",
            rich_help_panel=STAGES,
        ),
    ] = None
    precision: Annotated[
        Precision | None,
        typer.Option(
            help="Type of the matrix products. auto: bfloat16 where supported. Weights stay float32.",
            rich_help_panel=STAGES,
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of all random numbers of the run (0 to 2^32-1).", metavar="N", rich_help_panel=STAGES),
    ] = None
    channels: Annotated[
        int | None, typer.Option(help="Width of the synthesis network.", metavar="N", rich_help_panel=NETWORKS)
    ] = None
    backbones: Annotated[
        str | None,
        typer.Option(
            help="Backbones of the discriminator: lite0, deit-base, or both.",
            metavar="A,B",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    disc_res: Annotated[
        int | None,
        typer.Option(
            help="Resolution of the backbones' input in px, as 128 or 224.", metavar="N", rich_help_panel=DISCRIMINATOR
        ),
    ] = None
    head_resolution: Annotated[
        int | None,
        typer.Option(
            help="Image size that the depth of the discriminator's heads is made for, a power of two. "
            "At most twice --disc-res.",
            metavar="N",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            help="Adversarial loss: hinge, or relativistic (pairs of a real and a fake).",
            metavar="NAME",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    penalty: Annotated[
        float | None,
        typer.Option(
            help="Weight of the discriminator's gradient penalty (R1 and R2 by finite differences), as 0.01. 0: none.",
            metavar="WEIGHT",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    penalty_every: Annotated[
        int | None,
        typer.Option(
            help="Iterations from one penalty to the next, which weighs as many times more.",
            metavar="N",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    lecam: Annotated[
        float | None,
        typer.Option(
            help="Weight of the LeCam penalty, as 0.01. 0: none.", metavar="WEIGHT", rich_help_panel=DISCRIMINATOR
        ),
    ] = None
    augment: Annotated[
        str | None,
        typer.Option(
            help="Augmentation in front of the discriminator: none, diffaugment, or adaptive (as much as it overfits).",
            metavar="NAME",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Learning rates, blur and penalty over a stage: constant, or cosine (rates and penalty fall to 10 %).",
            metavar="NAME",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    blur_kimg: Annotated[
        float | None,
        typer.Option(
            help="Thousand images of a stage over which the blur in front of the discriminator fades.",
            metavar="KIMG",
            rich_help_panel=DISCRIMINATOR,
        ),
    ] = None
    class_centering: Annotated[
        float | None,
        typer.Option(
            help="Part of their mean that the class embeddings start without. 0: as in the release, 1: centered.",
            metavar="PART",
            rich_help_panel=NETWORKS,
        ),
    ] = None
    cond: Annotated[
        bool | None,
        typer.Option(
            "--cond/--no-cond",
            help="Train a class-conditional model. Default: if the dataset has labels.",
            rich_help_panel=NETWORKS,
        ),
    ] = None
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", help="Also train on mirrored images.", rich_help_panel=STAGES)
    ] = None
    classifier: Annotated[
        str | None,
        typer.Option(
            help="Network of classifier guidance: lite2 or deit-small.", metavar="NAME", rich_help_panel=NETWORKS
        ),
    ] = None
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Weight of the classifier's loss. 0: no guidance.", metavar="WEIGHT", rich_help_panel=NETWORKS
        ),
    ] = None
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Images withheld from training, to detect overfitting. "
            "Default: 2 %, at most 512, of a dataset of 500 or more.",
            metavar="N",
            rich_help_panel=DATA,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode images (0-256). Default: up to 4, for a dataset above 1 GiB.",
            metavar="N",
            rich_help_panel=DATA,
        ),
    ] = None
    auto_advance: Annotated[
        int | None,
        typer.Option(
            help="End a stage after N measurements in a row without improvement. 0: never.",
            metavar="N",
            rich_help_panel=STAGES,
        ),
    ] = None
    state_every: Annotated[
        float | None,
        typer.Option(
            help="Save a resumable training state every KIMG thousand images.", metavar="KIMG", rich_help_panel=SAVING
        ),
    ] = None
    checkpoint_every: Annotated[
        float | None,
        typer.Option(
            help="Save a checkpoint and a grid of samples every KIMG thousand images.",
            metavar="KIMG",
            rich_help_panel=SAVING,
        ),
    ] = None
    keep: Annotated[
        int | None,
        typer.Option(
            help="Keep the N newest checkpoints, beside the best. 0: all.", metavar="N", rich_help_panel=SAVING
        ),
    ] = None
    metric_every: Annotated[
        float | None,
        typer.Option(
            help="Compute the metrics every KIMG thousand images. 0: never.", metavar="KIMG", rich_help_panel=SAVING
        ),
    ] = None
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics to compute: fd-lite2, kd-lite2, fid. The first one decides which checkpoint is the best.",
            metavar="A,B",
            rich_help_panel=SAVING,
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the settings that are given."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return given | {"precision": str(self.precision)} if self.precision else given


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
            help="Start from these settings: small, tiny, imagenet or ffhq. Options override them. "
            "Default: those of the run in --run-dir if there is one, else small.",
        ),
    ] = None,
    settings: SettingOptions,
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
    given = settings.given()
    deadline = None if max_time is None else time.monotonic() + parse_duration(max_time)
    files = parse_weights(weights or [])
    check_paths(data, init_from)

    from polyinr_core.data.dataset import bundled_dataset, open_dataset
    from polyinr_core.training.config import DEFAULT_PRESET, make_config
    from polyinr_core.training.run_dir import RunFolder
    from polyinr_core.training.tracking import check_trackers

    trackers = None if track is None else [] if track == "none" else track.split(",")
    check_trackers(trackers or [])
    data = data or bundled_dataset()
    name = re.sub(r"[^\w.-]+", "_", data.stem)
    folder = RunFolder(run_dir or Path("runs", f"{preset or DEFAULT_PRESET}-{name}"))
    config = make_config(preset or folder.settings() or DEFAULT_PRESET, **given)
    torch_device = rank_device(choose_device(device))
    dtype = choose_dtype(Precision(config.precision), torch_device, is_8_bit=True)
    quiet = quiet or own_rank() > 0

    from polyinr_core.checkpoints.locate import load_model_file
    from polyinr_core.training.dry_run import plan_lines, plan_run
    from polyinr_core.training.init import adopt
    from polyinr_core.training.loop import train as train_model
    from polyinr_core.training.state import check_state_memory, load_networks, required_networks

    checkpoint = None
    if init_from is not None:
        checkpoint = load_model_file(resolve_folder(init_from, "--init-from", quiet=quiet))[0]
        config = adopt(config, checkpoint, set(given))
    check_state_memory(config, torch_device)
    if unused := files.keys() - set(required_networks(config)):
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which this run does not use")
    with console.progress("scanning", quiet=quiet) as scanned:
        images = open_dataset(
            data,
            index=folder.path if folder.config.exists() else None,
            progress=scanned,
            labels="auto" if config.cond else "none",
        )
    console.say_notes(data, images.notes, quiet=quiet)
    with images:
        if settings.cond and not images.classes:
            raise RequestError(f"{data}: has no labels, which --cond needs; train with --no-cond")
        if dry_run:
            plan = plan_run(config, images, files, device=torch_device, dtype=dtype)
            for fact in plan.to_dicts() if as_json else ():
                console.json_line(fact)
            for line in () if as_json else plan_lines(plan):
                console.line(line)
            return
        messages = train_display.expectations(config, torch_device)
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
                while messages:  # once the run has begun: what cannot be trained is refused in one line
                    shown.event({"message": messages.pop(0)})
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
                track=trackers,
                report=report,
                progress=lambda at: shown.update(at.total_images, stage=at.stage, images=at.images),
                stop=lambda: signal.asked() or bool(broken) or (deadline is not None and time.monotonic() > deadline),
                save=signal.save_asked,
            )
    command = shlex.join(["polyinr", "sample", "-m", str(folder.path), "--seeds", "0-7", "-o", "images/"])
    console.say(f"polyinr: render images of this run with: {command}", quiet=quiet, always=True)
    if finished:
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
