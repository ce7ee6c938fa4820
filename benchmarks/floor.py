"""The floor of a computation: its matrix products and convolutions alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 2048  # pixels a product: more are not faster
Call = tuple[nn.Conv2d, Tensor]


def rendering_products(
    *, pixels: int, channels: int, levels: int, dtype: torch.dtype, most: int
) -> tuple[Callable[[], None], float]:
    """Return the n x n products of a rendering, and how many times as many there really are.

    All are alike, so of a large image no more than `most` pixels' are done.
    """
    features, weight = torch.randn(ROWS, channels).to(dtype), torch.randn(channels, channels).to(dtype)
    result = torch.empty_like(features)
    blocks = max(1, min(pixels, most) // ROWS)

    def work() -> None:
        for _ in range(blocks * (levels - 1)):
            torch.mm(features, weight, out=result)

    return torch.no_grad()(work), pixels / (blocks * ROWS)


def convolutions_of(network: nn.Module, x: Tensor) -> list[Call]:
    """Return the convolutions of a network with what each is given, padded, when the network sees `x`."""
    seen: list[Call] = []

    def note(c: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> None:
        wanted = [(out - 1) * s + k for out, s, k in zip(result.shape[2:], c.stride, c.kernel_size, strict=True)]
        missing = [max(0, side - has) for side, has in zip(wanted, given[0].shape[2:], strict=True)]
        halves = [(m // 2, m - m // 2) for m in reversed(missing)]
        seen.append((c, functional.pad(given[0].detach(), [n for half in halves for n in half])))

    hooks = [m.register_forward_hook(note) for m in network.modules() if isinstance(m, nn.Conv2d)]
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
    return list(c.stride), [0, 0], list(c.dilation)
