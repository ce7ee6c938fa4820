"""The two building blocks that StyleGAN brought: the equalised layer and the RMS normalisation."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # of every LeakyReLU


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with the slope used everywhere in Poly-INR."""
    return functional.leaky_relu(x, SLOPE)


def rms_normalize(x: Tensor) -> Tensor:
    """Divide rows by their root mean square: x / sqrt(mean(x^2) + 1e-8), [N, d] to [N, d]."""
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-8).rsqrt()


class EqualizedLinear(nn.Module):
    """y = sqrt(2) lrelu(x (W m / sqrt(in))^T + b m), with m the learning-rate multiplier.

    Weights start as N(0, 1) / m and biases as 0; the scale is applied at run time. Karras et al.,
    "Progressive Growing of GANs" (equalised learning rate).
    """

    def __init__(self, in_dim: int, out_dim: int, *, lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_dim, in_dim).normal_().div_(lr_multiplier))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        scale = self.lr_multiplier / math.sqrt(self.weight.shape[1])
        return leaky_relu(functional.linear(x, self.weight * scale, self.bias * self.lr_multiplier)) * math.sqrt(
            2
        )
