"""What metrics need to see of pictures, and what was seen: statistics, features, a score."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..metrics.gaussian import FeatureStatistics, Gaussian
from ..metrics.rules import Metric, Sense

CONSTANT = 1e-12  # of the squared mean: a spread below it is float32's rounding


@dataclass(frozen=True)
class Need:
    """What is wanted of the features that a network gives: statistics, which stream, the features, a score."""

    statistics: bool = False
    features: bool = False
    score: bool = False

    @property
    def kept(self) -> "Need":
        """What is taken where it is kept for later: statistics beside features, as they cost little."""
        return replace(self, statistics=self.statistics or self.features)


@dataclass
class Seen:
    """What was seen of one kind of pictures in one sense; `given` is a Gaussian that others have taken."""

    count: int = 0
    statistics: FeatureStatistics | None = None
    features: Tensor | None = None  # [N, d], float32
    score: tuple[float, float] | None = None  # mean and deviation over the splits
    given: Gaussian | None = None

    def gaussian(self, *, unbiased: bool) -> Gaussian:
        """Return the Gaussian of the features, with a covariance by N - 1 or by N; a given one is as it is."""
        if self.given is not None:
            return self.given
        assert self.statistics is not None
        return self.statistics.gaussian(unbiased=unbiased)

    def serves(self, need: Need) -> bool:
        """Say whether all that is needed was seen."""
        return (
            (not need.statistics or self.statistics is not None or self.given is not None)
            and (not need.features or self.features is not None)
            and (not need.score or self.score is not None)
        )

    @property
    def constant(self) -> bool:
        """Say whether all pictures look the same."""
        if self.statistics is not None and self.count > 1:
            size = self.statistics.mean.square().sum() * self.count
            return bool(self.statistics.scatter.trace() <= size * CONSTANT)
        if self.features is not None and self.count > 1:
            first = self.features[:1]
            return bool((self.features - first).abs().max() <= first.abs().max() * CONSTANT**0.5)
        return False

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is there by name, on the CPU."""
        found: dict[str, Tensor] = {}
        if self.statistics is not None:
            found |= {"mean": self.statistics.mean, "scatter": self.statistics.scatter}
        if self.features is not None:
            found["features"] = self.features
        if self.score is not None:
            found["score"] = torch.tensor(self.score, dtype=torch.float64)
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> "Seen":
        """Return what `tensors` gave."""
        seen = cls(count)
        if "mean" in tensors:
            seen.statistics = statistics_of(tensors, count, device=device)
        if "features" in tensors:
            seen.features = tensors["features"].to(device)
        if "score" in tensors:
            seen.score = (float(tensors["score"][0]), float(tensors["score"][1]))
        return seen


def statistics_of(tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> FeatureStatistics:
    """Return the statistics whose `mean` and `scatter` are given."""
    statistics = FeatureStatistics(len(tensors["mean"]), device=device)
    statistics.count = count
    statistics.mean = tensors["mean"].to(device)
    statistics.scatter = tensors["scatter"].to(device)
    return statistics


def needs_of(metrics: Mapping[str, Metric], *, resampled: bool = False, reals: bool) -> dict[Sense, Need]:
    """Return what metrics need to see of the reals, or of the fakes, which may be `resampled` for intervals."""
    needs: dict[Sense, Need] = {}
    for metric in metrics.values():
        if metric.kind == "score" and reals:
            continue
        old = needs.get(metric.sense, Need())
        streams = metric.kind == "frechet"
        needs[metric.sense] = Need(
            statistics=old.statistics or streams,
            features=old.features
            or metric.kind in ("kernel", "overlap", "spread")
            or (resampled and streams and not reals),
            score=old.score or metric.kind == "score",
        )
    return needs
