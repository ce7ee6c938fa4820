"""Which metrics names select in a protocol, what these need, and whether the arguments of an evaluation fit."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.latents.latents import UNIFORM, LabelDistribution, check_psi, parse_label
from polyinr_core.metrics.extractors import FeatureExtractor, load_extractor
from polyinr_core.metrics.registry import PARTS, Metric, get_metric
from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite
from polyinr_core.runtime.device import is_bfloat16_gpu
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .image_sources import DatasetImages, GeneratedImages
from .model_metrics import MODEL_METRIC_NAMES, ModelMetric, at_training_resolution, get_model_metric, native_name
from .set_metrics import Source
from .statistics_io import SavedStatistics

logger = logging.getLogger(__name__)
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
USE_REALS, USE_FAKES = ("inversion", "upsampling"), ("ppl", "upsampling")  # model metrics: of reals; of many fakes
MAX_COUNT = 100_000_000  # of whatever is counted
MAX_STEPS = 10**6
PRECISIONS = ("auto", "float32", "bfloat16")
MAX_ROUNDING_ERROR = 12**-0.5  # gray levels, root mean square: of rounding to 8 bits, which every protocol does
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
        return (*names, *(name for name, metric in self.model_metrics.items() if metric.kind in USE_REALS))

    @property
    def need_fakes(self) -> tuple[str, ...]:
        """The names of the metrics that are computed from many generated images."""
        return (*self.metrics, *(name for name, metric in self.model_metrics.items() if metric.kind in USE_FAKES))

    @property
    def need_dataset_labels(self) -> tuple[str, ...]:
        """The names of the metrics whose protocol draws the labels of generated images as in the data."""
        return tuple(name for name in self.need_fakes if name not in self.uniform)

    @property
    def in_reduced_precision(self) -> tuple[str, ...]:
        """The names of the metrics whose images may be rendered in bfloat16."""
        speed = (name for name, metric in self.model_metrics.items() if metric.kind == "speed")
        return (*self.metrics, *self.upsampling, *speed)


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


def choose_labels(
    selection: MetricSelection,
    checkpoint: Checkpoint,
    reals: Source | None,
    *,
    label: int | str | None,
    labels: str | None,
) -> tuple[LabelDistribution, str]:
    """Return how a model draws its labels, as the protocols say unless `label` or `labels` do, and a warning or "".

    If the protocol takes them from the data and it has no usable labels, they are uniform, with a warning. Raises
    RequestError if `labels` asks for labels that do not exist and if metrics of two protocols would share images,
    LabelError for an unknown class.
    """
    classes = checkpoint.generator.config.classes
    index = None
    if label is not None:
        index = parse_label(str(label), classes=classes, class_names=checkpoint.class_names)
    from_data = selection.need_fakes if labels == "dataset" else selection.need_dataset_labels
    if not classes and labels is not None:
        raise RequestError("the model has no classes; leave out --labels")
    if not classes and reals is not None and not selection.need_reals:
        unused = selection.need_fakes[0]
        raise RequestError(f"{unused} does not use real images, and the model has no classes; leave out --real")
    if index is not None or not classes or not from_data or labels == "uniform":
        return LabelDistribution(label=index), ""
    try:
        distribution = dataset_labels(reals, classes=classes)
    except RequestError as error:
        if labels == "dataset":
            raise
        return UNIFORM, f"{error}; the classes of generated images are drawn uniformly (--labels uniform to confirm)"
    others = [name for name in selection.need_fakes if name not in from_data]
    if labels is None and others and len(set(distribution.weights)) > 1:
        raise RequestError(
            f"{others[0]} draws classes uniformly, {from_data[0]} as in the data: evaluate them one after the other, "
            "or choose one for both with --labels"
        )
    return distribution, ""


def choose_precision(fakes: GeneratedImages, precision: str, *, ranks: DistributedContext = SINGLE_PROCESS) -> str:
    """Choose the dtype of generated images, and return it in words. Call on every rank.

    "auto" is bfloat16 for a generator on a GPU that multiplies it natively, if that changes the first images by less
    than rounding them to 8 bits does; else float32.
    """
    device = fakes.checkpoint.generator.mapping.w_avg.device
    if precision == "float32" or (precision == "auto" and not is_bfloat16_gpu(device)):
        return "float32"
    error = ranks.broadcast_object(fakes.rounding_error() if ranks.is_main else 0.0)
    if precision == "auto" and not error < MAX_ROUNDING_ERROR:
        logger.info("bfloat16 would change the images by %.2g gray levels: evaluating in float32", error)
        return "float32"
    fakes.dtype = torch.bfloat16
    return f"bfloat16, {error:.2g} of 255 gray levels from float32 (root mean square)"


def dataset_labels(reals: Source | None, *, classes: int) -> LabelDistribution:
    """Return the distribution of the real images over a model's `classes`. Raises RequestError."""
    if reals is None:
        raise RequestError("without real images the frequencies of the classes are unknown; give them with --real")
    counts = getattr(reals, "label_counts", None)
    if counts is None:
        lacks = "does not hold" if isinstance(reals, SavedStatistics) else "has no"
        raise RequestError(f"{reals.name} {lacks} labels, which give the frequencies of the classes")
    if len(counts) != classes:
        raise RequestError(f"{reals.name} has labels of {len(counts)} classes, the model of {classes}")
    return LabelDistribution(counts=counts)


def check_numbers(counts: Mapping[str, int | None], *, bootstrap: int, psi: float) -> None:
    """Raise RequestError for numbers out of range; `counts` are by the names of their options."""
    for name, number in counts.items():
        if number is not None and number < 1:
            raise RequestError(f"--{name} {number} is below 1")
        limit = MAX_STEPS if name == "steps" else MAX_COUNT
        if number is not None and number > limit:
            raise RequestError(f"--{name} {number} is above {limit}")
    if bootstrap < 0 or bootstrap == 1 or bootstrap > MAX_COUNT:
        raise RequestError(f"--bootstrap {bootstrap} is out of range 2-{MAX_COUNT}; 100 is usual, 0 is off")
    check_psi(psi)


def check_arguments(
    selection: MetricSelection,
    *,
    has_model: bool,
    samples: bool,
    real: object,
    label: object,
    labels: str | None,
    psi: float,
    precision: str,
    optional: Mapping[str, object],
) -> None:
    """Raise RequestError unless the metrics have the images that they need and use every argument given.

    `has_model` is whether a model is evaluated, `samples` whether its images are yet to be sampled.
    """
    if not has_model and selection.model_metrics:
        name = next(iter(selection.model_metrics))
        raise RequestError(f"{name} is a metric of a model; name one with -m and leave out --fake")
    if precision not in PRECISIONS:
        raise RequestError(f"precision {precision!r} is unknown; choose from {', '.join(PRECISIONS)}")
    if not samples and (label is not None or labels is not None or psi != 1 or precision != "auto"):
        raise RequestError(
            "--label, --labels, --psi and --precision are for images that a model generates; leave them out"
        )
    if label is not None and labels is not None:
        raise RequestError("--label gives all images one class, --labels draws a class for each; give one of them")
    if real is None and selection.need_reals:
        raise RequestError(f"{selection.need_reals[0]} needs real images; give a dataset or a folder with --real")
    from_data = selection.need_fakes if labels == "dataset" else selection.need_dataset_labels
    uses_labels = from_data and samples and label is None and labels != "uniform"
    if real is not None and not selection.need_reals and not uses_labels:
        raise RequestError(f"{selection.names[0]} does not use real images; leave out --real")
    comparisons = [name for name, metric in selection.metrics.items() if metric.kind != "inception_score"]
    resampled = [name for name, metric in selection.model_metrics.items() if metric.kind not in ("speed", "params")]
    users: dict[str, Sequence[str]] = {
        "--count": selection.need_fakes,
        "--real-count": selection.need_reals,
        "--held-out": selection.need_reals,
        "--labels": selection.need_fakes,
        "--steps": [name for name, metric in selection.model_metrics.items() if metric.kind == "inversion"],
        "--bootstrap": [*comparisons, *resampled],
        "--cache": [*selection.metrics, *selection.upsampling],
        "--save-statistics": comparisons,
        "--per-class": comparisons,
        "--precision": selection.in_reduced_precision,
    }
    given = {**optional, "--labels": labels, "--precision": None if precision == "auto" else precision}
    for option, value in given.items():
        if value is not None and not users[option]:
            raise RequestError(f"{option} has no use beside {', '.join(selection.names)}; leave it out")


def check_images(selection: MetricSelection, reals: Source | None, fakes: Source, *, bootstrap: int) -> None:
    """Raise RequestError, before images are read, for sizes that differ and for fewer images than a metric needs."""
    if reals is not None:
        check_sizes(reals, fakes)
    for name, metric in selection.set_metrics.items():
        is_score = metric.kind == "inception_score"
        halved = bootstrap > 0 and metric.kind in PARTS  # the resamples are halves
        fewest_fakes = metric.min_images * 2 if halved else max(metric.min_images, 4 if bootstrap else 0)
        for kind, source, fewest in (("reals", reals, metric.min_images), ("fakes", fakes, fewest_fakes)):
            if source is None or (is_score and kind == "reals"):
                continue
            if isinstance(source, SavedStatistics) and not source.count:
                continue  # unknown
            if len(source) < fewest:
                why = " with intervals" if fewest > metric.min_images else ""
                raise RequestError(f"{name}{why} needs {fewest} {kind} or more; {source.name} has {len(source)}")
    if selection.upsampling and isinstance(fakes, GeneratedImages):
        at_training_resolution(fakes)
    for name, model_metric in selection.model_metrics.items() if bootstrap else ():
        kind, source = ("reals", reals) if model_metric.kind == "inversion" else ("fakes", fakes)
        if model_metric.kind in ("ppl", "inversion") and source is not None and len(source) == 1:
            raise RequestError(f"{name} with intervals needs 2 {kind} or more; {source.name} has 1")
    if "inversion" in selection.model_metrics and isinstance(reals, SavedStatistics):
        raise RequestError(f"{reals.name} holds statistics; inversion needs the images")
    if "inversion" in selection.model_metrics and reals is not None and not reals.resolution:
        raise RequestError(f"{reals.name} holds images of different sizes; inversion needs one: use `polyinr prepare`")


def check_classes(reals: Source | None, fakes: Source) -> tuple[str, ...]:
    """Return the names of the classes that both sets have. Raises RequestError if they have none, or others."""
    found = []
    for source in (reals, fakes):
        if not isinstance(source, DatasetImages | GeneratedImages) or source.image_labels is None:
            raise RequestError(f"--per-class needs images with labels; {getattr(source, 'name', 'the reals')} has none")
        found.append(source.class_names)
    names, others = found
    if len(names) != len(others):
        raise RequestError(f"--per-class: the reals have {len(names)} classes, the fakes {len(others)}")
    return names


def check_sizes(reals: Source, fakes: Source) -> None:
    """Raise RequestError if two sets of images have different, known sizes."""
    if reals.resolution and fakes.resolution and reals.resolution != fakes.resolution:
        smaller = min(reals.resolution, fakes.resolution)
        raise RequestError(
            f"{reals.name} holds reals of {reals.resolution} px, {fakes.name} fakes of {fakes.resolution} px; "
            f"use one size for both, such as --res {smaller}"
        )


def check_statistics_path(path: Path, *, overwrite: bool) -> None:
    """Raise PolyinrError if statistics cannot be written to a path."""
    if path.suffix != ".safetensors":
        raise RequestError(f"--save-statistics {path}: statistics are written as .safetensors")
    refuse_overwrite(path, overwrite=overwrite)
    check_place(path)
