"""Time coarse to fine drawing and measure its error: python benchmarks/tolerance.py MODEL [--channels 512]

For each side and tolerance: how much faster than the exact form, which share of the pixels is drawn, and how far
colours are off, in steps of 255. Writes JSON below benchmarks/results/. Besides MODEL, whose first seeds are
drawn, there is a network of random weights in each form, scaled level by level to features of root mean square 1
and to colours of standard deviation 0.5; PyTorch's start values would draw nearly one colour. Times are those of
the process's own processor, so run it with OMP_NUM_THREADS=1. Both forms of drawing take turns.
"""

import json
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from polyinr_core.latents.seeds import draw_z
from polyinr_core.model import Generator, GeneratorConfig, RegularGrid, draw_rows
from polyinr_core.model.config import Form
from polyinr_core.model.drawer import drawer_for
from polyinr_core.snapshots.snapshot import load_snapshot

TOLERANCES = (0.5, 1.0, 2.0, 4.0)
STEPS = 127.5  # of 255 in a unit of colour


@torch.no_grad()
def random_generator(form: Form, channels: int) -> Generator:
    """Return a generator whose features neither fade nor grow from level to level."""
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(form=form, channels=channels)).eval()
    synthesis = generator.synthesis
    affine = generator.affine(generator.w(torch.randn(1, generator.config.z_dim)))
    points = RegularGrid(48, 48).points(0, 48**2, dtype=torch.float32, device=torch.device("cpu"))
    for level, product in enumerate(synthesis.products):
        for index, features in enumerate(synthesis.features(affine, points)):
            if index == level:
                scale = 1 / features.square().mean().sqrt()
                break
        product.weight.mul_(scale)  # type: ignore[operator]
        product.bias.mul_(scale)  # type: ignore[operator]
    colours = synthesis(affine, points)
    scale = 0.5 / colours.std(dim=1).mean()
    synthesis.to_rgb.weight.mul_(scale)
    synthesis.to_rgb.bias.copy_(synthesis.to_rgb.bias - colours.mean(dim=(0, 1))).mul_(scale)
    return generator


def maps_of(generator: Generator, seeds: int) -> Tensor:
    """Return the affine maps [N, L, 3, n] of the first seeds, each in a class of its own if there are any."""
    classes = generator.config.classes
    label = torch.arange(seeds) % classes if classes else None
    with torch.no_grad():
        return generator.affine(generator.w(draw_z(range(seeds), generator.config.z_dim), label))


def measure(generator: Generator, affine: Tensor, side: int) -> Iterator[dict[str, float]]:
    """Yield what each tolerance gives for the picture of affine maps [L, 3, n]."""
    grid = RegularGrid(side, side)
    drawer, drawn = drawer_for(generator.synthesis, affine.device), []

    def counted(maps: Tensor, points: Tensor) -> Tensor:
        drawn.append(len(points))
        return drawer(maps, points)

    def timed(tolerance: float) -> tuple[Tensor, float]:
        drawn.clear()
        start = time.process_time()
        picture = torch.cat(list(draw_rows(counted, affine, grid, tolerance=tolerance)))
        return picture, time.process_time() - start

    timed(TOLERANCES[-1])  # to warm up
    exact, before = timed(0.0)
    found = [(tolerance, *timed(tolerance), sum(drawn) / side**2) for tolerance in TOLERANCES]
    after = timed(0.0)[1]
    for tolerance, picture, seconds, share in found:
        off = STEPS * (picture - exact).abs().amax(dim=-1).flatten()
        rank = len(off) - len(off) // 1000  # all but a thousandth are no larger
        yield {
            "tolerance": tolerance,
            "speed": (before + after) / 2 / seconds,
            "drawn": share,
            "off_99.9": off.kthvalue(rank).values.item(),
            "off_max": off.max().item(),
            "exact_seconds": (before + after) / 2,
        }


def main(
    model: Path,
    channels: int = 512,
    sides: Annotated[str, typer.Option(metavar="N,...")] = "256,1024",
    seeds: int = 4,
    output: Path = Path("benchmarks/results/tolerance.json"),
) -> None:
    """Measure MODEL's pictures of several seeds, and one of a random network in each form."""
    trained = load_snapshot(model).generator.eval()
    networks = [("trained", trained, seeds)]
    networks += [(f"random, {form}", random_generator(form, channels), 1) for form in ("release", "paper")]
    rows = []
    for name, generator, count in networks:
        for side in map(int, sides.split(",")):
            pictures = [list(measure(generator, affine, side)) for affine in maps_of(generator, count)]
            for figures in zip(*pictures, strict=True):
                row: dict[str, object] = {"network": name, "channels": generator.config.channels, "side": side}
                row |= {key: statistics.median(one[key] for one in figures) for key in figures[0]}
                row |= {key: max(one[key] for one in figures) for key in ("off_99.9", "off_max")}
                row["slowest"] = min(one["speed"] for one in figures)
                rows.append(row)
                print(
                    f"{name:16} n = {row['channels']:4}  {side:4} px  tolerance {row['tolerance']:3}: "
                    f"{row['speed']:5.2f} x as fast (least {row['slowest']:5.2f}), {row['drawn']:6.1%} drawn, "
                    f"off {row['off_99.9']:4.2f} (99.9 %), {row['off_max']:4.2f} at most",
                    flush=True,
                )
    facts = {
        "command": shlex.join(["python", *(model.name if word == str(model) else word for word in sys.argv)]),
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "figures": rows,
    }
    output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
