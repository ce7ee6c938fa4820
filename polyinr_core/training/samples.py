"""Images by seed, several in a pass: for the sheets that a run keeps, and for what judges it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from polyinr_core.data.dataset import ImageSet
from polyinr_core.data.loader import Feed
from polyinr_core.images.grid import GAP, Pixels, make_grid
from polyinr_core.images.io import write_image
from polyinr_core.images.quantize import quantize, to_uint8
from polyinr_core.latents.latents import UNIFORM, LabelDistribution, draw_z
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import select_backend
from polyinr_core.rendering.render import pixels_per_batch

from .config import TrainingConfig, format_stages
from .run_dir import RunFolder
from .state import Session


@torch.no_grad()
def draw_seeds(
    generator: Generator, seeds: Sequence[int], *, resolution: int, labels: LabelDistribution = UNIFORM
) -> Iterator[Tensor]:
    """Yield the images of the seeds in their order, a pass at a time: [n, r, r, 3], about [-1, 1].

    A seed draws its image's class, too, by `labels`. They are on the generator's device and in its dtype.
    """
    device, dtype = generator.mapping.w_avg.device, generator.mapping.w_avg.dtype
    points = RegularGrid(resolution, resolution).points(0, resolution**2, dtype=dtype, device=device)
    classes = generator.config.classes
    drawer = select_backend(generator.synthesis, device)
    together = max(1, pixels_per_batch(device) // resolution**2)
    for start in range(0, len(seeds), together):
        part = seeds[start : start + together]
        z = draw_z(part, generator.config.z_dim).to(device, dtype)
        label = labels.draw(part, classes).to(device) if classes else None
        yield drawer(generator.affine_each(generator.w_each(z, label)), points).unflatten(1, (resolution, resolution))


MAX_ROWS = 64
LARGEST_TILE = 128  # pixels


def film_strip(sheets: list[Path], *, columns: int, rows: int) -> Pixels | None:
    """Set the first row of each sheet, columns x rows images, above each other; None if there is no sheet.

    Every image is brought to one size, that of the largest but `LARGEST_TILE` at most: reduced by area,
    enlarged by repeating pixels. Of more than `MAX_ROWS` sheets, so many are taken evenly, the first and the
    last among them. A file that is no such sheet is left out. One sheet at a time is in memory.
    """
    sides = {path: side for path in sheets if (side := side_of(path, columns=columns, rows=rows))}
    if not sides:
        return None
    paths = thinned(list(sides), MAX_ROWS)
    tile = min(max(sides[path] for path in paths), LARGEST_TILE)
    strips = [strip for path in paths if (strip := first_row(path, columns, side=sides[path], tile=tile))]
    return make_grid(np.concatenate(strips), columns) if strips else None


def side_of(path: Path, *, columns: int, rows: int) -> int | None:
    """Return the side of the images on a sheet, None if the file is no such sheet. Decodes nothing."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    side = (width - (columns - 1) * GAP) // columns
    whole = (columns * side + (columns - 1) * GAP, rows * side + (rows - 1) * GAP)
    return side if side > 0 and (width, height) == whole else None


def thinned(paths: list[Path], most: int) -> list[Path]:
    """Return at most so many of the paths, spread evenly from the first to the last."""
    if len(paths) <= most:
        return paths
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def first_row(path: Path, columns: int, *, side: int, tile: int) -> list[Pixels]:
    """Return the first images of a sheet, [tile, tile, 3] each; none if it is damaged."""
    try:
        with Image.open(path) as image:
            row = image.crop((0, 0, columns * (side + GAP) - GAP, side)).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return []
    method = Image.Resampling.BOX if tile < side else Image.Resampling.NEAREST
    images = [row.crop((left, 0, left + side, side)) for left in range(0, row.width, side + GAP)]
    return [np.asarray(image.resize((tile, tile), method)) for image in images]


COLUMNS, ROWS = 8, 4


def checkpoint_of(session: Session, config: TrainingConfig, data: ImageSet) -> Checkpoint:
    """Return the averaged generator as it is kept."""
    ema = session.averaged
    return Checkpoint(
        generator=ema,
        class_names=data.class_names if ema.config.classes else (),
        resolution=config.stages[session.stage].resolution,
        kimg=session.seen / 1000,
        data_sha256=data.sha256,
        origin={"data": data.path.name, "stages": format_stages(config.stages), "seed": config.seed},
    )


def save_record(folder: RunFolder, checkpoint: Checkpoint, *, seen: int) -> Pixels:
    """Write a checkpoint, and its images of seeds 0 to 31 as a sheet; return them [32, r, r, 3].

    The film strip is made anew. Raises FileError.
    """
    save_checkpoint(folder.checkpoint(seen), checkpoint, overwrite=True)
    drawn = draw_seeds(checkpoint.generator, range(COLUMNS * ROWS), resolution=checkpoint.resolution)
    pixels = np.concatenate([to_uint8(part) for part in drawn])
    write_image(folder.sample(f"fakes-{seen:09d}"), make_grid(pixels, COLUMNS), overwrite=True)
    save_film_strip(folder)
    return pixels


def save_film_strip(folder: RunFolder) -> None:
    """Write the film strip anew from the sheets of samples that are there. Raises FileError."""
    sheets = folder.samples.glob("fakes-*.png")
    by_age = sorted(sheets, key=lambda path: (len(path.name), path.name))
    strip = film_strip(by_age, columns=COLUMNS, rows=ROWS)
    if strip is not None:
        write_image(folder.sample("progress"), strip, overwrite=True)


def first_reals(feed: Feed) -> Pixels:
    """Return the first images of a stage, [32, r, r, 3]."""
    images, _ = feed.batch(0, COLUMNS * ROWS)
    return quantize(images).permute(0, 2, 3, 1).cpu().numpy()


def save_reals(folder: RunFolder, pixels: Pixels) -> None:
    """Write images that the run learns from as a sheet. Raises FileError."""
    write_image(folder.sample("reals"), make_grid(pixels, COLUMNS), overwrite=True)
