"""A level of the synthesis network, its gradient written out: fewer passes over the features, less to keep."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from .layers import SLOPE

hardtanh_backward = torch.ops.aten.hardtanh_backward
leaky_relu_backward = torch.ops.aten.leaky_relu_backward


class Level(torch.autograd.Function):
    """x = clamp(lrelu(U (h * m) + u)), [N, P, n], with m = lrelu(A p), or A p itself unless `bent`.

    h is [N, P, n], A [N, 3, n], p [P, 3] or [N, P, 3]; without a `limit` nothing is clamped. LeakyReLU keeps the
    sign, so its own result tells its slope, and what is clamped sits at the limit.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        matrix: Tensor,
        points: Tensor,
        weight: Tensor,
        bias: Tensor,
        bent: bool,
        limit: float | None,
    ) -> Tensor:
        m = torch.matmul(points, matrix)
        if bent:
            functional.leaky_relu_(m, SLOPE)
        hm = h * m
        x = functional.leaky_relu_(functional.linear(hm, weight, bias), SLOPE)
        if limit is not None:
            x.clamp_(-limit, limit)
        ctx.save_for_backward(h, matrix, points, weight, m, hm, x)
        ctx.bent, ctx.limit = bent, limit
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, matrix, points, weight, m, hm, x = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        if ctx.limit is not None:
            grad = hardtanh_backward(grad, x, -ctx.limit, ctx.limit)
        grad = leaky_relu_backward(grad, x, SLOPE, True)
        rows = grad.flatten(0, 1)  # [N P, n]
        at_weight = rows.T @ hm.flatten(0, 1) if wanted[3] else None
        at_bias = rows.sum(dim=0) if wanted[4] else None
        at_hm = grad @ weight
        at_m = at_hm * h
        if ctx.bent:
            leaky_relu_backward.grad_input(at_m, m, SLOPE, True, grad_input=at_m)
        at_matrix = torch.matmul(points.mT, at_m) if wanted[1] else None
        at_points = torch.matmul(at_m, matrix.mT) if wanted[2] else None
        if at_points is not None and points.dim() == 2:
            at_points = at_points.sum(dim=0)
        return at_hm.mul_(m), at_matrix, at_points, at_weight, at_bias, None, None
