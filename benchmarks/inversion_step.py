"""Time a step of inversion against a naive PyTorch implementation: python benchmarks/inversion_step.py

A step renders one image with gradients, computes the loss from its pixels and lite0's features, and takes the gradient
with respect to the latent. The baseline (benchmarks/baseline.py) goes back to z; ours goes back to the affine
parameters, in one pass and with checkpointing in chunks; the floor is the products and convolutions of ours alone. All
take turns, float32. Prints a table and writes JSON below benchmarks/results/.
"""

from pathlib import Path
from typing import Any

import torch
import typer
from baseline import LEVELS, BaselineGenerator
from floor import convolutions_of, convolve, convolve_back, rendering_products
from peak_memory import Peak
from random_models import random_generator
from results_io import facts, write
from timing import Work, take_turns
from torch import Tensor

from polyinr_core.inversion.loss import TargetGrid, TargetLoss, load_loss, target_grid
from polyinr_core.models.config import GeneratorConfig

CHUNK = 4096  # pixels, with checkpointing


def works_of(side: int, channels: int) -> tuple[dict[str, Work], float]:
    """Return a step in each form, and what the floor's products are to be multiplied with."""
    config = GeneratorConfig(channels=channels, levels=LEVELS)
    generator = random_generator(config).requires_grad_(False)
    z = torch.randn(1, config.z_dim)
    affine = generator.affine(generator.w(z)).requires_grad_()
    whole = target_grid(config, width=side, height=side, like=affine)
    chunked = TargetGrid(side, side, whole.coordinates, CHUNK)
    baseline = BaselineGenerator(side, channels).eval().requires_grad_(False)
    target_loss = load_loss("lite0").for_target(torch.rand(1, 3, side, side) * 2 - 1)
    latent = z.clone().requires_grad_()
    works: dict[str, Work] = {
        "baseline": lambda: back(target_loss, baseline(latent), latent),
        "ours": lambda: back(target_loss, whole.render(generator.synthesis, affine), affine),
        "ours, in chunks": lambda: back(target_loss, chunked.render(generator.synthesis, affine), affine),
    }
    products, scale = rendering_products(
        pixels=2 * side**2, channels=channels, levels=LEVELS, dtype=torch.float32, most=2 * side**2
    )
    calls = convolutions_of(target_loss.perceptual.extractor, whole.render(generator.synthesis, affine).detach())

    def floor() -> None:
        products()
        for call in calls:
            convolve_back(call, convolve(call), to_input=True, to_weight=False)

    return works | {"floor": floor}, scale


def back(target_loss: TargetLoss, image: Tensor, latent: Tensor) -> None:
    """Take the gradient of the loss of an image with respect to its latent."""
    torch.autograd.grad(target_loss(image).loss, latent)


def measure(side: int, channels: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each form."""
    works, scale = works_of(side, channels)
    assert scale == 1, "sides are multiples of 64"
    peaks = {}
    for name, work in works.items():
        with Peak() as peak:
            work()
        peaks[name] = peak.mib
    times = take_turns(works, rounds=rounds, warm_up=False)
    return [
        {
            "channels": channels,
            "side": side,
            "form": name,
            "seconds": round(times.seconds(name), 4),
            "to_baseline": round(times.ratio("baseline", name), 2),
            "to_baseline_processor": round(times.processor_ratio("baseline", name), 2),
            "of_floor": round(times.ratio("floor", name), 2),
            "of_floor_processor": round(times.processor_ratio("floor", name), 2),
            "mib": peaks[name],
        }
        for name in works
    ]


def main(
    sides: str = "64,128,256",
    channels: int = 512,
    rounds: int = 5,
    output: Path = Path("benchmarks/results/inversion_step.json"),
) -> None:
    """Measure each side."""
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    described = facts(figures=rows)
    print("channels side  form              seconds  to baseline  by processor  of floor     MiB")
    for side in map(int, sides.split(",")):
        for row in measure(side, channels, rounds):
            rows.append(row)
            print(
                f"{row['channels']:8} {row['side']:4}  {row['form']:16}{row['seconds']:9.3f}"
                f"{row['to_baseline']:12.2f}{row['to_baseline_processor']:14.2f}{row['of_floor']:10.2f}{row['mib']:8.0f}",
                flush=True,
            )
        write(output, described)


if __name__ == "__main__":
    typer.run(main)
