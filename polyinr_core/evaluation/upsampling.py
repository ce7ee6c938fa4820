"""The Fréchet distance of images upsampled from the training resolution (paper, table 3)."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_statistics import FeatureStatistics, Requirements
from polyinr_core.metrics.registry import FeatureKey, Metric

from .image_sources import GeneratedImages
from .results import Estimate
from .set_metrics import PassSettings, collect_statistics, compute_metric

Filter = Literal["nearest", "bilinear", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)


def native_name(name: str) -> str:
    """Return the name of the distance of images rendered at the full resolution, beside those upsampled to it."""
    return f"{name}/drawn"


def at_training_resolution(fakes: GeneratedImages) -> GeneratedImages:
    """Return the same images at the training resolution. Raises RequestError if that is not smaller."""
    trained = fakes.checkpoint.resolution
    if not trained:
        raise RequestError(f"{fakes.name} does not say its training resolution, which upsampling starts from")
    if trained >= fakes.resolution:
        raise RequestError(
            f"upsampling goes from the training resolution, {trained} px, to a larger one, not to {fakes.resolution} "
            "px: give --res above it and reals of that size"
        )
    return GeneratedImages(
        fakes.checkpoint, name=fakes.name, count=fakes.count, resolution=trained, psi=fakes.psi, labels=fakes.labels
    )


class UpsampledExtractor:
    """A feature extractor of images that Pillow first upsamples to `resolution`."""

    def __init__(self, extractor: FeatureExtractor, filter: Filter, *, resolution: int) -> None:
        self.extractor = extractor
        self.filter = filter
        self.resolution = resolution
        self.dim = extractor.dim
        self.name = f"{extractor.name}/{filter}"
        self.sha256 = extractor.sha256

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.extractor(upsample(pixels, self.resolution, self.filter))

    def to(self, device: torch.device) -> "UpsampledExtractor":
        return UpsampledExtractor(self.extractor.to(device), self.filter, resolution=self.resolution)


def upsample(pixels: Tensor, resolution: int, filter: Filter) -> Tensor:
    """Resize 8-bit images [N, 3, H, W] to [N, 3, resolution, resolution] by Pillow's filter, on the same device."""
    resampling = Image.Resampling[filter.upper()]
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(image).resize((resolution, resolution), resampling)) for image in images]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pixels.device)


def upsampling_metrics(
    metrics: Mapping[str, Metric],
    fakes: GeneratedImages,
    reals: Mapping[FeatureKey, FeatureStatistics],
    extractors: Mapping[str, FeatureExtractor],
    settings: PassSettings,
) -> dict[str, Estimate]:
    """Return the distances of upsampled images as NAME/nearest and so on. Call on every rank.

    The images are generated once, at the training resolution, for all filters and metrics. `reals` are the
    statistics of the reals at the resolution of `fakes`; only rank 0 needs them, and returns estimates. Raises
    RequestError, PolyinrError.
    """
    small = at_training_resolution(fakes)
    upsampled = {
        (metric.network, filter): UpsampledExtractor(extractors[metric.network], filter, resolution=fakes.resolution)
        for metric in metrics.values()
        for filter in FILTERS
    }
    required = Requirements(moments=True, features=settings.bootstrap > 0)
    statistics = collect_statistics(
        small,
        {(extractor.name, "pooled"): required for extractor in upsampled.values()},
        {extractor.name: extractor for extractor in upsampled.values()},
        settings,
        description="features of upsampled fakes",
    )
    estimates: dict[str, Estimate] = {}
    for name, metric in metrics.items() if settings.ranks.is_main else ():
        for filter in FILTERS:
            estimates |= compute_metric(
                f"{name}/{filter}",
                metric,
                reals[metric.feature_key],
                statistics[upsampled[metric.network, filter].name, "pooled"],
                resamples=settings.bootstrap,
            )
    return estimates
