"""The hinge losses over patch logits: means over patches, then samples; sums over backbones."""

from collections.abc import Sequence

import torch
from torch import Tensor


def generator_loss(logits: Sequence[Tensor]) -> Tensor:
    """Return the generator's loss on fakes, -logit, []. Logits: one [N, K] a backbone."""
    return torch.stack([-rows.mean() for rows in logits]).sum()


def hinge_disc_fake(logits: Sequence[Tensor]) -> Tensor:
    """Return the discriminator's loss on fakes, relu(1 + logit), []. Logits: one [N, K] a backbone."""
    return torch.stack([torch.relu(1 + rows).mean() for rows in logits]).sum()


def hinge_disc_real(logits: Sequence[Tensor]) -> Tensor:
    """Return the discriminator's loss on reals, relu(1 - logit), []. Logits: one [N, K] a backbone."""
    return torch.stack([torch.relu(1 - rows).mean() for rows in logits]).sum()
