"""Metrics by name: in whose features, of what, by which rule; and the networks that they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import RequestError, WeightsError
from ..metrics.networks import FeatureNetwork, load_network

Kind = Literal["frechet", "kernel", "score", "overlap", "spread"]
Tap = Literal["pooled", "spatial", "probabilities"]
Sense = tuple[str, Tap]  # a network and what is read in it

NEIGHBOUR, DENSE_NEIGHBOUR = 3, 5  # of precision and recall; of density and coverage
SPLITS = 10
FIGURES = {"overlap": ("precision", "recall"), "spread": ("density", "coverage")}
LEAST = {"frechet": 2, "kernel": 2, "score": SPLITS, "overlap": NEIGHBOUR + 1, "spread": DENSE_NEIGHBOUR + 1}
PUBLISHED_COUNT = 50_000


@dataclass(frozen=True)
class Metric:
    """One metric: `network` is a name of metrics/networks.py, or vgg16, a TorchScript file of the user's."""

    network: str
    kind: Kind
    tap: Tap = "pooled"
    unbiased: bool = True  # covariances by N - 1, otherwise by N
    half: bool = False  # features rounded to half precision, as StyleGAN's precision and recall

    @property
    def sense(self) -> Sense:
        return self.network, self.tap

    @property
    def least(self) -> int:
        """The fewest pictures of a kind that it can be taken of."""
        return LEAST[self.kind]

    @property
    def rule(self) -> str:
        """What it does with the features, in words, for cards."""
        divisor = "N - 1" if self.unbiased else "N"
        rules = {
            "frechet": f"Fréchet distance of Gaussians, covariance by {divisor}, float64",
            "kernel": "(x . y / d + 1)^3, unbiased, 100 subsets of 1000 or of all, seed 0",
            "score": f"{SPLITS} contiguous splits, softmax without the final bias",
            "overlap": f"balls to neighbour {NEIGHBOUR}" + (", features in half" if self.half else ""),
            "spread": f"balls to neighbour {DENSE_NEIGHBOUR}",
        }
        return rules[self.kind]


METRICS = {
    "fid": Metric("inception", "frechet", unbiased=False),  # StyleGAN-XL
    "fid-clean": Metric("inception-clean", "frechet"),  # clean-fid
    "sfid": Metric("inception", "frechet", tap="spatial"),  # Nash et al. 2021
    "rfid-seed0": Metric("rfid-seed0", "frechet", unbiased=False),
    "is": Metric("inception", "score", tap="probabilities"),
    "kid": Metric("inception", "kernel"),
    "pr": Metric("vgg16", "overlap", half=True),  # StyleGAN
    "pr-adm": Metric("inception", "overlap"),  # guided-diffusion
}
KINDS: dict[str, Kind] = {"fd": "frechet", "kd": "kernel", "pr": "overlap", "dc": "spread"}
NETWORKS = ("lite2", "inception", "dinov2")
FORMS = f"{', '.join(METRICS)}, or {', '.join(KINDS)} in a network's features, such as fd-lite2, kd-lite2, " + (
    "pr-lite2, dc-dinov2, fd-timm:NAME, fd-torchscript:FILE"
)
DEFAULT = ("fd-lite2", "kd-lite2")


def metric_named(name: str) -> Metric:
    """Return the metric of that name. Raises RequestError, with the list, for a name that is none."""
    if name in METRICS:
        return METRICS[name]
    kind, _, network = name.partition("-")
    free = network.startswith(("timm:", "torchscript:")) and not network.endswith(":")
    if kind in KINDS and (network in NETWORKS or free):
        return Metric(network, KINDS[kind])
    raise RequestError(f"metric {name!r} is unknown; choose from {FORMS}")


def metrics_named(names: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by their names, each once. Raises RequestError."""
    return {name: metric_named(name) for name in names}


def networks_of(metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """Return the networks that metrics look through, each once."""
    return tuple(dict.fromkeys(metric.network for metric in metrics.values()))


def weights_key(network: str) -> str:
    """Return the name by which a person gives a network's weights: clean-fid's Inception is the same file."""
    return "inception" if network == "inception-clean" else network


def load_networks(
    names: Sequence[str], files: Mapping[str, Path], *, download: bool = False
) -> dict[str, FeatureNetwork]:
    """Load networks by name; `files` holds weights by `weights_key`. Raises PolyinrError."""
    if unused := set(files) - {weights_key(name) for name in names}:
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which these metrics do not use")
    networks = {}
    for name in names:
        file = files.get(weights_key(name))
        if name == "vgg16":
            if file is None:
                raise WeightsError(
                    "pr needs VGG16 as NVIDIA publishes it in TorchScript (vgg16.pt), which nothing here "
                    "carries: give --weights vgg16=vgg16.pt; pr-lite2 needs no file"
                )
            networks[name] = load_network(f"torchscript:{file}")
        else:
            networks[name] = load_network(name, file=file, download=download)
    return networks
