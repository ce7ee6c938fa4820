"""Metrics of sets by name: in whose features, of what, by which rule."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from polyinr_core.errors import RequestError

Kind = Literal["frechet", "kernel", "score", "overlap", "spread"]
Tap = Literal["pooled", "spatial", "probabilities"]
Sense = tuple[str, Tap]  # a network and what is read in it

NEIGHBOR, DENSE_NEIGHBOR = 3, 5  # of precision and recall; of density and coverage
SPLITS = 10
FIGURES = {"overlap": ("precision", "recall"), "spread": ("density", "coverage")}
LEAST = {"frechet": 2, "kernel": 2, "score": SPLITS, "overlap": NEIGHBOR + 1, "spread": DENSE_NEIGHBOR + 1}


@dataclass(frozen=True)
class Metric:
    """One metric: `network` is a name of metrics/networks.py, or vgg16 or rfid, a TorchScript file of the user's.

    `note` is what a card says of it beside the rule.
    """

    network: str
    kind: Kind
    tap: Tap = "pooled"
    unbiased: bool = True  # covariances by N - 1, otherwise by N
    half: bool = False  # features rounded to half precision, as StyleGAN's precision and recall
    note: str = ""

    @property
    def sense(self) -> Sense:
        return self.network, self.tap

    @property
    def least(self) -> int:
        """The fewest images of a kind that it can be taken of."""
        return LEAST[self.kind]

    @property
    def rule(self) -> str:
        """What it does with the features, in words, for cards."""
        divisor = "N - 1" if self.unbiased else "N"
        rules = {
            "frechet": f"Fréchet distance of Gaussians, covariance by {divisor}, float64",
            "kernel": "(x . y / d + 1)^3, unbiased, 100 subsets of 1000 or of all, seed 0",
            "score": f"{SPLITS} contiguous splits, softmax without the final bias",
            "overlap": f"balls to neighbor {NEIGHBOR}" + (", features in half" if self.half else ""),
            "spread": f"balls to neighbor {DENSE_NEIGHBOR}",
        }
        return f"{rules[self.kind]}; {self.note}" if self.note else rules[self.kind]


TORCHSCRIPT = "published figures are of the TensorFlow graph, these of its TorchScript form"
METRICS = {
    "fid": Metric("inception", "frechet", unbiased=False),  # StyleGAN-XL
    "fid-clean": Metric("inception-clean", "frechet"),  # clean-fid
    "fid-adm": Metric("inception", "frechet", note=TORCHSCRIPT),  # guided-diffusion: np.cov divides by N - 1
    "sfid": Metric("inception", "frechet", tap="spatial"),  # Nash et al. 2021
    "rfid": Metric("rfid", "frechet", unbiased=False),  # StyleGAN-XL; Naeem et al. 2020
    "rfid-seed0": Metric("rfid-seed0", "frechet", unbiased=False),
    "is": Metric("inception", "score", tap="probabilities"),
    "kid": Metric("inception", "kernel"),
    "pr": Metric("vgg16", "overlap", half=True),  # StyleGAN
    "pr-adm": Metric("inception", "overlap", note=TORCHSCRIPT),  # guided-diffusion
}
KINDS: dict[str, Kind] = {"fd": "frechet", "kd": "kernel", "pr": "overlap", "dc": "spread"}
NETWORKS = ("lite2", "inception", "dinov2")
FORMS = f"{', '.join(METRICS)}, or {', '.join(KINDS)} in a network's features, such as fd-lite2, kd-lite2, " + (
    "pr-lite2, dc-dinov2, fd-timm:NAME, fd-torchscript:FILE"
)


def is_network(name: str) -> bool:
    """Say whether features of that name can be asked for."""
    return name in NETWORKS or (name.startswith(("timm:", "torchscript:")) and not name.endswith(":"))


def metric_named(name: str) -> Metric:
    """Return the metric of that name. Raises RequestError, with the list, for a name that is none."""
    if name in METRICS:
        return METRICS[name]
    kind, _, network = name.partition("-")
    if kind in KINDS and is_network(network):
        return Metric(network, KINDS[kind])
    raise RequestError(f"metric {name!r} is unknown; choose from {FORMS}")


def metrics_named(names: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by their names, each once. Raises RequestError."""
    return {name: metric_named(name) for name in names}


def networks_of(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Return the networks that metrics look through, each once."""
    return tuple(dict.fromkeys(metric.network for metric in metrics))
