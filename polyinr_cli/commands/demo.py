"""polyinr demo: the whole main job on bundled images, in a few minutes on a CPU."""

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


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="To fill.")] = Path("demo"),
    max_time: Annotated[
        str, typer.Option("--max-time", metavar="180s", help="How long to train; run it again to train on.")
    ] = "180s",
    quiet: Quiet = False,
) -> None:
    """Show the main job: prepare images, train on them, draw at any size and beyond the border.

    Everything is done by the commands that it prints, on the bundled emoji. A few minutes of training give
    blobs of the right colors, not emoji: a taste of the way, not of the goal.
    """
    from polyinr_core.runtime.atomic_io import explain

    parse_duration(max_time)
    if str(output) == "-":
        raise RequestError("-o - is stdout; the demonstration fills a folder, name one")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain(output, error) from error
    for step, command in enumerate(commands(output, max_time), start=1):
        streams.say(f"\n[{step}] polyinr {shlex.join(command)}", quiet=quiet, always=True)
        run([*command, *(["-q"] if quiet else [])])
    large, run_dir = shlex.quote(f"{output}/large.png"), shlex.quote(f"{output}/run")
    streams.say(
        f"\nThe images are in {output}/: samples.png, beyond.png (the window -0.25:1.25), large.png (512 px, "
        f"trained at 32), and {output}/run/samples/ shows the training.\n"
        f"Run it again to train on, or try\n"
        f"  polyinr info {large}\n"
        f"  polyinr sample -m {run_dir} --seeds 0-63 --psi 0.7 -o many.png\n"
        f"  polyinr prepare YOUR_IMAGES/ -o yours.zip --res 64 && polyinr train yours.zip",
        quiet=quiet,
        always=True,
    )


def commands(output: Path, max_time: str) -> list[list[str]]:
    """Return the commands of the demonstration, without the leading `polyinr`."""
    from polyinr_core.data.dataset import bundled_dataset

    data, run_dir = f"{output}/emoji-32.zip", f"{output}/run"
    draw = ["sample", "--overwrite", "-m", run_dir]
    return [
        ["prepare", str(bundled_dataset()), "-o", data, "--res", "32", "--overwrite"],
        [
            "train",
            data,
            "--run-dir",
            run_dir,
            "--preset",
            "tiny",
            "--stages",
            "32:20",
            "--batch",
            "16",
            "--max-time",
            max_time,
        ],
        [*draw, "--seeds", "0-23", "-o", f"{output}/samples.png"],
        [*draw, "--seeds", "0-7", "--grid", "-0.25:1.25", "--res", "48", "-o", f"{output}/beyond.png"],
        [*draw, "--seeds", "1", "--res", "512", "-o", f"{output}/large.png"],
    ]


def run(command: list[str]) -> None:
    """Run one command of ours in a process of its own; if it fails, it has said why. Raises typer.Exit."""
    with subprocess.Popen([sys.executable, "-m", "polyinr_cli", *command]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(interruption.number or signal.SIGINT)  # which it takes as one with the terminal's
            process.wait()  # it saves what it has
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise typer.Exit(code)
