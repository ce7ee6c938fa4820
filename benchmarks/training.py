"""Whole training iterations against a naive PyTorch implementation: python benchmarks/training.py

512 channels, ten levels, batch 8, unconditional; EfficientNet-lite0 at 224 px under the full heads. All variants do the
same work and take turns in one process, so that a busy machine slows them alike. Prints images a second by the clock
and by processor time, both relative to the baseline (medians of several turns), and the peak memory of an iteration in
a process of its own; writes JSON below benchmarks/results/.

The floor is the matrix products and convolutions of an iteration alone, of the same shapes. The variants between
are ours with one thing changed. `--heap` sets glibc's variables so that freed memory stays with the process.
"""

import os
import sys
from pathlib import Path

import torch
import typer
from baseline import BaselineTrainer
from floor import convolutions_of, convolve, convolve_back
from peak_memory import KEPT_HEAP, Peak, run_in_process
from results_io import facts, write
from timing import Work, take_turns
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import TrainingConfig
from polyinr_core.training.state import TrainingState, create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step

BATCH, CPU = 8, torch.device("cpu")
CONFIG = TrainingConfig(batch=BATCH, channels=512, backbones=("lite0",), cond=False)
OURS = {  # what is changed in each
    "ours": {},
    "ours, levels by autograd": {"plain": True},
    "ours, Adam not fused": {"fused": False},
    "ours, in chunks of 2048": {"chunk": 2048},
    "ours, by autograd in chunks of 2048": {"chunk": 2048, "plain": True},
}


def inputs(side: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return reals [N, 3, side, side] and z [N, 64]."""
    torch.manual_seed(0)
    return torch.rand(batch, 3, side, side) * 2 - 1, torch.randn(batch, CONFIG.z_dim)


def ours(
    side: int, *, batch: int = BATCH, chunk: int = 0, fused: bool = True, plain: bool = False
) -> tuple[Work, TrainingState]:
    """Return one iteration of polyinr, and its networks."""
    reals, z = inputs(side, batch)
    weights = {"lite0": load_pretrained("lite0")}
    networks = start_stage(CONFIG, create_generator(CONFIG, 0, None), stage=0, weights=weights, device=CPU)
    for optimizer in (networks.g_optimizer, networks.d_optimizer):
        optimizer.param_groups[0]["fused"] = fused
    coordinates = RegularGrid(side, side).coordinates()
    options = StepOptions(coordinates, micro_batch=batch, blur_sigma=2.0, augment_rng=generator_for, chunk=chunk)
    fakes = Batch(z, None)

    def work() -> None:
        train_step(networks, options, reals=Batch(reals, None), g_fakes=fakes, d_fakes=fakes, ema_beta=0.9)

    return with_autograd(work) if plain else work, networks


def baseline(side: int, *, batch: int = BATCH) -> Work:
    """Return one iteration of the baseline."""
    reals, z = inputs(side, batch)
    trainer = BaselineTrainer(load_pretrained("lite0"), side=side, n=CONFIG.channels)
    return lambda: trainer.iterate(reals, z, z, sigma=2.0, beta=0.9)


def peak_mib(name: str, side: int) -> float:
    """Return by how many MiB the resident set grows at its peak in an iteration after the first."""
    work = baseline(side) if name == "baseline" else ours(side, **OURS[name])[0]
    work()
    with Peak() as peak:
        work()
    return peak.mib


def with_autograd(work: Work) -> Work:
    """Return the work with the levels' gradients left to PyTorch."""

    def plain(self: Synthesis, product: nn.Module, h: Tensor, matrix: Tensor, coordinates: Tensor) -> Tensor:
        return self.activate(self.multiply(product, h * self.modulation(matrix, coordinates)))

    def patched() -> None:
        written, Synthesis.level = Synthesis.level, plain
        try:
            work()
        finally:
            Synthesis.level = written

    return patched


def floor(networks: TrainingState, side: int) -> Work:
    """Return the matrix products and convolutions of an iteration, without all that stands between them."""
    n, levels = CONFIG.channels, CONFIG.levels
    h, weight = torch.randn(BATCH * side * side, n), torch.randn(n, n)
    calls = convolutions_of(networks.discriminator, inputs(side, BATCH)[0])
    learning = set(networks.discriminator.heads.modules())
    first = {head.blocks[0].conv for heads in networks.discriminator.heads.values() for head in heads}

    @torch.no_grad()
    def work() -> None:
        for _ in range(levels - 1):
            functional.linear(h, weight)  # the generator's step
            functional.linear(h, weight)  # the discriminator's
            h.T @ h
            h @ weight
        for call in calls:
            y = convolve(call, times=3)  # the generator's step, fakes, reals
            convolve_back(call, y, to_input=True, to_weight=False)
            if call[0] in learning:
                for _ in range(2):
                    convolve_back(call, y, to_input=call[0] not in first, to_weight=True)

    return work


def main(
    rounds: int = 5, side: int = 32, heap: bool = False, output: Path = Path("benchmarks/results/training.json")
) -> None:
    """Let all variants take turns."""
    if heap and not KEPT_HEAP.items() <= os.environ.items():  # glibc reads them once, at the start
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEPT_HEAP)
    variants: dict[str, Work] = {"baseline": baseline(side)}
    for name, changed in OURS.items():
        variants[name], networks = ours(side, **changed)
    variants["floor"] = floor(networks, side)
    times = take_turns(variants, rounds=rounds)
    rows: dict[str, dict[str, float]] = {}
    for name in variants:
        rows[name] = {
            "images_a_second": round(BATCH / times.seconds(name), 3),
            "images_a_processor_second": round(BATCH / times.processor_seconds(name), 3),
            "to_baseline": round(times.ratio("baseline", name), 3),
            "to_baseline_processor": round(times.processor_ratio("baseline", name), 3),
        }
        if name != "floor":
            rows[name]["peak_mib"] = run_in_process(peak_mib, name, side)
        print(f"{name:36}" + "  ".join(f"{value:8.3f}" for value in rows[name].values()), flush=True)
    write(output, facts(allocator="kept" if heap else "default", side=side, figures=rows))


if __name__ == "__main__":
    typer.run(main)
