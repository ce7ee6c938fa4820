"""The Fréchet distance between Gaussians of features, and their mean and covariance from batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import DistributedContext


class RunningMoments:
    """The mean [d] and scatter matrix [d, d] of features added in batches, in float64."""

    def __init__(self, dim: int, *, device: torch.device | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> "RunningMoments":
        """Return the moments of `count` features from tensors named "mean" and "scatter"."""
        moments = cls(len(tensors["mean"]), device=device)
        moments.count = count
        moments.mean = tensors["mean"].to(device)
        moments.scatter = tensors["scatter"].to(device)
        return moments

    def add(self, features: Tensor) -> None:
        """Add features [N, d] by the pairwise update of Chan, Golub and LeVeque."""
        if not len(features):
            return
        batch = features.to(self.mean.device).double()
        center = batch.mean(dim=0)
        shift, total = center - self.mean, self.count + len(batch)
        centered = batch - center
        self.scatter += centered.T @ centered + torch.outer(shift, shift) * (self.count * len(batch) / total)
        self.mean += shift * (len(batch) / total)
        self.count = total

    def merged(self, ranks: DistributedContext) -> "RunningMoments":
        """Return the moments of all ranks' features together, the same on each rank."""
        if ranks.world_size == 1:
            return self
        merged = RunningMoments(len(self.mean), device=self.mean.device)
        merged.count = sum(ranks.all_gather_int(self.count))
        merged.mean = ranks.all_reduce(self.mean * self.count) / max(merged.count, 1)
        shift = self.mean - merged.mean
        merged.scatter = ranks.all_reduce(self.scatter + torch.outer(shift, shift) * self.count)
        return merged

    def gaussian(self, *, unbiased: bool = True) -> "Gaussian":
        """Return the Gaussian of the features; the covariance is divided by N - 1 if `unbiased`, else by N."""
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
        return (vectors * sqrt_eigenvalues(values)) @ vectors.T


def frechet_distance_of_few(features: Tensor, b: Gaussian, *, unbiased: bool = True) -> float:
    """Return `frechet_distance` of fewer features [N, d] than dimensions, from the N x N matrix of their products.

    The covariance of the features is S1 = X^T X; sqrt(S2) X^T X sqrt(S2) and X S2 X^T have the same eigenvalues but for
    zeros. A feature that occurs several times, as in a resample, is one row of X. Raises PolyinrError for NaN or Inf.
    """
    rows, counts = torch.unique(features, dim=0, return_counts=True)
    rows, weights = rows.to(b.mean.device).double(), counts.to(b.mean.device).double()
    check_finite(rows, b.covariance)
    mean = weights @ rows / len(features)
    divisor = len(features) - 1 if unbiased else len(features)
    centered = (rows - mean) * (weights / max(divisor, 1)).sqrt()[:, None]
    product = centered @ b.root
    values = torch.linalg.eigvalsh(product @ product.T)
    distance = (mean - b.mean).square().sum() + centered.square().sum() + b.covariance.trace()
    return float(distance - 2 * sqrt_eigenvalues(values).sum())


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (sqrt(S2) S1 sqrt(S2))^(1/2)), by a symmetric solver in float64.

    The square root of `b` is cached: pass the reals as `b` when several sets are compared with them. Raises
    PolyinrError for NaN or Inf. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017).
    """
    check_finite(a.covariance, b.covariance)
    product = b.root @ a.covariance @ b.root
    values = torch.linalg.eigvalsh((product + product.T) / 2)
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace()
    return float(distance - 2 * sqrt_eigenvalues(values).sum())


def check_finite(*tensors: Tensor) -> None:
    """Raise PolyinrError for NaN or Inf."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise PolyinrError("the features of the images contain NaN or Inf; the distance is undefined")


def sqrt_eigenvalues(values: Tensor) -> Tensor:
    """Return the square roots of a symmetric matrix's eigenvalues, 0 for those that are rounding errors.

    With fewer images than dimensions most are: about 1e-16 each, whose roots of 1e-8 would add up.
    """
    rounding = values.max().clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values, 0).sqrt()
