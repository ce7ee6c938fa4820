"""Charts drawn with matplotlib, without a screen: a panel as SVG, light or dark, all panels as one PNG."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from .curves import Curve, Panel, inside
from .log import Points, Span

WIDTH, HEIGHT = 6.0, 2.9  # inches of a panel
ROOM = (0.72, 0.46, 0.12, 0.32)  # inches of it left of the axes, below, right of and above them: for words
HEADING = 0.45  # inches above all panels
LETTERS = 60  # of a title
DOTS = 150  # an inch, in PNG
NARROW = 0.07  # of the axis: a stage that takes less has no name on it


@dataclass(frozen=True)
class Theme:
    """Colours of a chart, no two the same. The curves' are about Okabe's and Ito's, told apart by most eyes."""

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
        for (name, values), colour in zip(kinds.items(), LIGHT.curves, strict=False):
            axes.ecdf(values, color=colour, linewidth=1.6, label=name)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        finish(axes, across=across, up="share of the pictures")

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
    """Return a chart in the dark theme: drawn once, the same but for its colours."""
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
    for curve, colour in zip(panel.curves, LIGHT.curves, strict=False):
        if panel.measured:
            draw_measured(axes, curve, spans, colour)
        else:
            draw_curve(axes, curve, colour)
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
    finish(axes, across="thousand pictures seen (kimg)", up=panel.unit)


def finish(axes: Axes, *, across: str, up: str) -> None:
    """Name the axes, colour all that is not a curve, and set the legend above."""
    axes.set_xlabel(across, color=LIGHT.ink)
    axes.set_ylabel(up, color=LIGHT.ink)
    axes.grid(color=LIGHT.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor(LIGHT.paper)
    axes.tick_params(colors=LIGHT.ink)
    for spine in axes.spines.values():
        spine.set_color(LIGHT.ink)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, labelcolor=LIGHT.ink, borderpad=0.2
    )


def draw_measured(axes: Axes, curve: Curve, spans: Sequence[Span], colour: str) -> None:
    """Draw marked points, joined within a stage: those of different resolutions do not compare."""
    parts = [part for span in spans if len(part := inside(curve.points, span))] or [curve.points]
    for index, part in enumerate(parts):
        name = curve.name if index + 1 == len(parts) else None
        axes.plot(part.kimg, part.values, marker="o", markersize=3.5, linewidth=1.4, color=colour, label=name)


def draw_curve(axes: Axes, curve: Curve, colour: str) -> None:
    """Draw a curve: thin what was logged, or shaded its extent; thick the mean."""
    thick: Points = curve.mean or curve.points
    if curve.low:
        axes.fill_between(thick.kimg, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    elif curve.mean:
        axes.plot(curve.points.kimg, curve.points.values, color=colour, linewidth=0.7, alpha=0.4)
    marker = "o" if len(curve.points) == 1 else None
    axes.plot(thick.kimg, thick.values, color=colour, linewidth=1.6, marker=marker, label=curve.name)


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
