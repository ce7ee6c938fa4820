"""The exponential moving average of the generator: the model that is kept."""

import torch
from torch import nn

RAMP_UP = 0.05  # the half-life is at most this part of the pictures seen


def half_life(batch: int) -> float:
    """Return the average's half-life in pictures: batch * 10 / 32 thousand, as in the release."""
    return batch * 10 / 32 * 1000


def ema_beta(*, batch: int, images: int, half_life: float) -> float:
    """Return the weight of the old average after `images` pictures (before this step): 0 in the first step."""
    return 0.5 ** (batch / max(min(half_life, RAMP_UP * images), 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, *, beta: float) -> None:
    """Move the parameters of `ema` towards those of `model`: p + beta (ema - p); copy the buffers."""
    averages: list[torch.Tensor] = list(ema.parameters())
    parameters: list[torch.Tensor] = list(model.parameters())
    torch._foreach_lerp_(averages, parameters, 1.0 - beta)
    for old, new in zip(ema.buffers(), model.buffers(), strict=True):
        old.copy_(new)
