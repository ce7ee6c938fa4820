"""Degrees: which orders of x and y a picture's affine maps could reach after each level."""

import torch
from torch import Tensor


def degree_shares(affine: Tensor) -> Tensor:
    """Return the share of every order 0 .. L after every level, along x and along y: [2, L, L + 1] in float64.

    From a picture's affine maps [L, 3, n] alone. Level i multiplies its features by a_c x + b_c y + c_c in
    channel c. With the root mean squares |a|, |b|, |c| over the channels that is the polynomial |a| X + |c|
    along x and |b| Y + |c| along y; the shares are the coefficients of the product of levels 0 .. i, over their
    sum. A factor that is nil counts as 1.

    This is the polynomial's skeleton. Left out are the kinks of LeakyReLU, which make the picture a different
    polynomial from piece to piece of the plane, the products between the levels with their biases, which mix
    orders and can cancel them, and terms in x and y together. Paper, Eq. 3 and 4.
    """
    across, down, constant = affine.double().square().mean(dim=-1).sqrt().unbind(dim=1)  # each [L]
    return torch.stack([_shares(slope, constant) for slope in (across, down)])


def mean_orders(shares: Tensor) -> Tensor:
    """Return the mean order of shares [..., L + 1], weighted by them: [...]."""
    return shares @ torch.arange(shares.shape[-1], dtype=shares.dtype, device=shares.device)


def _shares(slopes: Tensor, constants: Tensor) -> Tensor:
    """Return the shares [L, L + 1] of the orders in the products of slope X + constant, level after level."""
    levels = len(slopes)
    shares = slopes.new_zeros(levels + 1)
    shares[0] = 1.0
    rows = []
    for slope, constant in zip(slopes, constants, strict=True):
        whole = slope + constant
        if whole > 0:
            raised = torch.cat([shares.new_zeros(1), shares[:-1]])  # times X
            shares = (constant / whole) * shares + (slope / whole) * raised
        rows.append(shares)
    return torch.stack(rows)
