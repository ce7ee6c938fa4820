"""Metrics during training: distances between images of the averaged generator and the data."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyinr_core.data.loader import TrainLoader
from polyinr_core.images.grid import quantize
from polyinr_core.latents.latents import UNIFORM, LabelDistribution
from polyinr_core.metrics.extractors import Lite2Features
from polyinr_core.metrics.feature_pass import BATCH_SIZE, extract_features
from polyinr_core.metrics.feature_statistics import FeatureStatistics, requirements_for
from polyinr_core.metrics.frechet import Gaussian, frechet_distance
from polyinr_core.metrics.inception import InceptionFeatures
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.metrics.registry import FeatureKey
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.rng import generator_for

from .config import DISTANCES, SAMPLE_COUNTS, metric_networks
from .samples import render_seeds

DIGITS = 6  # significant: the digits below differ from machine to machine

Extractor = Lite2Features | InceptionFeatures


class MetricsHook:
    """Measures a generator against all images of a loader's dataset, at the loader's resolution.

    The reals are all images of the dataset, those held out too, none mirrored, as is usual; their features are
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
        for name in metric_networks(metrics):
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
        images = IndexedImages(
            f"{max(self.fakes.values())} seeds",
            max(self.fakes.values()),
            lambda seeds: render_uint8(generator, seeds, resolution=self.loader.resolution, labels=self.labels),
        )
        statistics = self.extract(images, self.fakes)
        values = {}
        for name, metric in self.metrics.items() if self.dist.is_main else ():
            fakes, reference = statistics[metric.feature_key], references[name]
            if isinstance(reference, KernelReference):
                assert fakes.features is not None
                values[name] = reference.distance(fakes.features)
            else:
                values[name] = frechet_distance(fakes.gaussian(unbiased=metric.unbiased), reference)
        return self.dist.broadcast_object(values)

    @cached_property
    def references(self) -> dict[str, Gaussian | KernelReference]:
        """What the fakes are compared with, by distance; empty on all ranks but the main one, which compares."""
        order = torch.randperm(len(self.loader.data), generator=generator_for("reals"))  # the same for any run's seed
        images = IndexedImages(
            str(self.loader.data.path),
            max(self.reals.values()),
            lambda numbers: quantize(self.loader.load(order[list(numbers)])[0]),
        )
        statistics = self.extract(images, self.reals)
        references: dict[str, Gaussian | KernelReference] = {}
        for name, metric in self.metrics.items() if self.dist.is_main else ():
            reals = statistics[metric.feature_key]
            if metric.kind == "kernel":
                assert reals.features is not None
                references[name] = KernelReference(reals.features, self.fakes[metric.network])
            else:
                references[name] = reals.gaussian(unbiased=metric.unbiased)
        return references

    def extract(self, images: "IndexedImages", counts: Mapping[str, int]) -> dict[FeatureKey, FeatureStatistics]:
        """Return each network's statistics of its `counts` first images, each made once for all networks."""
        return extract_features(
            images,
            self.networks,
            requirements_for(self.metrics, reals=True),
            batch=BATCH_SIZE,
            device=self.device,
            ranks=self.dist,
            limits=counts,
        )

    def describe(self, generator: Generator) -> dict[str, Any]:
        """Return what the distances depend on: of lite2 as it is, of fid's Inception with the prefix `fid-`."""
        facts: dict[str, Any] = {"labels": self.labels.name} if generator.config.classes else {}
        for name, network in self.networks.items():
            counts = {"reals": self.reals[name], "fakes": self.fakes[name]}
            if isinstance(network, InceptionFeatures):
                facts |= {f"fid-{key}": count for key, count in counts.items()} | {"fid-network": network.sha256}
            else:
                facts |= {"network_resolution": network.resolution, **counts}
        return facts


@dataclass(frozen=True)
class IndexedImages:
    """`count` images for a feature pass; `make` returns those of a range, uint8 [n, 3, r, r]."""

    name: str
    count: int
    make: Callable[[range], Tensor]

    def __len__(self) -> int:
        return self.count

    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        indices = range(self.count) if indices is None else indices
        for start in range(indices.start, indices.stop, BATCH_SIZE):
            yield self.make(range(start, min(start + BATCH_SIZE, indices.stop)))


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
