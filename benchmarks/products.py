"""Floors: the bare matrix products and convolutions of a computation, without all that stands between them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 2048  # pixels a product: more are not faster
Call = tuple[nn.Conv2d, Tensor]


def drawing_products(
    *, pixels: int, channels: int, levels: int, dtype: torch.dtype, most: int
) -> tuple[Callable[[], None], float]:
    """Return the n x n products of a drawing, and how many times as many there really are.

    All are alike, so of a large picture no more than `most` pixels' are done.
    """
    features, weight = torch.randn(ROWS, channels).to(dtype), torch.randn(channels, channels).to(dtype)
    result = torch.empty_like(features)
    blocks = max(1, min(pixels, most) // ROWS)

    def work() -> None:
        for _ in range(blocks * (levels - 1)):
            torch.mm(features, weight, out=result)

    return torch.no_grad()(work), pixels / (blocks * ROWS)


def convolutions_of(network: nn.Module, x: Tensor) -> list[Call]:
    """Return the convolutions of a network with what each is given when the network sees `x`."""
    seen: list[Call] = []
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [c.register_forward_hook(lambda c, x, _: seen.append((c, x[0].detach()))) for c in found]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def convolve(call: Call, *, times: int = 1) -> Tensor:
    """Do a convolution so many times."""
    c, x = call
    for _ in range(times):
        y = functional.conv2d(x, c.weight, c.bias, *_how(c), c.groups)
    return y


@torch.no_grad()
def convolve_back(call: Call, gradient: Tensor, *, to_input: bool, to_weight: bool) -> None:
    """Do a convolution's backward pass, to what is asked for."""
    c, x = call
    wanted = [to_input, to_weight, False]
    torch.ops.aten.convolution_backward(gradient, x, c.weight, None, *_how(c), False, [0, 0], c.groups, wanted)


def _how(c: nn.Conv2d) -> tuple[list[int], list[int], list[int]]:
    return list(c.stride), [0, 0] if isinstance(c.padding, str) else list(c.padding), list(c.dilation)
