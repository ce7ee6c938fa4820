"""What a report shows, made from what was read and measured: charts, sheets, rows of pictures with words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..evaluation.inputs import Pictures
from ..pictures.sheet import Pixels
from ..training.film_strip import thinned
from ..training.stages import SETTINGS
from . import charts
from .curves import Panel
from .images import Kept, Shown, data_uri, read_sheet, shown, tiles_at
from .likeness import Likeness
from .log import Span
from .reading import StoredRun

MOST_SHEETS = 12
ROWS = 8  # of drawn pictures beside their nearest reals: of the first seeds, and of the nearest of all
PICTURES = 16  # of the best, of the middling and of the worst
SHARES = (0.01, 0.1, 0.5, 0.9)
ACROSS = "distance to the nearest real, in lite2's features"


@dataclass(frozen=True)
class Chart:
    """A chart in a light and in a dark theme, as data: URIs, with what it shows in words."""

    title: str
    words: str
    light: str
    dark: str


@dataclass(frozen=True)
class Sheet:
    """A sheet of samples and when it was drawn, or of reals; no picture where the file is damaged."""

    name: str
    kimg: float
    picture: Shown | None


@dataclass(frozen=True)
class StageRow:
    """A stage as planned and as far as it was trained; what is not known is None."""

    number: int
    resolution: int | None
    kimg: float | None
    settings: dict[str, object]
    span: Span | None


@dataclass(frozen=True)
class Near:
    """A real: its number among the reals, how far it is, and its picture."""

    number: int
    distance: float
    picture: Shown


@dataclass(frozen=True)
class Row:
    """A drawn picture, its nearest reals, and how far the first of these is from the nearest other real."""

    seed: int
    picture: Shown
    reals: tuple[Near, ...]
    gap: float


@dataclass(frozen=True)
class Scored:
    """A drawn picture and its realism score."""

    seed: int
    score: float
    picture: Shown


@dataclass(frozen=True)
class Comparison:
    """A model beside the reals. `same_data` says whether these are what the run learns from."""

    model: str
    data: str
    drawn: int
    reals: int
    same_data: bool
    likeness: Likeness
    chart: Chart
    quantiles: tuple[tuple[str, float, float], ...]
    first: tuple[Row, ...]
    nearest: tuple[Row, ...]
    realism: dict[str, tuple[Scored, ...]]


def chart(panel: Panel, spans: Sequence[Span]) -> Chart:
    """Return a panel of curves as a chart."""
    return chart_of(charts.svg(panel, spans), title=panel.title, words=panel.words)


def chart_of(svg: bytes, *, title: str, words: str) -> Chart:
    """Return a chart that was drawn as one of a page, in both themes."""
    light, dark = (data_uri(drawn, "image/svg+xml") for drawn in (svg, charts.darkened(svg)))
    return Chart(title, words, light, dark)


def sheets_of(run: StoredRun) -> tuple[Sheet, ...]:
    """Return the run's sheets of samples, of many so many, evenly from the first to the last."""
    kimg = {path: seen for seen, path in run.sheets}
    return tuple(sheet_of(path, kimg[path]) for path in thinned(list(kimg), MOST_SHEETS))


def sheet_of(path: Path, kimg: float) -> Sheet:
    """Return a sheet."""
    pixels = read_sheet(path)
    return Sheet(path.name, kimg, None if pixels is None else shown(pixels))


def stages_of(run: StoredRun) -> tuple[StageRow, ...]:
    """Return the stages, planned ones and those that the log tells of."""
    spans = {span.stage: span for span in run.log.spans}
    rows = []
    for number in sorted({*range(len(run.stages)), *spans}):
        span = spans.get(number)
        planned = run.stages[number] if number < len(run.stages) else None
        settings = {} if planned is None else {name: getattr(planned, name) for name in SETTINGS}
        rows.append(
            StageRow(
                number=number + 1,
                resolution=planned.resolution if planned else span.resolution if span else None,
                kimg=planned.kimg if planned else None,
                settings={name: value for name, value in settings.items() if value is not None},
                span=span,
            )
        )
    return tuple(rows)


def comparison(found: Likeness, reals: Pictures, fakes: Kept, *, model: str, same_data: bool) -> Comparison:
    """Return what a page shows of what `model` has drawn and of reals; those that it shows are read once more."""
    first, nearest = list(range(min(ROWS, len(fakes)))), found.nearest_of_all(ROWS)
    numbers = found.numbers[sorted({*first, *nearest})].flatten().tolist()
    pictures = {number: shown(pixels) for number, pixels in tiles_at(reals, numbers).items()}
    kinds = {
        "drawn to real": found.distances[:, 0].tolist(),
        "real to another real": found.gaps.tolist(),
    }
    words = (
        f"Half of the drawn pictures are {found.distances[:, 0].median():.4g} or more from the nearest real; "
        f"half of the reals are {found.gaps.median():.4g} or more from the nearest other real."
    )
    return Comparison(
        model=model,
        data=reals.facts["name"],
        drawn=len(fakes),
        reals=len(reals),
        same_data=same_data,
        likeness=found,
        chart=chart_of(charts.shares_svg(kinds, across=ACROSS), title="How near to a real", words=words),
        quantiles=quantiles_of(found),
        first=tuple(row_of(found, seed, fakes, pictures) for seed in first),
        nearest=tuple(row_of(found, seed, fakes, pictures) for seed in nearest),
        realism={
            title: tuple(Scored(seed, float(found.realism[seed]), shown(fakes.tiles[seed])) for seed in seeds)
            for title, seeds in found.ranked(PICTURES).items()
        },
    )


def row_of(found: Likeness, seed: int, fakes: Kept, pictures: dict[int, Shown]) -> Row:
    """Return a drawn picture with its nearest reals."""
    numbers: list[int] = found.numbers[seed].tolist()
    distances: list[float] = found.distances[seed].tolist()
    reals = tuple(Near(*near, pictures[near[0]]) for near in zip(numbers, distances, strict=True))
    return Row(seed, shown(fakes.tiles[seed]), reals, float(found.gaps[numbers[0]]))


def quantiles_of(found: Likeness) -> tuple[tuple[str, float, float], ...]:
    """Return for some shares the distance below which so many drawn pictures, and so many reals, lie."""
    at = torch.tensor(SHARES)
    columns = found.distances[:, 0].quantile(at).tolist(), found.gaps.quantile(at).tolist()
    return tuple((f"{share:.0%}", *pair) for share, pair in zip(SHARES, zip(*columns, strict=True), strict=True))


def captioned(found: Likeness, fakes: Kept) -> dict[str, list[tuple[Pixels, str]]]:
    """Return the pictures of the realism sheet by their group's title."""
    return {
        f"{title} by realism": [(fakes.tiles[seed], f"{found.realism[seed]:.3f}, seed {seed}") for seed in seeds]
        for title, seeds in found.ranked(PICTURES).items()
    }
