"""Evaluate a model, or a set of images, against real images: one call, one result with its card."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import FileError, RequestError
from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.feature_pass import BATCH_SIZE, Progress
from polyinr_core.metrics.feature_statistics import FeatureStatistics, requirements_for
from polyinr_core.metrics.registry import FeatureKey, base_of, networks_of
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .image_sources import DatasetImages, GeneratedImages, HeldOut
from .model_metrics import (
    INVERSION_STEPS,
    check_resolutions,
    compute_model_metrics,
    load_perceptual,
    model_card,
    upsampling_metrics,
    weight_names,
)
from .protocols import (
    MetricSelection,
    check_arguments,
    check_classes,
    check_images,
    check_numbers,
    check_statistics_path,
    choose_labels,
    choose_precision,
    load_extractors,
    select_metrics,
)
from .results import FORMAT, Estimate, make_card
from .set_metrics import (
    PassSettings,
    Source,
    check_variety,
    class_metrics,
    collect_statistics,
    compute_metric,
    no_progress,
)
from .statistics_io import SavedStatistics, is_statistics_path, open_statistics, save_statistics

DEFAULT_METRICS = ("fd-lite2", "kd-lite2")
DEFAULT_COUNT, CPU_COUNT = 10_000, 1000  # of generated images, on a GPU and on a CPU
ENOUGH_IMAGES = 10_000  # with fewer, the bias of a distance is as large as many differences between models


def evaluate(
    model: Any,
    real: "str | PathLike[str] | Source | None" = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    protocol: str = "sgxl",
    count: int | None = None,
    real_count: int | None = None,
    resolution: int | None = None,
    psi: float = 1.0,
    label: int | str | None = None,
    labels: str | None = None,
    precision: str = "auto",
    held_out: "str | PathLike[str] | None" = None,
    weights: Mapping[str, "str | PathLike[str]"] | None = None,
    extractors: Mapping[str, FeatureExtractor] | None = None,
    download: bool = False,
    bootstrap: int = 0,
    per_class: bool = False,
    batch: int = BATCH_SIZE,
    steps: int | None = None,
    cache: "str | PathLike[str] | None" = None,
    save_statistics_to: "str | PathLike[str] | None" = None,
    overwrite: bool = False,
    device: torch.device | str | None = None,
    memory: int | None = None,
    name: str | None = None,
    ranks: DistributedContext = SINGLE_PROCESS,
    progress: Callable[[str], Progress] = no_progress,
    warn: Callable[[str], None] | None = None,
    inform: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Compute metrics of generated images against real ones, or of a model alone. Call on every rank.

    Args:
        model: a Model or Checkpoint, whose images of seeds 0 to count - 1 are evaluated on its device; or images: a
            zip, tar shards, a folder, an array (.npy, .npz), statistics (.safetensors, .npz), or an ImageSource.
        real: real images, likewise; None for metrics that need none.
        metrics: names such as fid, kid, pr, prdc-lite2, fd-dinov2, ppl, inversion (docs/evaluation.md).
        protocol: what fid and pr mean: "sgxl", "clean" or "adm".
        count: generated images; by default 10000 of a model on a GPU, 1000 on a CPU, or all of a set.
        real_count: real images; by default all.
        resolution: of rendered images in pixels; larger stored images are area-averaged to it.
        psi: truncation, 1 for none.
        label: one class for all generated images, an index or a name.
        labels: "dataset" draws the classes of generated images as in `real`, "uniform" uniformly; by default as the
            protocol says, which is as in `real` except in adm.
        precision: of generated images, "float32", "bfloat16" or "auto": bfloat16 on a GPU if that changes the first
            images by less than rounding to 8 bits does, else float32. Path lengths and inversion are in float32.
        held_out: a run folder; only the images of `real` that the run held out are used.
        weights: files of weights by network, such as {"inception": "inception-2015-12-05.pt"}.
        extractors: feature extractors by network, instead of loading them.
        download: whether weights may be downloaded from timm's hub.
        bootstrap: resamples for 95 percent confidence intervals; 0 for none.
        per_class: whether to compute the metrics of each class too; both sets need labels.
        batch: images a batch of the feature extractors.
        steps: of each inversion; by default 400.
        cache: a folder for features; it also lets an interrupted evaluation resume.
        save_statistics_to: a .safetensors file for the statistics of the real images, to be given as `real` later.
        overwrite: whether that file may exist.
        device: of the feature extractors; by default the model's, else the CPU.
        memory: a limit in bytes for inversion.
        name: of the model in the card and in messages.
        ranks: the processes that share the images.
        progress: makes a callback (done, total) for a description.
        warn: called with each warning on rank 0.
        inform: called on rank 0 with how many images are about to be generated.

    Returns: {"format", "metrics": {name: {"value", ...}}, "card"}, for inversion "images", and with `per_class`
        "classes": {class name: {"reals": count, "fakes": count, "metrics": ...}}, as
        `polyinr evaluate -o` writes them; with several ranks, metrics of a model are computed and returned on rank 0
        only, {} elsewhere.

    Raises: RequestError for arguments that do not fit together, before images are read; PolyinrError.
    """
    warn = warn if warn is not None and ranks.is_main else lambda message: None
    selection = select_metrics(tuple(metrics), protocol)
    check_numbers(
        {"count": count, "real-count": real_count, "res": resolution, "batch": batch, "steps": steps},
        bootstrap=bootstrap,
        psi=psi,
    )
    checkpoint = _checkpoint_of(model)
    check_arguments(
        selection,
        has_model=checkpoint is not None or isinstance(model, GeneratedImages),
        samples=checkpoint is not None,
        real=real,
        label=label,
        labels=labels,
        psi=psi,
        precision=precision,
        optional={
            "--count": count,
            "--real-count": real_count,
            "--held-out": held_out,
            "--steps": steps,
            "--bootstrap": bootstrap or None,
            "--per-class": per_class or None,
            "--cache": cache,
            "--save-statistics": save_statistics_to,
        },
    )
    if save_statistics_to is not None:
        check_statistics_path(Path(save_statistics_to), overwrite=overwrite)
    reals = None
    if real is not None:
        reals = open_source(
            real,
            option="--real",
            resolution=resolution if selection.need_reals else None,  # else only its labels are used
            count=real_count,
            held_out=held_out,
            warn=warn,
        )
        if save_statistics_to is not None and not isinstance(reals, DatasetImages):
            raise RequestError(f"{reals.name} holds statistics already; --save-statistics needs images")
    if device is None:
        device = checkpoint.generator.mapping.w_avg.device if checkpoint is not None else torch.device("cpu")
    device = torch.device(device)
    if checkpoint is None:
        fakes = open_source(model, option="--fake", resolution=resolution, count=count, warn=warn)
        labels_warning = ""
    else:
        distribution, labels_warning = choose_labels(selection, checkpoint, reals, label=label, labels=labels)
        name = name or getattr(model, "name", None) or checkpoint.sha256[:12] or "model"
        count = count or (CPU_COUNT if device.type == "cpu" else DEFAULT_COUNT)
        fakes = GeneratedImages(checkpoint, name=name, count=count, resolution=resolution, psi=psi, labels=distribution)
    compared = reals if selection.need_reals else None
    check_images(selection, compared, fakes, bootstrap=bootstrap)
    class_names = check_classes(compared, fakes) if per_class else ()

    files = {key: Path(file) for key, file in (weights or {}).items()}
    model_metrics = selection.model_metrics
    if extractors is None:
        networks = networks_of(selection.set_metrics.values())
        others = weight_names(model_metrics.values())
        extractors = load_extractors(networks, files, others=others, download=download)
    perceptual = load_perceptual(model_metrics.values(), files)
    if isinstance(fakes, GeneratedImages):
        check_resolutions(model_metrics, fakes, perceptual)
    if labels_warning:
        warn(labels_warning)
    if inform is not None and ranks.is_main and selection.need_fakes and isinstance(fakes, GeneratedImages):
        side = fakes.resolution
        inform(f"generating {len(fakes)} images of {side}x{side} px on {device}; --count sets how many")
    settings = PassSettings(device, batch, bootstrap, Path(cache) if cache is not None else None, ranks, progress)
    rendered_in = "float32"
    if checkpoint is not None and isinstance(fakes, GeneratedImages) and selection.in_reduced_precision:
        rendered_in = choose_precision(fakes, precision, ranks=ranks)

    result, real_statistics = _evaluate_sets(selection, compared, fakes, extractors, settings, class_names, warn)
    if result:
        result["card"]["precision"] = rendered_in
    if save_statistics_to is not None and isinstance(reals, DatasetImages) and ranks.is_main:
        save_statistics(save_statistics_to, reals, real_statistics, extractors, overwrite=overwrite)
    if model_metrics:
        assert isinstance(fakes, GeneratedImages)
        estimates = {}
        if selection.upsampling:
            estimates = upsampling_metrics(selection.upsampling, fakes, real_statistics, extractors, settings)
        if not ranks.is_main:
            return {}
        more, by_image = compute_model_metrics(
            model_metrics,
            fakes,
            None if isinstance(compared, SavedStatistics) else compared,
            perceptual,
            steps=steps or INVERSION_STEPS,
            memory=memory,
            resamples=bootstrap,
            device=device,
            progress=progress,
        )
        facts = model_card(model_metrics, fakes, perceptual, steps=steps or INVERSION_STEPS)
        result = add_model_metrics(result, estimates | more, by_image, facts, has_count=bool(selection.need_fakes))
    warn_about(selection, compared, fakes, result, warn)
    return result


def _checkpoint_of(model: Any) -> Checkpoint | None:
    """Return the checkpoint of a Model or a Checkpoint, None for images."""
    found = getattr(model, "checkpoint", model)
    return found if isinstance(found, Checkpoint) and not isinstance(model, GeneratedImages) else None


def _evaluate_sets(
    selection: MetricSelection,
    reals: Source | None,
    fakes: Source,
    extractors: Mapping[str, FeatureExtractor],
    settings: PassSettings,
    class_names: Sequence[str],
    warn: Callable[[str], None],
) -> tuple[dict[str, Any], dict[FeatureKey, FeatureStatistics]]:
    """Return the result of the metrics of image sets, the same on every rank, and the statistics of the reals."""
    metrics, ranks = selection.set_metrics, settings.ranks
    need_all = {"reals": bool(class_names), "fakes": bool(class_names) or settings.bootstrap > 0}  # features
    sources = {"reals": reals, "fakes": fakes}
    required = {part: requirements_for(metrics, features=need_all[part], reals=part == "reals") for part in sources}
    for part, source in sources.items():
        if isinstance(source, SavedStatistics):
            source.check(required[part], extractors)
    found: dict[str, dict[FeatureKey, FeatureStatistics]] = {"reals": {}, "fakes": {}}
    for part, source in sources.items():
        if source is not None and required[part]:
            description = f"features of {part}"
            found[part] = collect_statistics(source, required[part], extractors, settings, description=description)
            check_variety(part, source, found[part], warn if part == "fakes" else None)
    real_statistics, fake_statistics = found["reals"], found["fakes"]
    if not ranks.is_main:
        return ranks.broadcast_object({}), real_statistics
    estimates: dict[str, Estimate] = {}
    for name, metric in metrics.items():
        key = metric.feature_key
        statistics = real_statistics.get(key), fake_statistics[key]
        estimates |= compute_metric(name, metric, *statistics, resamples=settings.bootstrap)
    card = make_card(reals, fakes, metrics, extractors, device=settings.device)
    result = {"format": FORMAT, "metrics": estimates, "card": card}
    if class_names:
        assert isinstance(reals, DatasetImages)
        assert isinstance(fakes, DatasetImages | GeneratedImages)
        of_reals, of_fakes = (reals.image_labels, real_statistics), (fakes.image_labels, fake_statistics)
        result["classes"] = class_metrics(selection.metrics, class_names, of_reals, of_fakes)
    return ranks.broadcast_object(result), real_statistics


def open_source(
    source: "str | PathLike[str] | Source",
    *,
    option: str,
    resolution: int | None = None,
    count: int | None = None,
    held_out: "str | PathLike[str] | None" = None,
    warn: Callable[[str], None],
) -> Source:
    """Open images, or the statistics of images; an open source is returned as it is. Raises PolyinrError."""
    if not isinstance(source, (str, PathLike)):
        return source
    path = Path(source)
    if not is_statistics_path(path):
        run = None if held_out is None else HeldOut.from_run(held_out)
        images = DatasetImages(path, resolution=resolution, count=count, held_out=run, any_size=True)
        for note in images.data.notes:
            warn(f"{option} {path}: {note}")
        return images
    for given, what in ((count, "a count"), (held_out, "--held-out")):
        if given is not None:
            raise RequestError(f"{option} {path} holds statistics of all its images; leave out {what}")
    saved = open_statistics(path)
    if resolution and saved.resolution and resolution != saved.resolution:
        raise FileError(path, f"holds statistics of images of {saved.resolution} px, not {resolution}")
    return saved


def add_model_metrics(
    result: Mapping[str, Any],
    estimates: Mapping[str, Estimate],
    images: Mapping[str, list[dict[str, Any]]],
    facts: Mapping[str, dict[str, Any]],
    *,
    has_count: bool,
) -> dict[str, Any]:
    """Return a result with the metrics of a model, and with their `facts` on its card.

    Without metrics of many generated images, `has_count` false, the card does not give their count and seeds.
    """
    card = dict(result["card"])
    for part, more in facts.items():
        card[part] = {**more, **{name: fact for name, fact in card[part].items() if base_of(name) not in more}}
    if not has_count:
        card["fakes"] = {name: fact for name, fact in card["fakes"].items() if name not in ("count", "seeds")}
    joined = {**result, "metrics": {**result["metrics"], **estimates}, "card": card}
    return {**joined, "images": dict(images)} if images else joined


def warn_about(
    selection: MetricSelection,
    reals: Source | None,
    fakes: Source,
    result: Mapping[str, Any],
    warn: Callable[[str], None],
) -> None:
    """Warn about what makes the values differ from published ones: few images, mixed sizes, another Inception."""
    counts = [] if reals is None else [len(source) for source in (reals, fakes) if len(source)]  # 0: unknown
    distances = [m for m in selection.set_metrics.values() if m.kind != "inception_score"]
    if distances and len(counts) == 2 and min(counts) < ENOUGH_IMAGES:
        warn(
            f"{counts[0]} real and {counts[1]} generated images: under {ENOUGH_IMAGES} the distances are biased by the "
            "counts; compare only results of equal counts"
        )
    for source in (reals, fakes):
        if isinstance(source, DatasetImages) and not source.resolution:
            warn(f"{source.name}: images that are not square or not of one size; each network resizes them by its rule")
    for network, facts in result["card"]["networks"].items():
        if facts.get("published") is False:
            warn(f"{network} is not the file of published values; compare only results of the same file")
