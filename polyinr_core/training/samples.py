"""Samples of a run: images by seed, grids of samples beside each checkpoint, and the film strip of all grids."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint, save_checkpoint
from polyinr_core.data.dataset import ImageDataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.images.grid import GAP, Pixels, make_grid, quantize, to_uint8
from polyinr_core.images.io import write_image
from polyinr_core.latents.latents import UNIFORM, LabelDistribution, draw_z
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.rendering.backends import select_backend
from polyinr_core.rendering.render import pixels_per_batch

from .config import TrainingConfig, format_stages
from .run_dir import RunFolder
from .state import TrainingState

COLUMNS, ROWS = 8, 4  # of a grid of samples
MAX_ROWS = 64  # of the film strip
MAX_TILE = 128  # pixels of an image in the film strip


@torch.no_grad()
def render_seeds(
    generator: Generator, seeds: Sequence[int], *, resolution: int, labels: LabelDistribution = UNIFORM
) -> Iterator[Tensor]:
    """Yield the images of the seeds in order, some at a time: [n, r, r, 3], about [-1, 1].

    A seed also draws the class of its image, from `labels`. Device and dtype are the generator's.
    """
    device, dtype = generator.mapping.w_avg.device, generator.mapping.w_avg.dtype
    coordinates = RegularGrid(resolution, resolution).coordinates(dtype=dtype, device=device)
    classes = generator.config.classes
    backend = select_backend(generator.synthesis, device)
    batch = max(1, pixels_per_batch(device) // resolution**2)
    for start in range(0, len(seeds), batch):
        chunk = seeds[start : start + batch]
        z = draw_z(chunk, generator.config.z_dim).to(device, dtype)
        label = labels.draw(chunk, classes).to(device) if classes else None
        yield backend(generator.affine_each(generator.w_each(z, label)), coordinates).unflatten(
            1, (resolution, resolution)
        )


def film_strip(sheets: list[Path], *, columns: int, rows: int) -> Pixels | None:
    """Return the first rows of grids of columns x rows images, one below the other; None without a grid.

    All images get one size, that of the largest, at most `MAX_TILE`: reduced by area, enlarged by repeating pixels.
    Of more than `MAX_ROWS` grids as many are chosen evenly, the first and the last among them. Files that are no such
    grid are left out. One grid at a time is in memory.
    """
    sizes = {path: size for path in sheets if (size := tile_size(path, columns=columns, rows=rows))}
    if not sizes:
        return None
    paths = thin(list(sizes), MAX_ROWS)
    tile = min(max(sizes[path] for path in paths), MAX_TILE)
    strips = [strip for path in paths if (strip := first_row(path, columns, size=sizes[path], tile=tile))]
    return make_grid(np.concatenate(strips), columns) if strips else None


def tile_size(path: Path, *, columns: int, rows: int) -> int | None:
    """Return the width of the images of a grid, None if the file is no such grid. Decodes nothing."""
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    size = (width - (columns - 1) * GAP) // columns
    expected = (columns * size + (columns - 1) * GAP, rows * size + (rows - 1) * GAP)
    return size if size > 0 and (width, height) == expected else None


def thin(paths: list[Path], limit: int) -> list[Path]:
    """Return at most `limit` of the paths, spread evenly from the first to the last."""
    if len(paths) <= limit:
        return paths
    return [paths[round(i * (len(paths) - 1) / (limit - 1))] for i in range(limit)]


def first_row(path: Path, columns: int, *, size: int, tile: int) -> list[Pixels]:
    """Return the first row of a grid, [tile, tile, 3] each; nothing if the file is damaged."""
    try:
        with Image.open(path) as image:
            row = image.crop((0, 0, columns * (size + GAP) - GAP, size)).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return []
    method = Image.Resampling.BOX if tile < size else Image.Resampling.NEAREST
    images = [row.crop((left, 0, left + size, size)) for left in range(0, row.width, size + GAP)]
    return [np.asarray(image.resize((tile, tile), method)) for image in images]


def make_checkpoint(state: TrainingState, config: TrainingConfig, data: ImageDataset) -> Checkpoint:
    """Return the averaged generator as a checkpoint."""
    ema = state.ema_float32
    return Checkpoint(
        generator=ema,
        class_names=data.class_names if ema.config.classes else (),
        resolution=config.stages[state.stage].resolution,
        kimg=state.total_images / 1000,
        data_sha256=data.sha256,
        origin={"data": data.path.name, "stages": format_stages(config.stages), "seed": config.seed},
    )


def save_checkpoint_and_samples(folder: RunFolder, checkpoint: Checkpoint, *, images: int) -> Pixels:
    """Save a checkpoint, a grid of its images of seeds 0 to 31, and the film strip. Return the images [32, r, r, 3].

    Raises FileError.
    """
    save_checkpoint(folder.checkpoint(images), checkpoint, overwrite=True)
    batches = render_seeds(checkpoint.generator, range(COLUMNS * ROWS), resolution=checkpoint.resolution)
    pixels = np.concatenate([to_uint8(part) for part in batches])
    write_image(folder.sample(f"fakes-{images:09d}"), make_grid(pixels, COLUMNS), overwrite=True)
    save_film_strip(folder)
    return pixels


def save_film_strip(folder: RunFolder) -> None:
    """Write the film strip of the grids that are there. Raises FileError."""
    sheets = folder.samples.glob("fakes-*.png")
    by_age = sorted(sheets, key=lambda path: (len(path.name), path.name))
    strip = film_strip(by_age, columns=COLUMNS, rows=ROWS)
    if strip is not None:
        write_image(folder.sample("progress"), strip, overwrite=True)


def first_reals(loader: TrainLoader) -> Pixels:
    """Return the first images that a stage trains on, [32, r, r, 3]."""
    images, _ = loader.batch(0, COLUMNS * ROWS)
    return quantize(images).permute(0, 2, 3, 1).cpu().numpy()


def save_reals(folder: RunFolder, pixels: Pixels) -> None:
    """Save a grid of images of the dataset. Raises FileError."""
    write_image(folder.sample("reals"), make_grid(pixels, COLUMNS), overwrite=True)
