"""Generated images and their nearest reals in feature space, to detect memorization; realism; their thumbnails."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.errors import FileError
from polyinr_core.evaluation.protocols import check_sizes
from polyinr_core.evaluation.set_metrics import PassSettings, check_variety, collect_statistics, no_progress
from polyinr_core.images.grid import GAP, Pixels, caption, make_grid, quantize
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_pass import ImageBatches, ImageSource, Progress, extract_features
from polyinr_core.metrics.feature_statistics import Requirements
from polyinr_core.metrics.prdc import manifold, nearest, realism
from polyinr_core.metrics.registry import PR_NEIGHBORS, FeatureKey

THUMBNAIL_SIZE = 128  # pixels; larger images are reduced to it
MAX_NEIGHBORS = 5  # reals beside a generated image
NEAR_QUANTILE = 0.1  # the fraction of the reals that have another real within the distance called near


@dataclass(frozen=True)
class NearestNeighbors:
    """Generated images [N] and their nearest reals [M] in feature space; all tensors on the CPU.

    Attributes:
        distances: [N, k], of each generated image to its nearest reals, ascending.
        indices: [N, k], of those reals.
        real_distances: [M], of each real to the nearest other real.
        realism: [N], above 1 for an image within the manifold of the reals.
    """

    distances: Tensor
    indices: Tensor
    real_distances: Tensor
    realism: Tensor

    @property
    def near(self) -> float:
        """The distance within which a tenth of the reals have another real."""
        return float(self.real_distances.quantile(NEAR_QUANTILE))

    @property
    def fraction_near(self) -> float:
        """The fraction of generated images as near to a real; far above a tenth indicates copies."""
        return float((self.distances[:, 0] <= self.near).float().mean())

    @property
    def fraction_realistic(self) -> float:
        """The fraction of generated images within the manifold of the reals."""
        return float((self.realism >= 1).float().mean())

    def nearest_of_all(self, count: int) -> list[int]:
        """Return the seeds of the images nearest to a real, the nearest first."""
        order: list[int] = self.distances[:, 0].argsort(stable=True)[:count].tolist()
        return order

    def ranked(self, count: int) -> dict[str, list[int]]:
        """Return the seeds of the highest, middle and lowest realism, `count` of each or a third of all."""
        order: list[int] = self.realism.argsort(descending=True, stable=True).tolist()
        count = max(1, min(count, len(order) // 3))
        middle = (len(order) - count) // 2
        return {"best": order[:count], "middle": order[middle : middle + count], "worst": order[-count:]}


def find_neighbors(
    reals: ImageSource,
    fakes: ImageSource,
    extractor: FeatureExtractor,
    *,
    device: torch.device,
    cache: Path | None = None,
    progress: Callable[[str], Progress] = no_progress,
) -> NearestNeighbors:
    """Find the nearest reals of each fake in lite2's pooled features, and the realism scores.

    Distances are Euclidean. Realism: Kynkäänniemi et al. (2019), equation 6, with the third neighbor. The features
    of the reals are cached in the folder `cache`. Raises RequestError for images of different sizes, FileError for
    too few reals and for reals that are all equal, PolyinrError.
    """
    check_sizes(reals, fakes)
    if len(reals) <= PR_NEIGHBORS:
        raise FileError(reals.name, f"holds {len(reals)} images; {PR_NEIGHBORS + 1} or more are needed")
    key: FeatureKey = ("lite2", "pooled")
    required, extractors = {key: Requirements(features=True)}, {"lite2": extractor}
    settings = PassSettings(device, cache=cache, progress=progress)
    of_reals = collect_statistics(reals, required, extractors, settings, description="features of reals")
    check_variety("reals", reals, of_reals, None)
    of_fakes = extract_features(fakes, extractors, required, device=device, progress=progress("features of fakes"))
    real_features, fake_features = of_reals[key].features, of_fakes[key].features
    assert real_features is not None
    assert fake_features is not None
    real_manifold = manifold(real_features, k=PR_NEIGHBORS)
    distances, indices = nearest(fake_features, real_features, min(MAX_NEIGHBORS, len(reals)))
    return NearestNeighbors(
        distances=distances.cpu(),
        indices=indices.cpu(),
        real_distances=real_manifold.radii(1).cpu(),
        realism=realism(fake_features, real_manifold, k=PR_NEIGHBORS).cpu(),
    )


COLUMNS = 8
MIN_TILE_SIZE = 96  # pixels, so that a caption fits below
CAPTION_HEIGHT, TITLE_HEIGHT = 14, 22


def realism_grid(groups: Mapping[str, Sequence[tuple[Pixels, str]]]) -> Pixels:
    """Return titled groups of captioned images [r, r, 3], one below the other, as one image [H, W, 3].

    Each image is enlarged by an integer factor, by repeating pixels, to MIN_TILE_SIZE or more.
    """
    rows = [group_grid(title, images) for title, images in groups.items()]
    width = max(part.shape[1] for part in rows)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in rows]
    )


def group_grid(title: str, images: Sequence[tuple[Pixels, str]]) -> Pixels:
    """Return a title and below it a grid of captioned images."""
    cells = []
    for pixels, text in images:
        factor = -(-MIN_TILE_SIZE // len(pixels))
        large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        cells.append(np.concatenate([large, caption(text, width=large.shape[1], height=CAPTION_HEIGHT)]))
    rows = make_grid(np.stack(cells), COLUMNS)
    heading = caption(title, width=max(rows.shape[1], COLUMNS * MIN_TILE_SIZE), height=TITLE_HEIGHT)
    lines = np.pad(rows, ((GAP, GAP), (0, heading.shape[1] - rows.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([heading, lines])


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
