"""The inception score of classifications that come in batches."""

import torch
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import DistributedContext

from .registry import SPLITS

ROUNDING = 1e-3  # how far float16 probabilities may add up beside 1


class InceptionScore:
    """The score of `count` images in so many contiguous splits; float64, memory flat in their number.

    Split i holds images i * count // splits to (i + 1) * count // splits - 1. Kept are the sums of p and of
    p log p of each. Salimans et al., "Improved Techniques for Training GANs" (2016); the splits are StyleGAN's.
    """

    def __init__(self, count: int, classes: int, *, splits: int = SPLITS, device: torch.device | None = None) -> None:
        if not 0 < splits <= count:
            raise PolyinrError(f"{count} images cannot be scored in {splits} splits")
        self.borders = torch.arange(splits + 1, device=device) * count // splits
        self.seen = torch.zeros(splits, dtype=torch.float64, device=device)
        self.sums = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.negative_entropies = torch.zeros(splits, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, *, first: int) -> None:
        """Add the class probabilities [N, C] of images `first`, `first` + 1, ... in any order of batches.

        Raises PolyinrError for what is no probability, or beyond the count.
        """
        p = probabilities.to(self.sums.device).double()
        if not bool(((p.sum(dim=1) - 1).abs() < ROUNDING).all() and (p >= 0).all()):
            raise PolyinrError("class probabilities that do not add up to 1: give the softmax, not the logits")
        if first < 0 or first + len(p) > int(self.borders[-1]):
            raise PolyinrError(f"images {first} to {first + len(p) - 1} of {int(self.borders[-1])} to be scored")
        places = torch.arange(first, first + len(p), device=p.device)
        splits = torch.searchsorted(self.borders, places, right=True) - 1
        self.seen.index_add_(0, splits, torch.ones_like(places, dtype=torch.float64))
        self.sums.index_add_(0, splits, p)
        self.negative_entropies.index_add_(0, splits, torch.xlogy(p, p).sum(dim=1))

    def gather(self, ranks: DistributedContext) -> None:
        """Add up what all ranks have seen, each other images; then all hold the whole."""
        self.seen, self.sums = ranks.all_reduce(self.seen), ranks.all_reduce(self.sums)
        self.negative_entropies = ranks.all_reduce(self.negative_entropies)

    def result(self) -> tuple[float, float]:
        """Return the score's mean over the splits, and its deviation, divided by their number.

        Raises PolyinrError before all images are seen.
        """
        if not torch.equal(self.seen, self.borders.diff().double()):
            raise PolyinrError(f"{int(self.seen.sum())} of {int(self.borders[-1])} images are scored")
        marginal = self.sums / self.seen[:, None]
        divergence = self.negative_entropies / self.seen - torch.xlogy(marginal, marginal).sum(dim=1)
        scores = divergence.exp()
        return float(scores.mean()), float(scores.std(correction=0))
