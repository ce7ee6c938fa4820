"""Time rendering with a tolerance and measure its error: python benchmarks/tolerance.py [MODEL]

For each side and tolerance: how much faster than the exact form, which share of the pixels is rendered, and how far
colors are off, in steps of 255. Writes JSON below benchmarks/results/. Renders the first seeds of MODEL, if given,
and one of random weights in each form (benchmarks/random_models.py). Times are processor time, so run it with
OMP_NUM_THREADS=1. Both forms of rendering take turns.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer
from random_models import random_generator
from results_io import facts, write
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.latents.latents import draw_z
from polyinr_core.models.config import Form, GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import select_backend
from polyinr_core.rendering.render import render_rows

TOLERANCES = (0.5, 1.0, 2.0, 4.0)
STEPS = 127.5  # of 255 in a unit of color


def maps_of(generator: Generator, seeds: int) -> Tensor:
    """Return the affine parameters [N, L, 3, n] of the first seeds, each in a class of its own if there are any."""
    classes = generator.config.classes
    label = torch.arange(seeds) % classes if classes else None
    with torch.no_grad():
        return generator.affine(generator.w(draw_z(range(seeds), generator.config.z_dim), label))


def measure(generator: Generator, affine: Tensor, side: int) -> Iterator[dict[str, float]]:
    """Yield what each tolerance gives for the image of affine parameters [L, 3, n]."""
    grid = RegularGrid(side, side)
    backend, rendered = select_backend(generator.synthesis, affine.device), []

    def counted(maps: Tensor, coordinates: Tensor) -> Tensor:
        rendered.append(len(coordinates))
        return backend(maps, coordinates)

    def timed(tolerance: float) -> tuple[Tensor, float]:
        rendered.clear()
        start = time.process_time()
        image = torch.cat(list(render_rows(counted, affine, grid, tolerance=tolerance)))
        return image, time.process_time() - start

    timed(TOLERANCES[-1])  # to warm up
    exact, before = timed(0.0)
    found = [(tolerance, *timed(tolerance), sum(rendered) / side**2) for tolerance in TOLERANCES]
    after = timed(0.0)[1]
    for tolerance, image, seconds, share in found:
        off = STEPS * (image - exact).abs().amax(dim=-1).flatten()
        rank = len(off) - len(off) // 1000  # all but a thousandth are no larger
        yield {
            "tolerance": tolerance,
            "speed": (before + after) / 2 / seconds,
            "rendered": share,
            "off_99.9": off.kthvalue(rank).values.item(),
            "off_max": off.max().item(),
            "exact_seconds": (before + after) / 2,
        }


def main(
    model: Annotated[Path | None, typer.Argument()] = None,
    channels: int = 512,
    sides: Annotated[str, typer.Option(metavar="N,...")] = "256,1024",
    seeds: int = 4,
    output: Path = Path("benchmarks/results/tolerance.json"),
) -> None:
    """Measure MODEL's images of several seeds, and one of a random network in each form."""
    networks = [("trained", load_checkpoint(model).generator.eval(), seeds)] if model else []
    for form in get_args(Form):
        config = GeneratorConfig(form=form, channels=channels)
        networks.append((f"random, {form}", random_generator(config), 1))
    rows = []
    for name, generator, count in networks:
        for side in map(int, sides.split(",")):
            images = [list(measure(generator, affine, side)) for affine in maps_of(generator, count)]
            for figures in zip(*images, strict=True):
                row: dict[str, object] = {"network": name, "channels": generator.config.channels, "side": side}
                row |= {key: statistics.median(one[key] for one in figures) for key in figures[0]}
                row |= {key: max(one[key] for one in figures) for key in ("off_99.9", "off_max")}
                row["slowest"] = min(one["speed"] for one in figures)
                rows.append(row)
                print(
                    f"{name:16} n = {row['channels']:4}  {side:4} px  tolerance {row['tolerance']:3}: "
                    f"{row['speed']:5.2f} x as fast (least {row['slowest']:5.2f}), {row['rendered']:6.1%} rendered, "
                    f"off {row['off_99.9']:4.2f} (99.9 %), {row['off_max']:4.2f} at most",
                    flush=True,
                )
    write(output, facts(figures=rows))


if __name__ == "__main__":
    typer.run(main)
