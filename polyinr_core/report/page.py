"""The report as one HTML page that needs nothing else: no script, no network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from ..results.result import Result
from .curves import Panel
from .reading import StoredRun
from .views import Comparison, chart, sheet_of, sheets_of, stages_of

TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Maker:
    """Who made a page, and when, in words."""

    version: str
    when: str


def page(
    run: StoredRun,
    panels: Sequence[Panel],
    *,
    results: Sequence[Result],
    comparison: Comparison | None,
    maker: Maker,
) -> str:
    """Return the page. Whatever a name, a label or a warning holds is shown as text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": figure, "fact": fact}
    template = environment.from_string((files("polyinr_core") / "assets" / TEMPLATE).read_text("utf-8"))
    return template.render(
        run=run,
        log=run.log,
        stages=stages_of(run),
        charts=[chart(panel, run.log.spans) for panel in panels],
        measured=measured_of(run, panels),
        sheets=sheets_of(run),
        reals=None if run.reals is None else sheet_of(run.reals, 0.0),
        results=results,
        comparison=comparison,
        maker=maker,
    )


def measured_of(
    run: StoredRun, panels: Sequence[Panel]
) -> tuple[list[str], list[tuple[float, list[float | None]]]]:
    """Return the names of what the run measured, and its values by kimg."""
    names = [panel.title for panel in panels if panel.title in run.log.names]
    columns = [dict(zip((found := run.log.points(name)).kimg, found.values, strict=True)) for name in names]
    kimg = sorted({at for column in columns for at in column})
    return names, [(at, [column.get(at) for column in columns]) for at in kimg]


def figure(value: float | None) -> str:
    """Write a number in four digits, nothing where there is none."""
    return "" if value is None else f"{value:.4g}"


def fact(value: Any) -> str:
    """Write a fact of a configuration or a card as a person reads it."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(fact(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
