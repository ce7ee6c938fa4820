"""Metrics by name: which network's features, which estimator, which constants, whether lower or higher is better."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from polyinr_core.errors import RequestError

MetricKind = Literal["frechet", "kernel", "inception_score", "precision_recall", "density_coverage"]
Family = Literal[
    "frechet", "kernel", "score", "neighbors", "path", "inversion", "upsampling", "speed", "params", "other"
]
Better = Literal["lower", "higher"]
Tap = Literal["pooled", "spatial", "probabilities"]
FeatureKey = tuple[str, Tap]  # a network and what is read from it

PR_NEIGHBORS, DC_NEIGHBORS = 3, 5  # k of precision and recall; of density and coverage
IS_SPLITS = 10
PARTS: dict[MetricKind, tuple[str, str]] = {
    "precision_recall": ("precision", "recall"),
    "density_coverage": ("density", "coverage"),
}
MIN_IMAGES: dict[MetricKind, int] = {
    "frechet": 2,
    "kernel": 2,
    "inception_score": IS_SPLITS,
    "precision_recall": PR_NEIGHBORS + 1,
    "density_coverage": DC_NEIGHBORS + 1,
}

FAMILIES: dict[str, Family] = {  # by the first word of a metric's name
    **dict.fromkeys(("fid", "sfid", "rfid", "fd"), "frechet"),
    **dict.fromkeys(("kid", "kd"), "kernel"),
    **dict.fromkeys(("pr", "dc"), "neighbors"),
    "is": "score",
    "ppl": "path",
    "inversion": "inversion",
    "upsampling": "upsampling",
    "speed": "speed",
    "params": "params",
}
NEIGHBOR_PARTS = tuple(part for parts in PARTS.values() for part in parts)  # higher is better
UPSAMPLING_PARTS = ("rendered", "nearest", "bilinear", "bicubic")
INVERSION: dict[str, Better] = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}
LOWER_IS_BETTER: tuple[Family, ...] = ("frechet", "kernel", "path", "upsampling", "speed", "params")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        network: a name for `extractors.load_extractor`, or vgg16 or rfid, a TorchScript file of the user's.
        unbiased: whether covariances are divided by N - 1, else by N.
        half: whether features are rounded to float16, as in StyleGAN's precision and recall.
        remark: what a card says beside the rule.
    """

    network: str
    kind: MetricKind
    tap: Tap = "pooled"
    unbiased: bool = True
    half: bool = False
    remark: str = ""

    @property
    def feature_key(self) -> FeatureKey:
        return self.network, self.tap

    @property
    def min_images(self) -> int:
        """The fewest reals, and the fewest fakes, that it is defined for."""
        return MIN_IMAGES[self.kind]

    @property
    def rule(self) -> str:
        """The estimator in words, for cards."""
        divisor = "N - 1" if self.unbiased else "N"
        rules: dict[MetricKind, str] = {
            "frechet": f"Fréchet distance of Gaussians, covariance by {divisor}, float64",
            "kernel": "(x . y / d + 1)^3, unbiased, 100 subsets of 1000 or of all, seed 0",
            "inception_score": f"{IS_SPLITS} contiguous splits, softmax without the final bias",
            "precision_recall": f"balls to neighbor {PR_NEIGHBORS}" + (", features in half" if self.half else ""),
            "density_coverage": f"balls to neighbor {DC_NEIGHBORS}",
        }
        return f"{rules[self.kind]}; {self.remark}" if self.remark else rules[self.kind]


TORCHSCRIPT = "published values are of the TensorFlow graph, these of its TorchScript form"
METRICS = {
    "fid": Metric("inception", "frechet", unbiased=False),  # StyleGAN-XL
    "fid-clean": Metric("inception-clean", "frechet"),  # clean-fid
    "fid-adm": Metric("inception", "frechet", remark=TORCHSCRIPT),  # guided-diffusion: np.cov divides by N - 1
    "sfid": Metric("inception", "frechet", tap="spatial"),  # Nash et al. 2021
    "rfid": Metric("rfid", "frechet", unbiased=False),  # StyleGAN-XL; Naeem et al. 2020
    "rfid-seed0": Metric("rfid-seed0", "frechet", unbiased=False),
    "is": Metric("inception", "inception_score", tap="probabilities"),
    "kid": Metric("inception", "kernel"),
    "pr": Metric("vgg16", "precision_recall", half=True),  # StyleGAN
    "pr-adm": Metric("inception", "precision_recall", remark=TORCHSCRIPT),  # guided-diffusion
}
PREFIXES: dict[str, MetricKind] = {"fd": "frechet", "kd": "kernel", "pr": "precision_recall", "dc": "density_coverage"}
NETWORKS = ("lite2", "inception", "dinov2")
METRIC_NAMES = (
    f"{', '.join(METRICS)}, or {', '.join(PREFIXES)} in a network's features, such as fd-lite2, kd-lite2, pr-lite2, "
    "dc-dinov2, fd-timm:NAME, fd-torchscript:FILE"
)


def is_network(name: str) -> bool:
    """Return whether fd-, kd-, pr- and dc- may be followed by this network's name."""
    return name in NETWORKS or (name.startswith(("timm:", "torchscript:")) and not name.endswith(":"))


def get_metric(name: str) -> Metric:
    """Return the metric of that name. Raises RequestError, with the list, for an unknown name."""
    if name in METRICS:
        return METRICS[name]
    prefix, _, network = name.partition("-")
    if prefix in PREFIXES and is_network(network):
        return Metric(network, PREFIXES[prefix])
    raise RequestError(f"metric {name!r} is unknown; choose from {METRIC_NAMES}")


def get_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Return metrics by their names. Raises RequestError."""
    return {name: get_metric(name) for name in names}


def networks_of(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """Return the networks that metrics read features from, each once."""
    return tuple(dict.fromkeys(metric.network for metric in metrics))


def base_of(name: str) -> str:
    """Return the metric that a name is a part of: pr-lite2 of pr-lite2/recall, inversion of inversion/psnr."""
    stem, _, part = name.rpartition("/")
    if part in (*NEIGHBOR_PARTS, *UPSAMPLING_PARTS):
        return stem
    first = name.partition("/")[0]
    return first if first in ("inversion", "speed", "params") else name


def family_of(name: str) -> Family:
    """Return the family of a metric, "other" for an unknown name."""
    return FAMILIES.get(base_of(name).partition("-")[0], "other")


def better(name: str) -> Better | None:
    """Return whether lower or higher values of a metric are better, None if unknown."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family in LOWER_IS_BETTER:
        return "lower"
    if family == "inversion":
        return INVERSION.get(part)
    return "higher" if family == "score" or part in NEIGHBOR_PARTS else None


def best(name: str, values: Iterable[float]) -> float | None:
    """Return the best of a metric's values, None without values or if it is unknown which are better."""
    direction, given = better(name), list(values)
    if direction is None or not given:
        return None
    return min(given) if direction == "lower" else max(given)
