"""How near photos come, with and without tuning: python benchmarks/inversion.py MODEL [ARCHIVE...]

The images: some of each archive's; without one some bundled images, and "photographs" made here by formula (a sky
over hills, grain on a lit sphere), since a reader can make them again. Each is inverted as `polyinr invert` does by
default, with the available loss, and then tuned by itself (--tune-steps 0: not). Seconds are those of the process, so
that a busy machine changes little. Prints a table and writes it as JSON below benchmarks/results/. What a step takes:
benchmarks/inversion_step.py.
"""

import time
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from results_io import facts, write

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.delta import apply_delta, save_delta
from polyinr_core.checkpoints.locate import load_model_file
from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.inversion.encoder import default_encoder
from polyinr_core.inversion.invert import InversionResult, invert, render_with
from polyinr_core.inversion.loss import TargetImage, load_loss, load_target
from polyinr_core.inversion.pivotal_tuning import locality_psnr, tune
from polyinr_core.runtime.atomic_io import sha256_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def hills(side: int) -> np.ndarray:
    """Return a sky that darkens upwards over three ridges, uint8 [side, side, 3]."""
    y, x = np.mgrid[0:side, 0:side] / max(1, side - 1)
    image = np.stack([120 + 100 * y, 150 + 70 * y, 235 - 20 * y], axis=-1)
    for number, color in enumerate([(110, 130, 160), (70, 110, 90), (35, 70, 40)]):
        ridge = 0.45 + 0.17 * number + 0.06 * np.sin(x * (7 + 4 * number) + 2 * number) + 0.02 * np.sin(31 * x)
        image[y > ridge] = color
    return image.clip(0, 255).astype(np.uint8)


def sphere(side: int) -> np.ndarray:
    """Return a lit sphere on a table, with the grain of a sensor, uint8 [side, side, 3]."""
    y, x = np.mgrid[0:side, 0:side] / max(1, side - 1) * 2 - 1
    image = np.where(y[..., None] > 0.35, [150.0, 110.0, 70.0], [200.0, 205.0, 210.0])
    inside = x**2 + y**2 < 0.36
    light = (-0.5 * x - 0.6 * y + np.sqrt(np.maximum(0, 0.36 - x**2 - y**2))).clip(0, None)
    image[inside] = (light[..., None] * [330, 120, 100] + [30, 10, 10])[inside]
    grain = np.random.default_rng(0).normal(0, 6, image.shape)
    return (image + grain).clip(0, 255).astype(np.uint8)


def photographs(archive: Path, count: int, side: int) -> list[TargetImage]:
    """Return images of a zip file, evenly spread over it, `side` pixels along the shorter side."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith(SUFFIXES))
        taken = names[:: max(1, len(names) // count)][:count]
        images = [file.read(name) for name in taken]
    return [
        load_target(data, name=f"{archive.stem} {Path(name).parent}/{Path(name).stem}", shorter_side=side)
        for data, name in zip(images, taken, strict=True)
    ]


def main(
    model: str,
    archives: Annotated[list[Path] | None, typer.Argument()] = None,
    images: int = 2,
    side: Annotated[int, typer.Option(help="Pixels along the shorter side. 0: the model's resolution.")] = 0,
    steps: int = 300,
    tune_steps: int = 200,
    mean: Annotated[bool, typer.Option("--mean", help="Start at the mean image, not at what an encoder says.")] = False,
    output: Path = Path("benchmarks/results/inversion.json"),
) -> None:
    """Invert and tune."""
    checkpoint, _ = load_model_file(model)
    side = side or checkpoint.resolution
    generator = checkpoint.generator
    loss = load_loss("auto")
    rows = []
    photos = [photo for archive in archives or [bundled_dataset()] for photo in photographs(archive, images, side)]
    if not archives:
        made = {"hills (made)": hills(side), "sphere (made)": sphere(side)}
        photos += [TargetImage(name, pixels, side, side) for name, pixels in made.items()]
    for target in photos:
        start = time.process_time()
        before = invert(checkpoint, target, loss=loss, steps=steps, encoder=None if mean else "auto")
        row = {
            "image": target.name,
            "photo": [target.width, target.height],
            "found": before.scores(),
            "steps": before.steps,
            "cpu_seconds": round(time.process_time() - start, 1),
        }
        if tune_steps:
            row |= tuned(checkpoint, before, tune_steps, output.with_name("inversion.delta.safetensors"))
        rows.append(row)
        print(f"{target.name:32} found {before}; {row}", flush=True)
    described = facts(
        model={"sha256": checkpoint.sha256, "kimg": checkpoint.kimg, "px": checkpoint.resolution},
        channels=generator.config.channels,
        levels=generator.config.levels,
        archives=[{"file": archive.name, "sha256": sha256_of(archive)} for archive in archives or [bundled_dataset()]],
        loss=loss.name,
        start="mean" if mean or default_encoder(checkpoint) is None else "encoder",
        side=side,
        figures=rows,
    )
    write(output, described)


def tuned(checkpoint: Checkpoint, before: InversionResult, steps: int, file: Path) -> dict[str, Any]:
    """Return what tuning the model to a result gives: scores, CPU seconds, other images, and the size of the delta."""
    start = time.process_time()
    delta = tune(checkpoint, [before], steps=steps)
    seconds = time.process_time() - start
    delta = save_delta(file, delta, overwrite=True)
    size = file.stat().st_size
    file.unlink()
    after = apply_delta(checkpoint, delta, source=file).generator
    return {
        "tuned": render_with(before, after.synthesis).scores(),
        "tuning_cpu_seconds": round(seconds, 1),
        "others_psnr": round(locality_psnr(checkpoint.generator, after, seed=1), 1),
        "delta_bytes": size,
    }


if __name__ == "__main__":
    typer.run(main)
