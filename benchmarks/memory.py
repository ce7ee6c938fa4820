"""Peak memory of drawing, whole process: python benchmarks/memory.py MODEL.safetensors [--suffix .tif]"""

import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

UNIT = 2**20 if sys.platform == "darwin" else 2**10


def draw(model: str, side: int, path: str) -> None:
    """Draw one picture and print the peak of this process."""
    from polyinr_cli.main import outcome

    start = time.perf_counter()
    code = outcome(["sample", "-m", model, "--seeds", "1", "--res", str(side), "-o", path, "-q"])
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT
    print(f"{side:6} px  {peak:6.0f} MiB  {seconds:7.1f} s  exit code {code}", flush=True)


def main(
    model: Path,
    sides: Annotated[
        str, typer.Option(help="Pixels a side, each drawn by a process of its own.")
    ] = "32,1024,2048,4096",
    suffix: Annotated[str, typer.Option(help="What is written: .png, .tif, .dzi, .npy.")] = ".png",
) -> None:
    """Measure pictures of several sizes."""
    for side in map(int, sides.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            arguments = (str(model), side, f"{folder}/picture{suffix}")
            process = multiprocessing.get_context("spawn").Process(target=draw, args=arguments)
            process.start()
            process.join()


if __name__ == "__main__":
    typer.run(main)
