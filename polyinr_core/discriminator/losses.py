"""Adversarial losses over patch logits, one [N, K] a backbone: means over patches and samples, sums over backbones."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Logits = Sequence[Tensor]


def generator_loss(fakes: Logits, reals: Logits | None = None) -> Tensor:
    """Return the generator's loss, []: -logit; with the logits of paired `reals`, the relativistic loss."""
    if reals is None:
        return sum_of_means(-rows for rows in fakes)
    return relativistic_loss(fakes, reals)


def hinge_disc_fake(logits: Logits) -> Tensor:
    """Return the discriminator's hinge loss on fakes, relu(1 + logit), []."""
    return sum_of_means(torch.relu(1 + rows) for rows in logits)


def hinge_disc_real(logits: Logits) -> Tensor:
    """Return the discriminator's hinge loss on reals, relu(1 - logit), []."""
    return sum_of_means(torch.relu(1 - rows) for rows in logits)


def relativistic_loss(preferred: Logits, others: Logits) -> Tensor:
    """Return softplus(other - preferred) of paired logits, []: the patches of sample i with those of sample i.

    The discriminator prefers reals, the generator its fakes. Jolicoeur-Martineau, "The Relativistic Discriminator",
    2018; Huang et al., "The GAN Is Dead; Long Live the GAN!" (R3GAN), 2024, section 2.
    """
    return sum_of_means(functional.softplus(b - a) for a, b in zip(preferred, others, strict=True))


def finite_difference_penalty(logits: Logits, perturbed: Logits, *, sigma: float) -> Tensor:
    """Return the mean of ((D(x) - D(x + sigma e)) / sigma)^2, [], an estimate of the gradient penalty.

    With e normal and sigma small its expectation is the mean over patches of |grad D(x)|^2: R1 on reals (Mescheder et
    al., 2018), R2 on fakes, without a second backward pass (Lin et al., "Diffusion Adversarial Post-Training", 2025,
    section 3.3).
    """
    return sum_of_means(((a - b) / sigma).square() for a, b in zip(logits, perturbed, strict=True))


def lecam_penalty(reals: Logits, fakes: Logits, *, means: Sequence[float] | Tensor) -> Tensor:
    """Return the squared distances of reals from the running mean logit of fakes, and of fakes from that of reals, [].

    `means` are those of reals and of fakes. Tseng et al., "Regularizing Generative Adversarial Networks under Limited
    Data", 2021, eq. 3.
    """
    mean_real, mean_fake = means
    return sum_of_means((rows - mean_fake).square() for rows in reals) + sum_of_means(
        (rows - mean_real).square() for rows in fakes
    )


def sum_of_means(terms: Iterable[Tensor]) -> Tensor:
    """Return the sum of the terms' means, []."""
    return torch.stack([term.mean() for term in terms]).sum()
