"""The perceptual distance, and the smoothness of an interpolation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from polyinr_core.metrics.image_similarity import feature_distance
from polyinr_core.metrics.ppl import path_smoothness


def taps(seed: int, *, count: int = 2) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(count, c, s, s, generator=rng, dtype=torch.float64) for c, s in ((3, 4), (5, 2))]


def test_feature_distance_is_lpips_without_weights():
    """Oracle: place by place in NumPy, float64."""
    a, b = taps(1), taps(2)
    expected = np.zeros(2)
    for first, second in zip(a, b, strict=True):
        for n in range(2):
            places = []
            for y in range(first.shape[2]):
                for x in range(first.shape[3]):
                    u, v = first[n, :, y, x].numpy(), second[n, :, y, x].numpy()
                    places.append(((u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2).sum())
            expected[n] += np.mean(places) / len(a)
    assert feature_distance(a, b).numpy() == pytest.approx(expected, rel=1e-8)


def test_feature_distance_ignores_equal_scale():
    a = taps(1)
    assert feature_distance(a, a).abs().max() == 0
    assert feature_distance(a, [3 * tap for tap in a]).max() < 1e-9


def test_zero_features_have_finite_gradients():
    """A tap of nothing but zeros, as ReLU gives, is no reason for gradients that are no numbers."""
    tap = torch.zeros(1, 3, 2, 2, requires_grad=True)
    feature_distance([tap], [torch.ones(1, 3, 2, 2)]).sum().backward()
    assert torch.isfinite(tap.grad).all()


def own(x: Tensor) -> list[Tensor]:
    """The image itself as its features, and one that is never zero beside it."""
    return [torch.cat([x, torch.ones_like(x[:, :1])], dim=1)]


@pytest.mark.parametrize("loop", [False, True])
def test_smoothness_of_a_jump(loop: bool):
    """Equal frames with one jump; a loop jumps back as well."""
    dark, light = torch.full((2, 2, 3), -1.0), torch.full((2, 2, 3), 1.0)
    walk = path_smoothness(iter([dark, dark, light, light]), own, loop=loop)
    jump = float(feature_distance(own(dark.permute(2, 0, 1)[None]), own(light.permute(2, 0, 1)[None])))
    assert walk.steps == pytest.approx([0, jump, 0] + [jump] * loop)
    assert (walk.largest, walk.largest_from) == (pytest.approx(jump), 1)
    assert walk.mean == pytest.approx(jump / 3 if not loop else jump / 2)


def test_frames_are_clamped():
    dark, darker = torch.full((2, 2, 3), -1.0), torch.full((2, 2, 3), -4.0)
    assert path_smoothness([dark, darker], own).steps == (0.0,)
