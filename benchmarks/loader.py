"""Time the feed of training pictures: python benchmarks/loader.py

Prints pictures a second that a stream gives to somebody who does nothing else with them, for archives and shards,
kept in memory or read anew each time by this process and by workers; and what one core reads in a second of its
own time, which other programs on the machine change little. Writes them as JSON below benchmarks/results/.

The sets are made for it: the bundled pictures enlarged, with the grain of a photograph, as PNG and as JPEG. Their
files have just been written, so what is measured is decoding, not a disk.
"""

import io
import json
import os
import platform
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

from polyinr_core.data.archive import Archive
from polyinr_core.data.bundled import bundled_pictures
from polyinr_core.data.feed import Feed
from polyinr_core.data.picture_set import PictureSet, open_data

BATCH = 32
WARM_UP = 8  # batches
GRAIN = 3.0  # standard deviation, of 255
WAYS = {"in memory": {}, **{f"{n} workers": {"workers": n, "cache_bytes": 0} for n in (0, 1, 2)}}


def pictures(side: int, count: int, kind: str) -> Iterator[bytes]:
    """Yield picture files of that side."""
    rng = np.random.default_rng(0)
    with Archive.open(bundled_pictures()) as bundled:
        for index in range(count):
            image = Image.fromarray(bundled.read(index % len(bundled))).resize(
                (side, side), Image.Resampling.BICUBIC
            )
            noisy = np.asarray(image) + rng.normal(0, GRAIN, (side, side, 1))
            file = io.BytesIO()
            image = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
            image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
            yield file.getvalue()


def make_sets(folder: Path, side: int, count: int) -> dict[str, PictureSet]:
    """Write the pictures as an archive of PNGs, and as shards of PNGs and of JPEGs, and open them."""
    with zipfile.ZipFile(folder / "set.zip", "w") as zipped:
        for index, data in enumerate(pictures(side, count, "PNG")):
            zipped.writestr(f"{index:06d}.png", data)
    sets: dict[str, PictureSet] = {"archive, PNG": Archive.open(folder / "set.zip")}
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg")):
        below = folder / suffix
        below.mkdir()
        for index, data in enumerate(pictures(side, count, kind)):
            with tarfile.open(below / f"{index * 8 // count}.tar", "a") as tar:
                entry = tarfile.TarInfo(f"{index:06d}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
        sets[f"shards, {kind}"] = open_data(below)
    return sets


def speeds(data: PictureSet, resolution: int, seconds: float, how: dict[str, Any]) -> tuple[float, float]:
    """Return pictures a second, and a second of this process's work; in memory after a first epoch."""
    feed = Feed(data, resolution=resolution, seed=0, **how)
    if feed.memory:
        feed.batch(0, len(data))
    with closing(feed.stream(0, batch=BATCH, micro_batch=BATCH)) as stream:
        for _ in range(WARM_UP):
            next(stream)
        start, work, batches = time.perf_counter(), time.process_time(), 0
        while (passed := time.perf_counter() - start) < seconds:
            next(stream)
            batches += 1
        return batches * BATCH / passed, batches * BATCH / (time.process_time() - work)


def fastest_step(file: Path) -> float | None:
    """Return the most pictures a second that the training benchmark found, None if it has not been run."""

    def found(facts: Any) -> Iterator[float]:
        for name, value in facts.items() if isinstance(facts, dict) else enumerate(facts):
            if isinstance(value, dict | list):
                yield from found(value)
            elif name == "pictures_per_second":
                yield value

    return max(found(json.loads(file.read_text())), default=None) if file.is_file() else None


def main(
    sides: str = "32,128,256",
    count: int = 512,
    seconds: float = 4.0,
    need: Annotated[
        float | None, typer.Option(help="Pictures a second; else as benchmarks/training.py found.")
    ] = None,
    output: Path = Path("benchmarks/results/loader.json"),
) -> None:
    """Measure sets of each side, and the largest one averaged down to the smallest."""
    sizes = [int(side) for side in sides.split(",")]
    need = need or fastest_step(output.with_name("training.json"))
    rows: list[dict[str, Any]] = []
    facts = {
        "command": f"python benchmarks/loader.py --sides {sides} --count {count} --seconds {seconds:g}",
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # of all programs, at the start
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "need": need,
        "figures": rows,
    }
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
                    output.write_text(json.dumps(facts, indent=2) + "\n")
                    print(f"{name} of {side} px at {resolution} px: {shown}", flush=True)
    if need:
        least = min(row[way] for row in rows for way in WAYS)
        print(f"a training step needs {need:.1f} pictures a second, the slowest way here gives {least:.1f}")


if __name__ == "__main__":
    typer.run(main)
