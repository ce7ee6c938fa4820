"""Charts: deterministic and safe SVG, PNG of all panels; hostile names, other styles."""

import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from polyinr_core.report import plots as charts
from polyinr_core.report.plots import Curve, Panel, smooth_curve
from polyinr_core.report.run_reader import Series, StageSpan

SPANS = (StageSpan(0, 16, 0.0, 2.0), StageSpan(1, 32, 2.0, 40.0))


def panel(name: str = "discriminator", count: int = 60, *, measured: bool = False) -> Panel:
    values = tuple(np.random.default_rng(0).normal(size=count))
    points = Series(tuple(np.linspace(0, 40, count)), values)
    return Panel("Losses", "loss", (Curve(name, points) if measured else smooth_curve(name, points),), measured)


def test_svg_is_deterministic() -> None:
    assert charts.panel_svg(panel(), SPANS) == charts.panel_svg(panel(), SPANS)


def test_dark_theme_replaces_all_colors() -> None:
    light = charts.panel_svg(panel(), SPANS).decode()
    dark = charts.to_dark(light.encode()).decode()
    colors = set(re.findall("#[0-9a-f]{6}", light))
    own = {charts.LIGHT.background, charts.LIGHT.foreground, charts.LIGHT.grid, *charts.LIGHT.curves}
    assert (
        {charts.LIGHT.background, charts.LIGHT.foreground, charts.LIGHT.grid, charts.LIGHT.curves[0]} <= colors <= own
    )
    assert not colors & set(re.findall("#[0-9a-f]{6}", dark))


@pytest.mark.parametrize("name", ["$\\frac{", "</svg><script>alert(1)</script>", "&amp;", "\u202e"])
def test_a_hostile_name_is_plotted_as_text(name: str) -> None:
    drawn = charts.panel_svg(panel(name), SPANS)
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(drawn).iter()}
    assert not tags & {"script", "foreignObject", "image", "a"}


def test_a_hostile_title_is_plotted_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "DPI", 30)
    strange = Panel("$\\frac{" + "a" * 300, "$y", panel().curves)
    assert charts.panels_png([strange], SPANS, title="Run $x$ " + "b" * 300)


def test_matplotlibrc_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    before = charts.panel_svg(panel(), SPANS)
    monkeypatch.setitem(matplotlib.rcParams, "lines.linestyle", ":")
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    assert charts.panel_svg(panel(), SPANS) == before
    assert matplotlib.rcParams["lines.linestyle"] == ":"


@pytest.mark.parametrize("count", [1, 2, 5000])
def test_curves_of_any_length(count: int) -> None:
    assert len(charts.panel_svg(panel(count=count), SPANS)) < 200_000


@pytest.mark.parametrize("spans", [(), (StageSpan(0, 16, 0.0, 0.0),), SPANS[:1]])
def test_logs_without_stages_and_with_one_event(spans: tuple[StageSpan, ...]) -> None:
    assert charts.panel_svg(panel(count=1, measured=True), spans)


def test_distances_of_different_resolutions_are_not_joined() -> None:
    points = Series((0.0, 1.0, 3.0, 4.0), (1.0, 2.0, 3.0, 4.0))
    drawn = charts.panel_svg(Panel("fd", "distance", (Curve("fd", points),), measured=True), SPANS)
    color = charts.LIGHT.curves[0]
    lines = [e for e in ET.fromstring(drawn).iter() if f"stroke: {color}" in e.get("style", "") and e.get("d")]
    joined = [line for line in lines if "fill: none" in line.get("style", "")]
    assert len(joined) == 3  # one a stage, and the legend's


def test_png_has_all_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "DPI", 30)

    def size(*panels: Panel) -> tuple[int, int]:
        return Image.open(io.BytesIO(charts.panels_png(panels, SPANS, title="Run x"))).size

    one, two, three = size(panel()), size(panel(), panel()), size(panel(), panel(), panel())
    assert two == (2 * one[0], one[1])
    assert (three[0], three[1] > two[1]) == (two[0], True)


def test_ecdf_ends_at_100_percent() -> None:
    """A small oracle: 4 values, of which the axis' highest label is 100 %."""
    drawn = charts.ecdf_svg({"a": [1.0, 2.0], "b": [3.0, 4.0]}, xlabel="distance")
    assert drawn.startswith(b"<?xml")
    for color in charts.LIGHT.curves[:2]:
        assert color in drawn.decode()


def test_bars_of_classes() -> None:
    """A hostile name is text, and the SVG is deterministic."""
    for count in (1, 12):
        values = {f"<a onload=x> $\\frac${i}": float(i) for i in range(count)}
        svg = charts.classes_svg(values, xlabel="kd-lite2")
        assert b"<a onload" not in svg
        assert svg == charts.classes_svg(values, xlabel="kd-lite2")
