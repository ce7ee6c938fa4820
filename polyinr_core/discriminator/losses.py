"""The hinge losses over patch logits, with the release's convention as an argument."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["mean", "sum"]


def hinge_disc_fake(logits: Sequence[Tensor], *, reduction: Reduction = "mean") -> Tensor:
    """The discriminator's loss on drawn images: relu(1 + logit). Logits: one [N, K] a backbone."""
    return over_rows(logits, lambda rows: torch.relu(1 + rows), reduction=reduction)


def hinge_disc_real(logits: Sequence[Tensor], *, reduction: Reduction = "mean") -> Tensor:
    """The discriminator's loss on real images: relu(1 - logit). Logits: one [N, K] a backbone."""
    return over_rows(logits, lambda rows: torch.relu(1 - rows), reduction=reduction)


def generator_loss(logits: Sequence[Tensor], *, reduction: Reduction = "mean") -> Tensor:
    """The generator's loss on drawn images: -logit. Logits: one [N, K] a backbone."""
    return over_rows(logits, torch.neg, reduction=reduction)


def over_rows(logits: Sequence[Tensor], penalty: Callable[[Tensor], Tensor], *, reduction: Reduction) -> Tensor:
    """Average over the patches of each sample, then over samples (`mean`) or add them up (`sum`, as the
    release does, so that the loss grows with the batch); add up the backbones."""
    samples = [penalty(rows).mean(dim=1) for rows in logits]  # [N] each
    return torch.stack([rows.sum() if reduction == "sum" else rows.mean() for rows in samples]).sum()
