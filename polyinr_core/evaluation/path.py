"""The perceptual path length of a model: how evenly its pictures change with w."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..latents.seeds import UNIFORM, LabelDistribution
from ..metrics.confidence import bootstrap
from ..metrics.looks import Look
from ..metrics.path_length import EPSILON, SIDE, path_length, path_lengths
from ..model.drawing import at_once
from ..snapshots.snapshot import Snapshot
from .painting import paint, w_of

RULE = (
    f"in w, at the start of the way from seed 2i to seed 2i + 1 in the class of seed 2i, a step of {EPSILON:g}; "
    f"drawn colours, above {SIDE} px block means; mean between the 1st and 99th percentile"
)


@torch.no_grad()
def model_path_lengths(
    snapshot: Snapshot,
    look: Look,
    *,
    count: int,
    side: int,
    psi: float = 1.0,
    labels: LabelDistribution = UNIFORM,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the lengths [N], float64, of `count` paths between what seeds 0, 1, ... are in w.

    Path i leads from seed 2 i to seed 2 i + 1, both in the class that the first draws. Raises PolyinrError.
    """
    device = snapshot.generator.mapping.w_avg.device
    step = max(1, at_once(device) // (2 * side**2))
    found = []
    for start in range(0, count, step):
        stop = min(start + step, count)
        own = range(2 * start, 2 * stop, 2)
        starts, ends = (
            w_of(snapshot, seeds, psi=psi, labels=labels, classes_of=own)
            for seeds in (own, range(2 * start + 1, 2 * stop, 2))
        )
        found.append(path_lengths(starts, ends, lambda w: paint(snapshot, w, side=side), look).cpu())
        if progress is not None:
            progress(stop, count)
    return torch.cat(found)


def path_row(lengths: Tensor, *, resamples: int = 0) -> dict[str, float | int]:
    """Return the figure of lengths [N], with its interval from so many resamples, 0 for none."""
    if not resamples:
        return {"value": path_length(lengths)}
    found = bootstrap(lambda part: path_length(part.flatten()), lengths.unsqueeze(1), repeats=resamples)
    return {"value": found.value, **found.facts}
