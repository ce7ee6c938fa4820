"""What a run leaves to look at: snapshots, sheets of pictures drawn and of the data, the film strip."""

from collections.abc import Sequence

import numpy as np
import torch

from ..data.archive import Archive
from ..data.feed import Feed
from ..latents.seeds import draw_labels, draw_z
from ..model import Generator, RegularGrid
from ..pictures.files import write_picture
from ..pictures.pixels import Pixels, to_uint8
from ..pictures.sheet import sheet
from ..snapshots.snapshot import Snapshot, save_snapshot
from .config import TrainingConfig
from .film_strip import film_strip
from .folder import RunFolder
from .session import Session
from .stages import format_stages

COLUMNS, ROWS = 8, 4
PIXELS_AT_ONCE = 2**14


def save_record(folder: RunFolder, session: Session, config: TrainingConfig, archive: Archive) -> Pixels:
    """Write the averaged generator as a snapshot and the pictures of seeds 0 to 31 as a sheet; return them.

    The film strip is made anew. Raises FileError.
    """
    ema = session.networks.ema
    resolution = config.stages[session.stage].resolution
    snapshot = Snapshot(
        generator=ema,
        class_names=archive.class_names if ema.config.classes else (),
        resolution=resolution,
        kimg=session.seen / 1000,
        data_sha256=archive.sha256,
        origin={"data": archive.path.name, "stages": format_stages(config.stages), "seed": config.seed},
    )
    save_snapshot(folder.snapshot(session.seen), snapshot, overwrite=True)
    pixels = draw_seeds(ema, range(COLUMNS * ROWS), resolution=resolution)
    write_picture(folder.picture(f"fakes-{session.seen:09d}"), sheet(pixels, COLUMNS), overwrite=True)
    save_film_strip(folder)
    return pixels


def save_film_strip(folder: RunFolder) -> None:
    """Write the film strip anew from the sheets of samples that are there. Raises FileError."""
    sheets = (folder.path / "pictures").glob("fakes-*.png")
    by_age = sorted(sheets, key=lambda path: (len(path.name), path.name))
    strip = film_strip(by_age, columns=COLUMNS, rows=ROWS)
    if strip is not None:
        write_picture(folder.picture("progress"), strip, overwrite=True)


def save_reals(folder: RunFolder, feed: Feed) -> Pixels:
    """Write the first pictures that the run learns from as a sheet and return them. Raises FileError."""
    pictures, _ = feed.batch(0, COLUMNS * ROWS)
    pixels = to_uint8(pictures.permute(0, 2, 3, 1))
    write_picture(folder.picture("reals"), sheet(pixels, COLUMNS), overwrite=True)
    return pixels


@torch.no_grad()
def draw_seeds(generator: Generator, seeds: Sequence[int], *, resolution: int) -> Pixels:
    """Draw pictures by seed, uint8 [N, r, r, 3], on the generator's device."""
    device = generator.mapping.w_avg.device
    grid = RegularGrid(resolution, resolution)
    points = grid.points(0, resolution**2, dtype=torch.float32, device=device)
    classes = generator.config.classes
    pictures = []
    at_once = max(1, PIXELS_AT_ONCE // resolution**2)
    for start in range(0, len(seeds), at_once):
        part = seeds[start : start + at_once]
        z = draw_z(part, generator.config.z_dim).to(device)
        label = draw_labels(part, classes).to(device) if classes else None
        pictures.append(to_uint8(generator(z, points, label)))
    return np.concatenate(pictures).reshape(-1, resolution, resolution, 3)
