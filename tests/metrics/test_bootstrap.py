"""Intervals and the bias of small samples, where both are known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.metrics.bootstrap import bootstrap, frechet_to, halving
from polyinr_core.metrics.frechet import Gaussian


def cloud(count: int, *, seed: int, dim: int = 1) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean(features: Tensor) -> dict[str, float]:
    return {"mean": float(features.mean())}


@pytest.mark.parametrize("replace", [True, False])
def test_interval_of_a_mean(replace: bool) -> None:
    """It is known: s / sqrt(N), and a normal interval of 1.96 of that. 15 %: a thousand resamples."""
    features = cloud(400, seed=0)
    found = bootstrap(mean, features, resamples=1000, replace=replace)["mean"]
    expected = float(features.std()) / 20
    assert found["std"] == pytest.approx(expected, rel=0.15)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * expected, rel=0.15)
    assert found["low"] < found["value"] == float(features.mean()) < found["high"]
    assert (found["level"], found["resamples"]) == (0.95, 1000)


@pytest.mark.parametrize("replace", [True, False])
def test_coverage_of_the_interval_of_a_mean(replace: bool) -> None:
    """The 80 % interval of a mean is 1.28 standard deviations on each side."""
    held = known = 0
    for seed in range(100):
        features = cloud(50, seed=seed)
        found = bootstrap(mean, features, resamples=60, level=0.8, replace=replace, seed=seed)["mean"]
        held += found["low"] <= 0 <= found["high"]
        known += abs(found["value"]) < 1.2816 * float(features.std()) / 50**0.5
    assert held == pytest.approx(known, abs=7)


def test_seed_determines_the_resamples() -> None:
    features = cloud(30, seed=0)
    one, again, other = (bootstrap(mean, features, resamples=9, seed=seed)["mean"] for seed in (0, 0, 1))
    assert one == again != other


def test_halving_estimates_the_bias_of_the_frechet_distance() -> None:
    """Samples of the reals themselves are at a distance of about c / N, which halving removes."""
    dim, count = 16, 1000
    distance = frechet_to(Gaussian(torch.zeros(dim).double(), torch.eye(dim).double()))
    found = [halving(distance, cloud(count, seed=seed, dim=dim), pairs=2) for seed in range(10)]
    value = np.mean([distance(cloud(count, seed=seed, dim=dim)) for seed in range(10)])
    assert value > 0.05
    assert abs(np.mean([one["extrapolated"] for one in found])) < 0.1 * value
    assert np.mean([one["bias"] for one in found]) == pytest.approx(value, rel=0.1)


def test_interval_is_centered_on_the_value() -> None:
    """Though resamples with replacement are all further away than the sample."""
    features = cloud(200, seed=0, dim=8)
    distance = frechet_to(Gaussian(torch.zeros(8).double(), torch.eye(8).double()))
    found = bootstrap(lambda part: {"fd": distance(part)}, features, resamples=50)["fd"]
    assert found["low"] < found["value"] < found["high"]


def test_too_few_images_for_an_interval() -> None:
    with pytest.raises(PolyinrError, match="from 1 resamples of 9 images"):
        bootstrap(mean, cloud(9, seed=0), resamples=1)["mean"]
    with pytest.raises(PolyinrError, match=r"at level 1\.5"):
        bootstrap(mean, cloud(9, seed=0), level=1.5)["mean"]
    with pytest.raises(PolyinrError, match="3 images cannot be halved"):
        halving(lambda features: 0.0, cloud(3, seed=0))
