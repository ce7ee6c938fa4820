"""The kernel inception distance: an unbiased squared maximum mean discrepancy between two sets of features."""

import numpy as np
import torch
from torch import Tensor

SUBSETS, MAX_SUBSET_SIZE = 100, 1000
BLOCK = 2048  # rows and columns of the kernel matrix in memory at once


class KernelReference:
    """Real features [N, d] and their part of the kernel distance, computed once for any set of `fakes` features.

    The kernel is (x . y / d + 1)^3. The distance is the mean over 100 pairs of subsets of 1000 features, or of as
    many as the smaller set has, drawn without replacement by a seeded `numpy.random.RandomState`, the fakes
    before the reals. If both subsets are the complete sets, one pair is enough. All arithmetic is float64. Time and
    memory beside the features do not grow with their number: see `subset_sums`. Bińkowski et al.,
    "Demystifying MMD GANs" (2018); the order of the draws is that of StyleGAN's metrics.
    """

    def __init__(
        self, reals: Tensor, fakes: int, *, subsets: int = SUBSETS, max_size: int = MAX_SUBSET_SIZE, seed: int = 0
    ) -> None:
        self.reals = reals
        self.size = min(max_size, fakes, len(reals))
        subsets = 1 if self.size == fakes == len(reals) else subsets
        rng = np.random.RandomState(seed)
        counts = (fakes, len(reals)) * subsets
        rows = torch.from_numpy(np.stack([rng.choice(count, self.size, replace=False) for count in counts]))
        self.in_fakes, self.in_reals = rows[0::2].to(reals.device), rows[1::2].to(reals.device)  # [S, size]
        self.within_reals = within(reals, self.in_reals)

    def distance(self, fakes: Tensor) -> float:
        """Return the distance of fake features [M, d], where M is the `fakes` of the constructor."""
        across = subset_sums(fakes, self.in_fakes, self.reals, self.in_reals)
        pairs, size = max(self.size - 1, 1), self.size
        values = (within(fakes, self.in_fakes) + self.within_reals) / pairs - 2 * across / size
        return float(values.mean() / size)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return [N, M], float64: the cubic kernel of features [N, d] and [M, d]."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def subset_sums(x: Tensor, in_x: Tensor, y: Tensor, in_y: Tensor) -> Tensor:
    """Return [S]: the sum of the kernel over all pairs of a subset of x and its partner of y.

    `in_x` and `in_y` [S, size] index the features of each subset. If the complete kernel matrix has fewer entries
    than the subsets have pairs, as in small sets whose subsets overlap, it is computed instead, once.
    """
    if len(x) * len(y) < in_x.numel() * in_y.shape[1]:
        return sums_by_full_kernel(x, in_x, y, in_y)
    return torch.stack([kernel(x[i], y[j]).sum() for i, j in zip(in_x, in_y, strict=True)])


def sums_by_full_kernel(x: Tensor, in_x: Tensor, y: Tensor, in_y: Tensor) -> Tensor:
    """Return `subset_sums` from the kernel matrix of all features, a block at a time."""
    total = torch.zeros(len(in_x), dtype=torch.float64, device=x.device)
    members_of_x, members_of_y = membership(in_x, len(x)), membership(in_y, len(y))
    for rows, rows_in in zip(x.split(BLOCK), members_of_x.split(BLOCK, dim=1), strict=True):
        for columns, columns_in in zip(y.split(BLOCK), members_of_y.split(BLOCK, dim=1), strict=True):
            total += ((rows_in @ kernel(rows, columns)) * columns_in).sum(dim=1)
    return total


def within(x: Tensor, rows: Tensor) -> Tensor:
    """Return [S]: the sum of the kernel over all pairs of distinct features of each subset."""
    diagonal = torch.cat([(part.double().square().sum(dim=1) / x.shape[1] + 1) ** 3 for part in x.split(BLOCK)])
    return subset_sums(x, rows, x, rows) - diagonal[rows].sum(dim=1)


def membership(rows: Tensor, count: int) -> Tensor:
    """Return [S, count], float64: 1 where a feature is in a subset."""
    return torch.zeros(len(rows), count, dtype=torch.float64, device=rows.device).scatter_(1, rows, 1.0)
