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


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Output folder.")] = Path("demo"),
    max_time: Annotated[
        str, typer.Option(metavar="180s", help="Training time, such as 90s or 9m. Run the command again to continue.")
    ] = "180s",
    quiet: Quiet = False,
) -> None:
    """Run the whole workflow: prepare images, train on them, render at any size and beyond the border.

    It prints the commands that it runs on the bundled emoji. A few minutes of training give blobs of the right
    colors rather than emoji: the demonstration shows the steps, not the quality.
    """
    from polyinr_core.runtime.atomic_io import explain

    parse_duration(max_time)
    if str(output) == "-":
        raise RequestError("-o - is stdout; the demonstration needs a folder")
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
        f"Run it again to continue training, or try\n"
        f"  polyinr info {large}\n"
        f"  polyinr sample -m {run_dir} --seeds 0-63 --psi 0.7 -o many.png\n"
        f"  polyinr prepare YOUR_IMAGES/ -o yours.zip --res 64 && polyinr train yours.zip",
        quiet=quiet,
        always=True,
    )


def commands(output: Path, max_time: str) -> list[list[str]]:
    """Return the commands that are run, without the leading `polyinr`."""
    from polyinr_core.data.dataset import bundled_dataset

    data, run_dir = f"{output}/emoji-32.zip", f"{output}/run"
    sample = ["sample", "--overwrite", "-m", run_dir]
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
        [*sample, "--seeds", "0-23", "-o", f"{output}/samples.png"],
        [*sample, "--seeds", "0-7", "--grid", "-0.25:1.25", "--res", "48", "-o", f"{output}/beyond.png"],
        [*sample, "--seeds", "1", "--res", "512", "-o", f"{output}/large.png"],
    ]


def run(command: list[str]) -> None:
    """Run a command in its own process; it reports its own errors. Raises typer.Exit."""
    with subprocess.Popen([sys.executable, "-m", "polyinr_cli", *command]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.send_signal(interruption.number or signal.SIGINT)  # the terminal's is ignored
            process.wait()  # it saves its state
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise typer.Exit(code)
