"""One photo matched, whole: canvas, starts, search, and what came of it."""

from dataclasses import dataclass

from ..model import UNIT, Bounds
from ..pictures.sheet import Pixels
from ..snapshots.snapshot import Snapshot
from .canvas import canvas_for
from .objective import Objective
from .optimise import Found, Report, search
from .photo import Photo
from .score import Score, score
from .start import Space, charts
from .tuning import Match


@dataclass(frozen=True)
class PhotoMatch:
    """What matches a photo: where it was found, how near it is, its pixels [H, W, 3] as of a file."""

    match: Match
    found: Found
    score: Score
    drawn: Pixels


def match_photo(
    photo: Photo,
    snapshot: Snapshot,
    objective: Objective,
    *,
    space: Space = "affine",
    window: Bounds = UNIT,
    steps: int,
    restarts: int = 1,
    seed: int = 0,
    label: int | None = None,
    memory: int | None = None,
    report: Report | None = None,
) -> PhotoMatch:
    """Search for a photo's latents, on the device that the generator and the objective's network are on.

    `memory` is what there is in bytes, None for as much as it takes. Raises PolyinrError.
    """
    generator, like = snapshot.generator, snapshot.generator.mapping.w_avg
    height, width = photo.pixels.shape[:2]
    grid = snapshot.grid(width, height, bounds=window)
    canvas = canvas_for(generator.config, width=width, height=height, like=like, grid=grid, memory=memory)
    colours = photo.target(like)
    aim = objective.aim(colours)
    starts = charts(generator, space, colours, restarts=restarts, seed=seed, label=label, bounds=window)
    found = search(starts, canvas, aim, steps=steps, report=report)
    affine = found.latents.affine
    assert affine is not None
    value, drawn = score(generator.synthesis, affine, photo, canvas, aim)
    return PhotoMatch(Match(affine, canvas, aim), found, value, drawn)
