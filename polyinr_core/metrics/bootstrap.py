"""How sure a figure is: its spread over resampled features, and what it owes to the size of the sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.rng import generator_for

from .frechet import FeatureStatistics, Gaussian, frechet_distance

REPEATS = 100
LEVEL = 0.95
PAIRS = 4  # of halves

Figure = Callable[[Tensor], float]  # features [N, d] of the fakes to a number


@dataclass(frozen=True)
class Interval:
    """A figure with the limits that hold it at the given level, and its standard deviation."""

    value: float
    low: float
    high: float
    deviation: float
    level: float
    repeats: int

    @property
    def facts(self) -> dict[str, float | int]:
        """All but the value, as results hold them."""
        return {
            "low": self.low,
            "high": self.high,
            "deviation": self.deviation,
            "level": self.level,
            "resamples": self.repeats,
        }


@dataclass(frozen=True)
class Halving:
    """A figure of N features, its mean over halves of them, and what follows for N without end.

    Where the bias falls with 1 / N, as that of the Fréchet distance and the inception score does (Chong and
    Forsyth, "Effectively Unbiased FID and Inception Score", 2020), the step from N / 2 to N is what is left
    from N on: `bias` is that step, `extrapolated` the value without it.
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
    figure: Figure,
    features: Tensor,
    *,
    repeats: int = REPEATS,
    level: float = LEVEL,
    replace: bool = True,
    seed: int = 0,
) -> Interval:
    """Return the figure of features [N, d] with its interval, over resamples that `seed` draws.

    With `replace`, N of N with replacement (Efron 1979). Without, halves without replacement, which spread as
    much as the whole does: for what goes by neighbors, as a feature beside its copy has a ball of no size.
    Either kind has fewer different features than the sample, and so a bias of its own: the interval is the
    resamples' spread about their mean, laid about the value. Raises PolyinrError.
    """
    if repeats < 2 or not 0 < level < 1 or len(features) < 2:
        raise PolyinrError(
            f"no interval at level {level} from {repeats} resamples of {len(features)} images; take 2 or more"
        )
    value = figure(features)
    count = len(features)
    resamples = []
    for repeat in range(repeats):
        rng = generator_for(seed, "bootstrap", repeat)
        if replace:
            rows = torch.randint(count, (count,), generator=rng)
        else:
            rows = torch.randperm(count, generator=rng)[: count // 2]
        resamples.append(figure(features[rows.to(features.device)]))
    spread = np.asarray(resamples) - np.mean(resamples)
    low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        value=value,
        low=value + float(low),
        high=value + float(high),
        deviation=float(spread.std(ddof=1)),
        level=level,
        repeats=repeats,
    )


def halving(figure: Figure, features: Tensor, *, pairs: int = PAIRS, seed: int = 0) -> Halving:
    """Return the figure of features [N, d] beside its mean over `pairs` of halves, which `seed` draws.

    Raises PolyinrError for fewer than 4 features.
    """
    if len(features) < 4 or pairs < 1:
        raise PolyinrError(f"{len(features)} images cannot be halved; take 4 or more")
    half, values = len(features) // 2, []
    for pair in range(pairs):
        rows = torch.randperm(len(features), generator=generator_for(seed, "halving", pair)).to(features.device)
        values += [figure(features[rows[:half]]), figure(features[rows[half : 2 * half]])]
    return Halving(figure(features), math.fsum(values) / len(values))


def frechet_to(reals: Gaussian, *, unbiased: bool = True, batch: int = 8192) -> Figure:
    """Return the Fréchet distance of features from `reals`, as a figure to resample."""

    def distance(features: Tensor) -> float:
        statistics = FeatureStatistics(features.shape[1], device=features.device)
        for part in features.split(batch):
            statistics.add(part)
        return frechet_distance(statistics.gaussian(unbiased=unbiased), reals)

    return distance
