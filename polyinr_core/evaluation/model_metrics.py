"""The metrics of a model by name: perceptual path length, inversion, speed, parameter counts."""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.images.grid import Pixels
from polyinr_core.inversion.invert import invert
from polyinr_core.inversion.loss import LOSS_DESCRIPTIONS, InversionLoss, TargetImage, load_loss
from polyinr_core.metrics.bootstrap import bootstrap
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_pass import ImageSource, Progress
from polyinr_core.metrics.feature_statistics import FeatureStatistics, Requirements
from polyinr_core.metrics.image_similarity import PerceptualMetric, cached_vgg16, load_perceptual_metric
from polyinr_core.metrics.ppl import EPSILON, PPL_RESOLUTION, path_length, path_lengths
from polyinr_core.metrics.registry import FeatureKey, Metric, is_network
from polyinr_core.models.generator import count_parameters
from polyinr_core.rendering.render import pixels_per_batch
from polyinr_core.runtime.device import synchronize
from polyinr_core.runtime.pretrained import SOURCES, Packaged

from .image_sources import GeneratedImages
from .results import Estimate
from .set_metrics import PassSettings, collect_statistics, compute_metric, no_progress

ModelMetricKind = Literal["ppl", "inversion", "upsampling", "speed", "params"]
MODEL_METRIC_NAMES = "ppl, ppl-lite2, inversion, upsampling or upsampling-X, speed, params"
INVERSION_STEPS = 400  # as `polyinr invert`
MAX_PSNR = 100.0  # dB: counted for an exact reconstruction, whose PSNR is infinite
TIMED_IMAGES, WARM_UP_IMAGES = 10, 2
Filter = Literal["nearest", "bilinear", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)

PPL_RULE = (
    f"in w, at the start of the way from seed 2i to seed 2i + 1 in the class of seed 2i, a step of {EPSILON:g}; "
    f"drawn colors, above {PPL_RESOLUTION} px block means; mean between the 1st and 99th percentile"
)
SPEED_RULE = f"seconds from z to colors, an image at a time, median of {TIMED_IMAGES} after {WARM_UP_IMAGES} to warm up"
PARAMS_RULE = "parameters of the generator in all, and of its parts"


@dataclass(frozen=True)
class ModelMetric:
    """One metric of a model; `network` is ppl's distance, lpips or lite2, or upsampling's feature extractor."""

    kind: ModelMetricKind
    network: str = ""

    @property
    def metric(self) -> Metric:
        """The distance that upsampling computes."""
        return Metric(self.network, "frechet")


def get_model_metric(name: str) -> ModelMetric | None:
    """Return the model metric of that name, None for any other name."""
    if name in ("inversion", "speed", "params"):
        return ModelMetric(name)  # type: ignore[arg-type]
    kind, dash, network = name.partition("-")
    if kind == "ppl" and (network == "lite2" or not dash):
        return ModelMetric("ppl", network or "lpips")
    if kind == "upsampling" and (is_network(network) or not dash):
        return ModelMetric("upsampling", network or "lite2")
    return None


@dataclass(frozen=True)
class PerceptualNetworks:
    """The perceptual distances of path lengths and inversion by name, and inversion's loss."""

    distances: Mapping[str, PerceptualMetric]
    objective: InversionLoss | None = None


def weight_names(metrics: Iterable[ModelMetric]) -> set[str]:
    """Return the names by which a user gives weights for these metrics, except upsampling's extractors."""
    metrics = list(metrics)
    names = {metric.network for metric in metrics if metric.kind == "ppl"}
    return names | ({"lpips"} if any(metric.kind == "inversion" for metric in metrics) else set())


def load_perceptual(metrics: Iterable[ModelMetric], files: Mapping[str, Path]) -> PerceptualNetworks:
    """Load the networks that the metrics need, on the CPU; `files` holds weights by `weight_names`.

    Inversion optimizes and measures LPIPS if VGG16 is available, else it optimizes EfficientNet-lite0's distance.
    Raises WeightsError.
    """
    metrics = list(metrics)
    has_inversion = any(metric.kind == "inversion" for metric in metrics)
    vgg16 = files.get("lpips") or cached_vgg16()
    names = {metric.network for metric in metrics if metric.kind == "ppl"}
    if has_inversion and vgg16 is not None:
        names.add("lpips")
    distances = {
        name: load_perceptual_metric(name, files.get(name))  # type: ignore[arg-type]
        for name in sorted(names)
    }
    return PerceptualNetworks(distances, load_loss("auto", vgg16=vgg16) if has_inversion else None)


def check_resolutions(metrics: Mapping[str, ModelMetric], model: GeneratedImages, networks: PerceptualNetworks) -> None:
    """Raise RequestError if the images are too small for a perceptual distance."""
    for name, metric in metrics.items():
        if metric.kind == "ppl" and model.resolution < networks.distances[metric.network].min_resolution:
            minimum = networks.distances[metric.network].min_resolution
            raise RequestError(f"{name} needs images of {minimum} px or more, not {model.resolution}: give --res")


def compute_model_metrics(
    metrics: Mapping[str, ModelMetric],
    model: GeneratedImages,
    reals: ImageSource | None,
    networks: PerceptualNetworks,
    *,
    steps: int = INVERSION_STEPS,
    memory: int | None = None,
    resamples: int = 0,
    device: torch.device,
    progress: Callable[[str], Progress] = no_progress,
) -> tuple[dict[str, Estimate], dict[str, list[dict[str, Any]]]]:
    """Return the estimates by name, and inversion's measurements of each real image.

    Args:
        reals: inverted in their order.
        steps: of each inversion.
        memory: in bytes, for inversion's chunks; None for no limit.
        resamples: for confidence intervals; 0 for none.
        progress: makes a progress callback for a description.

    Raises: PolyinrError.
    """
    estimates: dict[str, Estimate] = {}
    images: dict[str, list[dict[str, Any]]] = {}
    distances = {name: distance.to(device) for name, distance in networks.distances.items()}
    for name, metric in metrics.items():
        if metric.kind == "ppl":
            lengths = sample_path_lengths(model, distances[metric.network], progress=progress("path lengths"))
            estimates[name] = ppl_estimate(lengths, resamples=resamples)
        elif metric.kind == "inversion":
            assert reals is not None
            assert networks.objective is not None
            lpips = distances.get("lpips")
            images[name] = invert_images(
                reals,
                model.checkpoint,
                networks.objective.to(device),
                steps=steps,
                lpips=lpips if lpips is not None and reals.resolution >= lpips.min_resolution else None,
                label=model.labels.label,
                memory=memory,
                progress=progress("inversion"),
            )
            estimates |= inversion_estimates(images[name], resamples=resamples)
        elif metric.kind == "speed":
            estimates[name] = speed_estimate(model, progress=progress("timing"))
        elif metric.kind == "params":
            estimates |= parameter_counts(model.checkpoint)
    return estimates, images


def native_name(name: str) -> str:
    """Return the name of the distance of images rendered at the full resolution, beside those upsampled to it."""
    return f"{name}/rendered"


def at_training_resolution(fakes: GeneratedImages) -> GeneratedImages:
    """Return the same images at the training resolution. Raises RequestError if that is not smaller."""
    trained = fakes.checkpoint.resolution
    if not trained:
        raise RequestError(f"{fakes.name} does not say its training resolution, which upsampling starts from")
    if trained >= fakes.resolution:
        raise RequestError(
            f"upsampling goes from the training resolution, {trained} px, to a larger one, not to {fakes.resolution} "
            "px: give --res above it and reals of that size"
        )
    small = copy.copy(fakes)
    small.resolution = trained
    return small


class UpsampledExtractor:
    """A feature extractor of images that Pillow first upsamples to `resolution`."""

    def __init__(self, extractor: FeatureExtractor, filter: Filter, *, resolution: int) -> None:
        self.extractor = extractor
        self.filter = filter
        self.resolution = resolution
        self.dim = extractor.dim
        self.name = f"{extractor.name}/{filter}"
        self.sha256 = extractor.sha256

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.extractor(upsample(pixels, self.resolution, self.filter))

    def to(self, device: torch.device) -> "UpsampledExtractor":
        return UpsampledExtractor(self.extractor.to(device), self.filter, resolution=self.resolution)


def upsample(pixels: Tensor, resolution: int, filter: Filter) -> Tensor:
    """Resize 8-bit images [N, 3, H, W] to [N, 3, resolution, resolution] by Pillow's filter, on the same device."""
    resampling = Image.Resampling[filter.upper()]
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = [np.asarray(Image.fromarray(image).resize((resolution, resolution), resampling)) for image in images]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).to(pixels.device)


def upsampling_metrics(
    metrics: Mapping[str, Metric],
    fakes: GeneratedImages,
    reals: Mapping[FeatureKey, FeatureStatistics],
    extractors: Mapping[str, FeatureExtractor],
    settings: PassSettings,
) -> dict[str, Estimate]:
    """Return the distances of upsampled images as NAME/nearest and so on. Call on every rank.

    The images are generated once, at the training resolution, for all filters and metrics. `reals` are the
    statistics of the reals at the resolution of `fakes`; only rank 0 needs them, and returns estimates. Raises
    RequestError, PolyinrError.
    """
    small = at_training_resolution(fakes)
    upsampled = {
        (metric.network, filter): UpsampledExtractor(extractors[metric.network], filter, resolution=fakes.resolution)
        for metric in metrics.values()
        for filter in FILTERS
    }
    required = Requirements(moments=True, features=settings.bootstrap > 0)
    statistics = collect_statistics(
        small,
        {(extractor.name, "pooled"): required for extractor in upsampled.values()},
        {extractor.name: extractor for extractor in upsampled.values()},
        settings,
        description="features of upsampled fakes",
    )
    estimates: dict[str, Estimate] = {}
    for name, metric in metrics.items() if settings.ranks.is_main else ():
        for filter in FILTERS:
            estimates |= compute_metric(
                f"{name}/{filter}",
                metric,
                reals[metric.feature_key],
                statistics[upsampled[metric.network, filter].name, "pooled"],
                resamples=settings.bootstrap,
            )
    return estimates


@torch.no_grad()
def sample_path_lengths(
    model: GeneratedImages, distance: PerceptualMetric, *, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Return the lengths [N], float64, of as many paths in w as the model has images.

    Path i leads from seed 2 i to seed 2 i + 1, both in the class that seed 2 i draws. Raises PolyinrError.
    """
    batch = max(1, pixels_per_batch(model.checkpoint.generator.mapping.w_avg.device) // (2 * model.resolution**2))
    lengths = []
    for start in range(0, len(model), batch):
        stop = min(start + batch, len(model))
        even, odd = range(2 * start, 2 * stop, 2), range(2 * start + 1, 2 * stop, 2)
        starts, ends = model.sample_w(even), model.sample_w(odd, label_seeds=even)
        lengths.append(path_lengths(starts, ends, model.render, distance).cpu())
        if progress is not None:
            progress(stop, len(model))
    return torch.cat(lengths)


def ppl_estimate(lengths: Tensor, *, resamples: int = 0) -> Estimate:
    """Return the perceptual path length of lengths [N], with a confidence interval from `resamples`."""
    if not resamples:
        return {"value": path_length(lengths)}
    return bootstrap(lambda part: {"ppl": path_length(part)}, lengths, resamples=resamples)["ppl"]


def invert_images(
    reals: ImageSource,
    checkpoint: Checkpoint,
    objective: InversionLoss,
    *,
    steps: int,
    lpips: PerceptualMetric | None = None,
    label: int | None = None,
    memory: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return for each image the PSNR in dB of its inversion, the SSIM (None below 11 pixels) and the LPIPS if given.

    The generator and the networks are on one device. Raises PolyinrError.
    """
    device = checkpoint.generator.mapping.w_avg.device
    measurements: list[dict[str, Any]] = []
    for batch in reals.batches():
        for image in batch:
            pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
            target = TargetImage(f"image {len(measurements)}", pixels, reals.resolution, reals.resolution)
            match = invert(checkpoint, target, loss=objective, steps=steps, label=label, memory=memory)
            measured: dict[str, Any] = {"psnr": min(match.psnr, MAX_PSNR), "ssim": match.ssim}
            if lpips is not None:
                measured["lpips"] = float(lpips(to_colors(match.image, device), to_colors(pixels, device)))
            measurements.append(measured)
            if progress is not None:
                progress(len(measurements), len(reals))
    return measurements


def to_colors(pixels: Pixels, device: torch.device) -> Tensor:
    """Return 8-bit pixels [H, W, 3] as float [1, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


def inversion_estimates(measurements: Sequence[dict[str, Any]], *, resamples: int = 0) -> dict[str, Estimate]:
    """Return the means over images as inversion/psnr and so on, with confidence intervals from `resamples`."""
    names = [name for name in measurements[0] if all(measured[name] is not None for measured in measurements)]
    columns = torch.tensor([[measured[name] for name in names] for measured in measurements], dtype=torch.float64)

    def means(rows: Tensor) -> dict[str, float]:
        return {f"inversion/{name}": math.fsum(rows[:, i].tolist()) / len(rows) for i, name in enumerate(names)}

    if resamples:
        return bootstrap(means, columns, resamples=resamples)
    return {name: {"value": value} for name, value in means(columns).items()}


def speed_estimate(model: GeneratedImages, *, progress: Callable[[int, int], None] | None = None) -> Estimate:
    """Return the median, smallest and largest number of seconds that generating one image takes (paper, table 2).

    They are measured on the generator's device, in the dtype of the images.
    """
    device = model.checkpoint.generator.mapping.w_avg.device
    seconds = []
    for seed in range(WARM_UP_IMAGES + TIMED_IMAGES):
        synchronize(device)
        start = time.perf_counter()
        model.render(model.sample_w(range(seed, seed + 1)), dtype=model.dtype)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        if progress is not None:
            progress(seed + 1, WARM_UP_IMAGES + TIMED_IMAGES)
    timed = seconds[WARM_UP_IMAGES:]
    return {"value": float(np.median(timed)), "min": min(timed), "max": max(timed), "repeats": TIMED_IMAGES}


def parameter_counts(checkpoint: Checkpoint) -> dict[str, Estimate]:
    """Return the numbers of parameters as params, all (paper, table 1 d), and params/PART of each part."""
    counts = count_parameters(checkpoint.generator)
    return {"params" if part == "total" else f"params/{part}": {"value": count} for part, count in counts.items()}


def describe_rule(metric: ModelMetric, networks: PerceptualNetworks, *, steps: int) -> str:
    """Return in words how a metric is computed, for cards."""
    if metric.kind == "inversion":
        assert networks.objective is not None
        return (
            f"affine maps by {LOSS_DESCRIPTIONS[networks.objective.name]}, {steps} steps and a polish from one start; "
            f"means over 8-bit images, (x + 1) 127.5 cut off, of PSNR (dB, at most {MAX_PSNR:g}), SSIM (11 x 11, "
            "sigma 1.5), LPIPS where VGG16 is at hand"
        )
    if metric.kind == "upsampling":
        return f"{metric.metric.rule}; drawn at once, and at the training resolution, then enlarged by Pillow"
    return {"ppl": PPL_RULE, "speed": SPEED_RULE, "params": PARAMS_RULE}[metric.kind]


def model_card(
    metrics: Mapping[str, ModelMetric], model: GeneratedImages, networks: PerceptualNetworks, *, steps: int
) -> dict[str, dict[str, Any]]:
    """Return what the card says about these metrics: {"protocols": ..., "networks": ...}."""
    protocols: dict[str, Any] = {}
    used = {name: {"sha256": d.sha256, "resize": d.resize} for name, d in networks.distances.items()}
    for name, metric in metrics.items():
        facts: dict[str, Any] = {"rule": describe_rule(metric, networks, steps=steps)}
        if metric.kind == "ppl":
            facts |= {"network": metric.network, "tap": "several depths", "paths": len(model)}
        elif metric.kind == "upsampling":
            facts |= {"network": metric.network, "tap": "pooled", "trained_resolution": model.checkpoint.resolution}
        elif metric.kind == "inversion":
            assert networks.objective is not None
            facts |= {"network": networks.objective.name, "tap": "several depths"}
            source = SOURCES.get(networks.objective.name)
            if isinstance(source, Packaged):
                used[networks.objective.name] = {"sha256": source.sha256, "resize": "none"}
        protocols[name] = facts
    return {"protocols": protocols, "networks": used}
