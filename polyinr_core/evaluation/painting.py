"""A model's pictures as numbers, for figures that 8 bits would spoil or that are of time."""

import torch
from torch import Tensor

from ..latents.seeds import UNIFORM, LabelDistribution, draw_z
from ..model.drawer import drawer_for
from ..model.drawing import at_once
from ..snapshots.snapshot import Snapshot


def w_of(
    snapshot: Snapshot, seeds: range, *, psi: float, labels: LabelDistribution = UNIFORM, classes_of: range
) -> Tensor:
    """Return w [N, L, w_dim] of seeds, each in the class that its seed of `classes_of` draws, on the device."""
    generator, classes = snapshot.generator, snapshot.generator.config.classes
    like = generator.mapping.w_avg
    label = labels.draw(classes_of, classes).to(like.device) if classes else None
    return generator.w_each(draw_z(seeds, generator.config.z_dim).to(like), label, psi=psi)


@torch.no_grad()
def paint(snapshot: Snapshot, w: Tensor, *, side: int) -> Tensor:
    """Draw w [N, L, w_dim] as colours [N, 3, side, side], about [-1, 1]; large pictures a part at a time."""
    generator = snapshot.generator
    affine = generator.affine_each(w)
    points = snapshot.grid(side, side).at(torch.arange(side**2, device=w.device), dtype=w.dtype)
    parts = points.split(max(1, at_once(w.device) // len(w)))
    drawer = drawer_for(generator.synthesis, w.device)
    colours = torch.cat([drawer(affine, part) for part in parts], dim=1)
    return colours.unflatten(1, (side, side)).permute(0, 3, 1, 2)
