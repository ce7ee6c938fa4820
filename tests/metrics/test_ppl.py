"""The perceptual path length of a generator whose length is known."""

import numpy as np
import pytest
import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.metrics.ppl import path_length, path_lengths, shrink


def draw(w: Tensor) -> Tensor:
    """Images [N, 3, 2, 2] that are linear in w [N, L, 12]."""
    return w.sum(dim=1).view(-1, 3, 2, 2)


def squared(one: Tensor, two: Tensor) -> Tensor:
    return (one - two).square().sum(dim=(1, 2, 3))


def test_linear_generator() -> None:
    """Its length is that of the complete path, squared. 1e-9: float64, divided by 1e-8."""
    rng = torch.Generator().manual_seed(0)
    starts, ends = torch.randn(2, 9, 3, 12, generator=rng, dtype=torch.float64)
    expected = squared(draw(starts), draw(ends))
    assert path_lengths(starts, ends, draw, squared).numpy() == pytest.approx(expected.numpy(), rel=1e-9)
    assert path_lengths(starts, ends, draw, squared, epsilon=0.5).numpy() == pytest.approx(expected.numpy())


def test_slope_at_the_start_counts() -> None:
    """A nonlinear generator: its slope at the start counts, not the path."""
    starts, ends = torch.zeros(1, 1, 12, dtype=torch.float64), torch.ones(1, 1, 12, dtype=torch.float64)
    curved = path_lengths(starts, ends, lambda w: draw(w + 10 * w**2), squared)
    assert float(curved) == pytest.approx(12, rel=3e-3)


def test_trimmed_mean() -> None:
    """Oracle: by hand. Of 0 .. 199 and two outliers, percentiles 1 and 99 are numbers 2 and 199 of the sorted."""
    lengths = torch.cat([torch.arange(200.0), torch.tensor([1e6, 2e6])])
    assert path_length(lengths[torch.randperm(202)]) == pytest.approx(np.arange(2, 200).mean())
    assert path_length(torch.tensor([3.0])) == 3


@pytest.mark.parametrize("lengths", [torch.zeros(0), torch.tensor([1.0, torch.nan])])
def test_invalid_lengths_are_refused(lengths: Tensor) -> None:
    with pytest.raises(PolyinrError, match="empty or contain NaN or Inf"):
        path_length(lengths)


@pytest.mark.parametrize(("resolution", "shrunk"), [(128, 128), (256, 256), (512, 256), (1024, 256), (600, 300)])
def test_large_images_are_averaged_over_blocks(resolution: int, shrunk: int) -> None:
    assert shrink(torch.zeros(1, 1, resolution, resolution)).shape[-1] == shrunk
