"""Taking in features as they come, in one sense: what streams, what is kept, and a state to go on from."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..metrics.gaussian import FeatureStatistics
from ..metrics.rules import SPLITS
from ..metrics.scores import InceptionScore
from ..ranks import ALONE, Ranks
from .seen import Need, Seen, statistics_of


class Taker:
    """Takes in the features of one sense, whose number it learns from the first, of this rank's `span`."""

    def __init__(self, need: Need, span: range, whole: int, place: torch.device) -> None:
        self.need = need
        self.span = span
        self.whole = whole
        self.place = place
        self.count = 0
        self.dim = 0
        self.statistics: FeatureStatistics | None = None
        self.features: Tensor | None = None
        self.score: InceptionScore | None = None

    def add(self, features: Tensor) -> None:
        """Take in the features [n, d] of the next pictures."""
        features = features.to(self.place)
        if not self.dim:
            self._begin(features.shape[1])
        if self.statistics is not None:
            self.statistics.add(features)
        if self.features is not None:
            self.features[self.count : self.count + len(features)] = features
        if self.score is not None:
            self.score.add(features, first=self.span.start + self.count)
        self.count += len(features)

    def _begin(self, dim: int) -> None:
        self.dim = dim
        if self.need.statistics:
            self.statistics = FeatureStatistics(dim, device=self.place)
        if self.need.features:
            self.features = torch.zeros(len(self.span), dim, device=self.place)
        if self.need.score:
            self.score = InceptionScore(self.whole, dim, splits=SPLITS, device=self.place)

    def seen(self, ranks: Ranks = ALONE) -> Seen:
        """Return what all ranks have seen, the same on each; to be called once, at the end."""
        dim = max(ranks.numbers(self.dim))
        if not self.dim:
            self._begin(dim)  # this rank had no picture
        seen = Seen(sum(ranks.numbers(self.count)))
        if self.statistics is not None:
            seen.statistics = self.statistics.merged(ranks)
        if self.features is not None:
            seen.features = ranks.gathered(self.features)
        if self.score is not None:
            self.score.gather(ranks)
            seen.score = self.score.result()
        return seen

    def state(self) -> dict[str, Tensor]:
        """Return all that has come of the pictures taken in so far."""
        found: dict[str, Tensor] = {}
        if self.statistics is not None:
            found |= {"mean": self.statistics.mean, "scatter": self.statistics.scatter}
        if self.features is not None:
            found["features"] = self.features[: self.count]
        if self.score is not None:
            found |= {"scored": self.score.seen, "sums": self.score.sums}
            found["negative_entropies"] = self.score.negative_entropies
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    def restore(self, state: Mapping[str, Tensor], count: int) -> None:
        """Go on from a state of so many pictures."""
        self._begin(next(state[name].shape[-1] for name in ("mean", "features", "sums") if name in state))
        self.count = count
        if self.statistics is not None:
            self.statistics = statistics_of(state, count, device=self.place)
        if self.features is not None:
            self.features[:count] = state["features"].to(self.place)
        if self.score is not None:
            self.score.seen = state["scored"].to(self.place)
            self.score.sums = state["sums"].to(self.place)
            self.score.negative_entropies = state["negative_entropies"].to(self.place)
