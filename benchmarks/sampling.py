"""Time drawing against the bare matrix products it cannot do without: python benchmarks/sampling.py

Prints seconds a picture and writes them as JSON below benchmarks/results/. The floor is the time of the levels'
n x n products alone, of the same shapes and type, in the same process. Weights and latents are random.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import typer

from polyinr_core.model import Generator, GeneratorConfig, RegularGrid, draw_rows
from polyinr_core.model.drawing import BLOCK
from polyinr_core.model.precision import in_precision

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def median_seconds(work: Callable[[], object], *, repeats: int) -> float:
    """Return the median time of `work` after one run to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.no_grad()
def measure(channels: int, dtype: torch.dtype, *, side: int, repeats: int) -> dict[str, float]:
    """Return seconds a picture and seconds of its products alone."""
    torch.manual_seed(0)
    config = GeneratorConfig(channels=channels)
    generator = Generator(config).eval()
    synthesis = in_precision(generator.synthesis, dtype)
    affine = generator.affine(generator.w(torch.randn(1, config.z_dim)))[0]
    grid = RegularGrid(side, side)
    blocks = -(-side * side // BLOCK)
    features, weight = torch.randn(BLOCK, channels).to(dtype), torch.randn(channels, channels).to(dtype)

    def draw() -> None:
        for _ in draw_rows(synthesis, affine, grid):
            pass

    def products() -> None:
        for _ in range(blocks * (config.levels - 1)):
            torch.nn.functional.linear(features, weight)

    return {
        "picture": median_seconds(draw, repeats=repeats),
        "floor": median_seconds(products, repeats=repeats),
    }


def main(side: int = 256, repeats: int = 3, output: Path = Path("benchmarks/results/sampling.json")) -> None:
    """Measure n = 512 and 1024 in float32 and bfloat16, one picture at a time."""
    rows = []
    for channels in (512, 1024):
        for name, dtype in TYPES.items():
            row = {"channels": channels, "type": name, **measure(channels, dtype, side=side, repeats=repeats)}
            rows.append(row)
            picture, floor = row["picture"], row["floor"]
            print(f"n = {channels:4}  {name:8}  {picture:6.2f} s a picture, {floor:6.2f} s its products")
    facts = {
        "command": f"python benchmarks/sampling.py --side {side} --repeats {repeats}",
        "machine": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "figures": rows,
    }
    output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
