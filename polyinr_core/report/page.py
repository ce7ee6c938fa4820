"""The report page: one HTML file with the run's curves, sample grids, metrics, nearest reals and realism."""

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.errors import FileError
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.evaluation.results import Result
from polyinr_core.evaluation.set_metrics import no_progress
from polyinr_core.images.grid import Pixels, quantize
from polyinr_core.images.io import encode_image
from polyinr_core.metrics import extractors
from polyinr_core.metrics.feature_pass import ImageBatches, ImageSource, Progress
from polyinr_core.metrics.registry import better
from polyinr_core.runtime.atomic_io import PathLike
from polyinr_core.training.config import SETTINGS
from polyinr_core.training.samples import thin

from .nearest_neighbors import NearestNeighbors, find_neighbors, realism_grid
from .plots import Panel, classes_svg, ecdf_svg, panel_svg, to_dark
from .run_reader import StageSpan, StoredRun

TEMPLATE = "report.html.jinja"
THUMBNAIL_SIZE = 128  # pixels; larger images are reduced to it
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
class ComparedImage:
    """A generated image: its realism score, its nearest reals, and the nearest one's distance to another real."""

    seed: int
    image: EmbeddedImage
    score: float
    reals: tuple[RealNeighbor, ...] = ()
    real_distance: float = 0.0


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
    first: tuple[ComparedImage, ...]
    nearest: tuple[ComparedImage, ...]
    realism: dict[str, tuple[ComparedImage, ...]]


def render_page(
    run: StoredRun,
    panels: Sequence[Panel],
    *,
    results: Sequence[Result],
    comparison: RealsComparison | None,
    version: str,
    date: str,
) -> str:
    """Return the page as HTML, made by a `version` of polyinr at a `date`. Names, labels and warnings are escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": lambda value: "" if value is None else f"{value:.4g}", "fact": format_fact}
    template = environment.from_string((files("polyinr_core") / "assets" / TEMPLATE).read_text("utf-8"))
    return template.render(
        run=run,
        log=run.log,
        stages=stage_rows(run),
        charts=[
            themed_chart(panel_svg(panel, run.log.spans), title=panel.title, description=panel.description)
            for panel in panels
        ],
        measured=measurements(run, panels),
        grids=sample_grids(run),
        reals=None if run.reals is None else sample_grid(run.reals, 0.0),
        results=results,
        class_charts={result.name: class_chart(result) for result in results if result.classes},
        comparison=comparison,
        version=version,
        date=date,
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


def make_thumbnails(pixels: Tensor) -> Pixels:
    """Return images uint8 [N, 3, R, R] as [N, r, r, 3], area-averaged to THUMBNAIL_SIZE if they are larger."""
    resolution = pixels.shape[-1]
    if resolution > THUMBNAIL_SIZE:
        pixels = quantize(area_average(pixels.cpu(), area_weights(resolution, THUMBNAIL_SIZE)))
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def thumbnails_at(images: ImageBatches, indices: Sequence[int]) -> dict[int, Pixels]:
    """Return the thumbnails [r, r, 3] of the images at these indices."""
    return {
        index: make_thumbnails(torch.cat(list(images.batches(range(index, index + 1)))))[0]
        for index in sorted(set(indices))
    }


class ThumbnailSource:
    """An image source that stores a thumbnail of each image that is read through it, so that each is made once."""

    def __init__(self, images: ImageSource) -> None:
        self.images = images
        self.name = images.name
        self.resolution = images.resolution
        self.thumbnails: list[Pixels] = []

    @property
    def provenance(self) -> dict[str, Any]:
        return self.images.provenance

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        for batch in self.images.batches(indices):
            self.thumbnails += list(make_thumbnails(batch))
            yield batch


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
    shown = neighbors.indices[sorted({*first, *nearest})].flatten().tolist()
    images = {index: embed(pixels) for index, pixels in thumbnails_at(reals, shown).items()}

    def compared(seed: int, *, with_reals: bool) -> ComparedImage:
        image, score = embed(fakes.thumbnails[seed]), float(neighbors.realism[seed])
        if not with_reals:
            return ComparedImage(seed, image, score)
        indices, distances = neighbors.indices[seed].tolist(), neighbors.distances[seed].tolist()
        near = tuple(RealNeighbor(i, distance, images[i]) for i, distance in zip(indices, distances, strict=True))
        return ComparedImage(seed, image, score, near, float(neighbors.real_distances[indices[0]]))

    of_fakes, of_reals = neighbors.distances[:, 0], neighbors.real_distances
    quantiles = (distances.quantile(torch.tensor(QUANTILES)).tolist() for distances in (of_fakes, of_reals))
    samples = {"generated to real": of_fakes.tolist(), "real to another real": of_reals.tolist()}
    description = (
        f"Median distance of a generated image to the nearest real: {of_fakes.median():.4g}; of a real to the nearest "
        f"other real: {of_reals.median():.4g}."
    )
    chart = ecdf_svg(samples, xlabel=DISTANCE_LABEL)
    return RealsComparison(
        model=model,
        data=reals.provenance["name"],
        fakes=len(fakes),
        reals=len(reals),
        same_data=same_data,
        neighbors=neighbors,
        chart=themed_chart(chart, title="Distance to the nearest real", description=description),
        quantiles=tuple(zip((f"{fraction:.0%}" for fraction in QUANTILES), *quantiles, strict=True)),
        first=tuple(compared(seed, with_reals=True) for seed in first),
        nearest=tuple(compared(seed, with_reals=True) for seed in nearest),
        realism={
            title: tuple(compared(seed, with_reals=False) for seed in seeds)
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
    groups = {
        f"{title} by realism": [(fakes.thumbnails[k], f"{neighbors.realism[k]:.3f}, seed {k}") for k in seeds]
        for title, seeds in neighbors.ranked(REALISM_IMAGES).items()
    }
    comparison = compare_with_reals(neighbors, reals, fakes, model=model, same_data=same_data)
    return comparison, realism_grid(groups)


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
