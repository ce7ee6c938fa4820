"""From what was seen of both kinds of pictures to a metric's figures, with intervals where they are asked for."""

from torch import Tensor

from ..metrics.confidence import Figure, bootstrap, frechet_to, halving
from ..metrics.gaussian import frechet_distance
from ..metrics.kernel import KernelReference
from ..metrics.neighbours import Overlap, manifold, overlap
from ..metrics.rules import DENSE_NEIGHBOUR, FIGURES, NEIGHBOUR, Metric
from .seen import Seen

Row = dict[str, float | int]  # value; low, high, deviation of an interval; bias, extrapolated by halving


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
            row |= bootstrap(part_of(part), fakes.features, repeats=repeats, replace=False).facts
        rows[f"{name}/{part}"] = row
    return rows
