"""Images as a page holds them: reduced to what is shown, and inside the page as data: URIs."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import Tensor

from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.evaluation.results import Result
from polyinr_core.images.grid import Pixels
from polyinr_core.images.io import encode_image
from polyinr_core.images.quantize import quantize
from polyinr_core.metrics.feature_pass import Images
from polyinr_core.training.config import SETTINGS
from polyinr_core.training.samples import thin

from . import plots as charts
from .nearest_neighbors import Likeness
from .plots import Panel
from .run_reader import Span, StoredRun

TILE = 128  # pixels: larger images are reduced to it
SHEET = 1100  # pixels of a sheet's longer side
SMALL = 128  # pixels: a tile up to here is enlarged by repeating pixels
BYTES_A_PIXEL = 1.5  # of PNG; what needs more, as photos do, is shown as JPEG


@dataclass(frozen=True)
class Shown:
    """An image inside the page: its source, and its width and height in pixels."""

    source: str
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Say whether its pixels are to be seen one by one."""
        return max(self.width, self.height) <= SMALL


def shown(pixels: Pixels) -> Shown:
    """Return pixels [H, W, 3] as a page holds them: PNG, exact, but for images that it would make large."""
    height, width, _ = pixels.shape
    data, kind = encode_image(pixels), "png"
    if len(data) > BYTES_A_PIXEL * width * height + 2**12:
        data, kind = encode_image(pixels, format="jpeg"), "jpeg"
    return Shown(data_uri(data, f"image/{kind}"), width, height)


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes of a media type as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read_sheet(path: Path) -> Pixels | None:
    """Return a sheet of images [H, W, 3], at most SHEET pixels long; None where it is damaged or has gone."""
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    longest = max(whole.size)
    if longest > SHEET:
        size = (max(1, whole.width * SHEET // longest), max(1, whole.height * SHEET // longest))
        whole = whole.resize(size, Image.Resampling.BOX)
    return np.asarray(whole)


def tiles(pixels: Tensor) -> Pixels:
    """Return images uint8 [N, 3, R, R] as [N, r, r, 3], area-averaged to TILE pixels where they are larger."""
    side = pixels.shape[-1]
    if side > TILE:
        pixels = quantize(area_average(pixels.cpu(), area_weights(side, TILE)))
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def tiles_at(images: Images, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Return the images of those numbers as tiles [r, r, 3]."""
    wanted = sorted(set(numbers))
    return {number: tiles(torch.cat(list(images.passes(range(number, number + 1)))))[0] for number in wanted}


class Kept:
    """Images whose tiles, in `tiles`, are kept as the images pass: they are made once."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.name = images.name
        self.side = images.side
        self.tiles: list[Pixels] = []

    @property
    def sha256(self) -> str:
        return self.images.sha256

    @property
    def facts(self) -> dict[str, Any]:
        return self.images.facts

    def __len__(self) -> int:
        return len(self.images)

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        for part in self.images.passes(span):
            self.tiles += list(tiles(part))
            yield part


MAX_SHEETS = 12
ROWS = 8  # of drawn images beside their nearest reals: of the first seeds, and of the nearest of all
IMAGES = 16  # of the best, of the middling and of the worst
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
    """A sheet of samples and when it was drawn, or of reals; no image where the file is damaged."""

    name: str
    kimg: float
    image: Shown | None


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
    """A real: its number among the reals, how far it is, and its image."""

    number: int
    distance: float
    image: Shown


@dataclass(frozen=True)
class Row:
    """A drawn image, its nearest reals, and how far the first of these is from the nearest other real."""

    seed: int
    image: Shown
    reals: tuple[Near, ...]
    gap: float


@dataclass(frozen=True)
class Scored:
    """A drawn image and its realism score."""

    seed: int
    score: float
    image: Shown


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
    return tuple(sheet_of(path, kimg[path]) for path in thin(list(kimg), MAX_SHEETS))


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


def comparison(found: Likeness, reals: Images, fakes: Kept, *, model: str, same_data: bool) -> Comparison:
    """Return what a page shows of what `model` has drawn and of reals; those that it shows are read once more."""
    first, nearest = list(range(min(ROWS, len(fakes)))), found.nearest_of_all(ROWS)
    numbers = found.numbers[sorted({*first, *nearest})].flatten().tolist()
    images = {number: shown(pixels) for number, pixels in tiles_at(reals, numbers).items()}
    kinds = {
        "drawn to real": found.distances[:, 0].tolist(),
        "real to another real": found.gaps.tolist(),
    }
    words = (
        f"Half of the drawn images are {found.distances[:, 0].median():.4g} or more from the nearest real; "
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
        first=tuple(row_of(found, seed, fakes, images) for seed in first),
        nearest=tuple(row_of(found, seed, fakes, images) for seed in nearest),
        realism={
            title: tuple(Scored(seed, float(found.realism[seed]), shown(fakes.tiles[seed])) for seed in seeds)
            for title, seeds in found.ranked(IMAGES).items()
        },
    )


def row_of(found: Likeness, seed: int, fakes: Kept, images: dict[int, Shown]) -> Row:
    """Return a drawn image with its nearest reals."""
    numbers: list[int] = found.numbers[seed].tolist()
    distances: list[float] = found.distances[seed].tolist()
    reals = tuple(Near(*near, images[near[0]]) for near in zip(numbers, distances, strict=True))
    return Row(seed, shown(fakes.tiles[seed]), reals, float(found.gaps[numbers[0]]))


def quantiles_of(found: Likeness) -> tuple[tuple[str, float, float], ...]:
    """Return for some shares the distance below which so many drawn images, and so many reals, lie."""
    at = torch.tensor(SHARES)
    columns = found.distances[:, 0].quantile(at).tolist(), found.gaps.quantile(at).tolist()
    return tuple((f"{share:.0%}", *pair) for share, pair in zip(SHARES, zip(*columns, strict=True), strict=True))


def captioned(found: Likeness, fakes: Kept) -> dict[str, list[tuple[Pixels, str]]]:
    """Return the images of the realism sheet by their group's title."""
    return {
        f"{title} by realism": [(fakes.tiles[seed], f"{found.realism[seed]:.3f}, seed {seed}") for seed in seeds]
        for title, seeds in found.ranked(IMAGES).items()
    }


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


def measured_of(run: StoredRun, panels: Sequence[Panel]) -> tuple[list[str], list[tuple[float, list[float | None]]]]:
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
