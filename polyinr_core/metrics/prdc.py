"""Precision, recall, density, coverage, realism and nearest neighbors, by k-nearest-neighbor balls of features."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError

BLOCK = 4096  # rows and columns of the distance matrix in memory at once: 128 MiB in float64
ROUNDING = 1e-12  # a squared distance below this fraction of the squared norms is a rounding error, set to 0


@dataclass(frozen=True)
class Manifold:
    """Features [N, d] and `squares` [N, K + 1], the squared distances to the K nearest others, ascending.

    Column 0 is the feature itself, at distance 0, so that column k is the k-th neighbor.
    """

    features: Tensor
    squares: Tensor

    def squared_radii(self, k: int) -> Tensor:
        """Return [N], float32: the squared distances to the k-th neighbors. Raises PolyinrError past K."""
        if not 0 < k < self.squares.shape[1]:
            raise PolyinrError(f"neighbor {k} is out of range 1-{self.squares.shape[1] - 1}")
        return self.squares[:, k]

    def radii(self, k: int) -> Tensor:
        """Return [N], float32: the distances to the k-th neighbors. Raises PolyinrError past K."""
        return self.squared_radii(k).sqrt()


@dataclass(frozen=True)
class Prdc:
    """How much two manifolds overlap; higher is better. All but density are in [0, 1]."""

    precision: float  # fraction of fakes in some real's ball
    recall: float  # fraction of reals in some fake's ball
    density: float  # mean number of reals' balls that a fake is in, divided by k
    coverage: float  # fraction of reals whose ball holds a fake


def manifold(features: Tensor, *, k: int = 5, half: bool = False, block: int = BLOCK) -> Manifold:
    """Return the manifold of features [N, d] with the distances to k neighbors.

    With `half` the features are rounded to float16 first, as StyleGAN's metrics do; they compute the distances in
    float16 as well, so that their last digits depend on the GPU. Raises PolyinrError for NaN or Inf and for fewer
    than k + 1 features.
    """
    if len(features) <= k:
        raise PolyinrError(f"neighbor {k} needs {k + 1} images or more, not {len(features)}")
    if half:
        features = features.half().float()
    squares, _ = nearest_squares(features, features, k + 1, block=block)
    return Manifold(features, squares)


def compute_prdc(fakes: Manifold, reals: Manifold, *, k: int = 3, k_density: int = 5, block: int = BLOCK) -> Prdc:
    """Return precision, recall, density and coverage in one pass over the distances between two manifolds.

    Precision and recall with balls to neighbor `k`: Kynkäänniemi et al., "Improved Precision and Recall Metric
    for Assessing Generative Models" (2019). Density and coverage with balls to neighbor `k_density`: Naeem et
    al., "Reliable Fidelity and Diversity Metrics" (2020). A ball includes its boundary, in all four. Swapping the
    arguments swaps precision and recall. Memory is that of the features and a few blocks.
    """
    real_balls, fake_balls = reals.squared_radii(k), fakes.squared_radii(k)
    density_balls = reals.squared_radii(k_density)
    device = reals.features.device
    precise = torch.zeros(len(fakes.features), dtype=torch.bool, device=device)
    recalled, covered = torch.zeros(2, len(reals.features), dtype=torch.bool, device=device)
    inside = 0
    for rows, columns, squares in distance_blocks(fakes.features, reals.features, block=block):
        precise[rows] |= (squares <= real_balls[columns]).any(dim=1)
        recalled[columns] |= (squares <= fake_balls[rows, None]).any(dim=0)
        dense = squares <= density_balls[columns]
        covered[columns] |= dense.any(dim=0)
        inside += int(dense.sum())
    return Prdc(
        precision=fraction(precise),
        recall=fraction(recalled),
        density=inside / (k_density * len(precise)),
        coverage=fraction(covered),
    )


def realism(fakes: Tensor, reals: Manifold, *, k: int = 3, block: int = BLOCK) -> Tensor:
    """Return [M], float32: the realism scores of fakes [M, d]; above 1 a fake lies in some real's ball.

    The score is the largest ratio of a real's radius to the fake's distance from it, over the half of the reals
    with the smaller radii; Inf for a fake equal to such a real. Kynkäänniemi et al. (2019), equation 6.
    """
    radii = reals.radii(k)
    smaller = radii <= radii.median()
    radii, centers = radii[smaller], reals.features[smaller]
    scores = torch.zeros(len(fakes), device=centers.device)
    for rows, columns, squares in distance_blocks(fakes, centers, block=block):
        ratios = radii[columns] / squares.sqrt()
        scores[rows] = scores[rows].maximum(ratios.nan_to_num(nan=torch.inf, posinf=torch.inf).amax(dim=1))
    return scores


def nearest(probes: Tensor, features: Tensor, count: int = 1, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return the distances, float32, and the indices, int64, of the nearest features, both [M, count].

    To check for memorization, compare the distances of fakes to reals with `manifold(reals).radii(1)`, the
    distances among the reals.
    """
    squares, indices = nearest_squares(probes, features, count, block=block)
    return squares.sqrt(), indices


def nearest_squares(x: Tensor, y: Tensor, count: int, *, block: int) -> tuple[Tensor, Tensor]:
    """Return the `count` smallest squared distances of each x [N, d] to the y, ascending, and their indices."""
    if not 0 < count <= len(y):
        raise PolyinrError(f"{count} neighbors are more than {len(y)} images")
    best = torch.full((len(x), count), torch.inf, device=y.device)
    indices = torch.zeros(len(x), count, dtype=torch.int64, device=y.device)
    for rows, columns, squares in distance_blocks(x, y, block=block):
        near = squares.topk(min(count, squares.shape[1]), largest=False)
        joined = torch.cat([best[rows], near.values], dim=1)
        joined_indices = torch.cat([indices[rows], near.indices + columns.start], dim=1)
        order = joined.argsort(dim=1, stable=True)[:, :count]
        best[rows], indices[rows] = joined.gather(1, order), joined_indices.gather(1, order)
    return best, indices


def distance_blocks(x: Tensor, y: Tensor, *, block: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and the squared distances between them, float32, of x [N, d] and y [M, d].

    They are |x|^2 + |y|^2 - 2 x.y by a matrix product in float64, whose cancellation error is below the rounding
    of float32 features. The result is rounded to float32, and rounding errors to 0, so that equal distances
    compare as equal wherever the blocks begin. Raises PolyinrError for features of different dimensions and for
    NaN or Inf.
    """
    if x.shape[1] != y.shape[1]:
        raise PolyinrError(f"features of dimension {x.shape[1]} and {y.shape[1]} come from different networks")
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        left = x[rows].to(y.device).double()
        left_norms = left.square().sum(dim=1, keepdim=True)
        for start in range(0, len(y), block):
            columns = slice(start, min(start + block, len(y)))
            right = y[columns].double()
            norms = left_norms + right.square().sum(dim=1)
            if not bool(norms.isfinite().all()):
                raise PolyinrError("the features of the images contain NaN or Inf; the distances are undefined")
            squares = torch.addmm(norms, left, right.T, alpha=-2)
            yield rows, columns, squares.masked_fill_(squares < norms * ROUNDING, 0).float()


def fraction(flags: Tensor) -> float:
    """Return the fraction of flags that are set."""
    return int(flags.sum()) / len(flags)
