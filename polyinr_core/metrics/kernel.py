"""The kernel distance between two sets of features: an unbiased squared maximum mean discrepancy."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SUBSETS, SUBSET = 100, 1000  # how many, and the most features in each
BLOCK = 1024  # rows of the kernel in memory at once


class KernelReference:
    """Real features [N, d], with their side of the kernel distance to any `fakes` features taken once.

    The kernel is (x . y / d + 1)^3; the distance is the mean over 100 pairs of subsets of 1000, or as many as the
    smaller set has, drawn without replacement from NumPy's frozen generator, seeded, the fakes' before the
    reals'. Where the subsets are both sets as a whole, one pair says it all. All in float64. Bińkowski et al.,
    "Demystifying MMD GANs" (2018); the order of the draws is that of StyleGAN's metrics.
    """

    def __init__(
        self, reals: Tensor, fakes: int, *, subsets: int = SUBSETS, most: int = SUBSET, seed: int = 0
    ) -> None:
        self.reals = reals.double()
        self.size = min(most, fakes, len(reals))
        subsets = 1 if self.size == fakes == len(reals) else subsets
        rng = np.random.RandomState(seed)
        counts = (fakes, len(reals)) * subsets
        rows = [rng.choice(count, self.size, replace=False) for count in counts]
        self.in_fakes = membership(rows[0::2], fakes).to(reals.device)
        self.in_reals = membership(rows[1::2], len(reals)).to(reals.device)
        self.within_reals = within(self.reals, self.in_reals)

    def distance(self, fakes: Tensor) -> float:
        """Return the distance of as many fake features [M, d] as were announced."""
        x = fakes.double()
        across = x.new_zeros(len(self.in_fakes))
        for part, members in zip(x.split(BLOCK), self.in_fakes.split(BLOCK, dim=1), strict=True):
            across += ((members @ kernel(part, self.reals)) * self.in_reals).sum(dim=1)
        pairs, size = max(self.size - 1, 1), self.size
        values = (within(x, self.in_fakes) + self.within_reals) / pairs - 2 * across / size
        return float(values.mean() / size)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return [N, M]: the cubic kernel of features [N, d] and [M, d]."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def within(x: Tensor, members: Tensor) -> Tensor:
    """Return [S]: the sums of the kernel over the pairs of different features of each subset."""
    total = x.new_zeros(len(members))
    for part, columns in zip(x.split(BLOCK), members.split(BLOCK, dim=1), strict=True):
        total += ((columns @ kernel(part, x)) * members).sum(dim=1)
    own = (x.square().sum(dim=1) / x.shape[1] + 1) ** 3
    return total - members @ own


def membership(rows: list[NDArray[np.int64]], count: int) -> Tensor:
    """Return [S, count], float64: 1 where a feature is in a subset."""
    members = torch.zeros(len(rows), count, dtype=torch.float64)
    for row, chosen in zip(members, rows, strict=True):
        row[torch.from_numpy(chosen)] = 1.0
    return members
