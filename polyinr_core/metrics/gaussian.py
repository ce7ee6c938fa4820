"""Sets of features as Gaussians: streaming statistics and the Fréchet distance."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor


class FeatureStatistics:
    """Mean and covariance of features that come in batches; float64, memory flat in their number."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean: NDArray[np.float64] = np.zeros(dim)
        self.scatter: NDArray[np.float64] = np.zeros((dim, dim))

    def add(self, features: Tensor) -> None:
        """Add features [N, d] (Chan, Golub and LeVeque's pairwise update)."""
        batch = features.double().cpu().numpy()
        centre = batch.mean(axis=0)
        shift = centre - self.mean
        total = self.count + len(batch)
        centred = batch - centre
        self.scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(batch) / total)
        self.mean += shift * (len(batch) / total)
        self.count = total

    def covariance(self) -> NDArray[np.float64]:
        """Return the unbiased covariance [d, d] (by N - 1)."""
        return self.scatter / max(self.count - 1, 1)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (sqrt(S1) S2 sqrt(S1))^(1/2)), by a symmetric solver in float64.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule" (2017).
    """
    first, second = a.covariance(), b.covariance()
    values, vectors = eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = eigh(root @ second @ root, eigvals_only=True)
    distance = np.square(a.mean - b.mean).sum() + np.trace(first) + np.trace(second)
    return float(distance - 2 * np.sqrt(product.clip(min=0)).sum())
