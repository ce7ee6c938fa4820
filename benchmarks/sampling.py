"""Time rendering against a naive PyTorch implementation and against its bare products: python benchmarks/sampling.py

For each width, side and batch, from z to colors: the baseline (float32, eager, a chain of grids;
benchmarks/baseline.py), ours in each dtype, and the floor, which is the n x n products of the same shapes
and format alone. All take turns in one process; once with glibc's heap as people have it and once with the heap
kept, as every large tensor of the baseline is otherwise mapped and faulted anew. Prints a table and writes it
as JSON below benchmarks/results/. Rows come cheapest first; what the time or the memory does not hold is left
out, and said. Weights are random.

A short run: python benchmarks/sampling.py --channels 512 --sides 128 --batches 1 --rounds 3
"""

import time
from collections.abc import Iterable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from baseline import LEVELS, BaselineGenerator
from floor import rendering_products
from peak_memory import Allocator, Peak, available, heap, run_in_process
from random_models import random_generator
from results_io import facts, write
from timing import Work, take_turns

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.rendering.backends import in_precision
from polyinr_core.rendering.render import render_rows

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FLOOR_PIXELS = 2**16
BASELINE_COPIES = 4.5  # of all features of a level, that the baseline holds at once


@dataclass(frozen=True)
class Case:
    """What is rendered, and on which allocator."""

    channels: int
    side: int
    batch: int
    allocator: Allocator

    @property
    def flops(self) -> int:
        """Return the operations of its n x n products."""
        return 2 * self.channels**2 * (LEVELS - 1) * self.side**2 * self.batch

    @property
    def baseline_bytes(self) -> float:
        """Return the memory that the baseline takes."""
        return BASELINE_COPIES * 4 * self.channels * self.side**2 * self.batch

    def __str__(self) -> str:
        return f"{self.channels:5} {self.side:5} {self.batch:5}  {self.allocator:9}"


@torch.no_grad()
def measure(case: Case, types: list[str], rounds: int, seconds: float, with_baseline: bool) -> list[dict[str, Any]]:
    """Return a row for each dtype, measured within about so many seconds; this runs apart."""
    config = GeneratorConfig(channels=case.channels, levels=LEVELS)
    generator = random_generator(config)
    z, grid = torch.randn(case.batch, config.z_dim), RegularGrid(case.side, case.side)

    def ours(dtype: torch.dtype) -> Work:
        synthesis = in_precision(generator.synthesis, dtype)

        @torch.no_grad()
        def work() -> None:
            for affine in generator.affine(generator.w(z)):
                for _ in render_rows(synthesis, affine, grid):
                    pass

        return work

    works: dict[str, Work] = {}
    scale: dict[str, float] = {}
    for name in types:
        works[f"ours {name}"] = ours(TYPES[name])
        works[f"floor {name}"], scale[name] = rendering_products(
            pixels=case.side**2 * case.batch,
            channels=case.channels,
            levels=LEVELS,
            dtype=TYPES[name],
            most=FLOOR_PIXELS,
        )
    if with_baseline:
        baseline = BaselineGenerator(case.side, case.channels).eval()
        works["baseline"] = torch.no_grad()(lambda: baseline(z))
    start = time.perf_counter()
    peaks = {name: grown(work) for name, work in works.items()}  # this warms up, too
    times = take_turns(works, rounds=rounds, seconds=seconds - (time.perf_counter() - start), warm_up=False)
    rows = []
    for name in types:
        own, bare = f"ours {name}", f"floor {name}"
        row: dict[str, Any] = {
            "channels": case.channels,
            "side": case.side,
            "batch": case.batch,
            "type": name,
            "allocator": case.allocator,
            "turns": len(times.clock[own]),
            "baseline_seconds": None,
            "seconds": round(times.seconds(own), 4),
            "floor_seconds": round(times.seconds(bare) * scale[name], 4),
            "to_baseline": None,
            "of_floor": round(times.ratio(bare, own) * scale[name], 3),
            "of_floor_processor": round(times.processor_ratio(bare, own) * scale[name], 3),
            "baseline_mib": None,
            "mib": peaks[own],
        }
        if with_baseline:
            row["baseline_seconds"] = round(times.seconds("baseline"), 4)
            row["to_baseline"] = round(times.ratio("baseline", own), 2)
            row["to_baseline_processor"] = round(times.processor_ratio("baseline", own), 2)
            row["baseline_mib"] = peaks["baseline"]
        rows.append(row)
    return rows


def grown(work: Work) -> float:
    """Return by how many MiB this process grows at most while it does the work."""
    with Peak() as peak:
        work()
    return peak.mib


def product_rate() -> float:
    """Return about how many operations a second float32 products do here."""
    work, _ = rendering_products(pixels=2048, channels=512, levels=9, dtype=torch.float32, most=2048)
    times = take_turns({"floor": work}, rounds=5)
    return 2 * 2048 * 512**2 * 8 / times.seconds("floor")


def shown(row: dict[str, Any]) -> str:
    """Return a row of the table."""
    cells = [f"{row['channels']:5} {row['side']:5} {row['batch']:5}  {row['allocator']:9} {row['type']:9}"]
    for name, width, digits in (
        ("baseline_seconds", 9, 3),
        ("seconds", 9, 3),
        ("floor_seconds", 9, 3),
        ("to_baseline", 8, 2),
        ("of_floor", 8, 2),
        ("baseline_mib", 9, 0),
        ("mib", 8, 0),
    ):
        value = row[name]
        cells.append(" " * (width - 1) + "-" if value is None else f"{value:{width}.{digits}f}")
    return "".join(cells)


def numbers(text: str) -> list[int]:
    """Return the numbers of a list."""
    return [int(word) for word in text.split(",")]


def chosen(text: str, known: Iterable[str]) -> list[str]:
    """Return the words of a list. Raises BadParameter."""
    words, names = text.split(","), list(known)
    if wrong := set(words) - set(names):
        raise typer.BadParameter(f"{', '.join(sorted(wrong))}: choose from {', '.join(names)}")
    return words


def main(
    channels: str = "512,1024",
    sides: str = "128,256,1024",
    batches: str = "1,8",
    types: str = "float32,bfloat16",
    allocators: Annotated[str, typer.Option(help="default: as people run it; kept: its heap kept.")] = "default,kept",
    rounds: Annotated[int, typer.Option(help="Turns of each, as long as there is time.")] = 5,
    minutes: Annotated[float, typer.Option(help="Time in all; dearer rows are left out.")] = 40.0,
    output: Path = Path("benchmarks/results/sampling.json"),
) -> None:
    """Measure every combination that there is time and memory for."""
    formats, heaps = chosen(types, TYPES), chosen(allocators, get_args(Allocator))
    cases = [Case(*sizes) for sizes in product(numbers(channels), numbers(sides), numbers(batches), heaps)]  # type: ignore[arg-type]
    cases.sort(key=lambda case: case.flops)
    end = time.perf_counter() + 60 * minutes
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    described = facts(floor="torch.mm of blocks of 2048 pixels", rows=rows, left_out=left_out)
    pace = 5 * (1 + len(formats)) / product_rate()  # seconds an operation of a whole turn; the first guess
    print(
        "channels side batch  allocator type       baseline     ours    floor  to lit. of floor baseline MiB  ours",
        flush=True,
    )
    for index, case in enumerate(cases):
        turn, rest = case.flops * pace, end - time.perf_counter()
        if rest < 2 * turn:  # one to warm up, one that counts
            left_out.append(f"{case}: there is no time for it; a turn takes about {turn:.0f} s")
            print(left_out[-1], flush=True)
            continue
        share = case.flops / sum(other.flops for other in cases[index:])
        with_baseline = case.baseline_bytes < 0.9 * available()
        if not with_baseline:
            left_out.append(f"{case}: the baseline would take {case.baseline_bytes / 2**30:.0f} GiB")
            print(left_out[-1], flush=True)
        began = time.perf_counter()
        try:
            with heap(case.allocator):
                found = run_in_process(measure, case, formats, rounds, max(share * rest, 2 * turn), with_baseline)
        except BrokenProcessPool:
            left_out.append(f"{case}: its process died, of too little memory perhaps")
            print(left_out[-1], flush=True)
            continue
        pace = (time.perf_counter() - began) / (found[0]["turns"] + 1) / case.flops
        rows += found
        write(output, described)
        for row in found:
            print(shown(row), flush=True)
    write(output, described)


if __name__ == "__main__":
    typer.run(main)
