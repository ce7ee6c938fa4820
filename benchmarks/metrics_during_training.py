"""Time metrics against training: python benchmarks/metrics_during_training.py --preset small --res 32

Prints what a measurement on the bundled images costs, in iterations and as a share of the time between two
measurements. Iterations are timed before and after, as the load of a shared machine changes.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import typer
from results_io import facts, write

from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import PRESETS
from polyinr_core.training.metrics_hook import BATCH_SIZE, MetricsHook, render_uint8
from polyinr_core.training.state import create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step


def main(
    preset: str = "small",
    res: int = 32,
    every: float = 10.0,
    metrics: str = "fd-lite2",
    most: int = 2000,
    output: Path = Path("benchmarks/results/metrics_during_training.json"),
) -> None:
    """Measure a preset on the CPU; `every` is in kimg, `most` limits the images measured."""
    config, device = PRESETS[preset], torch.device("cpu")
    weights = {name: load_pretrained(name) for name in (*config.backbones, "lite2")}
    with ZipDataset.open(bundled_dataset()) as archive:
        feed = TrainLoader(archive, resolution=res, seed=0)
        generator = create_generator(config, archive.classes, None)
        state = start_stage(config, generator, stage=0, weights=weights, device=device)
        coordinates = RegularGrid(res, res).coordinates(device=device)
        options = StepOptions(
            coordinates, micro_batch=config.batch, blur_sigma=2.0, augment_rng=lambda *key: generator_for(*key)
        )
        reals = Batch(*feed.batch(0, config.batch))
        fakes = Batch(torch.randn(config.batch, config.z_dim), reals.label)

        def iterations() -> float:
            step = lambda: train_step(  # noqa: E731
                state, options, reals=reals, g_fakes=fakes, d_fakes=fakes, ema_beta=0.9
            )
            return median(seconds(step) for _ in range(3)) / config.batch

        hook = MetricsHook(metrics.split(","), weights, feed, device=device)
        hook.reals = hook.fakes = {"lite2": min(hook.fakes["lite2"], most)}
        ema = state.ema
        pace = iterations()
        first = hook.measure(ema)["seconds"]
        again = hook.measure(ema)["seconds"]
        pace = (pace + iterations()) / 2
        rendering = seconds(lambda: render_uint8(ema, range(BATCH_SIZE), resolution=res)) / BATCH_SIZE
        pixels = render_uint8(ema, range(BATCH_SIZE), resolution=res)
        features = seconds(lambda: hook.networks["lite2"](pixels)) / BATCH_SIZE
    count = hook.fakes["lite2"]
    figures = {
        "training": round(1 / pace, 2),  # images a second
        "first_seconds": round(first, 2),
        "seconds": round(again, 2),
        "rendering_seconds": round(rendering * count, 2),
        "feature_seconds": round(features * count, 2),
        "as_images_trained": round(again / pace),
        "share": round(again / (again + pace * every * 1000), 4),
    }
    rest = again - count * (rendering + features)
    print(f"{preset}, {res} px, {metrics}, {count} reals and fakes, {torch.get_num_threads()} threads")
    print(f"training: {1 / pace:.1f} images a second")
    print(f"first measurement {first:.1f} s, later ones {again:.1f} s: the time of {again / pace:.0f} images")
    print(f"  rendering {rendering * count:.1f} s, features {features * count:.1f} s, comparing about {rest:.1f} s")
    print(f"every {every:g} kimg: {figures['share']:.1%} of the time")
    write(output, facts(preset=preset, resolution=res, metrics=metrics, measured=count, figures=figures))


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    typer.run(main)
