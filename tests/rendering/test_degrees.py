"""The orders that affine maps can reach."""

import numpy as np
import pytest
import torch
from numpy.polynomial import polynomial

from polyinr_core.rendering.heatmap import degree_shares, mean_orders


@pytest.fixture
def maps() -> torch.Tensor:
    """Ten levels' maps [10, 3, 7], of sizes far apart."""
    torch.manual_seed(3)
    return torch.randn(10, 3, 7) * torch.logspace(-3, 3, 10)[:, None, None]


def test_shares_are_the_coefficients_of_the_product(maps: torch.Tensor):
    """Oracle: NumPy's products of polynomials in float64; 1e-12."""
    shares = degree_shares(maps).numpy()
    sizes = np.sqrt((maps.double().numpy() ** 2).mean(axis=-1))  # [L, 3]
    for direction in (0, 1):
        product = np.ones(1)
        for level in range(10):
            product = polynomial.polymul(product, [sizes[level, 2], sizes[level, direction]])
            expected = np.zeros(11)
            expected[: len(product)] = product / product.sum()
            np.testing.assert_allclose(shares[direction, level], expected, rtol=1e-12, atol=0)


def test_every_level_adds_one_order_at_most(maps: torch.Tensor):
    shares = degree_shares(maps)
    assert shares.shape == (2, 10, 11)
    assert shares.dtype == torch.float64
    torch.testing.assert_close(shares.sum(dim=-1), torch.ones(2, 10, dtype=torch.float64))
    for level in range(10):
        assert (shares[:, level, level + 2 :] == 0).all()
        assert (shares[:, level, : level + 2] > 0).all()


def test_mean_orders_add_up(maps: torch.Tensor):
    """A factor a X + c adds a / (a + c) to the mean order: the mean of a product's orders is their sum."""
    orders = mean_orders(degree_shares(maps)).numpy()  # [2, L]
    across, down, constant = np.sqrt((maps.double().numpy() ** 2).mean(axis=-1)).T
    for own, slope in zip(orders, (across, down), strict=True):
        np.testing.assert_allclose(own, np.cumsum(slope / (slope + constant)), rtol=1e-12)


def test_a_level_that_does_nothing_along_a_direction_adds_nothing(maps: torch.Tensor):
    maps[4, 0] = 0  # no x: a constant factor along x
    maps[6] = 0  # nothing at all
    shares = degree_shares(maps)
    assert torch.equal(shares[0, 4], shares[0, 3])
    assert not torch.equal(shares[1, 4], shares[1, 3])
    assert torch.equal(shares[:, 6], shares[:, 5])


def test_large_maps_overflow_nothing():
    shares = degree_shares(torch.full((60, 3, 4), 1e30))
    assert torch.isfinite(shares).all()
    torch.testing.assert_close(mean_orders(shares)[0], torch.arange(1, 61, dtype=torch.float64) / 2)
