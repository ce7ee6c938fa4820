"""From z to w to affine maps, picture by picture: its arithmetic never depends on its neighbours."""

from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from ..errors import FileError, LabelError, RequestError
from ..model import Generator
from ..model.mapping import check_label, truncate
from .file import Latents, Space
from .seeds import draw_labels, draw_z

SPACES: tuple[Space, ...] = get_args(Space)


def from_seed(generator: Generator, seed: int, *, label: int | None = None, psi: float = 1.0) -> Latents:
    """Return the latents, in all three spaces, of one seed. The seed draws the class where none is given.

    Raises LabelError, RequestError.
    """
    classes = generator.config.classes
    labels = None
    if classes:
        labels = draw_labels([seed], classes) if label is None else torch.tensor([label])
    elif label is not None:
        raise LabelError("the model has no classes: leave the label out")
    z = draw_z([seed], generator.config.z_dim)
    return to_affine(generator, Latents(z=z, label=labels, seeds=(seed,)), psi=psi)


@torch.no_grad()
def to_affine(generator: Generator, picture: Latents, *, psi: float | None = None) -> Latents:
    """Complete one picture's latents up to its affine maps [1, L, 3, n].

    Without psi the picture stays as it was kept. With psi it is truncated anew: from z if that is held, else
    its w. Computed on the device and in the dtype of the generator. Raises RequestError, LabelError.
    """
    if psi is None and picture.affine is not None:
        return picture
    if psi is not None and not abs(psi) <= 1e6:
        raise RequestError(f"psi {psi} is no number that pictures can be drawn with; 0.5 to 1 is usual")
    like = generator.mapping.w_avg
    w = None if picture.w is None else picture.w.to(like)
    label = None if picture.label is None else picture.label.to(like.device)
    if picture.z is not None and (w is None or psi is not None):
        psi = next(value for value in (psi, picture.psi, 1.0) if value is not None)
        w = generator.w_each(picture.z.to(like), label, psi=psi)
    elif w is not None and psi is not None:
        check_label(label, classes=generator.config.classes)
        w = truncate(w, generator.mapping.w_avg_for(label), psi)
        psi = psi * (1.0 if picture.psi is None else picture.psi)
    elif w is None:
        raise RequestError("affine maps alone cannot be truncated; leave --psi out")
    kept = picture.psi if psi is None else psi
    return replace(picture, w=w, affine=generator.affine_each(w), label=label, psi=kept)


def with_label(generator: Generator, latents: Latents, label: int | None) -> Latents:
    """Return latents in another class, or with the class that their seeds draw where z alone has none.

    Raises LabelError if they cannot be: the class is part of w, and only z is free of it.
    """
    if label is not None:
        if latents.z is None:
            raise LabelError(f"latents in {latents.space} have their class in them; leave the label out")
        labels = torch.full((len(latents),), label)
        return replace(latents, w=None, affine=None, label=labels)
    if latents.space == "z" and generator.config.classes and latents.label is None:
        if not latents.seeds:
            raise LabelError("the latents have no class and no seed to draw it from; give a label")
        return replace(latents, label=draw_labels(latents.seeds, generator.config.classes))
    return latents


def held_in(latents: Latents, space: Space) -> Tensor:
    """Return the latents in one space. Raises RequestError where they are not held in it."""
    tensor: Tensor | None = getattr(latents, space)
    if tensor is None:
        held = " and ".join(name for name in SPACES if getattr(latents, name) is not None)
        raise RequestError(f"the latents hold {held}, no {space}; take the space {latents.space}")
    return tensor


def same_label(*pictures: Latents) -> Tensor | None:
    """Return the class [1], on the CPU, that all pictures (N = 1) are of, None if they differ or have none."""
    first = pictures[0].label
    if first is None or any(p.label is None or int(p.label[0]) != int(first[0]) for p in pictures):
        return None
    return first.cpu()


def check_latents(generator: Generator, latents: Latents, *, source: str) -> None:
    """Raise FileError if latents do not fit the model's sizes, LabelError if their classes do not."""
    config = generator.config
    expected = {
        "z": (config.z_dim,),
        "w": (config.levels, config.w_dim),
        "affine": (config.levels, 3, config.channels),
    }
    for name, shape in expected.items():
        tensor: Tensor | None = getattr(latents, name)
        if tensor is not None and tuple(tensor.shape[1:]) != shape:
            raise FileError(
                source,
                f"{name} is {list(tensor.shape[1:])} a picture, not {list(shape)}; take the model it is from",
            )
    if latents.label is not None:
        check_label(latents.label, classes=config.classes)
