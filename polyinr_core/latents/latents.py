"""From seeds to z and classes: one image a seed, whatever is drawn beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import FileError, LabelError, RequestError
from polyinr_core.models.generator import Generator, check_label, truncate

from .io import Latents, Space


def draw_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw z [N, z_dim], float32, each row from its own seed.

    The release's draw for a batch of one, from NumPy's frozen generator, the same on every platform.
    docs/method.md, "Where paper and release differ".
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(rows), z_dim))


def draw_labels(seeds: Sequence[int], classes: int) -> Tensor:
    """Draw a class [N], int64, for each seed, uniformly, from a generator apart from that of z.

    The release's draw for a batch of one. docs/method.md, "Where paper and release differ".
    """
    return torch.tensor([np.random.RandomState(seed).randint(0, classes) for seed in seeds], dtype=torch.int64)


@dataclass(frozen=True)
class LabelDistribution:
    """Which class a seed draws: `label` whatever the seed, one by a dataset's class `counts`, or any, uniformly.

    With counts a seed draws one image of the dataset and takes its class, as StyleGAN-XL's and the release's
    metrics do (metric_utils.iterate_random_labels). The class depends on the seed and the frequencies alone.
    """

    label: int | None = None
    counts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What cards call it."""
        if self.label is not None:
            return f"class {self.label}"
        return "dataset" if self.counts else "uniform"

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The counts by their greatest common divisor: the same for the same frequencies."""
        divisor = math.gcd(*self.counts) or 1
        return tuple(count // divisor for count in self.counts)

    def draw(self, seeds: Sequence[int], classes: int) -> Tensor:
        """Return the class [N], int64, of each seed. Equal counts give to the bit what uniform gives."""
        if self.label is not None:
            return torch.full((len(seeds),), self.label)
        if not self.counts:
            return draw_labels(seeds, classes)
        ends = torch.tensor(self.weights).cumsum(0)
        return torch.searchsorted(ends, draw_labels(seeds, int(ends[-1])), right=True)


UNIFORM = LabelDistribution()


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
def to_affine(generator: Generator, image: Latents, *, psi: float | None = None) -> Latents:
    """Complete one image's latents up to its affine maps [1, L, 3, n].

    Without psi the image stays as it was kept. With psi it is truncated anew: from z if that is held, else
    its w. Computed on the device and in the dtype of the generator. Raises RequestError, LabelError.
    """
    if psi is None and image.affine is not None:
        return image
    if psi is not None and not abs(psi) <= 1e6:
        raise RequestError(f"psi {psi} is no number that images can be drawn with; 0.5 to 1 is usual")
    like = generator.mapping.w_avg
    w = None if image.w is None else image.w.to(like)
    label = None if image.label is None else image.label.to(like.device)
    if image.z is not None and (w is None or psi is not None):
        psi = next(value for value in (psi, image.psi, 1.0) if value is not None)
        w = generator.w_each(image.z.to(like), label, psi=psi)
    elif w is not None and psi is not None:
        check_label(label, classes=generator.config.classes)
        w = truncate(w, generator.mapping.w_avg_for(label), psi)
        psi = psi * (1.0 if image.psi is None else image.psi)
    elif w is None:
        raise RequestError("affine maps alone cannot be truncated; leave --psi out")
    kept = image.psi if psi is None else psi
    return replace(image, w=w, affine=generator.affine_each(w), label=label, psi=kept)


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


def same_label(*images: Latents) -> Tensor | None:
    """Return the class [1], on the CPU, that all images (N = 1) are of, None if they differ or have none."""
    first = images[0].label
    if first is None or any(p.label is None or int(p.label[0]) != int(first[0]) for p in images):
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
                f"{name} is {list(tensor.shape[1:])} an image, not {list(shape)}; take the model it is from",
            )
    if latents.label is not None:
        check_label(latents.label, classes=config.classes)
