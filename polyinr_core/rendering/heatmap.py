"""Heat maps: the activations of each level, as the sum of its features weighted by their means. Paper, Figure 3."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.images.grid import Pixels, apply_colormap
from polyinr_core.images.quantize import check_finite
from polyinr_core.latents.latents import Latents
from polyinr_core.models.coordinates import UNIT, Bounds, Grid
from polyinr_core.models.generator import Synthesis

from .model import Model
from .render import in_bands, in_blocks
from .viewport import Viewport

Progress = Callable[[int], None]  # evaluated pixels


def heatmap(
    model: Model,
    latents: Latents,
    *,
    levels: Sequence[int] | None = None,
    resolution: int | None = None,
    size: tuple[int, int] | None = None,
    window: Bounds = UNIT,
    viewport: Viewport | None = None,
) -> NDArray[np.float32]:
    """Compute the heat maps [N, K, H, W] of K levels of N images, before normalization.

    Args:
        model: The model.
        latents: N images.
        levels: The levels, by default all.
        resolution: Width and height in pixels; by default the training resolution.
        size: Width and height in pixels, where they differ.
        window: The part x0, y0, x1, y1 of the plane, over which the means are taken.
        viewport: In place of the three before it.

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
        affine = model.affine_of(model.complete(latents[index]))[0]
        top = 0
        grid, k = model.grid(viewport), viewport.supersample
        for band in heatmap_rows(model.synthesis, affine, grid, levels=levels, supersample=k):
            maps[index, :, top : top + len(band)] = band.permute(2, 0, 1).cpu().numpy()
            top += len(band)
    return maps


def heatmap_rows(
    synthesis: Synthesis,
    affine: Tensor,
    grid: Grid,
    *,
    levels: Sequence[int],
    supersample: int = 1,
    progress: Progress | None = None,
) -> Iterator[Tensor]:
    """Yield bands [rows, W, K] of the heat maps of one image, from top to bottom, in memory of one band.

    The grid is evaluated twice: for the means, then for the sums. Raises PolyinrError for NaN or Inf.
    """
    levels, order = sorted(set(levels)), list(levels)
    means = feature_means(synthesis, affine, grid, levels=levels, progress=progress)
    for band in check_finite(heat_rows(synthesis, affine, grid, means, levels=levels, supersample=supersample)):
        yield band if order == levels else band[..., [levels.index(level) for level in order]]
        if progress is not None:
            progress(len(band) * supersample * grid.width)


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
    sums = affine.new_zeros(len(levels), affine.shape[-1], dtype=torch.float64)
    for points in in_blocks(lambda points: points, grid, affine):
        for k, x in enumerate(_features(synthesis, affine, points, levels)):
            sums[k] += x.sum(dim=0)
        if progress is not None:
            progress(len(points))
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
    `means` [K, n] of `feature_means`. With supersampling, k x k points are averaged to a pixel. Paper, Figure 3.
    """

    def heat(points: Tensor) -> Tensor:
        after = _features(synthesis, affine, points, levels)
        return torch.stack([x @ mean for x, mean in zip(after, means, strict=True)], dim=1)  # [P, K]

    yield from in_bands(in_blocks(heat, grid, affine), grid, supersample=supersample)


def _features(synthesis: Synthesis, affine: Tensor, points: Tensor, levels: Sequence[int]) -> Iterator[Tensor]:
    """Yield the features [P, n] after some levels, in ascending order, in float64; later levels are not computed."""
    wanted = list(levels)
    assert wanted == sorted(set(wanted)), wanted
    for level, x in enumerate(synthesis.features(affine.unsqueeze(0), points)):
        if level in wanted:
            yield x[0].double()
        if level == wanted[-1]:
            return
