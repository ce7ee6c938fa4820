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
    return unit_distance(unit_channels(first), unit_channels(second))


def unit_channels(taps: Sequence[Tensor]) -> list[Tensor]:
    """Bring the channels of each place of taps [N, C, H, W] to unit length; zeros stay."""
    return [functional.normalize(tap, dim=1, eps=EPSILON) for tap in taps]


def unit_distance(
    first: Sequence[Tensor], second: Sequence[Tensor], *, weights: Sequence[Tensor] | None = None
) -> Tensor:
    """Return the distances [N] of taps that `unit_channels` gave.

    `weights` [C] a tap are LPIPS's linear heads: they weigh the channels, and taps are summed and not averaged.
    """
    squares = [(a - b).square() for a, b in zip(first, second, strict=True)]
    if weights is None:
        return torch.stack([tap.sum(dim=1).mean(dim=(1, 2)) for tap in squares]).mean(dim=0)
    weighed = [torch.einsum("nchw,c->nhw", tap, weight) for tap, weight in zip(squares, weights, strict=True)]
    return torch.stack([tap.mean(dim=(1, 2)) for tap in weighed]).sum(dim=0)
