"""From seeds to z and classes: one picture a seed, whatever is drawn beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor


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
