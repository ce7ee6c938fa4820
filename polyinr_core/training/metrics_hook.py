"""Metrics during training: distances between images of the averaged generator and the data."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.data.loader import TrainLoader
from polyinr_core.images.grid import quantize
from polyinr_core.latents.latents import UNIFORM, LabelDistribution
from polyinr_core.metrics.extractors import Lite2Features
from polyinr_core.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from polyinr_core.metrics.inception import InceptionFeatures
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.rng import generator_for

from .config import DISTANCES, SAMPLE_COUNTS, networks_of
from .samples import render_seeds

BATCH = 64  # ranks take whole batches, so that no feature depends on which rank computes it
DIGITS = 6  # significant: the digits below differ from machine to machine

Extractor = Lite2Features | InceptionFeatures
Source = Callable[[range], Tensor]  # numbers of images to uint8 [N, 3, r, r]


class MetricsHook:
    """Measures a generator against all images of a loader's dataset, at the loader's resolution.

    The reals are the whole set, held-out images included and none mirrored, as is customary; their features are
    extracted once, at the first measurement. The fakes are those of seeds 0, 1, ..., with the class of an image that
    each seed draws from the dataset, as in StyleGAN-XL's metrics. Both are quantized to 8 bits by the rule of the
    release's metrics. Several ranks divide the images and get the distances of a single process.

    Args:
        metrics: Names in `config.DISTANCES`.
        weights: timm's tensors for `lite2`, an InceptionFeatures for `inception`, as far as the metrics need them.
        loader: Of the stage.
        device, dist: Of the run.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        weights: Mapping[str, Any],
        loader: TrainLoader,
        *,
        device: torch.device,
        dist: DistributedContext = SINGLE_PROCESS,
    ) -> None:
        self.metrics = {name: DISTANCES[name] for name in metrics}
        self.loader = loader
        self.device = device
        self.dist = dist
        self.networks: dict[str, Extractor] = {}
        for name in networks_of(metrics):
            network = Lite2Features(weights[name]) if name == "lite2" else weights[name]
            self.networks[name] = network.to(device)
        self.labels = label_distribution(loader)
        total = len(loader.data)
        counts = {name: SAMPLE_COUNTS[name] for name in self.networks}
        self.reals = {name: min(count.reals or total, total) for name, count in counts.items()}
        self.fakes = {
            name: min(count.fakes, self.reals[name]) if count.balanced else count.fakes
            for name, count in counts.items()
        }

    def measure(self, generator: Generator) -> dict[str, Any]:
        """Return each distance and what it depends on, as flat JSON facts; every rank must call it."""
        clock = time.perf_counter()
        distances = self.distances(generator)
        facts = {name: float(f"{value:.{DIGITS}g}") for name, value in distances.items()}
        facts |= self.describe(generator) | {"seconds": round(time.perf_counter() - clock, 2)}
        return self.dist.broadcast_object(facts)

    def distances(self, generator: Generator) -> dict[str, float]:
        """Return the distances by name, the same on every rank."""
        references = self.references
        resolution = self.loader.resolution
        statistics = self.extract(
            lambda seeds: render_uint8(generator, seeds, resolution=resolution, labels=self.labels), self.fakes
        )
        if not self.dist.is_main:
            return self.dist.broadcast_object({})
        values = {}
        for name, metric in self.metrics.items():
            fakes, reference = statistics[metric.network], references[name]
            if isinstance(reference, KernelReference):
                values[name] = reference.distance(fakes.features)
            else:
                values[name] = frechet_distance(fakes.gaussian.gaussian(unbiased=metric.unbiased), reference)
        return self.dist.broadcast_object(values)

    @cached_property
    def references(self) -> dict[str, Gaussian | KernelReference]:
        """The real side of every distance; empty on all ranks but the main one, which compares."""
        order = torch.randperm(len(self.loader.data), generator=generator_for("reals"))  # the same for any run's seed
        statistics = self.extract(lambda numbers: quantize(self.loader.load(order[list(numbers)])[0]), self.reals)
        references: dict[str, Gaussian | KernelReference] = {}
        for name, metric in self.metrics.items() if self.dist.is_main else ():
            reals = statistics[metric.network]
            if metric.kind == "kernel":
                references[name] = KernelReference(reals.features, self.fakes[metric.network])
            else:
                references[name] = reals.gaussian.gaussian(unbiased=metric.unbiased)
        return references

    def extract(self, source: Source, counts: Mapping[str, int]) -> dict[str, "ExtractedFeatures"]:
        """Return each network's statistics of images 0 to count - 1 of `source`, each made once for all networks."""
        kernels = {metric.network for metric in self.metrics.values() if metric.kind == "kernel"}
        device = torch.device("cpu") if self.device.type == "mps" else self.device  # MPS has no float64
        extracted = {
            name: ExtractedFeatures(network.dim, device=device, keep=name in kernels)
            for name, network in self.networks.items()
        }
        for first, last in pairwise(sorted({0, *counts.values()})):
            batches = [range(start, min(start + BATCH, last)) for start in range(first, last, BATCH)]
            active = [name for name, count in counts.items() if count >= last]
            for batch in batches[self.dist.local_slice(len(batches))]:
                pixels = source(batch).to(self.device)
                for name in active:
                    extracted[name].add(self.networks[name](pixels))
            for name in active:
                extracted[name].gather(self.dist)
        for features in extracted.values():
            features.gaussian = features.gaussian.merged(self.dist)
        return extracted

    def describe(self, generator: Generator) -> dict[str, Any]:
        """Return what the distances depend on: of lite2 as it is, of fid's Inception with the prefix `fid-`."""
        facts: dict[str, Any] = {"labels": self.labels.name} if generator.config.classes else {}
        for name, network in self.networks.items():
            counts = {"reals": self.reals[name], "fakes": self.fakes[name]}
            if isinstance(network, InceptionFeatures):
                facts |= {f"fid-{key}": count for key, count in counts.items()} | {"fid-network": network.sha256}
            else:
                facts |= {"side": network.resolution, **counts}
        return facts


class ExtractedFeatures:
    """Statistics of a network's features of reals or fakes and, where a distance needs them, the features."""

    def __init__(self, dim: int, *, device: torch.device, keep: bool) -> None:
        self.gaussian = RunningMoments(dim, device=device)
        self.features = torch.zeros(0, dim, device=device)
        self.local: list[Tensor] = []  # not gathered yet
        self.keep = keep

    def add(self, features: Tensor) -> None:
        """Add features [N, d] of this rank."""
        features = features.to(self.features.device)
        self.gaussian.add(features)
        if self.keep:
            self.local.append(features)

    def gather(self, dist: DistributedContext) -> None:
        """Append the kept features of all ranks, in rank order, to those gathered before."""
        if self.keep:
            local = torch.cat([self.features[:0], *self.local])
            self.features = torch.cat([self.features, dist.all_gather(local)])
            self.local = []


def label_distribution(loader: TrainLoader) -> LabelDistribution:
    """Return the frequency of each class among all images of the loader's dataset."""
    data = loader.data
    if data.labels is None:
        return UNIFORM
    return LabelDistribution(counts=tuple(np.bincount(data.labels, minlength=data.classes).tolist()))


def render_uint8(
    generator: Generator, seeds: Sequence[int], *, resolution: int, labels: LabelDistribution = UNIFORM
) -> Tensor:
    """Return the images of seeds as metrics see them, uint8 [N, 3, r, r], on the generator's device."""
    images = render_seeds(generator, seeds, resolution=resolution, labels=labels)
    return torch.cat([quantize(part) for part in images]).permute(0, 3, 1, 2)
