"""Plots of a run's log: panels of curves, as SVG in a light and a dark theme, and all as one PNG."""

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
from polyinr_core.metrics.registry import get_metric

from .run_reader import RunLog, Series, StageSpan

MAX_POINTS = 400  # of a curve; more are averaged in groups, whose range is shaded
MIN_POINTS_TO_SMOOTH = 40
SMOOTHING_WINDOW = 1 / 20  # of a curve's points: the running mean's window


@dataclass(frozen=True)
class PanelSpec:
    """A panel that a log may fill: its curves' legends by log key."""

    title: str
    unit: str
    names: dict[str, str]
    measured: bool = False
    from_zero: bool = False


PANELS = (
    PanelSpec("Losses", "loss", {"loss_g": "generator", "loss_d": "discriminator", "loss_guidance": "guidance"}),
    PanelSpec(
        "Logits of the discriminator",
        "mean logit",
        {"d_logit_real": "real", "d_logit_fake": "fake", "d_logit_held_out": "held out"},
    ),
    PanelSpec("Signs of the discriminator's logits", "mean sign", {"d_sign_real": "real", "d_sign_fake": "fake"}),
    PanelSpec("Diversity of the samples", "distance to the nearest", {"diversity": "seeds 0 to 31"}, measured=True),
    PanelSpec("Speed", "images per second", {"img_per_sec": "training images"}, from_zero=True),
    PanelSpec("Memory", "MiB", {"cpu_mem_mib": "CPU", "gpu_mem_mib": "GPU"}, from_zero=True),
)


@dataclass(frozen=True)
class Curve:
    """One log key over kimg; `mean` is the running mean, or that of groups whose range is `low` to `high`."""

    name: str
    points: Series
    mean: Series | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Curves on one pair of axes.

    A `measured` panel has few points, with markers, and gaps between stages.
    """

    title: str
    unit: str
    curves: tuple[Curve, ...]
    measured: bool = False
    from_zero: bool = False

    @property
    def description(self) -> str:
        """The curves in words, for screen readers."""
        curves = [
            f"{curve.name} from {curve.points.values[0]:.4g} to {curve.points.values[-1]:.4g}, "
            f"lowest {min(curve.points.values):.4g}, highest {max(curve.points.values):.4g}"
            for curve in self.curves
        ]
        kimg = [value for curve in self.curves for value in curve.points.kimg]
        return f"{self.title}, {min(kimg):.4g} to {max(kimg):.4g} kimg: {'; '.join(curves)}"


def panels_of(log: RunLog, metrics: Sequence[str]) -> tuple[Panel, ...]:
    """Return a panel for each metric of the log, by its name or by `metrics`, then those of PANELS with values."""
    measured = [name for name in log.names if name in metrics or is_metric_name(name)]
    panels = [
        Panel(name, "distance, lower is better", (Curve(best_label(name, log), log.series(name)),), measured=True)
        for name in measured
    ]
    for spec in PANELS:
        found = {label: log.series(name) for name, label in spec.names.items()}
        curves = [
            Curve(label, points) if spec.measured else smooth_curve(label, points)
            for label, points in found.items()
            if any(points.values) or (len(points) and label != "guidance")  # all 0 without guidance
        ]
        if curves:
            panels.append(Panel(spec.title, spec.unit, tuple(curves), spec.measured, spec.from_zero))
    return tuple(panels)


def is_metric_name(name: str) -> bool:
    """Return whether a log key is the name of a metric."""
    try:
        get_metric(name)
    except RequestError:
        return False
    return True


def best_label(name: str, log: RunLog) -> str:
    """Return in words the lowest value of the last stage that has one, and its kimg."""
    points, suffix = log.series(name), ""
    for span in log.spans:
        if len(in_stage := within_span(log.series(name), span)):
            points, suffix = in_stage, f" ({span.resolution} px)" if len(log.spans) > 1 else ""
    value, kimg = min(zip(points.values, points.kimg, strict=True))
    return f"best {value:.4g} at {kimg:.4g} kimg{suffix}"


def within_span(points: Series, span: StageSpan) -> Series:
    """Return the points of a stage: after its start, or at the start of the run."""
    kimg, values = np.array(points.kimg), np.array(points.values)
    is_within = (span.start < kimg) & (kimg <= span.end) | (kimg == span.start) & (span.stage == 0)
    return to_series(kimg[is_within], values[is_within])


def smooth_curve(name: str, points: Series) -> Curve:
    """Return a curve, with its running mean if it has enough points."""
    kimg, values = np.array(points.kimg), np.array(points.values)
    if len(values) > MAX_POINTS:
        groups = np.array_split(np.arange(len(values)), MAX_POINTS)
        means = to_series([kimg[group].mean() for group in groups], [values[group].mean() for group in groups])
        low, high = (tuple(float(reduce(values[group])) for group in groups) for reduce in (np.min, np.max))
        return Curve(name, points, means, low, high)
    if len(values) < MIN_POINTS_TO_SMOOTH:
        return Curve(name, points)
    return Curve(name, points, to_series(kimg, running_mean(values, max(3, round(SMOOTHING_WINDOW * len(values))))))


def running_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean over the `window` values around each, over fewer at the ends."""
    ones = np.ones(window)
    summed = np.convolve(values, ones, "full")
    counted = np.convolve(np.ones(len(values)), ones, "full")
    start = (window - 1) // 2
    return (summed / counted)[start : start + len(values)]


def to_series(kimg: Sequence[float] | NDArray, values: Sequence[float] | NDArray) -> Series:
    """Return a series of floats."""
    return Series(tuple(map(float, kimg)), tuple(map(float, values)))


WIDTH, HEIGHT = 6.0, 2.9  # inches of a panel
MARGINS = (0.72, 0.46, 0.12, 0.32)  # inches left, below, right and above the axes, for labels
TITLE_HEIGHT = 0.45  # inches above all panels
MAX_TITLE_LENGTH, MAX_CLASS_LENGTH = 60, 20  # characters
CLASS_NAMES_WIDTH = 0.25  # of a chart of classes
DPI = 150
MIN_LABELED_FRACTION = 0.07  # of the axis: a shorter stage has no label


@dataclass(frozen=True)
class Theme:
    """Distinct colors of a chart; the curves' are close to the color-blind safe palette of Okabe and Ito."""

    background: str
    foreground: str
    grid: str
    curves: tuple[str, ...]


LIGHT = Theme("#ffffff", "#222222", "#d9d9d9", ("#0072b2", "#d55e00", "#008060", "#aa5588"))
DARK = Theme("#181a1b", "#e4e4e4", "#43474a", ("#56b4e9", "#f09040", "#2bbf97", "#df92c4"))


def panel_svg(panel: Panel, spans: Sequence[StageSpan]) -> bytes:
    """Return a panel as SVG in the light theme, without its title; deterministic."""
    return to_svg(lambda axes: draw_panel(axes, panel, spans))


def ecdf_svg(samples: Mapping[str, Sequence[float]], *, xlabel: str) -> bytes:
    """Return the empirical cumulative distributions of named samples as SVG."""

    def draw_ecdf(axes: Axes) -> None:
        for (name, values), color in zip(samples.items(), LIGHT.curves, strict=False):
            axes.ecdf(values, color=color, linewidth=1.6, label=name)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        style_axes(axes, xlabel=xlabel, ylabel="fraction of the images")

    return to_svg(draw_ecdf)


def classes_svg(values: Mapping[str, float], *, xlabel: str) -> bytes:
    """Return a horizontal bar for each class, in the order given from the top, as SVG."""

    def draw_bars(axes: Axes) -> None:
        names = [shorten(name, MAX_CLASS_LENGTH) for name in values]
        axes.barh(range(len(names)), list(values.values()), color=LIGHT.curves[0], height=0.7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.invert_yaxis()
        box = axes.get_position()
        axes.set_position((CLASS_NAMES_WIDTH, box.y0, box.x1 - CLASS_NAMES_WIDTH, box.height))
        style_axes(axes, xlabel=xlabel, ylabel="")

    return to_svg(draw_bars)


def to_svg(draw: Callable[[Axes], None]) -> bytes:
    """Return what `draw` plots on one pair of axes as SVG."""
    with plot_style():
        figure = Figure(figsize=(WIDTH, HEIGHT))
        draw(axes_at(figure, 0, 0))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", facecolor=LIGHT.background, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def to_dark(svg: bytes) -> bytes:
    """Return a light chart in the dark theme, by replacing its colors."""
    text = svg.decode()
    for field in fields(Theme):
        light, dark = getattr(LIGHT, field.name), getattr(DARK, field.name)
        pairs = zip(light, dark, strict=True) if isinstance(light, tuple) else [(light, dark)]
        for before, after in pairs:
            text = text.replace(before, after)
    return text.encode()


def panels_png(panels: Sequence[Panel], spans: Sequence[StageSpan], *, title: str) -> bytes:
    """Return all panels as one PNG, two in a row."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    with plot_style():
        figure = Figure(figsize=(columns * WIDTH, rows * HEIGHT + TITLE_HEIGHT))
        figure.text(0.01, 1 - 0.5 * TITLE_HEIGHT / figure.get_figheight(), shorten(title), va="center", fontsize=13)
        for index, panel in enumerate(panels):
            row, column = divmod(index, columns)
            axes = axes_at(figure, column * WIDTH, (rows - 1 - row) * HEIGHT)
            draw_panel(axes, panel, spans)
            axes.set_title(shorten(panel.title), loc="left", color=LIGHT.foreground, fontsize=10, fontweight="bold")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, facecolor=LIGHT.background, metadata={"Software": None})
    return buffer.getvalue()


def axes_at(figure: Figure, left: float, bottom: float) -> Axes:
    """Return the axes of a panel whose lower left corner is given in inches, inside the margins for labels."""
    width, height = figure.get_size_inches()
    before, below, after, above = MARGINS
    rectangle = (
        (left + before) / width,
        (bottom + below) / height,
        (WIDTH - before - after) / width,
        (HEIGHT - below - above) / height,
    )
    return figure.add_axes(rectangle)


def shorten(text: str, length: int = MAX_TITLE_LENGTH) -> str:
    """Return text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


@contextmanager
def plot_style() -> Iterator[None]:
    """Plot with fixed settings, independent of the user's matplotlibrc, without parsing math in text."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "path",
        "svg.hashsalt": "polyinr",
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def draw_panel(axes: Axes, panel: Panel, spans: Sequence[StageSpan]) -> None:
    """Plot a panel: its curves, the borders of stages, axes with their units, a legend above."""
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
        axes.set_ylim(low, high + 0.1 * (high - low))  # space for the stages' labels
        draw_stage_borders(axes, spans)
    style_axes(axes, xlabel="training images, thousands (kimg)", ylabel=panel.unit)


def style_axes(axes: Axes, *, xlabel: str, ylabel: str) -> None:
    """Label and color the axes, and place the legend above."""
    axes.set_xlabel(xlabel, color=LIGHT.foreground)
    axes.set_ylabel(ylabel, color=LIGHT.foreground)
    axes.grid(color=LIGHT.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(LIGHT.background)
    axes.tick_params(colors=LIGHT.foreground)
    for spine in axes.spines.values():
        spine.set_color(LIGHT.foreground)
    if not axes.get_legend_handles_labels()[1]:
        return
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, labelcolor=LIGHT.foreground, borderpad=0.2
    )


def draw_measured(axes: Axes, curve: Curve, spans: Sequence[StageSpan], color: str) -> None:
    """Plot points with markers, joined within a stage: other resolutions are not comparable."""
    parts = [part for span in spans if len(part := within_span(curve.points, span))] or [curve.points]
    for index, part in enumerate(parts):
        name = curve.name if index + 1 == len(parts) else None
        axes.plot(part.kimg, part.values, marker="o", markersize=3.5, linewidth=1.4, color=color, label=name)


def draw_curve(axes: Axes, curve: Curve, color: str) -> None:
    """Plot a curve: thin the logged values, or shaded their range; thick the mean."""
    thick: Series = curve.mean or curve.points
    if curve.low:
        axes.fill_between(thick.kimg, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    elif curve.mean:
        axes.plot(curve.points.kimg, curve.points.values, color=color, linewidth=0.7, alpha=0.4)
    marker = "o" if len(curve.points) == 1 else None
    axes.plot(thick.kimg, thick.values, color=color, linewidth=1.6, marker=marker, label=curve.name)


def draw_stage_borders(axes: Axes, spans: Sequence[StageSpan]) -> None:
    """Plot a line where a stage begins, labeled with its resolution if there is space."""
    width = spans[-1].end - spans[0].start
    for span in spans:
        if span is not spans[0]:
            axes.axvline(span.start, color=LIGHT.foreground, linewidth=0.8, linestyle="--", alpha=0.7)
        if span.end - span.start >= MIN_LABELED_FRACTION * width:
            axes.annotate(
                f"{span.resolution} px",
                (span.start, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(3, -2),
                textcoords="offset points",
                va="top",
                fontsize=7.5,
                color=LIGHT.foreground,
                bbox={"facecolor": LIGHT.background, "alpha": 0.75, "linewidth": 0, "pad": 1},
            )
