"""How different two pictures look, by the features of a network at several depths, as LPIPS has it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-8


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the distances [N] of N pictures from N others, given the taps [N, C, H, W] of both.

    Each place's channels are brought to unit length; their squared differences are summed over channels and
    averaged over places and taps, so that features which have nothing in common are 2 apart. LPIPS without
    learned weights (Zhang et al. 2018, equation 1).
    """
    distances = [
        (unit_channels(a) - unit_channels(b)).square().sum(dim=1).mean(dim=(1, 2))
        for a, b in zip(first, second, strict=True)
    ]
    return torch.stack(distances).mean(dim=0)


def unit_channels(tap: Tensor) -> Tensor:
    """Bring the channels of each place of a tap [N, C, H, W] to unit length; zeros stay."""
    return functional.normalize(tap, dim=1, eps=EPSILON)
