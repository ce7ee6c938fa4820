"""Time the feed of training images: python benchmarks/loader.py

Prints images a second that a stream gives to somebody who does nothing else with them, for archives and shards,
kept in memory or read anew each time by this process and by workers; and what one core reads in a second of its
own time, which other programs on the machine change little. Writes them as JSON below benchmarks/results/.

The sets are made for it: the bundled images enlarged, with the grain of a photograph, as PNG and as JPEG. Their
files have just been written, so what is measured is decoding, not a disk.
"""

import io
import json
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from noisy_images import images, write_archive
from results_io import facts, processor, write

from polyinr_core.data.dataset import ImageDataset, open_dataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.data.zip_dataset import ZipDataset

BATCH = 32
WARM_UP = 8  # batches
ENOUGH = 3  # times what training takes
WAYS = {"in memory": {}, **{f"{n} workers": {"workers": n, "cache_bytes": 0} for n in (0, 1, 2)}}


def make_sets(folder: Path, side: int, count: int) -> dict[str, ImageDataset]:
    """Write the images as an archive of PNGs, and as shards of PNGs and of JPEGs, and open them."""
    archive = write_archive(folder / "set.zip", side, count)
    sets: dict[str, ImageDataset] = {"archive, PNG": ZipDataset.open(archive)}
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg")):
        below = folder / suffix
        below.mkdir()
        for index, data in enumerate(images(side, count, kind)):
            with tarfile.open(below / f"{index * 8 // count}.tar", "a") as tar:
                entry = tarfile.TarInfo(f"{index:06d}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        sets[f"shards, {kind}"] = open_dataset(below)
    return sets


def speeds(data: ImageDataset, resolution: int, seconds: float, how: dict[str, Any]) -> tuple[float, float]:
    """Return images a second, and a second of this process's work; in memory after a first epoch."""
    feed = TrainLoader(data, resolution=resolution, seed=0, **how)
    if feed.cache:
        feed.batch(0, len(data))
    with closing(feed.batches(0, batch=BATCH, micro_batch=BATCH)) as stream:
        for _ in range(WARM_UP):
            next(stream)
        start, work, batches = time.perf_counter(), time.process_time(), 0
        while (passed := time.perf_counter() - start) < seconds:
            next(stream)
            batches += 1
        return batches * BATCH / passed, batches * BATCH / (time.process_time() - work)


def training_pace(file: Path) -> float | None:
    """Return the images a second that benchmarks/training.py found, None if it did not run here."""
    found = json.loads(file.read_text()) if file.is_file() else {}
    return found["figures"]["ours"]["images_a_second"] if found.get("machine") == processor() else None


def main(
    sides: str = "32,128,256",
    count: int = 512,
    seconds: float = 4.0,
    need: Annotated[float | None, typer.Option(help="Images a second; else as benchmarks/training.py found.")] = None,
    output: Path = Path("benchmarks/results/loader.json"),
) -> None:
    """Measure sets of each side, and the largest one averaged down to the smallest."""
    sizes = [int(side) for side in sides.split(",")]
    need = need or training_pace(output.with_name("training.json"))
    rows: list[dict[str, Any]] = []
    described = facts(need=need, enough=ENOUGH, figures=rows)
    for side in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in make_sets(Path(folder), side, count).items():
                for resolution in sorted({side, min(sizes)} if side == max(sizes) else {side}):
                    row = {"set": name, "side": side, "resolution": resolution}
                    for way, how in WAYS.items():
                        row[way], of_work = (round(v, 1) for v in speeds(data, resolution, seconds, how))
                        if way == "0 workers":
                            row["a core"] = of_work
                    rows.append(row)
                    shown = ", ".join(f"{way} {row[way]:.0f}" for way in (*WAYS, "a core"))
                    write(output, described)
                    print(f"{name} of {side} px at {resolution} px: {shown}", flush=True)
    least = min(row[way] for row in rows for way in WAYS)
    if need is None:
        print(f"the slowest gives {least:.0f}; what training takes is unknown: run benchmarks/training.py first")
        return
    word = "enough" if least >= ENOUGH * need else "NOT ENOUGH"
    print(f"training takes {need:.1f}, the slowest gives {least:.0f}: {least / need:.1f} times that, {word}")


if __name__ == "__main__":
    typer.run(main)
