"""Time the kernel distance: OMP_NUM_THREADS=1 python benchmarks/kid.py

By processor time, each count in a process of its own; features are random, as many on either side. Writes JSON
below benchmarks/results/.
"""

import time
from pathlib import Path
from typing import Any

import torch
import typer
from peak_memory import run_in_process
from results_io import facts, write

from polyinr_core.metrics.kid import KernelReference

DIM = 2048  # of Inception's features


def kernel_of(count: int) -> dict[str, Any]:
    """Take the distance of so many features from as many."""
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, DIM, generator=rng) for _ in range(2))
    KernelReference(y[:100], 100).distance(x[:100])  # the first time is slower
    start = time.process_time()
    value = KernelReference(y, count).distance(x)
    return {"images": count, "seconds": round(time.process_time() - start, 1), "value": value}


def main(counts: str = "1000,5000,20000,50000,100000", output: Path = Path("benchmarks/results/kid.json")) -> None:
    """Measure at each of the counts."""
    rows = []
    for count in counts.split(","):
        rows.append(run_in_process(kernel_of, int(count)))
        print(", ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    write(output, facts(dim=DIM, rows=rows))


if __name__ == "__main__":
    typer.run(main)
