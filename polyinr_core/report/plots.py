"""What a run's log draws as curves: which names share a panel, in which unit, how many points are shown."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from polyinr_core.errors import RequestError
from polyinr_core.metrics.registry import metric_named

from .run_reader import Log, Points, Span

MAX_POINTS = 400  # of a curve; more are averaged in groups, and the group's extent is shaded
MIN_TO_SMOOTH = 40
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
    Kind("Losses", "loss", {"loss_g": "generator", "loss_d": "discriminator", "loss_guidance": "guidance"}),
    Kind(
        "Logits of the discriminator",
        "mean logit",
        {"d_logit_real": "real", "d_logit_fake": "drawn", "d_logit_held_out": "held out"},
    ),
    Kind("Signs of the discriminator's logits", "mean sign", {"d_sign_real": "real", "d_sign_fake": "drawn"}),
    Kind("Diversity of the samples", "distance to the nearest", {"diversity": "seeds 0 to 31"}, measured=True),
    Kind("Speed", "images a second", {"img_per_sec": "trained on"}, from_zero=True),
    Kind("Memory", "MiB", {"cpu_mem_mib": "main memory", "gpu_mem_mib": "GPU"}, from_zero=True),
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
    if len(values) > MAX_POINTS:
        groups = np.array_split(np.arange(len(values)), MAX_POINTS)
        means = points_of([kimg[group].mean() for group in groups], [values[group].mean() for group in groups])
        low, high = (tuple(float(reduce(values[group])) for group in groups) for reduce in (np.min, np.max))
        return Curve(name, points, means, low, high)
    if len(values) < MIN_TO_SMOOTH:
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


WIDTH, HEIGHT = 6.0, 2.9  # inches of a panel
ROOM = (0.72, 0.46, 0.12, 0.32)  # inches of it left of the axes, below, right of and above them: for words
HEADING = 0.45  # inches above all panels
LETTERS = 60  # of a title
DOTS = 150  # an inch, in PNG
NARROW = 0.07  # of the axis: a stage that takes less has no name on it


@dataclass(frozen=True)
class Theme:
    """Colors of a chart, no two the same. The curves' are about Okabe's and Ito's, told apart by most eyes."""

    paper: str
    ink: str
    grid: str
    curves: tuple[str, ...]


LIGHT = Theme("#ffffff", "#222222", "#d9d9d9", ("#0072b2", "#d55e00", "#008060", "#aa5588"))
DARK = Theme("#181a1b", "#e4e4e4", "#43474a", ("#56b4e9", "#f09040", "#2bbf97", "#df92c4"))


def svg(panel: Panel, spans: Sequence[Span]) -> bytes:
    """Return a panel as SVG, light, the same for the same numbers. Its title is left to who shows it."""
    return as_svg(lambda axes: draw(axes, panel, spans))


def shares_svg(kinds: Mapping[str, Sequence[float]], *, across: str) -> bytes:
    """Return a chart of several kinds of values: what share of each kind lies below a value, as SVG."""

    def draw_shares(axes: Axes) -> None:
        for (name, values), color in zip(kinds.items(), LIGHT.curves, strict=False):
            axes.ecdf(values, color=color, linewidth=1.6, label=name)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        finish(axes, across=across, up="share of the images")

    return as_svg(draw_shares)


def as_svg(drawing: Callable[[Axes], None]) -> bytes:
    """Return what is drawn on one pair of axes as SVG."""
    with own_style():
        figure = Figure(figsize=(WIDTH, HEIGHT))
        drawing(axes_at(figure, 0, 0))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor=LIGHT.paper, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def darkened(svg: bytes) -> bytes:
    """Return a chart in the dark theme: drawn once, the same but for its colors."""
    text = svg.decode()
    for field in fields(Theme):
        light, dark = getattr(LIGHT, field.name), getattr(DARK, field.name)
        pairs = zip(light, dark, strict=True) if isinstance(light, tuple) else [(light, dark)]
        for before, after in pairs:
            text = text.replace(before, after)
    return text.encode()


def png(panels: Sequence[Panel], spans: Sequence[Span], *, title: str) -> bytes:
    """Return all panels as one PNG, two beside each other."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with own_style():
        figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT + HEADING))
        figure.text(0.01, 1 - 0.5 * HEADING / figure.get_figheight(), cut(title), va="center", fontsize=13)
        for index, panel in enumerate(panels):
            row, column = divmod(index, columns)
            axes = axes_at(figure, column * WIDTH, (rows - 1 - row) * HEIGHT)
            draw(axes, panel, spans)
            axes.set_title(cut(panel.title), loc="left", color=LIGHT.ink, fontsize=10, fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS, facecolor=LIGHT.paper, metadata={"Software": None})
    return buffer.getvalue()


def axes_at(figure: Figure, left: float, bottom: float) -> Axes:
    """Return axes in a panel's place, whose corner is given in inches, with room for the words around them."""
    width, height = figure.get_size_inches()
    before, below, after, above = ROOM
    place = (
        (left + before) / width,
        (bottom + below) / height,
        (WIDTH - before - after) / width,
        (HEIGHT - below - above) / height,
    )
    return figure.add_axes(place)


def cut(text: str) -> str:
    """Return a line of words, no longer than there is room for."""
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"


@contextmanager
def own_style() -> Iterator[None]:
    """Draw as here, whatever a person's matplotlibrc says, and the same every time; a dollar is a dollar."""
    own: dict[Any, Any] = {
        "svg.fonttype": "path",
        "svg.hashsalt": "polyinr",
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(own)
        yield


def draw(axes: Axes, panel: Panel, spans: Sequence[Span]) -> None:
    """Draw a panel: its curves, the borders of stages, axes with their units, a legend above."""
    for curve, color in zip(panel.curves, LIGHT.curves, strict=False):
        if panel.measured:
            draw_measured(axes, curve, spans, color)
        else:
            draw_curve(axes, curve, color)
    axes.margins(x=0.01, y=0.1)
    if spans and spans[-1].end > spans[0].start:  # the same for all panels
        margin = 0.01 * (spans[-1].end - spans[0].start)
        axes.set_xlim(spans[0].start - margin, spans[-1].end + margin)
    if panel.from_zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
    if len(spans) > 1:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.1 * (high - low))  # room for the stages' names
        mark_stages(axes, spans)
    finish(axes, across="thousand images seen (kimg)", up=panel.unit)


def finish(axes: Axes, *, across: str, up: str) -> None:
    """Name the axes, color all that is not a curve, and set the legend above."""
    axes.set_xlabel(across, color=LIGHT.ink)
    axes.set_ylabel(up, color=LIGHT.ink)
    axes.grid(color=LIGHT.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(LIGHT.paper)
    axes.tick_params(colors=LIGHT.ink)
    for spine in axes.spines.values():
        spine.set_color(LIGHT.ink)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, labelcolor=LIGHT.ink, borderpad=0.2)


def draw_measured(axes: Axes, curve: Curve, spans: Sequence[Span], color: str) -> None:
    """Draw marked points, joined within a stage: those of different resolutions do not compare."""
    parts = [part for span in spans if len(part := inside(curve.points, span))] or [curve.points]
    for index, part in enumerate(parts):
        name = curve.name if index + 1 == len(parts) else None
        axes.plot(part.kimg, part.values, marker="o", markersize=3.5, linewidth=1.4, color=color, label=name)


def draw_curve(axes: Axes, curve: Curve, color: str) -> None:
    """Draw a curve: thin what was logged, or shaded its extent; thick the mean."""
    thick: Points = curve.mean or curve.points
    if curve.low:
        axes.fill_between(thick.kimg, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    elif curve.mean:
        axes.plot(curve.points.kimg, curve.points.values, color=color, linewidth=0.7, alpha=0.4)
    marker = "o" if len(curve.points) == 1 else None
    axes.plot(thick.kimg, thick.values, color=color, linewidth=1.6, marker=marker, label=curve.name)


def mark_stages(axes: Axes, spans: Sequence[Span]) -> None:
    """Draw a line where a stage begins, and its resolution beside it where there is room."""
    width = spans[-1].end - spans[0].start
    for span in spans:
        if span is not spans[0]:
            axes.axvline(span.start, color=LIGHT.ink, linewidth=0.8, linestyle="--", alpha=0.7)
        if span.end - span.start >= NARROW * width:
            axes.annotate(
                f"{span.resolution} px",
                (span.start, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                color=LIGHT.ink,
                bbox={"facecolor": LIGHT.paper, "alpha": 0.75, "linewidth": 0, "pad": 1},
            )
