"""Start values that let a short run begin at once: coordinates reach every level, and no level fades."""

import torch
from torch import Tensor

from ..model import Generator
from ..model.affine import LevelMap

SAMPLES = 64
FIRST_SLOPES, SLOPES = 3.0, 0.5  # along x and y, of level 0 and of the others, times PyTorch's own start values
RGB = 0.5  # root mean square of the first colours


@torch.no_grad()
def balance(generator: Generator, rng: torch.Generator) -> None:
    """Change a fresh generator's weights so that its pictures vary and its gradients are of one size.

    The release's start values multiply coordinates and features by small random numbers at each level: a fresh
    network draws one flat colour and needs many pictures to leave it. Here the chain of coordinates starts as
    the identity, after a first step that brings [0, 1] to [-1, 1]; modulations start around 1; and each
    product is scaled, level after level, to features of root mean square 1 (Mishkin and Matas, "All You Need
    Is a Good Init", 2016).
    """
    for index, level in enumerate(generator.affine.levels):
        assert isinstance(level, LevelMap)
        balance_level(level, first=index == 0)
    config, synthesis = generator.config, generator.synthesis
    z = torch.randn(SAMPLES, config.z_dim, generator=rng)
    label = torch.randint(config.classes, (SAMPLES,), generator=rng) if config.classes else None
    points = torch.cat([torch.rand(SAMPLES, 2, generator=rng), torch.ones(SAMPLES, 1)], dim=1)
    affine = generator.affine(generator.w(z, label))
    h: Tensor | None = None
    for product, matrix in zip(synthesis.products, affine.unbind(dim=1), strict=True):
        m = points @ matrix if h is None else h * synthesis.modulation(matrix, points)
        product.bias.zero_()  # type: ignore[operator]
        h = synthesis.activate(product(m))
        scale = h.square().mean().sqrt()
        product.weight.div_(scale)  # type: ignore[operator]
        h = h / scale
    synthesis.to_rgb.bias.zero_()
    assert h is not None
    synthesis.to_rgb.weight.mul_(RGB / synthesis.to_rgb(h).square().mean().sqrt())


def balance_level(level: LevelMap, *, first: bool) -> None:
    """Give a level's heads their start values."""
    n = level.map.out_features // 3
    slopes = FIRST_SLOPES if first else SLOPES
    level.map.weight[: 2 * n].mul_(slopes)
    level.map.bias[: 2 * n].mul_(slopes)
    level.map.bias[2 * n :] = 0.0 if first else 1.0
    if level.chain is not None:
        level.chain.weight.mul_(0.1)
        level.chain.bias.copy_(torch.tensor([2.0, 0, 0, 2, -1, -1] if first else [1.0, 0, 0, 1, 0, 0]))
