"""From two kinds of pictures to figures: each by its protocol, with its interval where one is asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..metrics.confidence import Figure, bootstrap, frechet_to, halving
from ..metrics.gaussian import frechet_distance
from ..metrics.kernel import KernelReference
from ..metrics.neighbours import Overlap, manifold, overlap
from ..metrics.networks import FeatureNetwork
from ..metrics.rules import DENSE_NEIGHBOUR, FIGURES, NEIGHBOUR, Metric, Sense
from .cache import Cache
from .card import card_of, versions
from .inputs import Pictures, check_sizes
from .looking import BATCH, Need, Progress, Seen, look, needs_of

FORMAT = 1

Row = dict[str, float | int]  # value; low, high, deviation of an interval; bias, extrapolated by halving


@dataclass(frozen=True)
class Settings:
    """How it is done, none of which moves a figure by more than rounding; `bootstrap` 0 is none."""

    batch: int = BATCH
    bootstrap: int = 0
    cache: Path | None = None


def evaluate(
    reals: Pictures,
    fakes: Pictures,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    *,
    device: torch.device,
    settings: Settings = Settings(),
    progress: Callable[[str], Progress] | None = None,
) -> dict[str, Any]:
    """Return {"format", "figures": {name: Row}, "card"}; `progress` makes a callback for a description.

    Raises RequestError for too few pictures and for sizes that differ, PolyinrError.
    """
    check(reals, fakes, metrics, settings)
    moves = progress or (lambda description: lambda done, total: None)
    seen_reals = look_at_reals(reals, metrics, networks, settings, device=device, progress=moves("reals"))
    needs = needs_of(metrics, resampled=settings.bootstrap > 0, reals=False)
    seen_fakes = look(fakes, networks, needs, batch=settings.batch, device=device, progress=moves("fakes"))
    figures: dict[str, Row] = {}
    for name, metric in metrics.items():
        figures |= figures_of(
            name, metric, seen_reals.get(metric.sense), seen_fakes[metric.sense], settings.bootstrap
        )
    card = card_of(reals, fakes, metrics, networks, device=device)
    return {"format": FORMAT, "figures": figures, "card": card}


def check(reals: Pictures, fakes: Pictures, metrics: Mapping[str, Metric], settings: Settings) -> None:
    """Raise RequestError before any picture is looked at, if the figures cannot be taken."""
    check_sizes(reals, fakes)
    if settings.batch < 1 or settings.bootstrap < 0 or settings.bootstrap == 1:
        raise RequestError("the batch is 1 or more; the resamples of --bootstrap are 2 or more, 0 for none")
    for name, metric in metrics.items():
        sides = [("fakes", fakes)] if metric.kind == "score" else [("reals", reals), ("fakes", fakes)]
        halved = settings.bootstrap > 0 and metric.kind in FIGURES
        least = metric.least * 2 if halved else max(metric.least, 4 if settings.bootstrap else 0)
        for kind, pictures in sides:
            needed = metric.least if kind == "reals" else least
            if len(pictures) < needed:
                why = " with intervals" if needed > metric.least else ""
                raise RequestError(
                    f"{name}{why} needs {needed} {kind} or more; {pictures.name} gives {len(pictures)}"
                )


def look_at_reals(
    reals: Pictures,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    settings: Settings,
    *,
    device: torch.device,
    progress: Progress,
) -> dict[Sense, Seen]:
    """Return what is seen of the reals: from the cache what it has, and the rest in one pass, which is kept."""
    needs = needs_of(metrics, reals=True)
    if settings.cache is None:
        return look(reals, networks, needs, batch=settings.batch, device=device, progress=progress)
    place = torch.device("cpu") if device.type == "mps" else device
    cache, found, missing = Cache(settings.cache), {}, {}
    for sense, need in needs.items():
        seen = cache.load(key_of(reals, sense, networks), need, device=place)
        if seen is None or seen.count != len(reals):
            missing[sense] = Need(statistics=True, features=need.features)
        else:
            found[sense] = seen
    looked = look(reals, networks, missing, batch=settings.batch, device=device, progress=progress)
    for sense, seen in looked.items():
        cache.store(key_of(reals, sense, networks), seen)
    return found | looked


def key_of(reals: Pictures, sense: Sense, networks: Mapping[str, FeatureNetwork]) -> dict[str, Any]:
    """Return all that what is seen of the reals depends on."""
    network = networks[sense[0]]
    return {
        "format": FORMAT,
        "reals": {name: fact for name, fact in reals.facts.items() if name != "name"},
        "side": reals.side,
        "network": sense[0],
        "network_sha256": network.sha256,
        "network_side": getattr(network, "side", None),
        "tap": sense[1],
        "libraries": versions(),
    }


def figures_of(name: str, metric: Metric, reals: Seen | None, fakes: Seen, repeats: int) -> dict[str, Row]:
    """Return a metric's figures by name: its own, or the two that a metric of neighbours gives."""
    if metric.kind == "score":
        assert fakes.score is not None
        return {name: {"value": fakes.score[0], "deviation": fakes.score[1]}}
    assert reals is not None
    if metric.kind in FIGURES:
        return neighbour_figures(name, metric, reals, fakes, repeats)
    figure: Figure
    if metric.kind == "kernel":
        assert reals.features is not None
        assert fakes.features is not None
        figure = KernelReference(reals.features, fakes.count).distance
        value = figure(fakes.features)
    else:
        assert reals.statistics is not None
        assert fakes.statistics is not None
        reference = reals.statistics.gaussian(unbiased=metric.unbiased)
        figure = frechet_to(reference, unbiased=metric.unbiased)
        value = frechet_distance(fakes.statistics.gaussian(unbiased=metric.unbiased), reference)
    row: Row = {"value": value}
    if repeats and fakes.features is not None:
        row |= interval_of(figure, fakes.features, repeats, replace=True)
        if metric.kind == "frechet":
            halves = halving(figure, fakes.features)
            row |= {"bias": halves.bias, "extrapolated": halves.extrapolated}
    return {name: row}


def neighbour_figures(name: str, metric: Metric, reals: Seen, fakes: Seen, repeats: int) -> dict[str, Row]:
    """Return precision and recall, or density and coverage."""
    assert reals.features is not None
    assert fakes.features is not None
    k = NEIGHBOUR if metric.kind == "overlap" else DENSE_NEIGHBOUR
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
            row |= interval_of(part_of(part), fakes.features, repeats, replace=False)
        rows[f"{name}/{part}"] = row
    return rows


def interval_of(figure: Figure, features: Tensor, repeats: int, *, replace: bool) -> Row:
    """Return the interval of a figure over resampled fakes, as parts of a row."""
    found = bootstrap(figure, features, repeats=repeats, replace=replace)
    return {
        "low": found.low,
        "high": found.high,
        "deviation": found.deviation,
        "level": found.level,
        "resamples": found.repeats,
    }
