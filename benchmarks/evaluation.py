"""Time evaluation and measure its memory: python benchmarks/evaluation.py [-m MODEL.safetensors]

Prints images a second for reading an archive alone, for features alone, for both at once, for rendering alone and
for rendering with features; the peak memory of processes that evaluate a thousand and twenty thousand small
images; and time and memory of precision and recall at sizes from which those of 50000 x 50000 x 4096 follow.
Writes them as JSON below benchmarks/results/.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from noisy_images import write_archive
from peak_memory import peak, run_in_process
from random_models import given_or_random
from results_io import facts, write

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.evaluation.evaluate import evaluate
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.metrics.extractors import load_extractor
from polyinr_core.metrics.feature_pass import BATCH_SIZE, extract_features
from polyinr_core.metrics.feature_statistics import Requirements
from polyinr_core.metrics.prdc import BLOCK, compute_prdc, manifold

CPU = torch.device("cpu")
STREAMED = Requirements(moments=True)
NETWORKS = ("lite2", "rfid-seed0")  # the second is of Inception's shape
SMALL, SMALL_SIDE = (1000, 20000), 16  # images, pixels
DIM, PUBLISHED = 4096, 50_000  # of VGG16's features; images on either side


def pace(work: Callable[[], int], seconds: float) -> float:
    """Return how many images a second `work` does, which says how many it did, over `seconds` at least."""
    start, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < seconds:
        done += work()
    return round(done / passed, 1)


def speeds(archive: Path, model: Path, name: str, seconds: float) -> dict[str, Any]:
    """Return images a second of each stage alone and of stages together; the model renders at its own size."""
    network, stored, checkpoint = load_extractor(name), DatasetImages(archive), load_checkpoint(model)
    rendered = GeneratedImages(checkpoint, name="model", count=len(stored))
    batch = torch.cat(list(stored.batches(range(BATCH_SIZE))))
    needs = {(name, "pooled"): STREAMED}

    def looked(what: Any) -> int:
        return extract_features(what, {name: network}, needs, device=CPU)[name, "pooled"].count

    def made(parts: Iterator[torch.Tensor]) -> int:
        return sum(len(part) for part in parts)

    network(batch)  # the first time is slower
    return {
        "network": name,
        "stored_side": stored.resolution,
        "drawn_side": rendered.resolution,
        "reading": pace(lambda: made(stored.batches()), seconds),
        "features": pace(lambda: len(network(batch)), seconds),
        "reading and features": pace(lambda: looked(stored), seconds),
        "rendering": pace(lambda: made(rendered.batches()), seconds),
        "rendering and features": pace(lambda: looked(rendered), seconds),
    }


class Small:
    """A network that costs little: what is measured is the pass around it."""

    dim, name, sha256 = 256, "small", ""

    def __init__(self) -> None:
        self.matrix = torch.randn(3 * SMALL_SIDE**2, self.dim, generator=torch.Generator().manual_seed(0))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1).float() / 255 @ self.matrix

    def to(self, device: torch.device) -> "Small":
        return self


def memory_of(count: int) -> dict[str, Any]:
    """Evaluate so many small images against as many; return the peak memory of this process."""
    with tempfile.TemporaryDirectory() as folder:
        archives = [write_archive(Path(folder) / f"{name}.zip", SMALL_SIDE, count) for name in ("a", "b")]
        before, start = peak(), time.perf_counter()
        sources = [DatasetImages(path) for path in archives]
        reals, fakes = sources
        evaluate(fakes, reals, metrics=["fd-lite2"], extractors={"lite2": Small()}, device=CPU)
        seconds = time.perf_counter() - start
    return {"images": count, "mib_before": before, "mib": peak(), "seconds": round(seconds, 1)}


def neighbors_of(count: int) -> dict[str, Any]:
    """Take precision and recall of so many features against as many; return time and peak memory."""
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, DIM, generator=rng) for _ in range(2))
    before, start = peak(), time.perf_counter()
    compute_prdc(manifold(x, k=3), manifold(y, k=3), k=3, k_density=3)
    seconds = time.perf_counter() - start
    return {"images": count, "mib_before": before, "mib": peak(), "seconds": round(seconds, 1)}


def on_paper(largest: dict[str, Any]) -> dict[str, Any]:
    """Return what 50000 images on either side take: time goes with the square, memory with the features."""
    features = 2 * PUBLISHED * DIM * 4 // 2**20
    blocks = largest["mib"] - largest["mib_before"]  # of BLOCK x BLOCK distances, whatever the count
    hours = largest["seconds"] * (PUBLISHED / largest["images"]) ** 2 / 3600
    return {"images": PUBLISHED, "features_mib": features, "blocks_mib": blocks, "hours": round(hours, 2)}


def main(
    model: Annotated[Path | None, typer.Option("-m", help="By default one of random weights.")] = None,
    resolution: Annotated[int, typer.Option(help="Pixels of the images that are read.")] = 128,
    count: Annotated[int, typer.Option(help="Images in the archive.")] = 256,
    seconds: Annotated[float, typer.Option(help="The least time of each pace.")] = 8.0,
    neighbors: Annotated[str, typer.Option(help="Images on either side of precision and recall.")] = "5000,10000",
    output: Path = Path("benchmarks/results/evaluation.json"),
) -> None:
    """Measure paces, memory and neighbors."""
    described = facts(batch=BATCH_SIZE, block=BLOCK, paces=[], memory=[], neighbors=[])

    def report(kind: str, row: dict[str, Any]) -> None:
        described[kind].append(row)
        write(output, described)
        print(f"{kind}: " + ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    # first, as a process starts with the peak of the one that started it
    for small in SMALL:
        report("memory", run_in_process(memory_of, small))
    for size in neighbors.split(","):
        report("neighbors", run_in_process(neighbors_of, int(size)))
    report("neighbors", on_paper(described["neighbors"][-1]))
    with tempfile.TemporaryDirectory() as folder, given_or_random(model) as rendered:
        archive = write_archive(Path(folder) / "set.zip", resolution, count)
        for name in NETWORKS:
            report("paces", speeds(archive, rendered, name, seconds))


if __name__ == "__main__":
    typer.run(main)
