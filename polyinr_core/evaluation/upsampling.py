"""Drawing large against enlarging: what was drawn at the training resolution, judged as if drawn large."""

from collections.abc import Mapping

import torch

from ..errors import RequestError
from ..metrics.networks import FeatureNetwork
from ..metrics.rules import Metric, Sense
from ..ranks import ALONE, Ranks
from .drawn import DrawnPictures
from .enlarging import FILTERS, Enlarging
from .figures import Row, figures_of
from .looking import Progress
from .measure import Settings, seen_of
from .seen import Need, Seen


def drawn_at_once(name: str) -> str:
    """Return what the distance of pictures drawn at the full size is called; it is taken as any other."""
    return f"{name}/drawn"


def small_of(large: DrawnPictures) -> DrawnPictures:
    """Return the same pictures at the training resolution. Raises RequestError if that is not smaller."""
    trained = large.snapshot.resolution
    if not trained:
        raise RequestError(f"{large.name} does not say its resolution: upsampling has nothing to start from")
    if trained >= large.side:
        raise RequestError(
            f"upsampling goes from the training resolution, {trained} px, to a larger one; {large.side} px are "
            "asked for: give --res above it and reals of that size"
        )
    return DrawnPictures(
        large.snapshot, name=large.name, count=large.count, side=trained, psi=large.psi, labels=large.labels
    )


def enlarged_rows(
    metrics: Mapping[str, Metric],
    large: DrawnPictures,
    reals: Mapping[Sense, Seen],
    networks: Mapping[str, FeatureNetwork],
    settings: Settings,
    *,
    device: torch.device,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> dict[str, Row]:
    """Return the distances of enlarged pictures, as NAME/nearest and so on; every rank must call it.

    The pictures are drawn once, at the training resolution, for all filters and `metrics`. `reals` is what was
    seen of the reals at the size of `large`; only the leading rank needs it, and has rows. Paper, table 3.
    Raises RequestError, PolyinrError.
    """
    small = small_of(large)
    seers = {
        (metric.network, filter): Enlarging(networks[metric.network], filter, side=large.side)
        for metric in metrics.values()
        for filter in FILTERS
    }
    need = Need(statistics=True, features=settings.bootstrap > 0)
    seen = seen_of(
        small,
        {(seer.name, "pooled"): need for seer in seers.values()},
        {seer.name: seer for seer in seers.values()},
        settings,
        device=device,
        progress=progress,
        ranks=ranks,
    )
    rows: dict[str, Row] = {}
    for name, metric in metrics.items() if ranks.leads else ():
        for filter in FILTERS:
            fakes = seen[seers[metric.network, filter].name, "pooled"]
            rows |= figures_of(f"{name}/{filter}", metric, reals[metric.sense], fakes, settings.bootstrap)
    return rows
