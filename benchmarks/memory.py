"""Peak memory of drawing, whole process: python benchmarks/memory.py MODEL.safetensors"""

import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path

import typer


def draw(model: str, side: int, folder: str) -> None:
    """Draw one picture and print the peak of this process."""
    from polyinr_cli.main import outcome

    code = outcome(
        ["sample", "-m", model, "--seeds", "1", "--res", str(side), "-o", f"{folder}/{side}.png", "-q"]
    )
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(f"{side:6} px  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:8.0f} MiB  exit code {code}")


def main(model: Path) -> None:
    """Measure pictures of 32, 1024, 2048 and 4096 pixels a side, each in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for side in (32, 1024, 2048, 4096):
            process = multiprocessing.get_context("spawn").Process(target=draw, args=(str(model), side, folder))
            process.start()
            process.join()


if __name__ == "__main__":
    typer.run(main)
