"""How long a model takes to draw a picture, and how many numbers it is made of."""

import time
from collections.abc import Callable

import numpy as np
import torch

from ..latents.seeds import UNIFORM, LabelDistribution
from ..model.generator import count_parameters
from ..snapshots.snapshot import Snapshot
from .painting import paint, w_of

REPEATS, WARM_UP = 10, 2
RULE = f"seconds from z to colours, a picture at a time, median of {REPEATS} after {WARM_UP} to warm up"
PARTS_RULE = "parameters of the generator in all, and of its parts"


def speed_row(
    snapshot: Snapshot,
    *,
    side: int,
    psi: float = 1.0,
    labels: LabelDistribution = UNIFORM,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float | int]:
    """Return the median of the seconds that a picture of `side` pixels takes, with the least and the most.

    On the device and in the number format that the generator is in. Paper, table 2.
    """
    device = snapshot.generator.mapping.w_avg.device
    seconds = []
    for seed in range(WARM_UP + REPEATS):
        finish(device)
        clock = time.perf_counter()
        own = range(seed, seed + 1)
        paint(snapshot, w_of(snapshot, own, psi=psi, labels=labels, classes_of=own), side=side)
        finish(device)
        seconds.append(time.perf_counter() - clock)
        if progress is not None:
            progress(seed + 1, WARM_UP + REPEATS)
    taken = seconds[WARM_UP:]
    return {"value": float(np.median(taken)), "least": min(taken), "most": max(taken), "repeats": REPEATS}


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameter_rows(snapshot: Snapshot) -> dict[str, dict[str, float | int]]:
    """Return the numbers of parameters: in all, of the class table, mapping, affine maps and synthesis.

    Paper, table 1 d, counts all.
    """
    counts = count_parameters(snapshot.generator)
    names = {part: "params" if part == "total" else f"params/{part}" for part in counts}
    return {names[part]: {"value": count} for part, count in counts.items()}
