"""How near a model comes to pictures that it did not draw: each is inverted, and compared with its match."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..inversion.choice import WORDS
from ..inversion.objective import Objective
from ..inversion.photo import Photo
from ..inversion.photo_match import match_photo
from ..inversion.score import Score
from ..metrics.confidence import bootstrap
from ..metrics.looks import Look
from ..pictures.sheet import Pixels
from ..snapshots.snapshot import Snapshot
from .inputs import Pictures

HIGHEST = 100.0  # dB: what a picture counts that is matched to the last bit, whose PSNR is infinite


def rule_of(objective: Objective, steps: int) -> str:
    """Return what is done with each picture, in words."""
    return (
        f"affine maps by {WORDS[objective.name]}, {steps} steps and a polish from one start; means over 8-bit "
        f"pictures, (x + 1) 127.5 cut off, of PSNR (dB, at most {HIGHEST:g}), SSIM (11 x 11, sigma 1.5), LPIPS "
        "where VGG16 is at hand"
    )


def invert_pictures(
    reals: Pictures,
    snapshot: Snapshot,
    objective: Objective,
    *,
    steps: int,
    lpips: Look | None = None,
    label: int | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return for each picture its PSNR in dB, its SSIM (None below 11 pixels) and, with `lpips`, that distance.

    The generator and the networks are on one device. Raises PolyinrError.
    """
    device = snapshot.generator.mapping.w_avg.device
    found: list[dict[str, Any]] = []
    for pixels in reals.passes():
        for picture in pixels:
            own = picture.permute(1, 2, 0).contiguous().cpu().numpy()
            photo = Photo(f"picture {len(found)}", own, reals.side, reals.side)
            one = match_photo(photo, snapshot, objective, steps=steps, label=label, memory=memory)
            found.append(facts_of(one.score))
            if lpips is not None:
                ours, theirs = (colours(side, device) for side in (one.drawn, own))
                found[-1]["lpips"] = float(lpips(ours, theirs))
            if progress is not None:
                progress(len(found), len(reals))
    return found


def facts_of(score: Score) -> dict[str, Any]:
    return {"psnr": min(score.psnr, HIGHEST), "ssim": score.ssim}


def colours(pixels: Pixels, device: torch.device) -> Tensor:
    """Bring 8-bit pixels [H, W, 3] to [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


def inversion_rows(found: Sequence[dict[str, Any]], *, resamples: int = 0) -> dict[str, dict[str, float | int]]:
    """Return the means over pictures, with their intervals from so many resamples, 0 for none."""
    rows = {}
    for name in found[0]:
        values = [one[name] for one in found]
        if None in values:
            continue
        row: dict[str, float | int] = {"value": math.fsum(values) / len(values)}
        if resamples:
            column = torch.tensor(values, dtype=torch.float64).unsqueeze(1)
            row |= bootstrap(lambda part: float(part.mean()), column, repeats=resamples).facts
        rows[f"inversion/{name}"] = row
    return rows
