"""Exact gradients in constant memory: draw chunks of pixels without a graph, replay them one by one backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polyinr_core.errors import ConfigError

from .generator import Synthesis
from .layers import pieces, points_of


def draw_replayed(synthesis: Synthesis, affine: Tensor, points: Tensor, *, chunk: int) -> Tensor:
    """Draw what `synthesis(affine, points)` draws, [N, P, 3], with no more than `chunk` pixels at work at a time.

    Pixels are independent of each other, so the loss's gradient at the image is all that the backward pass
    needs: it draws each chunk again, now with a graph, and adds up the gradients at affine, points and weights.
    They are the plain ones but for the order of their sums. Raises ConfigError.
    """
    if chunk < 1:
        raise ConfigError(f"a chunk of {chunk} pixels is empty; at least 1 is needed")
    colors: Tensor = Replay.apply(synthesis, chunk, affine, points, *synthesis.parameters())
    return colors


class Replay(torch.autograd.Function):
    """Forward without a graph, backward with the graph of one chunk."""

    @staticmethod
    def forward(ctx: Any, synthesis: Synthesis, chunk: int, affine: Tensor, points: Tensor, *weights: Tensor) -> Tensor:
        kind = affine.device.type
        ctx.synthesis, ctx.chunk = synthesis, chunk
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(affine, points, *weights)
        drawn = [
            synthesis(affine[images], points_of(points, images, pixels))
            for images, pixels in pieces(len(affine), points.shape[-2], chunk)
        ]
        return torch.cat([colors.flatten(0, 1) for colors in drawn]).unflatten(0, (len(affine), -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        affine, points, *weights = inputs
        totals = [torch.zeros_like(tensor) if want else tensor for tensor, want in zip(inputs, wanted, strict=True)]
        for images, pixels in pieces(len(affine), points.shape[-2], ctx.chunk):
            own = [affine[images].detach(), points_of(points, images, pixels).detach(), *weights]
            sums = [totals[0][images], points_of(totals[1], images, pixels), *totals[2:]]
            asked = [t.requires_grad_() for t, want in zip(own, wanted, strict=True) if want]
            with torch.enable_grad(), torch.autocast(ctx.autocast[0], *ctx.autocast[1:]):
                colors = ctx.synthesis(own[0], own[1])
            found = iter(torch.autograd.grad(colors, asked, grad[images, pixels]))
            for total, want in zip(sums, wanted, strict=True):
                if want:
                    total += next(found)
        return None, None, *(total if want else None for total, want in zip(totals, wanted, strict=True))
