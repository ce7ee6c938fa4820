"""Sets of features as Gaussians: streaming statistics that merge, and the Fréchet distance."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import DistributedContext


class FeatureStatistics:
    """Mean and scatter of features that come in batches; float64, memory flat in their number."""

    def __init__(self, dim: int, *, device: torch.device | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add features [N, d] (Chan, Golub and LeVeque's pairwise update)."""
        if not len(features):
            return
        batch = features.to(self.mean.device).double()
        center = batch.mean(dim=0)
        shift, total = center - self.mean, self.count + len(batch)
        centerd = batch - center
        self.scatter += centerd.T @ centerd + torch.outer(shift, shift) * (self.count * len(batch) / total)
        self.mean += shift * (len(batch) / total)
        self.count = total

    def merged(self, ranks: DistributedContext) -> "FeatureStatistics":
        """Return the statistics of all ranks' features together, the same on each."""
        if ranks.world_size == 1:
            return self
        whole = FeatureStatistics(len(self.mean), device=self.mean.device)
        whole.count = sum(ranks.all_gather_int(self.count))
        whole.mean = ranks.all_reduce(self.mean * self.count) / max(whole.count, 1)
        shift = self.mean - whole.mean
        whole.scatter = ranks.all_reduce(self.scatter + torch.outer(shift, shift) * self.count)
        return whole

    def gaussian(self, *, unbiased: bool = True) -> "Gaussian":
        """Return the Gaussian of these features: its covariance is the scatter by N - 1, or else by N."""
        divisor = self.count - 1 if unbiased else self.count
        return Gaussian(self.mean, self.scatter / max(divisor, 1))


@dataclass(frozen=True)
class Gaussian:
    """Mean [d] and covariance [d, d], float64."""

    mean: Tensor
    covariance: Tensor

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * roots(values)) @ vectors.T


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (sqrt(S2) S1 sqrt(S2))^(1/2)), by a symmetric solver in float64.

    The square root is that of `b`, which keeps it: give what stays the same, the reals, second. Raises
    PolyinrError for features that are no numbers. Heusel et al., "GANs Trained by a Two Time-Scale Update
    Rule" (2017).
    """
    for side in (a, b):
        if not bool(side.covariance.isfinite().all()):
            raise PolyinrError("the features of the images are no finite numbers: no distance can be taken")
    product = b.root @ a.covariance @ b.root
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()
    return float(distance - 2 * roots(values).sum())


def roots(values: Tensor) -> Tensor:
    """Return the square roots of a symmetric matrix's eigenvalues, of those that are mere rounding 0.

    With fewer images than dimensions most are: of size 1e-16, their roots of size 1e-8, a thousand of them.
    """
    rounding = values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values, 0).sqrt()
