"""From what was seen of both kinds of images to a metric's figures, with intervals where they are asked for."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.errors import FileError, RequestError
from polyinr_core.metrics.bootstrap import Figure, bootstrap, frechet_to, halving
from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_pass import BATCH, Images, Keeper, Progress, look, place_of, span_of
from polyinr_core.metrics.feature_statistics import Cache, Need, Seen, needs_of
from polyinr_core.metrics.frechet import frechet_distance
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.metrics.prdc import Overlap, manifold, overlap
from polyinr_core.metrics.registry import DENSE_NEIGHBOR, FIGURES, NEIGHBOR, Metric, Sense
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.format1 import FORMAT

from .provenance import card_of, versions
from .statistics_io import SavedStatistics, identity

Row = dict[str, float | int]  # value; low, high, deviation of an interval; bias, extrapolated by halving


def figures_of(name: str, metric: Metric, reals: Seen | None, fakes: Seen, repeats: int) -> dict[str, Row]:
    """Return a metric's figures by name: its own, or the two that a metric of neighbors gives."""
    if metric.kind == "score":
        assert fakes.score is not None
        return {name: {"value": fakes.score[0], "deviation": fakes.score[1]}}
    assert reals is not None
    if metric.kind in FIGURES:
        return neighbor_figures(name, metric, reals, fakes, repeats)
    figure: Figure
    if metric.kind == "kernel":
        assert reals.features is not None
        assert fakes.features is not None
        figure = KernelReference(reals.features, fakes.count).distance
        value = figure(fakes.features)
    else:
        reference = reals.gaussian(unbiased=metric.unbiased)
        figure = frechet_to(reference, unbiased=metric.unbiased)
        value = frechet_distance(fakes.gaussian(unbiased=metric.unbiased), reference)
    row: Row = {"value": value}
    if repeats and fakes.features is not None:
        row |= bootstrap(figure, fakes.features, repeats=repeats).facts
        if metric.kind == "frechet":
            halves = halving(figure, fakes.features)
            row |= {"bias": halves.bias, "extrapolated": halves.extrapolated}
    return {name: row}


def neighbor_figures(name: str, metric: Metric, reals: Seen, fakes: Seen, repeats: int) -> dict[str, Row]:
    """Return precision and recall, or density and coverage."""
    assert reals.features is not None
    assert fakes.features is not None
    k = NEIGHBOR if metric.kind == "overlap" else DENSE_NEIGHBOR
    ground = manifold(reals.features, k=k, half=metric.half)

    def shared(features: Tensor) -> Overlap:
        return overlap(manifold(features, k=k, half=metric.half), ground, k=k, k_density=k)

    def part_of(part: str) -> Figure:
        return lambda features: float(getattr(shared(features), part))

    found = shared(fakes.features)
    rows: dict[str, Row] = {}
    for part in FIGURES[metric.kind]:
        row: Row = {"value": float(getattr(found, part))}
        if repeats:
            row |= bootstrap(part_of(part), fakes.features, repeats=repeats, replace=False).facts
        rows[f"{name}/{part}"] = row
    return rows


KEPT = 1  # the format of what the cache keeps

Side = Images | SavedStatistics


@dataclass(frozen=True)
class Settings:
    """How it is done, none of which moves a figure by more than rounding; `bootstrap` 0 is none."""

    batch: int = BATCH
    bootstrap: int = 0
    cache: Path | None = None


def evaluate(
    reals: Side | None,
    fakes: Side,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    *,
    device: torch.device,
    settings: Settings = Settings(),
    progress: Callable[[str], Progress] | None = None,
    ranks: DistributedContext = SINGLE_PROCESS,
    warn: Callable[[str], None] | None = None,
    keep_reals: Callable[[Mapping[Sense, Seen]], None] | None = None,
) -> dict[str, Any]:
    """Return {"format", "figures": {name: Row}, "card"}, the same on every rank; each must call it.

    `reals` may be None where no metric looks at them. `progress` makes a callback for a description. The leading
    rank tells `warn` what is odd about the images, and gives `keep_reals` what was seen of the reals. Raises
    RequestError for too few images and for sizes that differ, PolyinrError.
    """
    check(reals, fakes, metrics, settings)
    moves = progress or (lambda description: lambda done, total: None)
    needs = {
        "reals": needs_of(metrics, reals=True),
        "fakes": needs_of(metrics, resampled=settings.bootstrap > 0, reals=False),
    }
    sides = {kind: side for kind, side in (("reals", reals), ("fakes", fakes)) if side is not None and needs[kind]}
    for kind, side in sides.items():
        if isinstance(side, SavedStatistics):
            side.check(needs[kind], networks)
    seen: dict[str, dict[Sense, Seen]] = {"reals": {}, "fakes": {}}
    for kind, side in sides.items():
        seen[kind] = seen_of(side, needs[kind], networks, settings, device=device, progress=moves(kind), ranks=ranks)
        check_variety(kind, side, seen[kind], warn if ranks.is_main else None)
        if kind == "reals" and keep_reals is not None and ranks.is_main:
            keep_reals(seen[kind])
    if not ranks.is_main:
        return ranks.broadcast_object({})
    figures: dict[str, Row] = {}
    for name, metric in metrics.items():
        of_reals, of_fakes = seen["reals"].get(metric.sense), seen["fakes"][metric.sense]
        figures |= figures_of(name, metric, of_reals, of_fakes, settings.bootstrap)
    card = card_of(reals, fakes, metrics, networks, device=device)
    return ranks.broadcast_object({"format": FORMAT, "figures": figures, "card": card})


def check(reals: Side | None, fakes: Side, metrics: Mapping[str, Metric], settings: Settings) -> None:
    """Raise RequestError before any image is looked at, if the figures cannot be taken."""
    if reals is not None:
        check_sizes(reals, fakes)
    if settings.batch < 1 or settings.bootstrap < 0 or settings.bootstrap == 1:
        raise RequestError("the batch is 1 or more; the resamples of --bootstrap are 2 or more, 0 for none")
    for name, metric in metrics.items():
        sides = [("fakes", fakes)] if metric.kind == "score" else [("reals", reals), ("fakes", fakes)]
        halved = settings.bootstrap > 0 and metric.kind in FIGURES
        least = metric.least * 2 if halved else max(metric.least, 4 if settings.bootstrap else 0)
        for kind, images in sides:
            if images is None:
                raise RequestError(f"{name} needs real images to compare with")
            if isinstance(images, SavedStatistics) and not images.count:
                continue  # they do not say
            needed = metric.least if kind == "reals" else least
            if len(images) < needed:
                why = " with intervals" if needed > metric.least else ""
                raise RequestError(f"{name}{why} needs {needed} {kind} or more; {images.name} gives {len(images)}")


def check_sizes(reals: Side, fakes: Side) -> None:
    """Raise RequestError if two kinds of images are of different sizes, as far as they are known."""
    if reals.side and fakes.side and reals.side != fakes.side:
        smaller = min(reals.side, fakes.side)
        raise RequestError(
            f"{reals.name} holds reals of {reals.side} px, {fakes.name} gives fakes of {fakes.side} px; "
            f"bring both to one size, as by --res {smaller}"
        )


def check_variety(kind: str, side: Side, seen: Mapping[Sense, Seen], warn: Callable[[str], None] | None) -> None:
    """Raise FileError if the reals all look the same; of fakes, which a bad model may draw, only warn."""
    for (network, _), part in seen.items():
        if part.constant:
            alike = f"all {part.count} {kind} look the same to {network}, one image again and again"
            if kind == "reals":
                raise FileError(side.name, f"{alike}; nothing can be measured against them")
            if warn is not None:
                warn(f"{side.name}: {alike}; their figures say little")
            return


def seen_of(
    side: Side,
    needs: Mapping[Sense, Need],
    networks: Mapping[str, FeatureNetwork],
    settings: Settings,
    *,
    device: torch.device,
    progress: Progress,
    ranks: DistributedContext = SINGLE_PROCESS,
) -> dict[Sense, Seen]:
    """Return what is seen of images: from the cache what it has, and the rest in one pass, which is kept.

    The leading rank alone has what comes from the cache; states of an unfinished pass are kept by each.
    """
    place = place_of(device)
    if isinstance(side, SavedStatistics):
        return side.seen_in(needs, device=place)
    how: dict[str, Any] = {"batch": settings.batch, "device": device, "progress": progress, "ranks": ranks}
    if settings.cache is None:
        return look(side, networks, needs, **how)
    cache = Cache(settings.cache)
    keys = ranks.broadcast_object(
        {sense: key_of(side, sense, networks, device) for sense in needs} if ranks.is_main else {}
    )
    found: dict[Sense, Seen] = {}
    for sense, need in needs.items() if ranks.is_main else ():
        if (kept := cache.load(keys[sense])) is not None:
            seen = Seen.of(kept[1], kept[0], device=place)
            if seen.serves(need):
                found[sense] = seen
    missing: dict[Sense, Need] = ranks.broadcast_object({s: need.kept for s, need in needs.items() if s not in found})
    keeper = Keeper(cache, key_of_state(keys, missing, span_of(len(side), settings.batch, ranks), settings.batch))
    looked = look(side, networks, missing, keeper=keeper, **how)
    if ranks.is_main:
        for sense, seen in looked.items():
            cache.store(keys[sense], seen.count, seen.tensors())
    if missing:
        keeper.forget()
    return found | looked


def key_of(
    images: Images, sense: Sense, networks: Mapping[str, FeatureNetwork], device: torch.device
) -> dict[str, Any]:
    """Return all that what is seen of images depends on."""
    return {
        "format": KEPT,
        "images": {name: fact for name, fact in images.facts.items() if name != "name"},
        "side": images.side,
        "network": [sense[0], identity(networks[sense[0]])],
        "tap": sense[1],
        "device": device.type,
        "libraries": versions(),
    }


def key_of_state(
    keys: Mapping[Sense, dict[str, Any]], needs: Mapping[Sense, Need], span: range, batch: int
) -> dict[str, Any]:
    """Return all that the state of an unfinished pass depends on, so that going on from it changes nothing."""
    return {
        "senses": [[keys[sense], asdict(need)] for sense, need in needs.items()],
        "span": [span.start, span.stop],
        "batch": batch,
    }
