"""Judging while training: the Fréchet distance in EfficientNet-lite2 features between EMA and data."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..data.feed import Feed
from ..metrics.features import Lite2Features
from ..metrics.gaussian import FeatureStatistics, frechet_distance
from ..model import Generator
from ..pictures.pixels import Pixels, to_uint8
from .records import draw_seeds

BATCH = 64
MOST = 2000  # pictures of either kind
FEATURES = 1280


class Judge:
    """Measures a generator against the data of one stage, whose statistics are taken once.

    Both sides are quantised to 8 bits. The fakes are those of seeds 0, 1, ..., as many as there are reals, at
    most 2000.
    """

    def __init__(self, weights: Mapping[str, Tensor], feed: Feed, *, device: torch.device) -> None:
        self.device = device
        self.feed = feed
        self.features = Lite2Features(weights).to(device)
        self.count = min(len(feed.archive), MOST)
        self.reals = self.statistics(
            lambda seeds: to_uint8(feed.batch(seeds[0], len(seeds))[0].permute(0, 2, 3, 1))
        )

    def statistics(self, source: Callable[[range], Pixels]) -> FeatureStatistics:
        """Return the statistics of the pictures that `source` gives for stretches of 0, 1, ..., `count` - 1."""
        statistics = FeatureStatistics(FEATURES)
        for start in range(0, self.count, BATCH):
            pixels = source(range(start, min(start + BATCH, self.count)))
            statistics.add(self.features(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)))
        return statistics

    def measure(self, generator: Generator) -> dict[str, float]:
        """Return `fd-lite2` and what it depends on."""
        fakes = self.statistics(lambda seeds: draw_seeds(generator, seeds, resolution=self.feed.resolution))
        distance = frechet_distance(fakes, self.reals)
        return {
            "fd-lite2": round(distance, 3),
            "side": self.features.side,
            "reals": self.count,
            "fakes": self.count,
        }
