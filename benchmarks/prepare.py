"""Time `polyinr prepare` on one core and on all: python benchmarks/prepare.py

Prints images a second of preparing photographs, made of the bundled images enlarged, with a sensor's
grain: plainly, with Pillow in a loop (baseline); by `prepare` in this process, and in as many as there are cores;
and by as many processes that each do their share of the work without a word to one another, which is what this
machine can give (floor). All take turns. Also what the steps of an image cost, in Pillow and, for decoding, in
torchvision. Writes it all as JSON below benchmarks/results/.

PyTorch is imported in functions, as every worker process imports this file, and `polyinr prepare` has none of it.
"""

import io
import multiprocessing
import resource
import time
import zipfile
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from noisy_images import images
from peak_memory import Peak, run_in_process
from PIL import Image
from timing import Work, take_turns

from polyinr_core.data.decode import WHITE
from polyinr_core.data.prepare import LEVEL, Request, make_image, prepare, usable_cores

DIFFERENT = 64  # images; the rest are copies, so that making them takes no longer than preparing
SUFFIXES = {"JPEG": "jpg", "PNG": "png"}


def make_folder(folder: Path, side: int, count: int, kind: str) -> list[Path]:
    """Write so many image files of that side."""
    different = list(images(side, min(count, DIFFERENT), kind))
    files = [folder / f"{index:06d}.{SUFFIXES[kind]}" for index in range(count)]
    for index, file in enumerate(files):
        file.write_bytes(different[index % len(different)])
    return files


def plainly(files: list[Path], output: Path, resolution: int) -> None:
    """Do what `prepare` does to good square images, one after the other."""
    with zipfile.ZipFile(output, "w") as zipped:
        for file in files:
            image = Image.open(file).convert("RGB").resize((resolution, resolution), Image.Resampling.LANCZOS)
            data = io.BytesIO()
            image.save(data, "PNG")
            zipped.writestr(file.stem + ".png", data.getvalue())


def share_of(files: list[Path], request: Request, begun: Any, go: Any) -> None:
    """Do a share of the work, handing nothing to anybody; this runs in a process of its own."""
    begun.release()
    go.wait()
    for file in files:
        make_image(file, request=request)


class Independent:
    """Processes that each do a share of the work; calling it tells the seconds from the word to their end."""

    def __init__(self, files: list[Path], request: Request, count: int) -> None:
        self.files, self.request, self.count = files, request, count

    def __call__(self) -> float:
        context = multiprocessing.get_context("spawn")
        begun, go = context.Semaphore(0), context.Event()
        shares = [self.files[index :: self.count] for index in range(self.count)]
        workers = [context.Process(target=share_of, args=(s, self.request, begun, go)) for s in shares]
        for worker in workers:
            worker.start()
        for _ in workers:
            begun.acquire()
        start = time.perf_counter()
        go.set()
        for worker in workers:
            worker.join()
        return time.perf_counter() - start


def used() -> float:
    """Return the processor seconds of this process and of those that it has seen end."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def speeds(side: int, resolution: int, kind: str, count: int, rounds: int) -> dict[str, Any]:
    """Return images a second and milliseconds of processor time an image, medians over turns."""
    cores = usable_cores()
    request = Request(resolution, "center", "lanczos", WHITE)
    clock: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    starts: list[float] = []
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "images").mkdir()
        files = make_folder(folder / "images", side, count, kind)
        made = partial(prepare, [folder / "images"], resolution=resolution, overwrite=True)

        def progress(done: int, total: int) -> None:
            if done == 1:
                starts.append(time.perf_counter() - start)

        ways: dict[str, Any] = {
            "baseline": partial(plainly, files, folder / "plain.zip", resolution),
            "one core": partial(made, folder / "one.zip", workers=1),
            "all cores": partial(made, folder / "all.zip", workers=cores, progress=progress),
            "independent, one": Independent(files, request, 1),
            "independent, all": Independent(files, request, cores),
        }
        for _ in range(rounds):
            for name, way in ways.items():
                start, own = time.perf_counter(), used()
                with Peak() as peak:
                    measured = way()
                passed = measured if isinstance(measured, float) else time.perf_counter() - start
                clock.setdefault(name, []).append(passed)
                processor.setdefault(name, []).append(used() - own)
                peaks.setdefault(name, peak.mib)

    def ratio(slow: str, fast: str) -> float:
        return median(a / b for a, b in zip(clock[slow], clock[fast], strict=True))

    return {
        "kind": kind,
        "side": side,
        "resolution": resolution,
        "images": count,
        "cores": cores,
        **{name: round(count / median(taken), 1) for name, taken in clock.items()},
        "to_baseline": round(ratio("baseline", "all cores"), 2),
        "of_cores": round(ratio("one core", "all cores") / cores, 3),
        "machine_of_cores": round(ratio("independent, one", "independent, all") / cores, 3),
        "of_floor": round(ratio("independent, all", "all cores"), 3),
        "start_seconds": round(median(starts), 2),
        "processor_ms": {name: round(1000 * median(taken) / count, 2) for name, taken in processor.items()},
        "mib": peaks,
    }


def steps(side: int, resolution: int) -> dict[str, float]:
    """Return the milliseconds of processor time that each step of an image takes."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg, decode_png

    torch.set_num_threads(1)
    data = {kind: next(images(side, 1, kind)) for kind in SUFFIXES}
    tensors = {kind: torch.frombuffer(bytearray(text), dtype=torch.uint8) for kind, text in data.items()}
    image = Image.open(io.BytesIO(data["JPEG"])).convert("RGB")
    small = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    works: dict[str, Work] = {
        "JPEG by Pillow": lambda: Image.open(io.BytesIO(data["JPEG"])).load(),
        "JPEG by torchvision": lambda: decode_jpeg(tensors["JPEG"], mode=ImageReadMode.RGB),
        "PNG by Pillow": lambda: Image.open(io.BytesIO(data["PNG"])).load(),
        "PNG by torchvision": lambda: decode_png(tensors["PNG"], mode=ImageReadMode.RGB),
        "resizing": lambda: image.resize((resolution, resolution), Image.Resampling.LANCZOS),
        "PNG written, level 6": lambda: small.save(io.BytesIO(), "PNG"),
        f"PNG written, level {LEVEL}": lambda: small.save(io.BytesIO(), "PNG", compress_level=LEVEL),
    }
    times = take_turns(works, rounds=30)
    return {name: round(1000 * times.processor_seconds(name), 2) for name in works}


def main(
    sizes: Annotated[str, typer.Option(help="Sides of images, and of what is made.")] = "256:64,512:256",
    kinds: Annotated[str, typer.Option(help="JPEG, PNG or both.")] = "JPEG",
    count: Annotated[int, typer.Option(help="Images of 512 px, and the more of smaller ones.")] = 1000,
    rounds: int = 3,
    output: Path = Path("benchmarks/results/prepare.json"),
) -> None:
    """Measure each size and kind."""
    from results_io import facts, write

    rows: list[dict[str, Any]] = []
    costs: list[dict[str, Any]] = []
    described = facts(figures=rows, steps=costs)
    for size in sizes.split(","):
        side, resolution = map(int, size.split(":"))
        costs.append({"side": side, "resolution": resolution, "milliseconds": run_in_process(steps, side, resolution)})
        print(f"{side} px to {resolution}, ms an image: {costs[-1]['milliseconds']}", flush=True)
        for kind in kinds.split(","):
            row = speeds(side, resolution, kind, round(count * 512 / side), rounds)
            rows.append(row)
            write(output, described)
            print(
                f"{kind} of {side} px to {resolution}, images a second: plain loop {row['baseline']:.0f}, "
                f"one core {row['one core']:.0f}, {row['cores']} cores {row['all cores']:.0f} "
                f"({row['of_cores']:.2f} of cores x one, {row['to_baseline']:.1f} x the loop), processes apart "
                f"{row['independent, all']:.0f} ({row['machine_of_cores']:.2f} of cores x one); "
                f"{row['start_seconds']:.1f} s until the first image; {row['mib']['all cores']:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
