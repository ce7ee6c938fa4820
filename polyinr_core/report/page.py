"""The report page: one HTML file with the run's curves, sample grids, metrics, nearest reals and realism."""

import base64
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.locate import load_model_file
from polyinr_core.errors import FileError
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.evaluation.results import Result, read_result
from polyinr_core.evaluation.set_metrics import no_progress
from polyinr_core.images.grid import Pixels
from polyinr_core.images.io import encode_image
from polyinr_core.metrics import extractors
from polyinr_core.metrics.feature_pass import ImageSource, Progress
from polyinr_core.metrics.registry import better
from polyinr_core.rendering.metadata import version
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.runtime.strict_json import to_unicode
from polyinr_core.training.config import SETTINGS
from polyinr_core.training.samples import thin

from . import CURVES, PAGE, REALISM
from .nearest_neighbors import NearestNeighbors, ThumbnailSource, find_neighbors, realism_grid, thumbnails_at
from .plots import Panel, classes_svg, ecdf_svg, panel_svg, panels_of, panels_png, to_dark
from .run_reader import StageSpan, StoredRun, read_run

TEMPLATE = "report.html.jinja"
MAX_GRID_SIZE = 1040  # pixels of the longer edge of a sample grid: eight images of 128 px with their gaps
MAX_PIXELATED_SIZE = 128  # pixels; images up to here are enlarged by repeating pixels
MAX_PNG_BYTES_PER_PIXEL = 1.5  # images that need more, such as photos, are embedded as JPEG
MAX_GRIDS = 12
MAX_BARS = 12  # classes in a chart
NEIGHBOR_ROWS = 8  # generated images beside their nearest reals: the first seeds, and the nearest of all
REALISM_IMAGES = 16  # of the highest, of the middle and of the lowest realism
QUANTILES = (0.01, 0.1, 0.5, 0.9)
DISTANCE_LABEL = "distance to the nearest real, in lite2's features"


@dataclass(frozen=True)
class EmbeddedImage:
    """An image as a data: URI, with its width and height in pixels."""

    source: str
    width: int
    height: int

    @property
    def pixelated(self) -> bool:
        """Whether the browser enlarges it by repeating pixels."""
        return max(self.width, self.height) <= MAX_PIXELATED_SIZE


@dataclass(frozen=True)
class ThemedChart:
    """A chart in a light and in a dark theme, as data: URIs, with its description."""

    title: str
    description: str
    light: str
    dark: str


@dataclass(frozen=True)
class SampleGrid:
    """A grid of samples, or of reals, and when it was made; the image is None if the file is damaged."""

    name: str
    kimg: float
    image: EmbeddedImage | None


@dataclass(frozen=True)
class StageRow:
    """A stage as planned and as trained so far; what is unknown is None."""

    number: int
    resolution: int | None
    kimg: float | None
    settings: dict[str, object]
    span: StageSpan | None


@dataclass(frozen=True)
class RealNeighbor:
    """A real near a generated image: its index, its distance and its image."""

    index: int
    distance: float
    image: EmbeddedImage


@dataclass(frozen=True)
class NeighborRow:
    """A generated image, its nearest reals, and the distance of the first of these to its nearest other real."""

    seed: int
    image: EmbeddedImage
    reals: tuple[RealNeighbor, ...]
    real_distance: float


@dataclass(frozen=True)
class ScoredImage:
    """A generated image and its realism score."""

    seed: int
    score: float
    image: EmbeddedImage


@dataclass(frozen=True)
class RealsComparison:
    """A model's images beside the reals; `same_data` is whether these are the run's training data."""

    model: str
    data: str
    fakes: int
    reals: int
    same_data: bool
    neighbors: NearestNeighbors
    chart: ThemedChart
    quantiles: tuple[tuple[str, float, float], ...]
    first: tuple[NeighborRow, ...]
    nearest: tuple[NeighborRow, ...]
    realism: dict[str, tuple[ScoredImage, ...]]


@dataclass(frozen=True)
class ReportInfo:
    """The version of polyinr that made a page, and the date."""

    version: str
    date: str


def build_report(
    run: PathLike,
    files: Collection[str] = (PAGE,),
    *,
    results: Sequence[PathLike] = (),
    real: PathLike | None = None,
    model: PathLike | None = None,
    count: int = 256,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[str], Progress] = no_progress,
    inform: Callable[[str], None] = lambda text: None,
) -> dict[str, bytes]:
    """Report on a training run, finished or not.

    Args:
        run: The run folder.
        files: What to build: report.html, the page; curves.png, the curves alone; with `real` realism.png.
        results: Results of evaluations, as files, to show beside those in the run folder.
        real: The training data: generated images are shown beside their nearest reals, and ranked by realism.
        model: The model that is compared with them. Default: the run's best checkpoint, else its newest.
        count, cache, device, progress: As for `compare_model`.
        inform: Called with a message about the model, unless it was given.

    Returns: the content of each file by its name.
    Raises PolyinrError.
    """
    stored = read_run(run)
    panels = panels_of(stored.log, stored.metrics)
    if not panels:
        raise FileError(stored.folder.log, "has no numbers to plot yet; wait until the run has logged some")
    shown = [read_result(Path(file)) for file in results]
    comparison, realism = None, None
    if real is not None:
        if model is None:
            if (model := stored.model) is None:
                raise FileError(stored.folder.checkpoints, "has no model yet; leave out --real, or name one with -m")
            inform(f"model {model} (the run's best or newest)")
        checkpoint, file = load_model_file(Path(model))
        checkpoint.generator.to(device=device)
        options: dict[str, Any] = {"count": count, "cache": cache, "device": torch.device(device), "progress": progress}
        comparison, realism = compare_model(stored, checkpoint, real, name=str(file), **options)
    built: dict[str, bytes] = {}
    if CURVES in files:
        built[CURVES] = panels_png(panels, stored.log.spans, title=f"Run {stored.name}")
    if REALISM in files and realism is not None:
        built[REALISM] = encode_image(realism)
    if PAGE in files:
        shown += stored.results(exclude=[Path(file) for file in results])
        info = ReportInfo(version(), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
        page = render_page(stored, panels, results=shown, comparison=comparison, info=info)
        built[PAGE] = to_unicode(page).encode()
    return built


def render_page(
    run: StoredRun,
    panels: Sequence[Panel],
    *,
    results: Sequence[Result],
    comparison: RealsComparison | None,
    info: ReportInfo,
) -> str:
    """Return the page as HTML. Names, labels and warnings are escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": format_number, "fact": format_fact}
    template = environment.from_string((files("polyinr_core") / "assets" / TEMPLATE).read_text("utf-8"))
    return template.render(
        run=run,
        log=run.log,
        stages=stage_rows(run),
        charts=[panel_chart(panel, run.log.spans) for panel in panels],
        measured=measurements(run, panels),
        grids=sample_grids(run),
        reals=None if run.reals is None else sample_grid(run.reals, 0.0),
        results=results,
        class_charts={result.name: class_chart(result) for result in results if result.classes},
        comparison=comparison,
        info=info,
    )


def embed(pixels: Pixels) -> EmbeddedImage:
    """Return pixels [H, W, 3] as a data: URI, PNG, or JPEG if the PNG would be large."""
    height, width, _ = pixels.shape
    data, format = encode_image(pixels), "png"
    if len(data) > MAX_PNG_BYTES_PER_PIXEL * width * height + 2**12:
        data, format = encode_image(pixels, format="jpeg"), "jpeg"
    return EmbeddedImage(data_uri(data, f"image/{format}"), width, height)


def data_uri(data: bytes, media_type: str) -> str:
    """Return bytes of a media type as a data: URI."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def read_grid(path: Path) -> Pixels | None:
    """Return an image [H, W, 3] with edges of at most MAX_GRID_SIZE pixels; None if it is damaged or missing."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    longest = max(image.size)
    if longest > MAX_GRID_SIZE:
        size = (max(1, image.width * MAX_GRID_SIZE // longest), max(1, image.height * MAX_GRID_SIZE // longest))
        image = image.resize(size, Image.Resampling.BOX)
    return np.asarray(image)


def panel_chart(panel: Panel, spans: Sequence[StageSpan]) -> ThemedChart:
    """Return a panel of curves as a chart."""
    return themed_chart(panel_svg(panel, spans), title=panel.title, description=panel.description)


def themed_chart(svg: bytes, *, title: str, description: str) -> ThemedChart:
    """Return a light SVG chart in both themes."""
    light, dark = (data_uri(data, "image/svg+xml") for data in (svg, to_dark(svg)))
    return ThemedChart(title, description, light, dark)


def class_chart(result: Result) -> ThemedChart | None:
    """Return a chart of the classes with the worst values of the first metric that classes have, None without one."""
    names = [name for row in result.classes.values() for name in row.metrics]
    if not names:
        return None
    name = names[0]
    values = {label: row.metrics[name]["value"] for label, row in result.classes.items() if name in row.metrics}
    worst = sorted(values, key=values.__getitem__, reverse=better(name) != "higher")[:MAX_BARS]
    description = ", ".join(f"{label} {values[label]:.4g}" for label in worst)
    title = f"{name} by class" + (f", the worst {MAX_BARS} of {len(values)}" if len(values) > MAX_BARS else "")
    svg = classes_svg({label: values[label] for label in worst}, xlabel=name)
    return themed_chart(svg, title=title, description=f"{title}: {description}")


def sample_grids(run: StoredRun) -> tuple[SampleGrid, ...]:
    """Return up to MAX_GRIDS of the run's sample grids, evenly spaced from the first to the last."""
    kimg = {path: position for position, path in run.grids}
    return tuple(sample_grid(path, kimg[path]) for path in thin(list(kimg), MAX_GRIDS))


def sample_grid(path: Path, kimg: float) -> SampleGrid:
    """Return the grid in a file."""
    pixels = read_grid(path)
    return SampleGrid(path.name, kimg, None if pixels is None else embed(pixels))


def stage_rows(run: StoredRun) -> tuple[StageRow, ...]:
    """Return the stages that are planned and those that the log has."""
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


def measurements(run: StoredRun, panels: Sequence[Panel]) -> tuple[list[str], list[tuple[float, list[float | None]]]]:
    """Return the names of the metrics that the run measured, and their values by kimg."""
    names = [panel.title for panel in panels if panel.title in run.log.names]
    columns = [dict(zip((series := run.log.series(name)).kimg, series.values, strict=True)) for name in names]
    kimg = sorted({position for column in columns for position in column})
    return names, [(position, [column.get(position) for column in columns]) for position in kimg]


def compare_with_reals(
    neighbors: NearestNeighbors, reals: ImageSource, fakes: ThumbnailSource, *, model: str, same_data: bool
) -> RealsComparison:
    """Return the page's part about nearest reals and realism; the reals shown are read again."""
    first, nearest = list(range(min(NEIGHBOR_ROWS, len(fakes)))), neighbors.nearest_of_all(NEIGHBOR_ROWS)
    indices = neighbors.indices[sorted({*first, *nearest})].flatten().tolist()
    images = {index: embed(pixels) for index, pixels in thumbnails_at(reals, indices).items()}
    samples = {
        "generated to real": neighbors.distances[:, 0].tolist(),
        "real to another real": neighbors.real_distances.tolist(),
    }
    description = (
        f"Median distance of a generated image to the nearest real: {neighbors.distances[:, 0].median():.4g}; of a "
        f"real to the nearest other real: {neighbors.real_distances.median():.4g}."
    )
    return RealsComparison(
        model=model,
        data=reals.provenance["name"],
        fakes=len(fakes),
        reals=len(reals),
        same_data=same_data,
        neighbors=neighbors,
        chart=themed_chart(
            ecdf_svg(samples, xlabel=DISTANCE_LABEL), title="Distance to the nearest real", description=description
        ),
        quantiles=distance_quantiles(neighbors),
        first=tuple(neighbor_row(neighbors, seed, fakes, images) for seed in first),
        nearest=tuple(neighbor_row(neighbors, seed, fakes, images) for seed in nearest),
        realism={
            title: tuple(
                ScoredImage(seed, float(neighbors.realism[seed]), embed(fakes.thumbnails[seed])) for seed in seeds
            )
            for title, seeds in neighbors.ranked(REALISM_IMAGES).items()
        },
    )


def compare_model(
    run: StoredRun,
    checkpoint: Checkpoint,
    real: PathLike,
    *,
    name: str,
    count: int = 256,
    cache: Path | None = None,
    device: torch.device,
    progress: Callable[[str], Progress] = no_progress,
) -> tuple[RealsComparison, Pixels]:
    """Compare a model's images of seeds 0 to count-1 with reals in lite2's features.

    Args:
        run: The run, whose dataset the reals may be.
        checkpoint: The model, on `device`.
        real: The reals: a dataset or a folder.
        name: What the page calls the model.
        count: How many images.
        cache: A folder that caches the features of the reals.
        device: Where the images are rendered and the features computed.
        progress: Makes a callback for a description.

    Returns:
        The page's part about nearest reals and realism, and the realism grid.

    Raises PolyinrError.
    """
    if not checkpoint.resolution:
        raise FileError(name, "does not say its resolution; name another model with -m")
    fakes = ThumbnailSource(GeneratedImages(checkpoint, name=name, count=count))
    reals = DatasetImages(real, resolution=fakes.resolution)
    lite2 = extractors.load_extractor("lite2")
    neighbors = find_neighbors(reals, fakes, lite2, device=device, cache=cache, progress=progress)
    same_data = reals.data.sha256 == run.data.get("sha256")
    model = f"{Path(name).name} ({checkpoint.kimg:.4g} kimg)"
    comparison = compare_with_reals(neighbors, reals, fakes, model=model, same_data=same_data)
    return comparison, realism_grid(realism_groups(neighbors, fakes))


def neighbor_row(
    neighbors: NearestNeighbors, seed: int, fakes: ThumbnailSource, images: dict[int, EmbeddedImage]
) -> NeighborRow:
    """Return a generated image with its nearest reals."""
    indices: list[int] = neighbors.indices[seed].tolist()
    distances: list[float] = neighbors.distances[seed].tolist()
    reals = tuple(RealNeighbor(i, distance, images[i]) for i, distance in zip(indices, distances, strict=True))
    return NeighborRow(seed, embed(fakes.thumbnails[seed]), reals, float(neighbors.real_distances[indices[0]]))


def distance_quantiles(neighbors: NearestNeighbors) -> tuple[tuple[str, float, float], ...]:
    """Return quantiles of the distances of generated images, and of reals, to the nearest real."""
    at = torch.tensor(QUANTILES)
    columns = neighbors.distances[:, 0].quantile(at).tolist(), neighbors.real_distances.quantile(at).tolist()
    return tuple((f"{q:.0%}", *pair) for q, pair in zip(QUANTILES, zip(*columns, strict=True), strict=True))


def realism_groups(neighbors: NearestNeighbors, fakes: ThumbnailSource) -> dict[str, list[tuple[Pixels, str]]]:
    """Return the captioned images of the realism grid by the title of their group."""
    return {
        f"{title} by realism": [
            (fakes.thumbnails[seed], f"{neighbors.realism[seed]:.3f}, seed {seed}") for seed in seeds
        ]
        for title, seeds in neighbors.ranked(REALISM_IMAGES).items()
    }


def format_number(value: float | None) -> str:
    """Return a number with four digits, "" for None."""
    return "" if value is None else f"{value:.4g}"


def format_fact(value: Any) -> str:
    """Return a value of a configuration or a card in words."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_fact(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
