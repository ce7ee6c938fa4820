"""How near photos come, with and without tuning: python benchmarks/inversion.py MODEL [ARCHIVE]

The images: some of the archive's, by default the bundled ones, and "photographs" made here by formula (a sky
over hills, grain on a lit sphere), since a reader can make them again. Each is inverted from its mean start by
the available loss and then tuned by itself. Prints a table and writes it as JSON below benchmarks/results/.
What a step takes: benchmarks/inversion_step.py.
"""

import io
import time
import zipfile
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from results_io import facts, write

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.checkpoints.delta import apply_delta, save_delta
from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.inversion.invert import invert, render_with
from polyinr_core.inversion.loss import TargetImage, load_loss
from polyinr_core.inversion.pivotal_tuning import locality_psnr, tune
from polyinr_core.runtime.atomic_io import sha256_of


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


def archived(archive: Path, count: int, side: int) -> list[tuple[str, np.ndarray]]:
    """Return images of an archive, evenly spread over it."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".png"))
        taken = names[:: max(1, len(names) // count)][:count]
        images = [Image.open(io.BytesIO(file.read(name))).convert("RGB").resize((side, side)) for name in taken]
    return [(f"{archive.stem} {Path(name).stem}", np.array(image)) for name, image in zip(taken, images, strict=True)]


def main(
    model: Path,
    archive: Annotated[Path, typer.Argument()] = bundled_dataset(),  # noqa: B008 - a path, made once
    images: int = 2,
    side: int = 32,
    steps: int = 400,
    tune_steps: int = 200,
    output: Path = Path("benchmarks/results/inversion.json"),
) -> None:
    """Invert and tune."""
    checkpoint = load_checkpoint(model)
    generator = checkpoint.generator
    loss = load_loss("auto")
    rows = []
    photos = [*archived(archive, images, side), ("hills (made)", hills(side)), ("sphere (made)", sphere(side))]
    for name, pixels in photos:
        height, width = pixels.shape[:2]
        before = invert(checkpoint, TargetImage(name, pixels, width, height), loss=loss, steps=steps)
        start = time.perf_counter()
        delta = tune(checkpoint, [before], steps=tune_steps)
        tuning = time.perf_counter() - start
        file = output.with_name("inversion.delta.safetensors")
        delta = save_delta(file, delta, overwrite=True)
        size = file.stat().st_size
        file.unlink()
        tuned = apply_delta(checkpoint, delta, source=file).generator
        after = render_with(before, tuned.synthesis)
        others = locality_psnr(generator, tuned, seed=1)
        rows.append(
            {
                "image": name,
                "found": before.scores(),
                "steps": before.steps,
                "seconds": round(before.seconds, 1),
                "tuned": after.scores(),
                "tuning_seconds": round(tuning, 1),
                "others_psnr": round(others, 1),
                "delta_bytes": size,
            }
        )
        print(f"{name:32} found {before}; tuned {after}; others {others:.1f} dB", flush=True)
    described = facts(
        model={"sha256": checkpoint.sha256, "kimg": checkpoint.kimg, "px": checkpoint.resolution},
        channels=generator.config.channels,
        levels=generator.config.levels,
        archive={"file": archive.name, "sha256": sha256_of(archive)},
        loss=loss.name,
        side=side,
        figures=rows,
    )
    write(output, described)


if __name__ == "__main__":
    typer.run(main)
