"""What a run leaves to look at: snapshots, sheets of pictures drawn and of the data, the film strip."""

import numpy as np

from ..data.feed import Feed
from ..data.picture_set import PictureSet
from ..pictures.files import write_picture
from ..pictures.pixels import Pixels, quantise, to_uint8
from ..pictures.sheet import sheet
from ..snapshots.snapshot import Snapshot, save_snapshot
from .config import TrainingConfig
from .drawing import draw_seeds
from .film_strip import film_strip
from .folder import RunFolder
from .session import Session
from .stages import format_stages

COLUMNS, ROWS = 8, 4


def snapshot_of(session: Session, config: TrainingConfig, data: PictureSet) -> Snapshot:
    """Return the averaged generator as it is kept."""
    ema = session.averaged
    return Snapshot(
        generator=ema,
        class_names=data.class_names if ema.config.classes else (),
        resolution=config.stages[session.stage].resolution,
        kimg=session.seen / 1000,
        data_sha256=data.sha256,
        origin={"data": data.path.name, "stages": format_stages(config.stages), "seed": config.seed},
    )


def save_record(folder: RunFolder, snapshot: Snapshot, *, seen: int) -> Pixels:
    """Write a snapshot, and its pictures of seeds 0 to 31 as a sheet; return them [32, r, r, 3].

    The film strip is made anew. Raises FileError.
    """
    save_snapshot(folder.snapshot(seen), snapshot, overwrite=True)
    drawn = draw_seeds(snapshot.generator, range(COLUMNS * ROWS), resolution=snapshot.resolution)
    pixels = np.concatenate([to_uint8(part) for part in drawn])
    write_picture(folder.picture(f"fakes-{seen:09d}"), sheet(pixels, COLUMNS), overwrite=True)
    save_film_strip(folder)
    return pixels


def save_film_strip(folder: RunFolder) -> None:
    """Write the film strip anew from the sheets of samples that are there. Raises FileError."""
    sheets = folder.pictures.glob("fakes-*.png")
    by_age = sorted(sheets, key=lambda path: (len(path.name), path.name))
    strip = film_strip(by_age, columns=COLUMNS, rows=ROWS)
    if strip is not None:
        write_picture(folder.picture("progress"), strip, overwrite=True)


def first_reals(feed: Feed) -> Pixels:
    """Return the first pictures of a stage, [32, r, r, 3]."""
    pictures, _ = feed.batch(0, COLUMNS * ROWS)
    return quantise(pictures).permute(0, 2, 3, 1).cpu().numpy()


def save_reals(folder: RunFolder, pixels: Pixels) -> None:
    """Write pictures that the run learns from as a sheet. Raises FileError."""
    write_picture(folder.picture("reals"), sheet(pixels, COLUMNS), overwrite=True)
