"""Protocols: what `fid` and `pr` alone mean in each, and the networks that metrics need, with their weights."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.metrics.extractors import FeatureNetwork, load_network
from polyinr_core.metrics.registry import Metric, metric_named

from .model_metrics import FORMS, ModelFigure, model_figure_named

# the plain names whose meaning a protocol decides
PROTOCOLS: dict[str, dict[str, str]] = {
    "sgxl": {"fid": "fid", "pr": "pr"},  # StyleGAN-XL
    "clean": {"fid": "fid-clean"},  # clean-fid
    "adm": {"fid": "fid-adm", "pr": "pr-adm"},  # guided-diffusion
}
PLAIN = frozenset().union(*PROTOCOLS.values())
UNIFORM = ("fid-adm", "pr-adm")  # guided-diffusion's; the others draw labels from the data, as StyleGAN-XL does
GIVEN = {  # networks that are files of the user's, in TorchScript: what to say without one
    "vgg16": "pr needs VGG16 as NVIDIA publishes it, which nothing here carries: give --weights vgg16=vgg16.pt; "
    "pr-lite2 needs no file",
    "rfid": "rfid needs the published network of random weights, in TorchScript: give --weights rfid=FILE; "
    "rfid-seed0, which has weights of its own, needs no file",
}


def in_protocol(names: Sequence[str], protocol: str) -> tuple[str, ...]:
    """Return the metrics' full names, each once: `fid` and `pr` by the protocol. Raises RequestError."""
    if protocol not in PROTOCOLS:
        raise RequestError(f"protocol {protocol!r} is unknown; choose from {', '.join(PROTOCOLS)}")
    meanings = PROTOCOLS[protocol]
    for name in names:
        if name in PLAIN - meanings.keys():
            others = " and ".join(other for other, known in PROTOCOLS.items() if name in known)
            raise RequestError(f"protocol {protocol} has no {name}; {others} have one, or leave it out")
    return tuple(dict.fromkeys(meanings.get(name, name) for name in names))


@dataclass(frozen=True)
class Wanted:
    """What is to be measured: metrics of sets of images, and figures of a model, by their full names.

    `uniform` names those for which a model draws its labels uniformly, not as the data has them.
    """

    metrics: Mapping[str, Metric]
    figures: Mapping[str, ModelFigure]
    uniform: tuple[str, ...] = ()

    @property
    def of_reals(self) -> tuple[str, ...]:
        """The names of what needs real images."""
        names = [name for name, metric in self.metrics.items() if metric.kind != "score"]
        return (*names, *(name for name, figure in self.figures.items() if figure.needs_reals))

    @property
    def of_many(self) -> tuple[str, ...]:
        """The names of what is taken of so many generated images."""
        return (*self.metrics, *(name for name, figure in self.figures.items() if figure.draws))

    @property
    def of_dataset_labels(self) -> tuple[str, ...]:
        """The names of what is taken of generated images whose labels are drawn as the data has them."""
        return tuple(name for name in self.of_many if name not in self.uniform)

    @property
    def of_networks(self) -> tuple[str, ...]:
        """The names of what is read in features of images, which can be kept."""
        return (*self.metrics, *(name for name, figure in self.figures.items() if figure.kind == "upsampling"))

    @property
    def with_intervals(self) -> tuple[str, ...]:
        """The names of what can be resampled."""
        names = [name for name, metric in self.metrics.items() if metric.kind != "score"]
        return (*names, *(n for n, figure in self.figures.items() if figure.kind not in ("speed", "params")))


def wanted(names: Sequence[str], protocol: str) -> Wanted:
    """Return what metrics of these names are, in a protocol. Raises RequestError, with the list."""
    metrics: dict[str, Metric] = {}
    figures: dict[str, ModelFigure] = {}
    for name in in_protocol(names, protocol):
        if figure := model_figure_named(name):
            figures[name] = figure
            continue
        try:
            metrics[name] = metric_named(name)
        except RequestError as error:
            raise RequestError(f"{error}; of a model {FORMS}") from error
    uniform = [name for name in (*metrics, *figures) if protocol == "adm" or name in UNIFORM]
    return Wanted(metrics, figures, tuple(uniform))


def weights_key(network: str) -> str:
    """Return the name by which a person gives a network's weights: clean-fid's Inception is the same file."""
    return "inception" if network == "inception-clean" else network


def load_networks(
    names: Sequence[str], files: Mapping[str, Path], *, others: Collection[str] = (), download: bool = False
) -> dict[str, FeatureNetwork]:
    """Load networks by name; `files` holds weights by `weights_key`, and those that `others` use.

    Raises PolyinrError.
    """
    if unused := set(files) - {weights_key(name) for name in names} - set(others):
        raise RequestError(f"--weights names {', '.join(sorted(unused))}, which these metrics do not use")
    networks = {}
    for name in names:
        file = files.get(weights_key(name))
        if name in GIVEN:
            if file is None:
                raise WeightsError(GIVEN[name])
            networks[name] = load_network(f"torchscript:{file}")
        else:
            networks[name] = load_network(name, file=file, download=download)
    return networks
