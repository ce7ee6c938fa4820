"""Estimate on paper what training on ImageNet takes: python benchmarks/training_estimate.py --rate 200

Counts the operations of the matrix products and convolutions of the schedule, by image and stage, and
divides them by the rate that a GPU was measured to keep up in training (--rate, in 10^12 a second: iterations a
second times the operations of one). An estimate: reading, talking and all but products are in it only as far
as they were in the measured rate; --scaling is the part of it that stays with several GPUs.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.models.generator import flops_per_pixel
from polyinr_core.training.classifier_guidance import Classifier
from polyinr_core.training.config import PRESETS, TrainingConfig
from polyinr_core.training.dry_run import random_weights

DAY = 86400


@dataclass(frozen=True)
class Passes:
    """Operations of an image's forward passes: through the frozen networks, the heads, the guide."""

    frozen: int
    heads: int
    guide: int


def count_passes(config: TrainingConfig, *, classes: int) -> Passes:
    """Count them by running one image through networks of the right shapes."""
    weights = {name: random_weights(name) for name in {*config.backbones, config.classifier}}
    discriminator = ProjectedDiscriminator(config.discriminator(classes), weights).eval()
    guide = Classifier(config.classifier, weights[config.classifier], side=config.disc_res).eval()
    x, label = torch.zeros(1, 3, config.disc_res, config.disc_res), torch.zeros(1, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        discriminator(x, label if classes else None)
    total, by_module = counted.get_total_flops(), counted.get_flop_counts()
    frozen_ones = ("ProjectedDiscriminator.features.", "ProjectedDiscriminator.projections.")
    parts = [name for name in by_module if name.startswith(frozen_ones) and name.count(".") == 2]
    frozen = sum(sum(by_module[name].values()) for name in parts)
    with torch.no_grad(), FlopCounterMode(display=False) as guided:
        guide(x, label)
    return Passes(frozen, total - frozen, guided.get_total_flops())


def image_flops(config: TrainingConfig, resolution: int, passes: Passes, *, classes: int) -> float:
    """Return the operations of a training iteration, an image of its batch.

    The generator renders two: one forward and backward (three times a pass), one forward. The frozen networks see
    three, and once the gradient at the input is wanted (a pass more); of the heads' three passes that one costs
    a pass more, the other two each two more, as they learn. The guide sees one, forward and backward.
    """
    rendered = 4 * resolution**2 * flops_per_pixel(config.generator(classes))
    return rendered + 4 * passes.frozen + 8 * passes.heads + 2 * passes.guide * bool(config.guidance)


def schedule(preset: str, *, classes: int) -> list[dict[str, Any]]:
    """Return each stage's images and operations."""
    config = PRESETS[preset]
    passes = count_passes(config, classes=classes)
    rows = []
    for stage in config.stages:
        each = image_flops(config.at(stage), stage.resolution, passes, classes=classes)
        rows.append(
            {
                "resolution": stage.resolution,
                "kimg": stage.kimg,
                "gflop_a_image": round(each / 1e9, 1),
                "flop": each * 1000 * stage.kimg,
            }
        )
    return rows


def gpu_days(flop: float, *, rate: float, scaling: float) -> float:
    """Return the days of one GPU that so many operations take, of all GPUs together."""
    return flop / (rate * scaling) / DAY


def main(
    rate: Annotated[float, typer.Option(help="10^12 operations a second that a GPU keeps up in training.")],
    gpus: int = 8,
    scaling: Annotated[float, typer.Option(help="The part of the rate that stays with so many.")] = 0.9,
    preset: str = "imagenet",
    classes: int = 1000,
) -> None:
    """Print the estimate, a stage a line."""
    total = 0.0
    print(f"an estimate: {preset}, {gpus} GPUs at {rate:g} x 10^12 a second, {scaling:.0%} of it together")
    for row in schedule(preset, classes=classes):
        days = gpu_days(row["flop"], rate=rate * 1e12, scaling=scaling)
        total += days
        print(
            f"{row['resolution']:4} px  {row['kimg']:6} kimg  {row['gflop_a_image']:7} x 10^9 an image  "
            f"{days:7.1f} GPU-days"
        )
    print(f"in all {total:.0f} GPU-days, {total / gpus:.1f} days")


if __name__ == "__main__":
    typer.run(main)
