"""What `polyinr invert` does with each photo, and shows of it: a bar with the PSNR, figures, a sheet."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console as streams

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.images.grid import Pixels
    from polyinr_core.inversion.invert import Found, Report
    from polyinr_core.inversion.invert import Space as SpaceName
    from polyinr_core.inversion.loss import Objective, Score
    from polyinr_core.inversion.pivotal_tuning import Match
    from polyinr_core.inversion.target import Photo
    from polyinr_core.models.coordinates import Bounds


@dataclass(frozen=True)
class Tuning:
    """How the model is tuned: the rank of each level's change, and the steps."""

    rank: int
    steps: int


@dataclass
class Matched:
    """One photo on its way: what was found, how good it is, and after tuning."""

    photo: "Photo"
    match: "Match"
    found: "Found"
    seconds: float
    score: "Score"
    pixels: "list[Pixels]"  # the photo's, what was found, what was tuned
    tuned: "Score | None" = None


@contextmanager
def psnr_bar(description: str, *, quiet: bool) -> Iterator["Report"]:
    """Yield a callback (done, total, PSNR) that moves a bar on stderr; a silent one if that is no terminal."""
    with streams.noted_progress(description, quiet=quiet) as move:
        yield lambda done, total, psnr: move(done, total, f"PSNR {psnr:.1f} dB")


def write_sheet(path: Path, rows: Sequence[Sequence["Pixels"]], *, overwrite: bool) -> None:
    """Write a sheet with a row a photo: the photo, what was found, what was tuned. Raises FileError."""
    import numpy as np

    from polyinr_core.images.grid import blank, make_grid
    from polyinr_core.images.io import write_image

    images = [image for row in rows for image in row]
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    cells = np.stack([blank((width, height))] * len(images))
    for cell, image in zip(cells, images, strict=True):
        cell[: image.shape[0], : image.shape[1]] = image
    write_image(path, make_grid(cells, columns=len(rows[0])), overwrite=overwrite)


def say_changes(photo: "Photo", *, quiet: bool) -> None:
    """Say what of a photo is matched, if it is not all of it as it is."""
    height, width = photo.pixels.shape[:2]
    if photo.frames > 1:
        streams.say(f"{photo.name}: {photo.frames} frames, the first is taken", quiet=quiet, always=True)
    if photo.resized:
        changed = f"{photo.name}: {photo.width}x{photo.height}, matched at {width}x{height}"
        streams.say(changed, quiet=quiet, always=True)


def matched_photo(
    photo: "Photo",
    checkpoint: "Checkpoint",
    objective: "Objective",
    *,
    space: "SpaceName",
    window: "Bounds",
    steps: int,
    restarts: int,
    seed: int,
    label: int | None,
    memory: int | None,
    quiet: bool,
) -> Matched:
    """Search for one photo's latents, and say how near they come. Raises PolyinrError."""
    from polyinr_core.inversion.invert import match_photo

    began = time.monotonic()
    with psnr_bar(photo.name, quiet=quiet) as report:
        one = match_photo(
            photo,
            checkpoint,
            objective,
            space=space,
            window=window,
            steps=steps,
            restarts=restarts,
            seed=seed,
            label=label,
            memory=memory,
            report=report,
        )
    seconds = time.monotonic() - began
    streams.say(f"{photo.name}: {one.score}; {one.found.steps} steps in {seconds:.1f} s", quiet=quiet, always=True)
    return Matched(photo, one.match, one.found, seconds, one.score, [photo.pixels, one.drawn])


def tune_around(
    matched: Sequence[Matched],
    checkpoint: "Checkpoint",
    path: Path,
    tuning: Tuning,
    *,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> tuple[str, dict[str, Any]]:
    """Tune the model, write the delta, score the photos anew; return the tuned model's hash and the facts.

    Raises PolyinrError.
    """
    from polyinr_core.checkpoints.delta import apply_delta, save_delta
    from polyinr_core.inversion.loss import score
    from polyinr_core.inversion.pivotal_tuning import drift, tune

    began = time.monotonic()
    photos = [Path(one.photo.name).name for one in matched]
    with psnr_bar("tuning", quiet=quiet) as report:
        delta = tune(
            checkpoint.generator,
            [one.match for one in matched],
            model_sha256=checkpoint.sha256,
            rank=tuning.rank,
            steps=tuning.steps,
            seed=seed,
            origin={"photos": photos, "steps": tuning.steps, "seed": seed},
            report=report,
        )
    delta = save_delta(path, delta, overwrite=overwrite)
    tuned = apply_delta(checkpoint, delta, source=path)
    for one in matched:
        one.tuned, drawn = score(
            tuned.generator.synthesis, one.match.affine, one.photo, one.match.canvas, one.match.aim
        )
        one.pixels.append(drawn)
        streams.say(f"{one.photo.name}, tuned: {one.tuned}", quiet=quiet, always=True)
    others = drift(checkpoint.generator, tuned.generator, seed=seed)
    seconds = time.monotonic() - began
    kib = path.stat().st_size / 1024
    streams.say(
        f"{path}: rank {tuning.rank}, {kib:,.0f} KiB, {tuning.steps} steps in {seconds:.1f} s; random images "
        f"before and after: PSNR {others:.1f} dB",
        quiet=quiet,
        always=True,
    )
    return tuned.sha256, {
        "model": tuned.sha256,
        "model_before": checkpoint.sha256,
        "rank": tuning.rank,
        "steps": tuning.steps,
        "seconds": round(seconds, 3),
        "others_psnr": others,
    }


def facts_of(row: int, one: Matched) -> dict[str, Any]:
    """Return what --json says of a photo, row `row` of the latents."""
    height, width = one.photo.pixels.shape[:2]
    facts: dict[str, Any] = {
        "photo": one.photo.name,
        "index": row,
        "size": [width, height],
        "photo_size": [one.photo.width, one.photo.height],
        "start": one.found.start,
        "steps": one.found.steps,
        "seconds": round(one.seconds, 3),
        **one.score.facts(),
    }
    if one.found.latents.label is not None:
        facts["label"] = int(one.found.latents.label[0])
    if one.tuned is not None:
        facts["tuned"] = one.tuned.facts()
    return facts
