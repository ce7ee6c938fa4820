"""Sets of features as balls around each: precision, recall, density, coverage, realism, nearest neighbors."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError

BLOCK = 4096  # rows and columns of the distances in memory at once: 128 MiB in float64
ROUNDING = 1e-12  # a squared distance below this share of the squared norms is rounding, and 0


@dataclass(frozen=True)
class Manifold:
    """Features [N, d], and `squares` [N, K + 1], the squared distances to the K nearest others, ascending.

    Column 0 is the feature itself, at 0: the ball to the k-th neighbor has the radius of the (k + 1)-th
    smallest distance, self included.
    """

    features: Tensor
    squares: Tensor

    def balls(self, k: int) -> Tensor:
        """Return [N], float32: the squared radii of the balls to neighbor k. Raises PolyinrError past K."""
        if not 0 < k < self.squares.shape[1]:
            raise PolyinrError(f"no distances to neighbor {k}: {self.squares.shape[1] - 1} are known")
        return self.squares[:, k]

    def radii(self, k: int) -> Tensor:
        """Return [N], float32: the distances to the k-th neighbors. Raises PolyinrError past K."""
        return self.balls(k).sqrt()


@dataclass(frozen=True)
class Overlap:
    """How far two manifolds share their ground; all but density in [0, 1], larger is better."""

    precision: float  # the share of fakes in some real's ball
    recall: float  # the share of reals in some fake's ball
    density: float  # how many reals' balls a fake is in, by k
    coverage: float  # the share of reals' balls with a fake in them


def manifold(features: Tensor, *, k: int = 5, half: bool = False, block: int = BLOCK) -> Manifold:
    """Return the manifold of features [N, d] with balls up to the k-th neighbor.

    With `half` the features are rounded to half precision first, as StyleGAN's metrics do. (They take the
    distances in half as well, so that their last digits depend on the graphics card; ours are exact.) Raises
    PolyinrError for features that are no finite numbers, and for fewer than k + 1.
    """
    if len(features) <= k:
        raise PolyinrError(f"balls to neighbor {k} need {k + 1} images or more, not {len(features)}")
    if half:
        features = features.half().float()
    squares, _ = nearest_squares(features, features, k + 1, block=block)
    return Manifold(features, squares)


def overlap(fakes: Manifold, reals: Manifold, *, k: int = 3, k_density: int = 5, block: int = BLOCK) -> Overlap:
    """Return what two manifolds share, all of it in one pass over their distances.

    Precision and recall with balls to neighbor `k`: Kynkäänniemi et al., "Improved Precision and Recall Metric
    for Assessing Generative Models" (2019). Density and coverage with balls to neighbor `k_density`: Naeem et
    al., "Reliable Fidelity and Diversity Metrics" (2020). A ball holds its border, in all four. To swap the
    arguments is to swap precision and recall. Memory is that of the features and a few blocks.
    """
    real_balls, fake_balls, dense_balls = reals.balls(k), fakes.balls(k), reals.balls(k_density)
    place = reals.features.device
    precise = torch.zeros(len(fakes.features), dtype=torch.bool, device=place)
    recalled, covered = torch.zeros(2, len(reals.features), dtype=torch.bool, device=place)
    inside = 0
    for rows, columns, squares in distance_blocks(fakes.features, reals.features, block=block):
        precise[rows] |= (squares <= real_balls[columns]).any(dim=1)
        recalled[columns] |= (squares <= fake_balls[rows, None]).any(dim=0)
        dense = squares <= dense_balls[columns]
        covered[columns] |= dense.any(dim=0)
        inside += int(dense.sum())
    return Overlap(
        precision=share(precise),
        recall=share(recalled),
        density=inside / (k_density * len(precise)),
        coverage=share(covered),
    )


def realism(fakes: Tensor, reals: Manifold, *, k: int = 3, block: int = BLOCK) -> Tensor:
    """Return [M], float32: how real each fake [M, d] looks; above 1 it lies in some real's ball.

    The largest ratio of a real's radius to the fake's distance from it, over the half of the reals whose radii
    are the smaller. Infinite for a fake that is such a real. Kynkäänniemi et al. (2019), equation 6.
    """
    radii = reals.radii(k)
    kept = radii <= radii.median()
    radii, centers = radii[kept], reals.features[kept]
    scores = torch.zeros(len(fakes), device=centers.device)
    for rows, columns, squares in distance_blocks(fakes, centers, block=block):
        ratios = radii[columns] / squares.sqrt()
        scores[rows] = scores[rows].maximum(ratios.nan_to_num(nan=torch.inf, posinf=torch.inf).amax(dim=1))
    return scores


def nearest(probes: Tensor, features: Tensor, count: int = 1, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """Return the distances, float32, and the numbers, int64, of the nearest features, both [M, count].

    As a check for memorizing: the reals nearest to each fake, beside `manifold(reals).radii(1)`, how far reals
    are from one another.
    """
    squares, numbers = nearest_squares(probes, features, count, block=block)
    return squares.sqrt(), numbers


def nearest_squares(x: Tensor, y: Tensor, count: int, *, block: int) -> tuple[Tensor, Tensor]:
    """Return the `count` smallest squared distances of each x [N, d] to the y, ascending, and whose they are."""
    if not 0 < count <= len(y):
        raise PolyinrError(f"{count} neighbors cannot be found among {len(y)} images")
    best = torch.full((len(x), count), torch.inf, device=y.device)
    numbers = torch.zeros(len(x), count, dtype=torch.int64, device=y.device)
    for rows, columns, squares in distance_blocks(x, y, block=block):
        near = squares.topk(min(count, squares.shape[1]), largest=False)
        joined = torch.cat([best[rows], near.values], dim=1)
        whose = torch.cat([numbers[rows], near.indices + columns.start], dim=1)
        order = joined.argsort(dim=1, stable=True)[:, :count]
        best[rows], numbers[rows] = joined.gather(1, order), whose.gather(1, order)
    return best, numbers


def distance_blocks(x: Tensor, y: Tensor, *, block: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and the squared distances between them, float32, of x [N, d] and y [M, d].

    By |x|^2 + |y|^2 - 2 x.y, a matrix product and so as quick as can be, but in float64: for float32 features
    what cancels is below their own rounding. The result is rounded to float32, and what is rounding alone to 0,
    so that equal distances all but always compare as equal, however the blocks lie. Raises PolyinrError for
    features of different networks, and for such as are no finite numbers.
    """
    if x.shape[1] != y.shape[1]:
        raise PolyinrError(f"features of {x.shape[1]} and of {y.shape[1]} numbers are of different networks")
    for start in range(0, len(x), block):
        rows = slice(start, min(start + block, len(x)))
        left = x[rows].to(y.device).double()
        left_norms = left.square().sum(dim=1, keepdim=True)
        for start in range(0, len(y), block):
            columns = slice(start, min(start + block, len(y)))
            right = y[columns].double()
            norms = left_norms + right.square().sum(dim=1)
            if not bool(norms.isfinite().all()):
                raise PolyinrError("the features of the images are no finite numbers: no neighbors are found")
            squares = torch.addmm(norms, left, right.T, alpha=-2)
            yield rows, columns, squares.masked_fill_(squares < norms * ROUNDING, 0).float()


def share(flags: Tensor) -> float:
    """Return the share of flags that are set."""
    return int(flags.sum()) / len(flags)
