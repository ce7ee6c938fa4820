"""Exact gradients in constant memory: draw chunks of pixels without a graph, replay them one by one backward."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import ConfigError
from .level import pieces, points_of
from .synthesis import Synthesis


def draw_replayed(synthesis: Synthesis, affine: Tensor, points: Tensor, *, chunk: int) -> Tensor:
    """Draw what `synthesis(affine, points)` draws, [N, P, 3], with no more than `chunk` pixels at work at a time.

    Pixels are independent of each other, so the loss's gradient at the picture is all that the backward pass
    needs: it draws each chunk again, now with a graph, and adds up the gradients at affine, points and weights.
    They are the plain ones but for the order of their sums. Raises ConfigError.
    """
    if chunk < 1:
        raise ConfigError(f"a chunk of {chunk} pixels is empty; at least 1 is needed")
    colours: Tensor = Replay.apply(synthesis, chunk, affine, points, *synthesis.parameters())
    return colours


class Replay(torch.autograd.Function):
    """Forward without a graph, backward with the graph of one chunk."""

    @staticmethod
    def forward(
        ctx: Any, synthesis: Synthesis, chunk: int, affine: Tensor, points: Tensor, *weights: Tensor
    ) -> Tensor:
        kind = affine.device.type
        ctx.synthesis, ctx.chunk = synthesis, chunk
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(affine, points, *weights)
        drawn = [
            synthesis(affine[pictures], points_of(points, pictures, pixels))
            for pictures, pixels in pieces(len(affine), points.shape[-2], chunk)
        ]
        return torch.cat([colours.flatten(0, 1) for colours in drawn]).unflatten(0, (len(affine), -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        affine, points, *weights = inputs
        totals = [
            torch.zeros_like(tensor) if want else tensor for tensor, want in zip(inputs, wanted, strict=True)
        ]
        for pictures, pixels in pieces(len(affine), points.shape[-2], ctx.chunk):
            own = [affine[pictures].detach(), points_of(points, pictures, pixels).detach(), *weights]
            sums = [totals[0][pictures], points_of(totals[1], pictures, pixels), *totals[2:]]
            asked = [t.requires_grad_() for t, want in zip(own, wanted, strict=True) if want]
            with torch.enable_grad(), torch.autocast(ctx.autocast[0], *ctx.autocast[1:]):
                colours = ctx.synthesis(own[0], own[1])
            found = iter(torch.autograd.grad(colours, asked, grad[pictures, pixels]))
            for total, want in zip(sums, wanted, strict=True):
                if want:
                    total += next(found)
        return None, None, *(total if want else None for total, want in zip(totals, wanted, strict=True))
