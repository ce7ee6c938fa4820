"""examples/polynomial_degrees.py: the degrees that affine parameters can reach."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial import polynomial
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "polynomial_degrees.py"
spec = importlib.util.spec_from_file_location("polynomial_degrees", SCRIPT)
polynomial_degrees = importlib.util.module_from_spec(spec)
spec.loader.exec_module(polynomial_degrees)
degree_shares, mean_degrees = polynomial_degrees.degree_shares, polynomial_degrees.mean_degrees


@pytest.fixture
def affine() -> torch.Tensor:
    """Affine parameters of ten levels [10, 3, 7], of sizes far apart."""
    torch.manual_seed(3)
    return torch.randn(10, 3, 7) * torch.logspace(-3, 3, 10)[:, None, None]


def test_shares_are_the_coefficients_of_the_product(affine: torch.Tensor):
    """Oracle: NumPy's products of polynomials in float64; 1e-12."""
    shares = degree_shares(affine).numpy()
    sizes = np.sqrt((affine.double().numpy() ** 2).mean(axis=-1))  # [L, 3]
    for direction in (0, 1):
        product = np.ones(1)
        for level in range(10):
            product = polynomial.polymul(product, [sizes[level, 2], sizes[level, direction]])
            expected = np.zeros(11)
            expected[: len(product)] = product / product.sum()
            np.testing.assert_allclose(shares[direction, level], expected, rtol=1e-12, atol=0)


def test_every_level_adds_one_degree_at_most(affine: torch.Tensor):
    shares = degree_shares(affine)
    assert shares.shape == (2, 10, 11)
    assert shares.dtype == torch.float64
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 10, dtype=torch.float64))
    for level in range(10):
        assert (shares[:, level, level + 2 :] == 0).all()
        assert (shares[:, level, : level + 2] > 0).all()


def test_mean_degrees_add_up(affine: torch.Tensor):
    """A factor a X + c adds a / (a + c) to the mean degree: the mean of a product's degrees is their sum."""
    degrees = mean_degrees(degree_shares(affine)).numpy()  # [2, L]
    across, down, constant = np.sqrt((affine.double().numpy() ** 2).mean(axis=-1)).T
    for own, slope in zip(degrees, (across, down), strict=True):
        np.testing.assert_allclose(own, np.cumsum(slope / (slope + constant)), rtol=1e-12)


def test_a_level_that_does_nothing_along_a_direction_adds_nothing(affine: torch.Tensor):
    affine[4, 0] = 0  # no x: a constant factor along x
    affine[6] = 0  # nothing at all
    shares = degree_shares(affine)
    assert torch.equal(shares[0, 4], shares[0, 3])
    assert not torch.equal(shares[1, 4], shares[1, 3])
    assert torch.equal(shares[:, 6], shares[:, 5])


def test_large_affine_parameters_overflow_nothing():
    shares = degree_shares(torch.full((60, 3, 4), 1e30))
    assert torch.isfinite(shares).all()
    torch.testing.assert_close(mean_degrees(shares)[0], torch.arange(1, 61, dtype=torch.float64) / 2)


@pytest.mark.slow
def test_the_script_saves_a_plot(tiny_checkpoint: Path, tmp_path: Path):
    words = [sys.executable, str(SCRIPT), "-m", str(tiny_checkpoint), "--seed", "3", "-o", str(tmp_path / "x.png")]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert Image.open(tmp_path / "x.png").width == 1000
