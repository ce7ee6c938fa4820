"""Plot the degrees that an image's affine parameters can reach: python examples/polynomial_degrees.py -o x.png

Level i multiplies channel c of the features by a_c x + b_c y + c_c, so each level raises the degree by at most
one. With |a|, |b|, |c| for the root mean squares over the channels, a level is the polynomial |a| X + |c| along x
and |b| Y + |c| along y. The rows of the plot are the shares of the degrees in the coefficients of the product of
levels 0 to i, the columns are the degrees. Paper, Eq. 3 and 4.

This is not the degree of the image as a function. Left out are the kinks of LeakyReLU, which make the image a
different polynomial on each piece of the plane; the linear layers between the levels and their biases, which mix
degrees and can cancel them; and terms in both x and y. The shares belong to coordinates in 0 to 1.
"""

from pathlib import Path
from typing import Annotated

import matplotlib
import torch
import typer
from torch import Tensor

import polyinr_core as polyinr

matplotlib.use("Agg")


def degree_shares(affine: Tensor) -> Tensor:
    """Return the share of each degree 0..L after each level, along x and along y: [2, L, L + 1] in float64.

    `affine` is [L, 3, n]. A level without any spread counts as a factor of 1.
    """
    x, y, constant = affine.double().square().mean(dim=-1).sqrt().unbind(dim=1)  # each [L]
    return torch.stack([_shares(slope, constant) for slope in (x, y)])


def mean_degrees(shares: Tensor) -> Tensor:
    """Return the mean degree of shares [..., L + 1], weighted by them: [...]."""
    return shares @ torch.arange(shares.shape[-1], dtype=shares.dtype, device=shares.device)


def _shares(slopes: Tensor, constants: Tensor) -> Tensor:
    """Return the normalized coefficients [L, L + 1] of the products of slope X + constant, level after level."""
    levels = len(slopes)
    shares = slopes.new_zeros(levels + 1)
    shares[0] = 1.0
    rows = []
    for slope, constant in zip(slopes, constants, strict=True):
        total = slope + constant
        if total > 0:
            times_x = torch.cat([shares.new_zeros(1), shares[:-1]])
            shares = (constant / total) * shares + (slope / total) * times_x
        rows.append(shares)
    return torch.stack(rows)


def main(
    output: Annotated[Path, typer.Option("-o", "--output")],
    model: Annotated[Path, typer.Option("-m", "--model")] = Path(__file__).parents[1]
    / "polyinr_core/assets/bundled.safetensors",
    seed: int = 0,
) -> None:
    """Save the plot of one image."""
    from matplotlib import pyplot

    affine = polyinr.load(model).latents([seed]).affine
    assert affine is not None
    shares = degree_shares(affine[0])
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for axis, name, rows, means in zip(axes, "xy", shares, mean_degrees(shares), strict=True):
        axis.imshow(rows.numpy(), cmap="inferno", vmin=0, vmax=1, aspect="auto")
        axis.set(title=f"seed {seed}: degree of {name}", xlabel="degree", ylabel="level")
        axis.set_yticks(range(len(means)), [f"{level} (mean {mean:.2f})" for level, mean in enumerate(means.tolist())])
    figure.savefig(output)


if __name__ == "__main__":
    typer.run(main)
