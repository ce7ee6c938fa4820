"""The inception score of class probabilities that come in batches."""

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import DistributedContext

from .registry import IS_SPLITS

TOLERANCE = 1e-3  # float16 probabilities may sum to 1 within this


class InceptionScore:
    """The inception score of `count` images in `splits` contiguous splits, in float64.

    Split i holds images i * count // splits to (i + 1) * count // splits - 1. It stores the sums of p and of
    p log p of each split. Salimans et al., "Improved Techniques for Training GANs" (2016); the splits are StyleGAN's.
    """

    def __init__(
        self, count: int, classes: int, *, splits: int = IS_SPLITS, device: torch.device | None = None
    ) -> None:
        if not 0 < splits <= count:
            raise PolyinrError(f"{count} images are too few for {splits} splits")
        self.borders = torch.arange(splits + 1, device=device) * count // splits
        self.counts = torch.zeros(splits, dtype=torch.float64, device=device)
        self.sums = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.negative_entropies = torch.zeros(splits, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, *, first: int) -> None:
        """Add the class probabilities [N, C] of images `first`, `first` + 1, ...; batches may come in any order.

        Raises PolyinrError for rows that do not sum to 1 and for images past `count`.
        """
        p = probabilities.to(self.sums.device).double()
        if not bool(((p.sum(dim=1) - 1).abs() < TOLERANCE).all() and (p >= 0).all()):
            raise PolyinrError("class probabilities do not sum to 1; pass the softmax, not the logits")
        if first < 0 or first + len(p) > int(self.borders[-1]):
            raise PolyinrError(f"images {first} to {first + len(p) - 1} are not among {int(self.borders[-1])}")
        indices = torch.arange(first, first + len(p), device=p.device)
        splits = torch.searchsorted(self.borders, indices, right=True) - 1
        self.counts.index_add_(0, splits, torch.ones_like(indices, dtype=torch.float64))
        self.sums.index_add_(0, splits, p)
        self.negative_entropies.index_add_(0, splits, torch.xlogy(p, p).sum(dim=1))

    def gather(self, ranks: DistributedContext) -> None:
        """Sum over all ranks, each of which has added other images."""
        self.counts, self.sums = ranks.all_reduce(self.counts), ranks.all_reduce(self.sums)
        self.negative_entropies = ranks.all_reduce(self.negative_entropies)

    def result(self) -> tuple[float, float]:
        """Return the mean and the (biased) standard deviation of the score over the splits.

        Raises PolyinrError unless every image was added once.
        """
        if not torch.equal(self.counts, self.borders.diff().double()):
            raise PolyinrError(f"{int(self.counts.sum())} of {int(self.borders[-1])} images were added")
        marginal = self.sums / self.counts[:, None]
        divergence = self.negative_entropies / self.counts - torch.xlogy(marginal, marginal).sum(dim=1)
        scores = divergence.exp()
        return float(scores.mean()), float(scores.std(correction=0))
