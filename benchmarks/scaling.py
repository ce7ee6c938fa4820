"""How time and memory scale: python benchmarks/scaling.py

Rendering against pixels and against channels, memory against pixels, evaluation against images, training against
processes. Small networks, one thread a process, and processor time wherever one process is measured, as other
programs matter little to it. Prints figures, writes them as JSON below benchmarks/results/ and plots them into
docs/images/scaling.png.
"""

import math
import multiprocessing
import tempfile
import time
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from evaluation import memory_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from peak_memory import Peak, run_in_process
from random_models import SMALL, random_generator
from results_io import facts, write
from timing import Work, take_turns

from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.rendering.render import render_rows
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import PRESETS
from polyinr_core.training.state import create_generator, start_stage
from polyinr_core.training.step import Batch, StepOptions, train_step

MIN_PIXELS = 2**17  # a measurement: several small images make one
CPU, SIDE = torch.device("cpu"), 32
BLUE, GRAY = "#1f5fa8", "#b8b8b8"


def render_work(config: GeneratorConfig, side: int, *, least: int = 0) -> tuple[Work, int]:
    """Return the rendering of images of a side, of `least` pixels in all, and how many pixels they have."""
    generator, grid = random_generator(config), RegularGrid(side, side)
    with torch.no_grad():
        affine = generator.affine(generator.w(torch.randn(1, config.z_dim)))[0]
    times = max(1, least // side**2)

    def work() -> None:
        for _ in range(times):
            for _ in render_rows(generator.synthesis, affine, grid):
                pass

    return work, times * side**2


def against_pixels(sides: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return nanoseconds a pixel and what memory drawing takes, for images of each side."""
    works = {side: render_work(SMALL, side, least=MIN_PIXELS) for side in sides}
    mib = {}
    for side, (work, _) in works.items():
        with Peak() as peak:
            work()
        mib[side] = peak.mib
    times = take_turns({str(side): work for side, (work, _) in works.items()}, rounds=rounds, warm_up=False)
    each = {side: times.processor_seconds(str(side)) / pixels for side, (_, pixels) in works.items()}
    middle = sorted(each.values())[len(each) // 2]
    return [
        {"side": side, "ns_a_pixel": round(1e9 * one, 1), "to_median": round(one / middle, 3), "mib": mib[side]}
        for side, one in each.items()
    ]


def against_channels(widths: list[int], rounds: int) -> list[dict[str, Any]]:
    """Return the seconds of an image of 64 px with each width, and the power of n between one and the next."""
    works = {str(n): render_work(GeneratorConfig(channels=n), 64)[0] for n in widths}
    times = take_turns(works, rounds=rounds)
    taken = {n: times.processor_seconds(str(n)) for n in widths}
    powers = [None, *(math.log(taken[b] / taken[a]) / math.log(b / a) for a, b in pairwise(widths))]
    return [
        {"channels": n, "seconds": round(taken[n], 4), "power": power and round(power, 2)}
        for n, power in zip(widths, powers, strict=True)
    ]


def against_images(counts: list[int]) -> list[dict[str, Any]]:
    """Return seconds and peak memory of evaluating so many small images against as many."""
    rows = [run_in_process(memory_of, count) for count in counts]
    return [{**row, "ms_a_image": round(1000 * row["seconds"] / row["images"], 2)} for row in rows]


def train(rank: int, count: int, alone: bool, iterations: int, store: str, begun: Barrier, answer: Any) -> None:
    """Train the small preset in one of `count` processes, all of a job or each by itself; tell the seconds."""
    torch.set_num_threads(1)
    ranks = DistributedContext() if alone else DistributedContext(rank, count)
    if not alone:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    config = PRESETS["small"]
    weights = {name: load_pretrained(name) for name in config.backbones}
    generator = create_generator(config, 0, None)
    session = start_stage(config, generator, stage=0, weights=weights, device=CPU, dist=ranks)
    coordinates = RegularGrid(SIDE, SIDE).coordinates()
    options = StepOptions(coordinates, micro_batch=config.batch, blur_sigma=2.0, augment_rng=generator_for, dist=ranks)
    own = ranks.local_rows(config.batch, config.batch)
    torch.manual_seed(0)
    reals = Batch((torch.rand(config.batch, 3, SIDE, SIDE) * 2 - 1)[own], None)
    fakes = Batch(torch.randn(config.batch, config.z_dim)[own], None)

    def once() -> None:
        train_step(session, options, reals=reals, g_fakes=fakes, d_fakes=fakes, ema_beta=0.9)

    once()
    begun.wait()
    start = time.perf_counter()
    for _ in range(iterations):
        once()
    if rank == 0:
        answer.put((time.perf_counter() - start) / iterations)
    begun.wait()  # until all have ended
    if not alone:
        dist.destroy_process_group()


def seconds_of(count: int, *, alone: bool, iterations: int) -> float:
    """Return the seconds of an iteration, by the clock, of so many processes."""
    context = multiprocessing.get_context("spawn")
    begun, answer = context.Barrier(count), context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        arguments = (count, alone, iterations, f"{folder}/store", begun, answer)
        workers = [context.Process(target=train, args=(rank, *arguments)) for rank in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return answer.get()


def against_processes(iterations: int, rounds: int) -> dict[str, Any]:
    """Return the seconds of an iteration in one process, in two of a job, and in two that each do all of it."""
    found: dict[str, list[float]] = {"one": [], "two": [], "two apart": []}
    for _ in range(rounds):
        found["one"].append(seconds_of(1, alone=True, iterations=iterations))
        found["two"].append(seconds_of(2, alone=False, iterations=iterations))
        found["two apart"].append(seconds_of(2, alone=True, iterations=iterations))
    one, two, apart_ = (sorted(taken)[len(taken) // 2] for taken in found.values())
    return {
        "seconds": {"one": round(one, 3), "two": round(two, 3), "two apart": round(apart_, 3)},
        "faster": round(one / two, 2),
        "machine": round(2 * one / apart_, 2),  # what two independent processes do more than one
    }


def curve(axes: Axes, x: list[float], y: list[float], *, power: int, title: str, across: str, up: str) -> None:
    """Plot measured values over the line of a power of x through the last of them."""
    axes.plot(x, [y[-1] * (one / x[-1]) ** power for one in x], color=GRAY, linewidth=4)
    axes.plot(x, y, "o-", color=BLUE, markersize=5)
    axes.set(xscale="log", yscale="log", title=title, xlabel=across, ylabel=up)
    axes.set_xticks(x, [f"{one:g}" for one in x])
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def plot_chart(found: dict[str, Any], path: Path) -> None:
    """Plot what was measured."""
    figure = Figure(figsize=(10, 7), layout="constrained")
    (pixels, memory), (channels, images) = figure.subplots(2, 2)
    sides = [row["side"] for row in found["pixels"]]
    seconds = [row["ns_a_pixel"] * row["side"] ** 2 / 1e9 for row in found["pixels"]]
    curve(
        pixels,
        sides,
        seconds,
        power=2,
        title="Rendering: linear in the pixels",
        across="pixels a side",
        up="processor seconds",
    )
    memory.plot(sides, [row["mib"] for row in found["pixels"]], "o-", color=BLUE, markersize=5)
    memory.set(xscale="log", title="Rendering: memory beside the weights", xlabel="pixels a side", ylabel="MiB")
    memory.set_xticks(sides, [f"{side}" for side in sides])
    memory.set_ylim(0, 2 * max(row["mib"] for row in found["pixels"]))
    memory.minorticks_off()
    memory.grid(alpha=0.25)
    curve(
        channels,
        [row["channels"] for row in found["channels"]],
        [row["seconds"] for row in found["channels"]],
        power=2,
        title="Rendering: quadratic in the channels",
        across="channels",
        up="processor seconds, 64 px",
    )
    curve(
        images,
        [row["images"] for row in found["images"]],
        [row["seconds"] for row in found["images"]],
        power=1,
        title="Evaluating: linear in the images",
        across="images on either side",
        up="seconds",
    )
    figure.text(0.995, 0.005, "pale: the law", ha="right", va="bottom", color="#777777", fontsize=8)
    figure.savefig(path, dpi=110)


def main(
    sides: str = "64,128,256,512,1024,2048,4096",
    widths: str = "64,128,256,512,1024",
    counts: Annotated[str, typer.Option(help="Images that are evaluated.")] = "1000,2000,4000,8000,16000",
    iterations: Annotated[int, typer.Option(help="Of training, in a turn.")] = 5,
    rounds: int = 3,
    output: Path = Path("benchmarks/results/scaling.json"),
    chart: Path = Path("docs/images/scaling.png"),
) -> None:
    """Measure all curves."""
    torch.set_num_threads(1)
    described = facts(network=SMALL.to_dict())

    def report(name: str, rows: Any) -> None:
        described[name] = rows
        write(output, described)
        for row in rows if isinstance(rows, list) else [rows]:
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)

    # those of other processes first, as a process starts with the peak of the one that started it
    report("images", against_images([int(count) for count in counts.split(",")]))
    report("processes", against_processes(iterations, rounds))
    report("pixels", against_pixels([int(side) for side in sides.split(",")], rounds))
    report("channels", against_channels([int(n) for n in widths.split(",")], rounds))
    chart.parent.mkdir(parents=True, exist_ok=True)
    plot_chart(described, chart)


if __name__ == "__main__":
    typer.run(main)
