"""`polyinr demo`: the whole workflow on bundled images, in a few minutes on a CPU."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Quiet, parse_duration
from polyinr_cli.runtime import interruption
from polyinr_core.errors import RequestError
from polyinr_core.runtime.atomic_io import WINDOWS

RESOLUTION = 32  # of the training
STAGES = f"{RESOLUTION}:10"  # heads with ears after 2 kimg


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Output folder.")] = Path("demo"),
    max_time: Annotated[
        str, typer.Option(metavar="TIME", help="Training time, such as 90s or 9m. Run the command again to continue.")
    ] = "180s",
    quiet: Quiet = False,
) -> None:
    """Run the whole workflow: prepare images, train on them, render at any size and beyond the border.

    It prints the commands that it runs on the bundled animal faces, and what to expect of each. A few minutes of
    training give outlines: the same seeds of the bundled model, beside them, show what a longer training gives.
    """
    from polyinr_core.runtime.atomic_io import explain

    parse_duration(max_time)
    if str(output) == "-":
        raise RequestError("-o - is stdout; the demonstration needs a folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(output, error) from error
    streams.say(
        f"polyinr: this trains a small model for {max_time} and takes about a minute more", quiet=quiet, always=True
    )
    for step, (purpose, command) in enumerate(steps(output, max_time), start=1):
        streams.say(f"\n[{step}] {purpose}\n    polyinr {shlex.join(command)}", quiet=quiet, always=True)
        run([*command, *(["-q"] if quiet else [])])
    join_sheets({"trained just now": output / "trained.png", "bundled model": output / "bundled.png"}, output)
    large, run_dir = shlex.quote(f"{output}/large.png"), shlex.quote(f"{output}/run")
    streams.say(
        f"\nLook at {output}/beside.png first: the model trained just now and the bundled one, the same seeds.\n"
        f"Then beyond.png (the window -0.25:1.25), large.png (512 px) and run/samples/ (the training) in {output}/.\n"
        f"Run it again to continue training, or try\n"
        f"  polyinr info {large}\n"
        f"  polyinr sample -m {run_dir} --seeds 0-63 --psi 0.7 -o many.png\n"
        f"  polyinr train --dry-run                   # what a training of the default length costs here\n"
        f"  polyinr prepare YOUR_IMAGES/ -o yours.zip --res 64 && polyinr train yours.zip",
        quiet=quiet,
        always=True,
    )


def steps(output: Path, max_time: str) -> list[tuple[str, list[str]]]:
    """Return what to expect of each command, and its words without the leading `polyinr`."""
    from polyinr_core.data.dataset import bundled_dataset

    data, run_dir = f"{output}/animals-{RESOLUTION}.zip", f"{output}/run"
    training = ["--preset", "tiny", "--stages", STAGES, "--batch", "16", "--max-time", max_time]
    seeds = ["--seeds", "0-23", "--res", "64"]
    trained, bundled = (["sample", "--overwrite", "-m", model] for model in (run_dir, "bundled"))
    return [
        (
            f"Reduce the 2000 bundled animal faces to {RESOLUTION} px: seconds.",
            ["prepare", str(bundled_dataset()), "-o", data, "--res", str(RESOLUTION), "--overwrite"],
        ),
        (
            f"Train for {max_time}: expect one color, then spots, then the outlines of heads with ears.\n"
            "    Eyes take half an hour of `polyinr train`, good faces hours, or minutes on a GPU.",
            ["train", data, "--run-dir", run_dir, *training],
        ),
        ("Render 24 seeds with this model.", [*trained, *seeds, "-o", f"{output}/trained.png"]),
        (
            "The same with the bundled model, which was trained longer.",
            [*bundled, *seeds, "-o", f"{output}/bundled.png"],
        ),
        (
            "Render beyond the border of the trained square, with the bundled model.",
            [*bundled, "--seeds", "0-7", "--grid", "-0.25:1.25", "--res", "96", "-o", f"{output}/beyond.png"],
        ),
        (
            "Render larger than any image of the training: the model has no resolution.",
            [*bundled, "--seeds", "1", "--res", "512", "-o", f"{output}/large.png"],
        ),
    ]


def join_sheets(sheets: dict[str, Path], output: Path) -> None:
    """Write sheets of one size side by side, each below its caption, as beside.png."""
    import numpy as np
    from PIL import Image

    from polyinr_core.images.grid import caption, make_grid
    from polyinr_core.images.io import write_image

    panels = []
    for title, path in sheets.items():
        pixels = np.asarray(Image.open(path).convert("RGB"))
        panels.append(np.concatenate([caption(title, width=pixels.shape[1], height=24), pixels]))
    write_image(output / "beside.png", make_grid(np.stack(panels), 2, gap=16), overwrite=True)


def run(command: list[str]) -> None:
    """Run a command in its own process; it reports its own errors. Raises typer.Exit."""
    with subprocess.Popen([sys.executable, "-m", "polyinr_cli", *command]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            if not WINDOWS:  # where the console has sent Ctrl-C to both
                process.send_signal(interruption.number or signal.SIGINT)  # the terminal's is ignored
            process.wait()  # it saves its state
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise typer.Exit(code)
