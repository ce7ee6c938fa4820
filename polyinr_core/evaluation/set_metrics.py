"""The metrics of two image sets: their statistics, by one pass or from the cache, and each metric's value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.metrics.bootstrap import Estimator, bootstrap, frechet_to, halving
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_pass import (
    BATCH_SIZE,
    FeatureCache,
    ImageSource,
    PassCheckpoint,
    Progress,
    extract_features,
    rank_indices,
    statistics_device,
)
from polyinr_core.metrics.feature_statistics import FeatureStatistics, Requirements
from polyinr_core.metrics.frechet import frechet_distance
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.metrics.prdc import compute_prdc, manifold
from polyinr_core.metrics.registry import DC_NEIGHBORS, PARTS, PR_NEIGHBORS, FeatureKey, Metric
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .results import Estimate, library_versions
from .statistics_io import SavedStatistics, extractor_identity

CACHE_FORMAT = 2

Source = ImageSource | SavedStatistics


def no_progress(description: str) -> Progress:
    """Return a progress callback that does nothing."""
    return lambda done, total: None


@dataclass(frozen=True)
class PassSettings:
    """How an evaluation is run; nothing of it changes a metric by more than rounding.

    Attributes:
        bootstrap: resamples for confidence intervals; 0 for none.
        cache: a folder for features and for the state of an interrupted pass.
        progress: makes a progress callback for a description.
    """

    device: torch.device
    batch: int = BATCH_SIZE
    bootstrap: int = 0
    cache: Path | None = None
    ranks: DistributedContext = SINGLE_PROCESS
    progress: Callable[[str], Progress] = no_progress


def collect_statistics(
    source: Source,
    requirements: Mapping[FeatureKey, Requirements],
    extractors: Mapping[str, FeatureExtractor],
    settings: PassSettings,
    *,
    description: str,
) -> dict[FeatureKey, FeatureStatistics]:
    """Return the statistics of images: from the cache if it has them, the rest by one pass, which is cached.

    Call on every rank. Statistics from the cache are returned on rank 0 only; each rank saves the state of its part
    of an unfinished pass.
    """
    device, ranks = settings.device, settings.ranks
    if isinstance(source, SavedStatistics):
        return source.statistics_for(requirements, device=statistics_device(device))
    options: dict[str, Any] = {
        "batch": settings.batch,
        "device": device,
        "progress": settings.progress(description),
        "ranks": ranks,
    }
    if settings.cache is None:
        return extract_features(source, extractors, requirements, **options)
    cache = FeatureCache(settings.cache)
    keys = {key: cache_key(source, key, extractors, device) for key in requirements} if ranks.is_main else {}
    keys = ranks.broadcast_object(keys)
    cached: dict[FeatureKey, FeatureStatistics] = {}
    for key, required in requirements.items() if ranks.is_main else ():
        if (stored := cache.load(keys[key])) is not None:
            count, tensors = stored
            statistics = FeatureStatistics.from_tensors(tensors, count, device=statistics_device(device))
            if statistics.satisfies(required):
                cached[key] = statistics
    missing: dict[FeatureKey, Requirements] = ranks.broadcast_object(
        {key: required.for_cache for key, required in requirements.items() if key not in cached}
    )
    indices = rank_indices(len(source), settings.batch, ranks)
    checkpoint = PassCheckpoint(cache, state_key(keys, missing, indices, settings.batch))
    extracted = extract_features(source, extractors, missing, checkpoint=checkpoint, **options)
    if ranks.is_main:
        for key, statistics in extracted.items():
            cache.store(keys[key], statistics.count, statistics.to_tensors())
    if missing:
        checkpoint.delete()
    return cached | extracted


def cache_key(
    images: ImageSource, key: FeatureKey, extractors: Mapping[str, FeatureExtractor], device: torch.device
) -> dict[str, Any]:
    """Return everything that the statistics of images depend on."""
    dtype = getattr(images, "dtype", torch.float32)
    return {
        "format": CACHE_FORMAT,
        **({} if dtype == torch.float32 else {"precision": str(dtype)}),
        "images": {name: fact for name, fact in images.provenance.items() if name != "name"},
        "resolution": images.resolution,
        "network": [key[0], extractor_identity(extractors[key[0]])],
        "tap": key[1],
        "device": device.type,
        "libraries": library_versions(),
    }


def state_key(
    keys: Mapping[FeatureKey, dict[str, Any]],
    requirements: Mapping[FeatureKey, Requirements],
    indices: range,
    batch: int,
) -> dict[str, Any]:
    """Return everything that the state of an unfinished pass depends on."""
    return {
        "features": [[keys[key], asdict(required)] for key, required in requirements.items()],
        "indices": [indices.start, indices.stop],
        "batch": batch,
    }


def check_variety(
    kind: str, source: Source, statistics: Mapping[FeatureKey, FeatureStatistics], warn: Callable[[str], None] | None
) -> None:
    """Raise FileError if all reals have the same features; warn about such fakes, as of a collapsed model."""
    for (network, _), part in statistics.items():
        if part.is_constant:
            problem = f"all {part.count} {kind} have the same features in {network}"
            if kind == "reals":
                raise FileError(source.name, f"{problem}; give a dataset of different images")
            if warn is not None:
                warn(f"{source.name}: {problem}; the model may have collapsed, and its metrics mean little")
            return


def compute_metric(
    name: str, metric: Metric, reals: FeatureStatistics | None, fakes: FeatureStatistics, *, resamples: int
) -> dict[str, Estimate]:
    """Return a metric's estimates by name: its own, or those of its two parts, such as NAME/precision.

    With `resamples` above 0 each has a confidence interval, if the features of the fakes are present.
    """
    if metric.kind == "inception_score":
        assert fakes.inception_score is not None
        mean, std = fakes.inception_score
        return {name: {"value": mean, "std": std}}
    assert reals is not None
    estimator: Estimator
    if metric.kind in PARTS:
        return neighbor_estimates(name, metric, reals, fakes, resamples)
    if metric.kind == "kernel":
        assert reals.features is not None
        assert fakes.features is not None
        estimator = KernelReference(reals.features, fakes.count).distance
        value = estimator(fakes.features)
    else:
        reference = reals.gaussian(unbiased=metric.unbiased)
        estimator = frechet_to(reference, unbiased=metric.unbiased)
        value = frechet_distance(fakes.gaussian(unbiased=metric.unbiased), reference)
    estimate: Estimate = {"value": value}
    if resamples and fakes.features is not None:
        interval = bootstrap(lambda features: {name: estimator(features)}, fakes.features, resamples=resamples)
        estimate = {**interval[name], "value": value}
        if metric.kind == "frechet":
            estimate |= halving(estimator, fakes.features)
    return {name: estimate}


def class_metrics(
    metrics: Mapping[str, Metric],
    class_names: Sequence[str],
    reals: tuple[NDArray[np.int64] | None, Mapping[FeatureKey, FeatureStatistics]],
    fakes: tuple[NDArray[np.int64] | None, Mapping[FeatureKey, FeatureStatistics]],
) -> dict[str, dict[str, Any]]:
    """Return for each class the counts of its images and its metrics, between its reals and its fakes alone.

    `reals` and `fakes` are the labels [N] and the statistics, with features. A metric that needs more images than a
    class has is left out.
    """
    classes: dict[str, dict[str, Any]] = {}
    for label, class_name in enumerate(class_names):
        in_reals, in_fakes = (torch.from_numpy(np.flatnonzero(labels == label)) for labels, _ in (reals, fakes))
        estimates: dict[str, Estimate] = {}
        for name, metric in metrics.items():
            key = metric.feature_key
            if metric.kind == "inception_score" or min(len(in_reals), len(in_fakes)) < metric.min_images:
                continue
            of_class = reals[1][key].subset(in_reals), fakes[1][key].subset(in_fakes)
            estimates |= compute_metric(name, metric, *of_class, resamples=0)
        classes[class_name] = {"reals": len(in_reals), "fakes": len(in_fakes), "metrics": estimates}
    return classes


def neighbor_estimates(
    name: str, metric: Metric, reals: FeatureStatistics, fakes: FeatureStatistics, resamples: int
) -> dict[str, Estimate]:
    """Return precision and recall, or density and coverage."""
    assert reals.features is not None
    assert fakes.features is not None
    k = PR_NEIGHBORS if metric.kind == "precision_recall" else DC_NEIGHBORS
    real_manifold = manifold(reals.features, k=k, half=metric.half)

    def parts(features: Tensor) -> dict[str, float]:
        found = compute_prdc(manifold(features, k=k, half=metric.half), real_manifold, k=k, k_density=k)
        return {f"{name}/{part}": float(getattr(found, part)) for part in PARTS[metric.kind]}

    if resamples:
        return bootstrap(parts, fakes.features, resamples=resamples, replace=False)
    return {part: {"value": value} for part, value in parts(fakes.features).items()}
