"""Time whole training iterations: python benchmarks/training.py --preset emoji

Prints pictures a second, the best of several iterations after warm-up, on random pictures of eight classes.
"""

import time

import torch
import typer

from polyinr_core.model import RegularGrid
from polyinr_core.seeds import generator_for
from polyinr_core.training.presets import PRESETS
from polyinr_core.training.session import begin_stage, first_generator
from polyinr_core.training.step import Batch, Setting, iterate
from polyinr_core.weights.pretrained import load_pretrained

CLASSES = 8


def main(preset: str = "emoji", iterations: int = 5) -> None:
    """Measure a preset's first stage on the CPU."""
    config, device = PRESETS[preset], torch.device("cpu")
    weights = {name: load_pretrained(name) for name in config.backbones}
    session = begin_stage(config, first_generator(config, CLASSES, None), stage=0, weights=weights, device=device)
    side, size = config.stages[0].resolution, config.batch
    points = RegularGrid(side, side).points(0, side * side, dtype=torch.float32, device=device)
    setting = Setting(points, micro_batch=size, sigma=2.0, rng=lambda name, part: generator_for(name, part))
    label = torch.arange(size) % CLASSES
    reals = Batch(torch.rand(size, 3, side, side) * 2 - 1, label)
    fakes = Batch(torch.randn(size, config.z_dim), label)
    times = []
    for _ in range(iterations + 1):
        start = time.perf_counter()
        iterate(session.networks, setting, reals=reals, g_fakes=fakes, d_fakes=fakes, beta=0.9)
        times.append(time.perf_counter() - start)
    speed = size / min(times[1:])
    print(
        f"{preset}: {speed:.1f} pictures a second at {side} px, batch {size}, {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    typer.run(main)
