"""Heat maps: the activations of each level, as the sum of its features weighted by their means. Paper, Figure 3."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.images.grid import Pixels, apply_colormap, blank, check_finite
from polyinr_core.images.io import ImageFile
from polyinr_core.latents.latents import Latents
from polyinr_core.models.coordinates import Grid, Window, without_metal
from polyinr_core.models.generator import Synthesis
from polyinr_core.runtime.resources import check_memory

from .metadata import Metadata, grid_metadata
from .model import Model
from .render import Renderer, in_bands, in_chunks
from .requests import ImageRequests
from .viewport import Viewport
from .writers import GridSpec, Output, OutputKind, Written, array_file, check_output, write_files, write_pixels

Progress = Callable[[int], None]  # evaluated pixels
HEAT_BYTES = 4 + 4 + 8  # per pixel and level: the heat, and its colors
MIN_CAPTION_WIDTH = 60  # pixels of a cell whose caption is "level N" rather than "N"


def heatmap(
    model: Model,
    latents: Latents,
    *,
    levels: Sequence[int] | None = None,
    resolution: int | None = None,
    size: tuple[int, int] | None = None,
    window: Window | None = None,
    viewport: Viewport | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Compute the heat maps [N, K, H, W] of K levels of N images, before normalization.

    Args:
        model: The model.
        latents: N images.
        levels: The levels, by default all.
        resolution: Width and height in pixels; by default the training resolution.
        size: Width and height in pixels, where they differ.
        window: The part x0, y0, x1, y1 of the plane, over which the means are taken.
        viewport: Instead of the three before it.
        progress: Called with the number of evaluated pixels, which is twice that of the heat maps.

    Raises RequestError, ConfigError.
    """
    if viewport is None:
        viewport = model.viewport(resolution=resolution, size=size, window=window)
    known = range(model.generator.config.levels)
    levels = list(known if levels is None else levels)
    if missing := sorted(set(levels) - set(known)):
        raise RequestError(f"level {missing[0]} is out of range 0-{known[-1]} (the model has {len(known)} levels)")
    maps = np.empty((len(latents), len(levels), viewport.height, viewport.width), dtype=np.float32)
    for index in range(len(latents)):
        top = 0
        for band in heatmap_rows(model, latents[index], viewport, levels=levels, progress=progress):
            maps[index, :, top : top + len(band)] = band.permute(2, 0, 1).cpu().numpy()
            top += len(band)
    return maps


def heatmap_rows(
    model: Model,
    latents: Latents,
    viewport: Viewport,
    *,
    levels: Sequence[int],
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, K] of the heat maps of one image, from top to bottom, in memory of one band.

    The grid is evaluated twice: for the means, then for the sums. Raises PolyinrError for NaN or Inf.
    """
    levels, order = sorted(set(levels)), list(levels)
    affine, grid, k = model.affine_of(model.complete(latents))[0], model.grid(viewport), viewport.supersample
    means = feature_means(model.synthesis, affine, grid, levels=levels, progress=progress)
    for band in check_finite(heat_rows(model.synthesis, affine, grid, means, levels=levels, supersample=k)):
        yield band if order == levels else band[..., [levels.index(level) for level in order]]
        if progress is not None:
            progress(len(band) * k * grid.width)


def colorize(
    heat: NDArray[np.floating], colormap: str = "inferno", *, image: Pixels | None = None, opacity: float = 1.0
) -> Pixels:
    """Map a heat map [H, W], normalized to its minimum and maximum, to colors [H, W, 3].

    The colors are blended over `image` [H, W, 3] with an opacity of 0 (the image) to 1. Raises RequestError.
    """
    low, high = float(heat.min()), float(heat.max())
    colors = apply_colormap((heat - low) / (high - low) if high > low else np.zeros_like(heat), colormap)
    if image is None:
        return colors
    return np.rint((1 - opacity) * image + opacity * colors).astype(np.uint8)


@dataclass(frozen=True)
class HeatmapOptions:
    """Which levels are shown, in which color map, and with which opacity over the image (None: without it)."""

    levels: tuple[int, ...]
    colormap: str = "inferno"
    overlay: float | None = None


def check_heatmaps(output: Output, renderer: Renderer, options: HeatmapOptions, *, count: int) -> None:
    """Raise RequestError if the output cannot hold the heat maps of `count` images, before any is rendered."""
    levels = len(options.levels)
    check_output(output, renderer, count=count * (1 + levels), grid=_grid_of(renderer, options))
    if output.kind is not OutputKind.array:
        needed = renderer.width * renderer.height * levels * HEAT_BYTES
        check_memory(needed, purpose=f"heat maps of {renderer.width}x{renderer.height}")


def count_evaluations(output: Output, renderer: Renderer, options: HeatmapOptions, *, count: int) -> int:
    """Return how many pixels `write_heatmaps` evaluates for `count` images."""
    without_image = output.kind is OutputKind.folder and options.overlay is None
    passes = 2 if output.kind is OutputKind.array or without_image else 3
    return passes * renderer.grid.width * renderer.grid.height * count


def write_heatmaps(
    output: Output,
    renderer: Renderer,
    images: ImageRequests,
    options: HeatmapOptions,
    *,
    progress: Progress = lambda pixels: None,
) -> Iterator[Written]:
    """Compute the heat maps of images and write them in the form of the output.

    A folder gets a PNG for each image and level, an array (.npy) is [N, K, H, W] before normalization, and an image
    file or a stream is a grid with a row for each image: the image, then its levels.

    Args:
        output: Where they go.
        renderer: The model and the viewport.
        images: Which images.
        options: Levels and colors.
        progress: Called with evaluated pixels, of `count_evaluations`.

    Yields:
        The file and the metadata of each image, or of each image and level, once the file is complete.

    Raises PolyinrError.
    """
    check_heatmaps(output, renderer, options, count=len(images))
    write = {OutputKind.folder: _write_folder, OutputKind.array: _write_array}.get(output.kind, _write_grid)
    return write(output, renderer, images, options, progress)


def _write_grid(
    output: Output, renderer: Renderer, images: ImageRequests, options: HeatmapOptions, progress: Progress
) -> Iterator[Written]:
    columns, grid = 1 + len(options.levels), _grid_of(renderer, options)
    layout = grid.layout(len(images) * columns, renderer)
    pixels = blank(layout.size)
    metadata, found = [], []
    for index, image in enumerate(images):
        cell = pixels[layout.place(index * columns)]
        _render_image(cell, renderer, image.latents, progress)
        maps = _compute(renderer, image.latents, options, progress)
        for k, heat in enumerate(maps):
            pixels[layout.place(index * columns + 1 + k)] = _colors(heat, cell, options)
        metadata.append(image.metadata)
        found.append(_with_ranges(image.metadata, options.levels, maps))
    grid.draw_captions(pixels, layout)
    write_pixels(output, pixels, grid_metadata(metadata))
    for one in found:
        yield output.path, one


def _write_folder(
    output: Output, renderer: Renderer, images: ImageRequests, options: HeatmapOptions, progress: Progress
) -> Iterator[Written]:
    names = [f"{name}-level{level}.png" for name in images.names for level in options.levels]
    found: list[Metadata] = []

    def render() -> Iterator[ImageFile]:
        for image in images:
            cell = None
            if options.overlay is not None:
                cell = blank((renderer.width, renderer.height))
                _render_image(cell, renderer, image.latents, progress)
            metadata = {**image.metadata, "folder": output.path.name}  # the command renders all of the folder
            for level, heat in zip(options.levels, _compute(renderer, image.latents, options, progress), strict=True):
                name = names[len(found)]
                found.append(_with_ranges(metadata, [level], heat[None]))
                yield ImageFile(name, _colors(heat, cell, options), metadata)

    for index, path in enumerate(write_files(output, renderer, render(), names=names)):
        yield path, found[index]


def _write_array(
    output: Output, renderer: Renderer, images: ImageRequests, options: HeatmapOptions, progress: Progress
) -> Iterator[Written]:
    """Write .npy [N, K, H, W] band by band."""
    levels, metadata = len(options.levels), []
    shape = (len(images), levels, renderer.height, renderer.width)
    with array_file(output, renderer, shape) as (file, dtype):
        row = renderer.width * dtype.itemsize
        plane, start = renderer.height * row, file.tell()
        for index, image in enumerate(images):
            metadata.append(image.metadata)
            top = 0
            bands = heatmap_rows(
                renderer.model, image.latents, renderer.viewport, levels=options.levels, progress=progress
            )
            for band in bands:
                for k, heat in enumerate(band.permute(2, 0, 1).cpu().numpy().astype(dtype)):
                    file.seek(start + (index * levels + k) * plane + top * row)
                    file.write(heat.tobytes())
                top += len(band)
    for one in metadata:
        yield output.path, one


def _compute(renderer: Renderer, latents: Latents, options: HeatmapOptions, progress: Progress) -> NDArray[np.float32]:
    """Return the heat maps [K, H, W] of one image."""
    model, viewport = renderer.model, renderer.viewport
    return heatmap(model, latents, levels=options.levels, viewport=viewport, progress=progress)[0]


def _render_image(pixels: Pixels, renderer: Renderer, latents: Latents, progress: Progress) -> None:
    """Render the image itself; `progress` counts its evaluated pixels."""
    per_row = renderer.grid.width * renderer.grid.height // renderer.height
    renderer.fill(pixels, latents, progress=lambda rows: progress(rows * per_row))


def _colors(heat: NDArray[np.float32], image: Pixels | None, options: HeatmapOptions) -> Pixels:
    if options.overlay is None:
        return colorize(heat, options.colormap)
    return colorize(heat, options.colormap, image=image, opacity=options.overlay)


def _with_ranges(metadata: Metadata, levels: Sequence[int], maps: NDArray[np.float32]) -> Metadata:
    """Return metadata with the minimum and the maximum of each heat map."""
    ranges = [[float(heat.min()), float(heat.max())] for heat in maps]
    return {**metadata, "heat_of_levels": list(levels), "heat_ranges": ranges}


def _grid_of(renderer: Renderer, options: HeatmapOptions) -> GridSpec:
    is_wide = renderer.width >= MIN_CAPTION_WIDTH
    names = [f"level {level}" if is_wide else str(level) for level in options.levels]
    return GridSpec(columns=1 + len(names), column_names=("image" if is_wide else "", *names))


@torch.no_grad()
def feature_means(
    synthesis: Synthesis,
    affine: Tensor,
    grid: Grid,
    *,
    levels: Sequence[int],
    progress: Progress | None = None,
) -> Tensor:
    """Return the mean of each channel over the pixels of a grid, after each of K levels: [K, n] in float64.

    `affine` is [L, 3, n]. `progress` is called with the number of pixels of each chunk.
    """
    device = without_metal(affine).device
    sums = torch.zeros(len(levels), affine.shape[-1], dtype=torch.float64, device=device)
    for coordinates in in_chunks(lambda coordinates: coordinates, grid, affine):
        for k, x in enumerate(_features(synthesis, affine, coordinates, levels)):
            sums[k] += x.sum(dim=0)
        if progress is not None:
            progress(len(coordinates))
    return sums / (grid.width * grid.height)


@torch.no_grad()
def heat_rows(
    synthesis: Synthesis,
    affine: Tensor,
    grid: Grid,
    means: Tensor,
    *,
    levels: Sequence[int],
    supersample: int = 1,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, K] of the heat maps of some levels, from top to bottom, in float64.

    The heat of a level at a point p is sum_c mean_c x_c(p) over the channels c of its features x, with the
    `means` [K, n] of `feature_means`. With supersampling, k x k samples are averaged to a pixel. Paper, Figure 3.
    """

    def heat(coordinates: Tensor) -> Tensor:
        after = _features(synthesis, affine, coordinates, levels)
        return torch.stack([x @ mean for x, mean in zip(after, means, strict=True)], dim=1)  # [P, K]

    yield from in_bands(in_chunks(heat, grid, affine), grid, supersample=supersample)


def _features(synthesis: Synthesis, affine: Tensor, coordinates: Tensor, levels: Sequence[int]) -> Iterator[Tensor]:
    """Yield the features [P, n] after some levels, in ascending order, in float64; later levels are not computed."""
    wanted = list(levels)
    assert wanted == sorted(set(wanted)), wanted
    for level, x in enumerate(synthesis.features(affine.unsqueeze(0), coordinates)):
        if level in wanted:
            yield without_metal(x[0]).double()
        if level == wanted[-1]:
            return
