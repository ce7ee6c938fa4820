"""polyinr train: from an archive to a model, through stages of growing resolution."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_core.errors import RequestError

from . import streams
from .devices import check_memory, choose_device
from .options import Device, Json, Quiet, Verbose, parse_duration

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.training.config import TrainingConfig

VALUE_BYTES = 5 * 4  # a weight, its average, gradient and two moments, float32


def train(
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", show_default=False, help="An archive. Without it: the bundled emoji."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", metavar="DIR", show_default=False, help="Default: runs/PRESET-DATA."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option("--preset", metavar="NAME", help="emoji, tiny, imagenet or ffhq; other options go over it."),
    ] = "emoji",
    stages: Annotated[
        str | None,
        typer.Option("--stages", metavar="RES:KIMG,...", show_default=False, help="As 32:200,64:100."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", metavar="N", show_default=False, help="Pictures an iteration.")
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            "--micro-batch",
            metavar="N",
            show_default=False,
            help="Pictures in memory at once; divides the batch.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", show_default=False, help="Of every random draw of the run."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option("--channels", metavar="N", show_default=False, help="Width of every level.")
    ] = None,
    backbones: Annotated[
        str | None,
        typer.Option("--backbones", metavar="A,B", show_default=False, help="lite0, deit-base or both."),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="NAME=FILE",
            show_default=False,
            help="A backbone's weights from a file of yours.",
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch backbone weights that are not on this machine.")
    ] = False,
    critic_res: Annotated[
        int | None,
        typer.Option(
            "--critic-res",
            metavar="N",
            show_default=False,
            help="Side at which the backbones look, as 128 or 224.",
        ),
    ] = None,
    cond: Annotated[
        bool | None,
        typer.Option("--cond/--no-cond", show_default=False, help="Learn the classes, where the data has some."),
    ] = None,
    mirror: Annotated[
        bool | None, typer.Option("--mirror/--no-mirror", show_default=False, help="Show mirrored pictures too.")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", metavar="9m", show_default=False, help="Stop and save after 90s, 9m, 24h."),
    ] = None,
    state_every: Annotated[
        float | None,
        typer.Option(
            "--state-every", metavar="KIMG", show_default=False, help="What resuming needs, written so often."
        ),
    ] = None,
    snapshot_every: Annotated[
        float | None,
        typer.Option(
            "--snapshot-every",
            metavar="KIMG",
            show_default=False,
            help="A model and a sheet of its pictures, so often.",
        ),
    ] = None,
    metric_every: Annotated[
        float | None,
        typer.Option("--metric-every", metavar="KIMG", show_default=False, help="Distance in lite2 features."),
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model on an archive, stage by stage, from 32 px up.

    The run folder keeps the log, sample sheets, snapshots and the state. The same command goes on where it
    stopped: after Ctrl-C, after --max-time, after a crash.

    Example: polyinr train cats.zip --stages 32:2000,64:1000 --max-time 9m
    """
    given = {
        "stages": stages,
        "batch": batch,
        "micro_batch": micro_batch,
        "seed": seed,
        "channels": channels,
        "backbones": None if backbones is None else tuple(backbones.split(",")),
        "critic_res": critic_res,
        "cond": cond,
        "mirror": mirror,
        "state_every": state_every,
        "snapshot_every": snapshot_every,
        "metric_every": metric_every,
    }
    deadline = None if max_time is None else time.monotonic() + parse_duration(max_time)
    config = configure(preset, {key: value for key, value in given.items() if value is not None})
    place = choose_device(device)
    check_width(config)

    from polyinr_core.data.archive import Archive
    from polyinr_core.data.bundled import bundled_pictures
    from polyinr_core.training.folder import RunFolder
    from polyinr_core.training.run import Run

    path = data or bundled_pictures()
    folder = RunFolder(run_dir or Path("runs", f"{preset}-{path.stem}"))

    def report(event: dict[str, Any]) -> None:
        if "message" in event:
            streams.say(f"polyinr: {event['message']}", quiet=quiet, always=True)
        elif as_json:
            streams.json_line(event)

    with Archive.open(path) as archive, stopping() as stopped:
        networks = load_networks(config, parse_weights(weights or []), download=download)
        run = Run(config, archive, folder, weights=networks, device=place, report=report)
        with streams.progress("training", quiet=quiet) as progress:
            ended = run.train(
                stop=lambda: bool(stopped) or (deadline is not None and time.monotonic() > deadline),
                progress=progress,
            )
    if ended:
        streams.say(f"done: {folder.path}; draw with `polyinr sample --seeds 0-7 -o pictures/`", quiet=quiet)
        return
    streams.say(f"polyinr: saved in {folder.path}; the same command goes on", quiet=quiet, always=True)
    if stopped:
        raise KeyboardInterrupt


def configure(preset: str, given: dict[str, Any]) -> "TrainingConfig":
    """Return a preset's configuration with the given fields over it. Raises ConfigError, RequestError."""
    from polyinr_core.training.presets import PRESETS
    from polyinr_core.training.stages import parse_stages

    if preset not in PRESETS:
        raise RequestError(f"preset {preset!r} is unknown; choose from {', '.join(PRESETS)}")
    if "stages" in given:
        given["stages"] = parse_stages(given["stages"])
    return replace(PRESETS[preset], **given)


def check_width(config: "TrainingConfig") -> None:
    """Raise RequestError if the generator, its average, gradients and moments do not fit into memory."""
    from polyinr_core.model import Generator
    from polyinr_core.seeds import no_start_values

    with no_start_values():
        values = sum(tensor.numel() for tensor in Generator(config.generator(0)).parameters())
    purpose = f"training a generator of {config.channels} channels"
    check_memory(values * VALUE_BYTES, purpose=purpose, advice="take fewer --channels")


def parse_weights(texts: list[str]) -> dict[str, Path]:
    """Read NAME=FILE. Raises RequestError."""
    files = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or not file:
            raise RequestError(f"--weights {text!r} is not NAME=FILE, as deit-base=deit.safetensors")
        if name in files:
            raise RequestError(f"--weights names two files for {name}; give one")
        files[name] = Path(file)
    return files


def load_networks(
    config: "TrainingConfig", files: dict[str, Path], *, download: bool
) -> dict[str, dict[str, "Tensor"]]:
    """Load every pretrained network that a run looks through. Raises WeightsError, RequestError."""
    from polyinr_core.weights.pretrained import load_pretrained

    names = {*config.backbones, "lite0"} | ({"lite2"} if config.metric_every else set())
    if unused := files.keys() - names:
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which this run does not use")
    return {name: load_pretrained(name, file=files.get(name), download=download) for name in sorted(names)}


@contextmanager
def stopping() -> Iterator[list[int]]:
    """Collect the first Ctrl-C or SIGTERM, for a stop at the next good moment; a second one interrupts."""
    caught: list[int] = []

    def catch(number: int, frame: object) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, catch) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
