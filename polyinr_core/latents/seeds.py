"""From seeds to z and classes: one picture a seed, whatever is drawn beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def draw_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw z [N, z_dim], float32, each row from its own seed.

    The release's draw for a batch of one, from NumPy's frozen generator, the same on every platform.
    method: section 11.
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(rows), z_dim))


def draw_labels(seeds: Sequence[int], classes: int) -> Tensor:
    """Draw a class [N], int64, for each seed, from a generator apart from that of z. method: section 11."""
    return torch.tensor([np.random.RandomState(seed).randint(0, classes) for seed in seeds], dtype=torch.int64)
