"""A model's pictures as numbers, for figures that 8 bits would spoil or that are of time."""

import torch
from torch import Tensor

from ..latents.seeds import draw_labels, draw_z
from ..model.drawer import drawer_for
from ..model.drawing import at_once
from ..snapshots.snapshot import Snapshot


def w_of(snapshot: Snapshot, seeds: range, *, psi: float, label: int | None, classes_of: range) -> Tensor:
    """Return w [N, L, w_dim] of seeds, on the generator's device.

    `label` is the class of all; without it each has that which its seed of `classes_of` draws.
    """
    generator, classes = snapshot.generator, snapshot.generator.config.classes
    like = generator.mapping.w_avg
    labels = None
    if classes:
        labels = draw_labels(classes_of, classes) if label is None else torch.full((len(seeds),), label)
        labels = labels.to(like.device)
    return generator.w_each(draw_z(seeds, generator.config.z_dim).to(like), labels, psi=psi)


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
