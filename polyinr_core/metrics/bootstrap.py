"""Confidence intervals of metrics by resampling the features, and the bias of a finite sample by halving it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.rng import generator_for

from .frechet import Gaussian, RunningMoments, frechet_distance

RESAMPLES = 100
LEVEL = 0.95
PAIRS = 4  # of disjoint halves

Estimator = Callable[[Tensor], float]  # from features [N, d] of the fakes to the metric


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval at `level` and its standard deviation."""

    value: float
    low: float
    high: float
    std: float
    level: float
    resamples: int

    @property
    def as_dict(self) -> dict[str, float | int]:
        """The fields of a result file, without the value."""
        return {
            "low": self.low,
            "high": self.high,
            "std": self.std,
            "level": self.level,
            "resamples": self.resamples,
        }


@dataclass(frozen=True)
class Halving:
    """A metric of N features and its mean over halves of them, extrapolated to infinitely many.

    If the bias falls as 1 / N, as that of the Fréchet distance and the inception score does (Chong and Forsyth,
    "Effectively Unbiased FID and Inception Score", 2020), the change from N / 2 to N equals the remaining bias.
    """

    value: float
    halves: float

    @property
    def bias(self) -> float:
        return self.halves - self.value

    @property
    def extrapolated(self) -> float:
        return self.value - self.bias


def bootstrap(
    estimator: Estimator,
    features: Tensor,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    replace: bool = True,
    seed: int = 0,
) -> Interval:
    """Return the estimate of features [N, d] with its confidence interval over resamples drawn from `seed`.

    With `replace`, a resample is N of N with replacement (Efron 1979). Without, it is a half without replacement,
    which has the same variance: for nearest-neighbor metrics, where a duplicate has a ball of radius 0. Either
    kind has fewer distinct features than the sample, and so a bias of its own: the interval is the resamples'
    deviation from their mean, added to the value. Raises PolyinrError.
    """
    if resamples < 2 or not 0 < level < 1 or len(features) < 2:
        raise PolyinrError(
            f"no interval at level {level} from {resamples} resamples of {len(features)} images; take 2 or more"
        )
    value = estimator(features)
    count = len(features)
    values = []
    for repeat in range(resamples):
        rng = generator_for(seed, "bootstrap", repeat)
        if replace:
            rows = torch.randint(count, (count,), generator=rng)
        else:
            rows = torch.randperm(count, generator=rng)[: count // 2]
        values.append(estimator(features[rows.to(features.device)]))
    deviations = np.asarray(values) - np.mean(values)
    low, high = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        value=value,
        low=value + float(low),
        high=value + float(high),
        std=float(deviations.std(ddof=1)),
        level=level,
        resamples=resamples,
    )


def halving(estimator: Estimator, features: Tensor, *, pairs: int = PAIRS, seed: int = 0) -> Halving:
    """Return the estimate of features [N, d] and its mean over `pairs` of halves, drawn from `seed`.

    Raises PolyinrError for fewer than 4 features.
    """
    if len(features) < 4 or pairs < 1:
        raise PolyinrError(f"{len(features)} images cannot be halved; take 4 or more")
    half, values = len(features) // 2, []
    for pair in range(pairs):
        rows = torch.randperm(len(features), generator=generator_for(seed, "halving", pair)).to(features.device)
        values += [estimator(features[rows[:half]]), estimator(features[rows[half : 2 * half]])]
    return Halving(estimator(features), math.fsum(values) / len(values))


def frechet_to(reals: Gaussian, *, unbiased: bool = True, batch: int = 8192) -> Estimator:
    """Return the function from features [N, d] to their Fréchet distance from `reals`."""

    def distance(features: Tensor) -> float:
        statistics = RunningMoments(features.shape[1], device=features.device)
        for part in features.split(batch):
            statistics.add(part)
        return frechet_distance(statistics.gaussian(unbiased=unbiased), reals)

    return distance
