"""Pictures by seed, several in a pass: for the sheets that a run keeps, and for what judges it."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..latents.seeds import UNIFORM, LabelDistribution, draw_z
from ..model import Generator, RegularGrid
from ..model.drawer import drawer_for
from ..model.drawing import at_once


@torch.no_grad()
def draw_seeds(
    generator: Generator, seeds: Sequence[int], *, resolution: int, labels: LabelDistribution = UNIFORM
) -> Iterator[Tensor]:
    """Yield the pictures of the seeds in their order, a pass at a time: [n, r, r, 3], about [-1, 1].

    A seed draws its picture's class, too, by `labels`. They are on the generator's device and in its dtype.
    """
    device, dtype = generator.mapping.w_avg.device, generator.mapping.w_avg.dtype
    points = RegularGrid(resolution, resolution).points(0, resolution**2, dtype=dtype, device=device)
    classes = generator.config.classes
    drawer = drawer_for(generator.synthesis, device)
    together = max(1, at_once(device) // resolution**2)
    for start in range(0, len(seeds), together):
        part = seeds[start : start + together]
        z = draw_z(part, generator.config.z_dim).to(device, dtype)
        label = labels.draw(part, classes).to(device) if classes else None
        yield drawer(generator.affine_each(generator.w_each(z, label)), points).unflatten(
            1, (resolution, resolution)
        )
