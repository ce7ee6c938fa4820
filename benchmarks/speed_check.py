"""Fail if a speed ratio is below 0.8 of the stated one, or on another CPU below half: python benchmarks/speed_check.py

Each ratio is of two pieces of work that take turns in one run, by processor time on one thread, so the machine and
its other programs matter little. A ratio that is too low is measured again, up to three times in all. The stated ratios
are in benchmarks/speed_check.json; `--state` measures them again and writes them there.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from baseline import BaselineGenerator
from floor import rendering_products
from random_models import random_generator
from results_io import facts, write
from timing import Work, take_turns
from training import baseline, ours

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.render import render_rows

SHARE = 0.8  # of a stated ratio that is enough on the CPU where it was measured
SHARE_ELSEWHERE = 0.5  # on another CPU, whose caches and memory make other ratios
TRIES = 3
STATED = Path(__file__).with_name("speed_check.json")
Measure = Callable[[], dict[str, float]]


def render_work(generator: Generator, side: int, *, tolerance: float = 0.0) -> Work:
    """Return the rendering of an image from z."""
    z, grid = torch.randn(1, generator.config.z_dim), RegularGrid(side, side)

    @torch.no_grad()
    def work() -> None:
        affine = generator.affine_each(generator.w_each(z))[0]
        for _ in render_rows(generator.synthesis, affine, grid, tolerance=tolerance):
            pass

    return work


def rendering() -> dict[str, float]:
    """Render 128 px with 512 channels in float32: the baseline, ours, and the products alone."""
    side, n = 128, 512
    naive, z = BaselineGenerator(side, n).eval(), torch.randn(1, 64)
    config = GeneratorConfig(channels=n)
    floor, scale = rendering_products(
        pixels=side**2, channels=n, levels=config.levels, dtype=torch.float32, most=side**2
    )
    works: dict[str, Work] = {
        "baseline": torch.no_grad()(lambda: naive(z)),
        "ours": render_work(random_generator(config), side),
        "floor": floor,
    }
    times = take_turns(works, rounds=4)
    return {
        "rendering, times the baseline": times.processor_ratio("baseline", "ours"),
        "rendering, of the floor's rate": times.processor_ratio("floor", "ours") * scale,
    }


def rendering_to_tolerance() -> dict[str, float]:
    """Render 256 px of a smooth image with 128 channels, exactly and with a tolerance of 1."""
    generator = random_generator(GeneratorConfig(form="paper", channels=128))
    works = {"exact": render_work(generator, 256), "tolerant": render_work(generator, 256, tolerance=1.0)}
    return {"rendering with tolerance 1, times exact": take_turns(works, rounds=4).processor_ratio("exact", "tolerant")}


def training() -> dict[str, float]:
    """Train on two images of 32 px with 512 channels and lite0 under the full heads: the baseline and ours."""
    works = {"baseline": baseline(32, batch=2), "ours": ours(32, batch=2)[0]}
    times = take_turns(works, rounds=2)
    return {"training iteration, times the baseline": times.processor_ratio("baseline", "ours")}


MEASURES: tuple[Measure, ...] = (rendering, rendering_to_tolerance, training)


def share_here(stated: dict[str, Any]) -> float:
    """Return the share of the stated ratios that is enough on this CPU."""
    here = facts()
    same = all(here[name] == stated[name] for name in ("machine", "capability"))
    return SHARE if same else SHARE_ELSEWHERE


def too_low(measures: tuple[Measure, ...], stated: dict[str, float], *, share: float = SHARE) -> list[str]:
    """Measure; return the names of the ratios that stay below a share of the stated ones."""
    failed = []
    for measure in measures:
        best: dict[str, float] = {}
        for _ in range(TRIES):
            best = {name: max(ratio, best.get(name, 0.0)) for name, ratio in measure().items()}
            low = [name for name, ratio in best.items() if ratio < share * stated[name]]
            if not low:
                break
        for name, ratio in best.items():
            word = "TOO LOW" if name in low else "ok"
            print(f"{name}: {ratio:.2f}, {stated[name]:.2f} is stated: {word}", flush=True)
        failed += low
    return failed


def state() -> None:
    """Measure all ratios three times and write the medians."""
    found = [{name: ratio for measure in MEASURES for name, ratio in measure().items()} for _ in range(TRIES)]
    ratios = {name: round(median(one[name] for one in found), 2) for name in found[0]}
    write(STATED, facts(ratios=ratios))
    print("\n".join(f"{name}: {ratio:.2f}" for name, ratio in ratios.items()))


def main(
    new: Annotated[
        bool, typer.Option("--state", help="Measure and write the ratios instead of checking them.")
    ] = False,
) -> None:
    """Check the stated ratios."""
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if new:
        state()
        return
    stated = json.loads(STATED.read_text())
    share = share_here(stated)
    print(f"stated on {stated['machine']}, {stated['capability']}; {share} of it is enough on this CPU")
    failed = too_low(MEASURES, stated["ratios"], share=share)
    print(f"{time.perf_counter() - start:.0f} s")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
