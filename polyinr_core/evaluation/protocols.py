"""Which metrics names select in a protocol, and the feature extractors that they need."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.metrics.extractors import FeatureExtractor, load_extractor
from polyinr_core.metrics.registry import Metric, get_metric

from .model_metrics import MODEL_METRIC_NAMES, ModelMetric, get_model_metric
from .upsampling import native_name

# what the names fid and pr mean in each protocol
PROTOCOLS: dict[str, dict[str, str]] = {
    "sgxl": {"fid": "fid", "pr": "pr"},  # StyleGAN-XL
    "clean": {"fid": "fid-clean"},  # clean-fid
    "adm": {"fid": "fid-adm", "pr": "pr-adm"},  # guided-diffusion
}
PROTOCOL_NAMES = frozenset().union(*PROTOCOLS.values())
UNIFORM_LABELS = ("fid-adm", "pr-adm")  # guided-diffusion's; others draw labels from the data, as StyleGAN-XL does
USER_FILES = {  # TorchScript networks that are not part of polyinr: the message without a file
    "vgg16": "pr needs NVIDIA's VGG16, which is not part of polyinr: give --weights vgg16=vgg16.pt; "
    "pr-lite2 needs no file",
    "rfid": "rfid needs the published network of random weights, in TorchScript: give --weights rfid=FILE; "
    "rfid-seed0, which has weights of its own, needs no file",
}
COMBINED = "prdc"  # precision, recall, density and coverage: pr-X and dc-X, by default in lite2


@dataclass(frozen=True)
class MetricSelection:
    """The metrics to compute, by their full names: of image sets and of a model.

    `uniform` names those for which a model draws its labels uniformly, not as in the data.
    """

    metrics: Mapping[str, Metric]
    model_metrics: Mapping[str, ModelMetric]
    uniform: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.metrics, *self.model_metrics)

    @property
    def upsampling(self) -> dict[str, Metric]:
        """The Fréchet distances of upsampled images, by the model metric that asks for them."""
        return {name: metric.metric for name, metric in self.model_metrics.items() if metric.kind == "upsampling"}

    @property
    def set_metrics(self) -> dict[str, Metric]:
        """All metrics between the reals and the generated images, those of upsampling included."""
        return {**self.metrics, **{native_name(name): metric for name, metric in self.upsampling.items()}}

    @property
    def need_reals(self) -> tuple[str, ...]:
        """The names of the metrics that need real images."""
        names = [name for name, metric in self.metrics.items() if metric.kind != "inception_score"]
        return (*names, *(name for name, metric in self.model_metrics.items() if metric.needs_reals))

    @property
    def need_fakes(self) -> tuple[str, ...]:
        """The names of the metrics that are computed from many generated images."""
        return (*self.metrics, *(name for name, metric in self.model_metrics.items() if metric.needs_fakes))

    @property
    def need_dataset_labels(self) -> tuple[str, ...]:
        """The names of the metrics whose protocol draws the labels of generated images as in the data."""
        return tuple(name for name in self.need_fakes if name not in self.uniform)

    @property
    def cacheable(self) -> tuple[str, ...]:
        """The names of the metrics that use image features, which can be cached."""
        return (*self.metrics, *self.upsampling)

    @property
    def with_intervals(self) -> tuple[str, ...]:
        """The names of the metrics that can be resampled."""
        names = [name for name, metric in self.metrics.items() if metric.kind != "inception_score"]
        return (*names, *(n for n, metric in self.model_metrics.items() if metric.kind not in ("speed", "params")))


def select_metrics(names: Sequence[str], protocol: str = "sgxl") -> MetricSelection:
    """Return the metrics of these names in a protocol. Raises RequestError, with the list, for an unknown name."""
    metrics: dict[str, Metric] = {}
    model_metrics: dict[str, ModelMetric] = {}
    for name in resolve_names(names, protocol):
        if metric := get_model_metric(name):
            model_metrics[name] = metric
            continue
        try:
            metrics[name] = get_metric(name)
        except RequestError as error:
            raise RequestError(f"{error}; of a model {MODEL_METRIC_NAMES}") from error
    uniform = [name for name in (*metrics, *model_metrics) if protocol == "adm" or name in UNIFORM_LABELS]
    return MetricSelection(metrics, model_metrics, tuple(uniform))


def resolve_names(names: Sequence[str], protocol: str) -> tuple[str, ...]:
    """Return the full names, each once: fid and pr by the protocol, prdc as its two metrics. Raises RequestError."""
    if protocol not in PROTOCOLS:
        raise RequestError(f"protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}")
    meanings = PROTOCOLS[protocol]
    resolved: list[str] = []
    for name in names:
        if name in PROTOCOL_NAMES - meanings.keys():
            others = " and ".join(other for other, known in PROTOCOLS.items() if name in known)
            raise RequestError(f"protocol {protocol} has no {name}; {others} have one, or leave it out")
        prefix, _, network = name.partition("-")
        if prefix == COMBINED:
            resolved += [f"pr-{network or 'lite2'}", f"dc-{network or 'lite2'}"]
        else:
            resolved.append(meanings.get(name, name))
    return tuple(dict.fromkeys(resolved))


def weights_key(network: str) -> str:
    """Return the name by which a user gives a network's weights; clean-fid's Inception is the same file."""
    return "inception" if network == "inception-clean" else network


def load_extractors(
    names: Sequence[str], files: Mapping[str, Path], *, others: Collection[str] = (), download: bool = False
) -> dict[str, FeatureExtractor]:
    """Load feature extractors by name, on the CPU.

    `files` holds weights by `weights_key`, and by the names in `others` those that other code loads. Raises
    PolyinrError.
    """
    if unused := set(files) - {weights_key(name) for name in names} - set(others):
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which these metrics do not use")
    extractors = {}
    for name in names:
        file = files.get(weights_key(name))
        if name in USER_FILES:
            if file is None:
                raise WeightsError(USER_FILES[name])
            extractors[name] = load_extractor(f"torchscript:{file}")
        else:
            extractors[name] = load_extractor(name, file=file, download=download)
    return extractors
