"""Statistics of image features: what a metric requires, accumulated in batches and merged over ranks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .frechet import Gaussian, RunningMoments
from .inception import InceptionScore
from .registry import IS_SPLITS, FeatureKey, Metric

RELATIVE_VARIANCE = 1e-12  # of the squared mean: less than this is float32 rounding


@dataclass(frozen=True)
class Requirements:
    """What metrics need of one network's features: mean and covariance, the features, the inception score."""

    moments: bool = False
    features: bool = False
    inception_score: bool = False

    @property
    def for_cache(self) -> "Requirements":
        """The requirements of a pass that is cached: moments beside the features, since they cost little."""
        return replace(self, moments=self.moments or self.features)


def requirements_for(
    metrics: Mapping[str, Metric], *, features: bool = False, reals: bool
) -> dict[FeatureKey, Requirements]:
    """Return what metrics require of the reals, or of the fakes; with `features`, for Fréchet distances too."""
    requirements: dict[FeatureKey, Requirements] = {}
    for metric in metrics.values():
        if metric.kind == "inception_score" and reals:
            continue
        before = requirements.get(metric.feature_key, Requirements())
        frechet = metric.kind == "frechet"
        requirements[metric.feature_key] = Requirements(
            moments=before.moments or frechet,
            features=before.features
            or metric.kind in ("kernel", "precision_recall", "density_coverage")
            or (features and frechet),
            inception_score=before.inception_score or metric.kind == "inception_score",
        )
    return requirements


@dataclass
class FeatureStatistics:
    """Statistics of `count` images in one network's features.

    Attributes:
        features: float32 [N, d].
        inception_score: mean and standard deviation over the splits.
        external: a Gaussian read from another program's file, without moments or count.
    """

    count: int = 0
    moments: RunningMoments | None = None
    features: Tensor | None = None
    inception_score: tuple[float, float] | None = None
    external: Gaussian | None = None

    def gaussian(self, *, unbiased: bool) -> Gaussian:
        """Return the Gaussian of the features, its covariance divided by N - 1 or N; `external` is unchanged."""
        if self.external is not None:
            return self.external
        assert self.moments is not None
        return self.moments.gaussian(unbiased=unbiased)

    def subset(self, rows: Tensor) -> "FeatureStatistics":
        """Return the statistics of the images at indices `rows`, from the features."""
        assert self.features is not None
        features = self.features[rows.to(self.features.device)]
        moments = RunningMoments(features.shape[1], device=features.device)
        moments.add(features)
        return FeatureStatistics(len(rows), moments, features)

    def satisfies(self, required: Requirements) -> bool:
        """Return whether everything required is present."""
        return (
            (not required.moments or self.moments is not None or self.external is not None)
            and (not required.features or self.features is not None)
            and (not required.inception_score or self.inception_score is not None)
        )

    @property
    def is_constant(self) -> bool:
        """Whether all images have the same features, up to rounding."""
        if self.moments is not None and self.count > 1:
            squared_norm = self.moments.mean.square().sum() * self.count
            return bool(self.moments.scatter.trace() <= squared_norm * RELATIVE_VARIANCE)
        if self.features is not None and self.count > 1:
            first = self.features[:1]
            return bool((self.features - first).abs().max() <= first.abs().max() * RELATIVE_VARIANCE**0.5)
        return False

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the statistics as named tensors on the CPU."""
        tensors: dict[str, Tensor] = {}
        if self.moments is not None:
            tensors |= {"mean": self.moments.mean, "scatter": self.moments.scatter}
        if self.features is not None:
            tensors["features"] = self.features
        if self.inception_score is not None:
            tensors["score"] = torch.tensor(self.inception_score, dtype=torch.float64)
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> "FeatureStatistics":
        """Return the statistics that `to_tensors` gave, on the device."""
        statistics = cls(count)
        if "mean" in tensors:
            statistics.moments = RunningMoments.from_tensors(tensors, count, device=device)
        if "features" in tensors:
            statistics.features = tensors["features"].to(device)
        if "score" in tensors:
            statistics.inception_score = (float(tensors["score"][0]), float(tensors["score"][1]))
        return statistics


class Accumulator:
    """Accumulates one network's features over this rank's `indices` of `total` images.

    The dimension is that of the first batch. Tensors live on `device`, which must support float64.
    """

    def __init__(self, required: Requirements, indices: range, total: int, device: torch.device) -> None:
        self.required = required
        self.indices = indices
        self.total = total
        self.device = device
        self.count = 0
        self.dim = 0
        self.moments: RunningMoments | None = None
        self.features: Tensor | None = None
        self.inception_score: InceptionScore | None = None

    def add(self, features: Tensor) -> None:
        """Add the features [n, d] of the next n images."""
        features = features.to(self.device)
        if not self.dim:
            self._allocate(features.shape[1])
        if self.moments is not None:
            self.moments.add(features)
        if self.features is not None:
            self.features[self.count : self.count + len(features)] = features
        if self.inception_score is not None:
            self.inception_score.add(features, first=self.indices.start + self.count)
        self.count += len(features)

    def _allocate(self, dim: int) -> None:
        self.dim = dim
        if self.required.moments:
            self.moments = RunningMoments(dim, device=self.device)
        if self.required.features:
            self.features = torch.zeros(len(self.indices), dim, device=self.device)
        if self.required.inception_score:
            self.inception_score = InceptionScore(self.total, dim, splits=IS_SPLITS, device=self.device)

    def result(self, ranks: DistributedContext = SINGLE_PROCESS) -> FeatureStatistics:
        """Return the statistics of all ranks together, the same on each. Call once, on every rank."""
        dim = max(ranks.all_gather_int(self.dim))
        if not self.dim:
            self._allocate(dim)  # this rank had no images
        statistics = FeatureStatistics(sum(ranks.all_gather_int(self.count)))
        if self.moments is not None:
            statistics.moments = self.moments.merged(ranks)
        if self.features is not None:
            statistics.features = ranks.all_gather(self.features)
        if self.inception_score is not None:
            self.inception_score.gather(ranks)
            statistics.inception_score = self.inception_score.result()
        return statistics

    def state(self) -> dict[str, Tensor]:
        """Return the state after the images added so far, on the CPU."""
        features = None if self.features is None else self.features[: self.count]
        tensors = FeatureStatistics(self.count, self.moments, features).to_tensors()
        if self.inception_score is not None:
            tensors |= {name: tensor.cpu().contiguous() for name, tensor in self.inception_score.state().items()}
        return tensors

    def restore(self, state: Mapping[str, Tensor], count: int) -> None:
        """Continue from the `state` after `count` images."""
        self._allocate(next(state[name].shape[-1] for name in ("mean", "features", "sums") if name in state))
        self.count = count
        if self.moments is not None:
            self.moments = RunningMoments.from_tensors(state, count, device=self.device)
        if self.features is not None:
            self.features[:count] = state["features"].to(self.device)
        if self.inception_score is not None:
            self.inception_score.restore(state)
