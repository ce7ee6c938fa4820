"""Confidence intervals of metrics by resampling the features, and the bias of a finite sample by halving it."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.rng import generator_for

from .frechet import Gaussian, RunningMoments, frechet_distance, frechet_distance_of_few

RESAMPLES = 100
LEVEL = 0.95
PAIRS = 4  # of disjoint halves
BATCH = 8192  # features whose moments are added at once

Estimator = Callable[[Tensor], float]  # from features [N, d] of the fakes to the metric
Estimators = Callable[[Tensor], Mapping[str, float]]  # likewise to several metrics by name


def bootstrap(
    estimators: Estimators,
    features: Tensor,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    replace: bool = True,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Return each estimate of features [N, d] with its confidence interval over resamples drawn from `seed`.

    With `replace`, a resample is N of N with replacement (Efron 1979). Without, it is a half without replacement,
    which has the same variance: for nearest-neighbor metrics, where a duplicate has a ball of radius 0. Either
    has fewer distinct features than the sample and therefore a larger bias: the interval is the resamples'
    deviation from their mean, added to the value.

    Returns: by name, the "value", the ends "low" and "high" of its interval, the standard deviation "std", "level" and
        "resamples".

    Raises: PolyinrError.
    """
    count = len(features)
    if resamples < 2 or not 0 < level < 1 or count < 2:
        raise PolyinrError(f"no interval at level {level} from {resamples} resamples of {count} images; use 2 or more")
    values = estimators(features)
    resampled = []
    for repeat in range(resamples):
        rng = generator_for(seed, "bootstrap", repeat)
        if replace:
            rows = torch.randint(count, (count,), generator=rng)
        else:
            rows = torch.randperm(count, generator=rng)[: count // 2]
        resampled.append(estimators(features[rows.to(features.device)]))
    intervals = {}
    for name, value in values.items():
        found = np.array([estimates[name] for estimates in resampled])
        deviations = found - found.mean()
        low, high = np.quantile(deviations, [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = {
            "value": value,
            "low": value + float(low),
            "high": value + float(high),
            "std": float(deviations.std(ddof=1)),
            "level": level,
            "resamples": resamples,
        }
    return intervals


def halving(estimator: Estimator, features: Tensor, *, pairs: int = PAIRS) -> dict[str, float]:
    """Return the "bias" of an estimate of N features, and the "extrapolated" estimate of infinitely many.

    If the bias falls as 1 / N, as that of the Fréchet distance and the inception score does (Chong and Forsyth,
    "Effectively Unbiased FID and Inception Score", 2020), the change from N / 2 to N equals the remaining bias. That of
    N / 2 is the mean over `pairs` of disjoint halves. Raises PolyinrError for fewer than 4 features.
    """
    if len(features) < 4 or pairs < 1:
        raise PolyinrError(f"{len(features)} images cannot be halved; use 4 or more")
    half, values = len(features) // 2, []
    for pair in range(pairs):
        rows = torch.randperm(len(features), generator=generator_for(0, "halving", pair)).to(features.device)
        values += [estimator(features[rows[:half]]), estimator(features[rows[half : 2 * half]])]
    value = estimator(features)
    bias = math.fsum(values) / len(values) - value
    return {"bias": bias, "extrapolated": value - bias}


def frechet_to(reals: Gaussian, *, unbiased: bool = True) -> Estimator:
    """Return the function from features [N, d] to their Fréchet distance from `reals`."""

    def distance(features: Tensor) -> float:
        if len(features) < features.shape[1]:
            return frechet_distance_of_few(features, reals, unbiased=unbiased)
        statistics = RunningMoments(features.shape[1], device=features.device)
        for part in features.split(BATCH):
            statistics.add(part)
        return frechet_distance(statistics.gaussian(unbiased=unbiased), reals)

    return distance
