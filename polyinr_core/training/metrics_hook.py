"""Judging while training: distances between what the averaged generator draws and the data."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.data.loader import Feed
from polyinr_core.images.quantize import quantize
from polyinr_core.latents.latents import UNIFORM, LabelDistribution
from polyinr_core.metrics.extractors import Lite2Features
from polyinr_core.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from polyinr_core.metrics.inception import InceptionFeatures
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.distributed import ALONE, Ranks
from polyinr_core.runtime.rng import generator_for

from .config import DISTANCES, SIGHTS, networks_of
from .samples import draw_seeds

BATCH = 64  # images a look; ranks take whole batches, so that no feature depends on who computes it
DIGITS = 6  # significant ones: below them, rounding differs from machine to machine

Network = Lite2Features | InceptionFeatures
Source = Callable[[range], Tensor]  # numbers of images to uint8 [N, 3, r, r]


class Seen:
    """What a network saw of one kind of images: statistics and, where a distance needs them, the features."""

    def __init__(self, dim: int, *, device: torch.device, keep: bool) -> None:
        self.statistics = RunningMoments(dim, device=device)
        self.features = torch.zeros(0, dim, device=device)
        self.waiting: list[Tensor] = []
        self.keep = keep

    def add(self, features: Tensor) -> None:
        """Take in features [N, d] of this rank."""
        features = features.to(self.features.device)
        self.statistics.add(features)
        if self.keep:
            self.waiting.append(features)

    def gather(self, ranks: Ranks) -> None:
        """Put the kept features of all ranks, in rank order, behind those gathered before."""
        if self.keep:
            own = torch.cat([self.features[:0], *self.waiting])
            self.features = torch.cat([self.features, ranks.gathered(own)])
            self.waiting = []


class Judge:
    """Measures a generator against all images of a feed's data, at the feed's resolution.

    The reals are the whole set, held-out images included and none mirrored, as is the field's custom; they are
    looked at once, at the first measurement. The fakes are those of seeds 0, 1, ..., their classes drawn from the
    set, image by image, as StyleGAN-XL's metrics do. Both sides are quantized to 8 bits by the rule of the
    release's metrics. Over several ranks the images are divided, and all get the distances of the single run.
    `weights` holds timm's tensors for `lite2` and an InceptionFeatures for `inception`, whichever `metrics` look
    through.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        weights: Mapping[str, Any],
        feed: Feed,
        *,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        self.metrics = {name: DISTANCES[name] for name in metrics}
        self.feed = feed
        self.device = device
        self.ranks = ranks
        self.networks: dict[str, Network] = {}
        for name in networks_of(metrics):
            network = Lite2Features(weights[name]) if name == "lite2" else weights[name]
            self.networks[name] = network.to(device)
        self.labels = labels_of(feed)
        whole = len(feed.data)
        sights = {name: SIGHTS[name] for name in self.networks}
        self.reals = {name: min(sight.reals or whole, whole) for name, sight in sights.items()}
        self.fakes = {
            name: min(sight.fakes, self.reals[name]) if sight.balanced else sight.fakes
            for name, sight in sights.items()
        }

    def measure(self, generator: Generator) -> dict[str, Any]:
        """Return each distance and what it depends on, as flat JSON facts; every rank must call it."""
        clock = time.perf_counter()
        distances = self.distances(generator)
        facts = {name: float(f"{value:.{DIGITS}g}") for name, value in distances.items()}
        facts |= self.card(generator) | {"seconds": round(time.perf_counter() - clock, 2)}
        return self.ranks.fact(facts)

    def distances(self, generator: Generator) -> dict[str, float]:
        """Return the distances by name, the same on every rank."""
        references = self.references
        resolution = self.feed.resolution
        fakes = self.look(lambda seeds: draw(generator, seeds, resolution=resolution, labels=self.labels), self.fakes)
        if not self.ranks.leads:
            return self.ranks.fact({})
        found = {}
        for name, metric in self.metrics.items():
            seen, reference = fakes[metric.network], references[name]
            if isinstance(reference, KernelReference):
                found[name] = reference.distance(seen.features)
            else:
                found[name] = frechet_distance(seen.statistics.gaussian(unbiased=metric.unbiased), reference)
        return self.ranks.fact(found)

    @cached_property
    def references(self) -> dict[str, Gaussian | KernelReference]:
        """The real side of every distance; only the leading rank compares, the others' are empty."""
        whole = len(self.feed.data)
        order = torch.randperm(whole, generator=generator_for("reals"))  # the same reals whatever the run's seed
        reals = self.look(lambda places: quantize(self.feed.shown(order[list(places)])[0]), self.reals)
        references: dict[str, Gaussian | KernelReference] = {}
        for name, metric in self.metrics.items() if self.ranks.leads else ():
            seen = reals[metric.network]
            if metric.kind == "kernel":
                references[name] = KernelReference(seen.features, self.fakes[metric.network])
            else:
                references[name] = seen.statistics.gaussian(unbiased=metric.unbiased)
        return references

    def look(self, source: Source, counts: Mapping[str, int]) -> dict[str, Seen]:
        """Show each network images 0 to count - 1 of `source`, each made once for all of them."""
        kernels = {metric.network for metric in self.metrics.values() if metric.kind == "kernel"}
        place = torch.device("cpu") if self.device.type == "mps" else self.device  # where float64 is
        seen = {name: Seen(net.dim, device=place, keep=name in kernels) for name, net in self.networks.items()}
        for first, last in pairwise(sorted({0, *counts.values()})):
            batches = [range(start, min(start + BATCH, last)) for start in range(first, last, BATCH)]
            looking = [name for name, count in counts.items() if count >= last]
            for batch in batches[self.ranks.share(len(batches))]:
                pixels = source(batch).to(self.device)
                for name in looking:
                    seen[name].add(self.networks[name](pixels))
            for name in looking:
                seen[name].gather(self.ranks)
        for part in seen.values():
            part.statistics = part.statistics.merged(self.ranks)
        return seen

    def card(self, generator: Generator) -> dict[str, Any]:
        """Return what the distances depend on: of lite2 as it is, of fid's Inception with `fid-` before it."""
        facts: dict[str, Any] = {"labels": self.labels.name} if generator.config.classes else {}
        for name, network in self.networks.items():
            counts = {"reals": self.reals[name], "fakes": self.fakes[name]}
            if isinstance(network, InceptionFeatures):
                facts |= {f"fid-{key}": count for key, count in counts.items()} | {"fid-network": network.sha256}
            else:
                facts |= {"side": network.side, **counts}
        return facts


def labels_of(feed: Feed) -> LabelDistribution:
    """Return how often each class is drawn: as often as all images of the feed's data have it."""
    data = feed.data
    if data.labels is None:
        return UNIFORM
    return LabelDistribution(counts=tuple(np.bincount(data.labels, minlength=data.classes).tolist()))


def draw(generator: Generator, seeds: Sequence[int], *, resolution: int, labels: LabelDistribution = UNIFORM) -> Tensor:
    """Draw the images of seeds as judges see them, uint8 [N, 3, r, r], on the generator's device."""
    drawn = draw_seeds(generator, seeds, resolution=resolution, labels=labels)
    return torch.cat([quantize(part) for part in drawn]).permute(0, 3, 1, 2)
