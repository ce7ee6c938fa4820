"""Statistics that stream and merge, and the Fréchet distance, against StyleGAN's metric code."""

import json
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.linalg import sqrtm
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.metrics.frechet import Gaussian, RunningMoments, frechet_distance, frechet_distance_of_few


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "metrics_golden.safetensors")


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, float]:
    return json.loads((reference / "metrics_golden.json").read_text())["expected"]


def statistics(features: Tensor, *, batch: int = 64) -> RunningMoments:
    taken = RunningMoments(features.shape[1])
    for part in features.split(batch):
        taken.add(part)
    return taken


def fid(fakes: Tensor, reals: Tensor) -> float:
    return frechet_distance(statistics(fakes).gaussian(unbiased=False), statistics(reals).gaussian(unbiased=False))


def test_golden_distance(golden: dict[str, Tensor], expected: dict[str, float]) -> None:
    """Covariances by N. 1e-10: they took a general matrix square root, we a symmetric one."""
    reals, fakes = golden["input.real_features"], golden["input.gen_features"]
    assert fid(fakes, reals) == pytest.approx(expected["fid"], rel=1e-10)
    assert fid(reals, fakes) == pytest.approx(expected["fid_swapped"], rel=1e-10)
    assert fid(fakes[:150], reals) == pytest.approx(expected["fid_first150_gen"], rel=1e-10)


def test_golden_moments(golden: dict[str, Tensor]) -> None:
    taken = statistics(golden["input.real_features"]).gaussian(unbiased=False)
    torch.testing.assert_close(taken.mean, golden["output.real_mean"], rtol=0, atol=1e-13)
    torch.testing.assert_close(taken.covariance, golden["output.real_cov"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_batch_size_does_not_change_the_moments(golden: dict[str, Tensor], batch: int) -> None:
    """Oracle: NumPy's covariance, by N - 1, of features far from the origin."""
    features = golden["input.real_features"].double() + 1000
    taken = statistics(features, batch=batch)
    assert taken.count == 200
    np.testing.assert_allclose(taken.gaussian().covariance, np.cov(features.numpy().T), rtol=0, atol=1e-11)


def test_fewer_images_than_dimensions() -> None:
    """Oracle: scipy's general root, which loses half the digits of singular products: 1e-6."""
    rng = torch.Generator().manual_seed(0)
    one, two = torch.randn(6, 10, generator=rng), torch.randn(8, 10, generator=rng) + 1
    a, b = statistics(one).gaussian(), statistics(two).gaussian()
    root = sqrtm((a.covariance @ b.covariance).numpy()).real
    plain = (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace() - 2 * np.trace(root)
    assert frechet_distance(a, b) == pytest.approx(float(plain), rel=1e-6)


def test_distance_to_itself_is_zero(golden: dict[str, Tensor]) -> None:
    taken = statistics(golden["input.real_features"]).gaussian()
    assert abs(frechet_distance(taken, taken)) < 1e-10


def test_nan_features_are_refused() -> None:
    good, bad = Gaussian(torch.zeros(2), torch.eye(2)), Gaussian(torch.zeros(2), torch.eye(2) * torch.nan)
    with pytest.raises(PolyinrError, match="contain NaN or Inf"):
        frechet_distance(bad, good)


def exact_distance(a: Gaussian, b: Gaussian) -> float:
    """The Fréchet distance with 60 digits, by mpmath's symmetric solver."""
    with mpmath.workdps(60):
        one, two = (mpmath.matrix(gaussian.covariance.tolist()) for gaussian in (a, b))
        values, vectors = mpmath.eigsy(two)
        root = vectors * mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values]) * vectors.T
        product = root * one * root
        inner = mpmath.eigsy((product + product.T) / 2, eigvals_only=True)
        means = sum(mpmath.mpf(float(x - y)) ** 2 for x, y in zip(a.mean, b.mean, strict=True))
        traces = sum(one[i, i] + two[i, i] for i in range(one.rows))
        return float(means + traces - 2 * sum(mpmath.sqrt(max(value, 0)) for value in inner))


def stretched(smallest: float, *, seed: int, dim: int = 12) -> Gaussian:
    """A Gaussian whose variances go from 1 down to `smallest`, in directions of its own."""
    rng = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64))
    values = torch.logspace(0, math.log10(smallest), dim, dtype=torch.float64)
    covariance = (turn * values) @ turn.T
    return Gaussian(torch.randn(dim, generator=rng, dtype=torch.float64) / 10, (covariance + covariance.T) / 2)


@pytest.mark.parametrize("smallest", [1e-2, 1e-6, 1e-10, 1e-14, 1e-18])
def test_nearly_singular_covariances(smallest: float) -> None:
    """Oracle: 60 digits of the same float64 matrices. 1e-7: roots of the eigenvalues' own rounding, 1e-16."""
    a, b = stretched(smallest, seed=1), stretched(smallest, seed=2)
    assert frechet_distance(a, b) == pytest.approx(exact_distance(a, b), rel=1e-7)
    nearby = Gaussian(a.mean, a.covariance * (1 + 1e-3))
    assert frechet_distance(a, nearby) == pytest.approx(exact_distance(a, nearby), abs=1e-7)


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("count", [2, 30, 90])
def test_of_few_features_it_is_the_same(count: int, unbiased: bool) -> None:
    """Also with features that occur several times, and with more of them than dimensions."""
    rng = torch.Generator().manual_seed(count)
    reals = statistics(torch.randn(200, 64, generator=rng)).gaussian()
    features = torch.randn(count, 64, generator=rng)[torch.randint(count, (count,), generator=rng)] + 0.1
    expected = frechet_distance(statistics(features).gaussian(unbiased=unbiased), reals)
    assert frechet_distance_of_few(features, reals, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(PolyinrError, match="NaN or Inf"):
        frechet_distance_of_few(features.fill_(math.nan), reals)
