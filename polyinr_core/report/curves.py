"""What a run's log draws as curves: which names share a panel, in which unit, how many points are shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..metrics.rules import metric_named
from .log import Log, Points, Span

MOST_POINTS = 400  # of a curve; more are averaged in groups, and the group's extent is shaded
FEWEST_TO_SMOOTH = 40
WINDOW = 1 / 20  # of a curve's points: what the thick line is the mean over


@dataclass(frozen=True)
class Kind:
    """A panel as it may be in a log: its curves by the log's name, each with the legend's."""

    title: str
    unit: str
    names: dict[str, str]
    measured: bool = False
    from_zero: bool = False


KNOWN = (
    Kind("Losses", "loss", {"generator": "generator", "critic": "critic", "guidance": "guidance"}),
    Kind(
        "Logits of the critic",
        "mean logit",
        {"real_logit": "real", "fake_logit": "drawn", "held_out_logit": "held out"},
    ),
    Kind("Signs of the critic's logits", "mean sign", {"real_sign": "real", "fake_sign": "drawn"}),
    Kind("Spread of the samples", "distance to the nearest", {"spread": "seeds 0 to 31"}, measured=True),
    Kind("Speed", "pictures a second", {"pictures_per_second": "trained on"}, from_zero=True),
    Kind("Memory", "MiB", {"resident_mib": "main memory", "cuda_mib": "GPU"}, from_zero=True),
)


@dataclass(frozen=True)
class Curve:
    """One name over kimg. A `mean` is smoothed, or that of groups whose extent is `low` to `high`."""

    name: str
    points: Points
    mean: Points | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Curves on one pair of axes.

    A `measured` one has few points, which are marked, and breaks between stages. An axis may begin at zero.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...]
    measured: bool = False
    from_zero: bool = False

    @property
    def words(self) -> str:
        """What is to be seen, for who cannot see it."""
        told = [
            f"{curve.name} from {curve.points.values[0]:.4g} to {curve.points.values[-1]:.4g}, "
            f"lowest {min(curve.points.values):.4g}, highest {max(curve.points.values):.4g}"
            for curve in self.curves
        ]
        kimg = [value for curve in self.curves for value in curve.points.kimg]
        return f"{self.title}, {min(kimg):.4g} to {max(kimg):.4g} kimg: {'; '.join(told)}"


def panels_of(log: Log, metrics: Sequence[str]) -> tuple[Panel, ...]:
    """Return a panel for each metric of the log, known by its name or named in `metrics`, then the known ones."""
    measured = [name for name in log.names if name in metrics or is_metric(name)]
    panels = [
        Panel(name, "distance, smaller is better", (Curve(best_of(name, log), log.points(name)),), measured=True)
        for name in measured
    ]
    for kind in KNOWN:
        found = {shown: log.points(name) for name, shown in kind.names.items()}
        curves = [
            Curve(shown, points) if kind.measured else smoothed(shown, points)
            for shown, points in found.items()
            if any(points.values) or (len(points) and shown != "guidance")  # 0 throughout where nothing guides
        ]
        if curves:
            panels.append(Panel(kind.title, kind.unit, tuple(curves), kind.measured, kind.from_zero))
    return tuple(panels)


def is_metric(name: str) -> bool:
    """Say whether a name of the log is that of a metric."""
    try:
        metric_named(name)
    except RequestError:
        return False
    return True


def best_of(name: str, log: Log) -> str:
    """Say which value was the least of the last stage that has one, and where."""
    points, side = log.points(name), ""
    for span in log.spans:
        if len(own := inside(log.points(name), span)):
            points, side = own, f" ({span.resolution} px)" if len(log.spans) > 1 else ""
    value, kimg = min(zip(points.values, points.kimg, strict=True))
    return f"best {value:.4g} at {kimg:.4g} kimg{side}"


def inside(points: Points, span: Span) -> Points:
    """Return the points of a stage: after its start, or at the very beginning of the run."""
    kept = [
        (kimg, value)
        for kimg, value in zip(points.kimg, points.values, strict=True)
        if span.start < kimg <= span.end or (kimg == span.start and span.stage == 0)
    ]
    return Points(tuple(kimg for kimg, _ in kept), tuple(value for _, value in kept))


def smoothed(name: str, points: Points) -> Curve:
    """Return a curve with its mean beside it, if it has points enough."""
    kimg, values = np.array(points.kimg), np.array(points.values)
    if len(values) > MOST_POINTS:
        groups = np.array_split(np.arange(len(values)), MOST_POINTS)
        means = points_of([kimg[group].mean() for group in groups], [values[group].mean() for group in groups])
        low, high = (tuple(float(reduce(values[group])) for group in groups) for reduce in (np.min, np.max))
        return Curve(name, points, means, low, high)
    if len(values) < FEWEST_TO_SMOOTH:
        return Curve(name, points)
    return Curve(name, points, points_of(kimg, running_mean(values, max(3, round(WINDOW * len(values))))))


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean over the `window` values around each, of fewer at the ends."""
    ones = np.ones(window)
    summed = np.convolve(values, ones, "full")
    counted = np.convolve(np.ones(len(values)), ones, "full")
    start = (window - 1) // 2
    return (summed / counted)[start : start + len(values)]


def points_of(kimg: Sequence[float] | NDArray, values: Sequence[float] | NDArray) -> Points:
    """Return points of any numbers."""
    return Points(tuple(map(float, kimg)), tuple(map(float, values)))
