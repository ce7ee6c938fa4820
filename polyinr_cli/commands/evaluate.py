"""polyinr evaluate: figures of what a model draws, or of any images, against real ones, with their card."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_cli import console as streams
from polyinr_cli import train_options as recipe
from polyinr_cli.evaluate_options import (
    DEFAULT,
    DRAWN,
    Batch,
    Bootstrap,
    CacheFolder,
    Count,
    Fake,
    HeldOutRun,
    Labels,
    LabelsOption,
    Metrics,
    Protocol,
    ProtocolOption,
    Psi,
    Real,
    RealCount,
    SaveStatistics,
    Side,
    SplitOverRanks,
    Steps,
    check_numbers,
    check_output,
    check_ranks,
    check_sources,
    check_statistics_file,
    check_uses,
    first,
    open_judged,
)
from polyinr_cli.model_lookup import load_model
from polyinr_cli.options import Device, Json, Label, Model, OptionalOutput, Overwrite, Quiet, Verbose
from polyinr_cli.runtime import choose_device, joined, own_rank, rank_device
from polyinr_core.errors import RequestError
from polyinr_core.runtime.memory import available_memory, total_memory

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.evaluation.evaluate import Subject
    from polyinr_core.evaluation.image_sources import StoredImages
    from polyinr_core.evaluation.protocols import Wanted
    from polyinr_core.evaluation.set_metrics import Side as Judged
    from polyinr_core.evaluation.statistics_io import SavedStatistics
    from polyinr_core.latents.latents import LabelDistribution
    from polyinr_core.metrics.feature_statistics import Seen
    from polyinr_core.metrics.registry import Sense

ENOUGH = 10_000  # images; distances of fewer are biased by much of what sets models apart
WORDS = {"reals": "looking at reals", "fakes": "looking at fakes", "small fakes": "looking at enlarged fakes"}


def evaluate(
    real: Real = None,
    fake: Fake = None,
    model: Model = None,
    metrics: Metrics = DEFAULT,
    protocol: ProtocolOption = Protocol.sgxl,
    count: Count = None,
    real_count: RealCount = None,
    res: Side = None,
    psi: Psi = 1.0,
    label: Label = None,
    labels: LabelsOption = None,
    weights: recipe.Weights = None,
    download: recipe.Download = False,
    bootstrap: Bootstrap = 0,
    batch: Batch = 64,
    steps: Steps = None,
    cache: CacheFolder = None,
    held_out: HeldOutRun = None,
    save_statistics: SaveStatistics = None,
    split_over_ranks: SplitOverRanks = False,
    device: Device = "auto",
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure generated images against real ones, or a model by itself, each metric by its protocol.

    -o result.json keeps the figures with a card: all that they depend on. --json prints the same.

    Example: polyinr evaluate --real cats.zip -m model.safetensors --count 10000 -o result.json
    """
    check_ranks(split_over_ranks)
    quiet = quiet or own_rank() > 0
    streams.refuse_two_payloads(output, as_json=as_json)
    check_numbers(count=count, real_count=real_count, res=res, batch=batch, steps=steps, bootstrap=bootstrap, psi=psi)
    files = recipe.parse_weights(weights or [])

    from polyinr_core.evaluation.evaluate import Subject, measure
    from polyinr_core.evaluation.generated_images import DrawnImages
    from polyinr_core.evaluation.model_metrics import STEPS, ModelSettings, load_means, weights_of
    from polyinr_core.evaluation.protocols import load_networks, wanted
    from polyinr_core.evaluation.set_metrics import Settings
    from polyinr_core.evaluation.statistics_io import SavedStatistics
    from polyinr_core.evaluation.statistics_io import save_statistics as write_statistics
    from polyinr_core.metrics.registry import networks_of

    chosen = wanted([name.strip() for name in metrics.split(",")], protocol.value)
    check_sources(chosen, real=real, fake=fake, model=model, label=label, labels=labels, psi=psi)
    check_uses(
        chosen,
        {
            "--count": count,
            "--real-count": real_count,
            "--held-out": held_out,
            "--labels": labels,
            "--steps": steps,
            "--bootstrap": bootstrap or None,
            "--cache": cache,
            "--save-statistics": save_statistics,
        },
    )
    check_output(output, overwrite=overwrite)
    check_statistics_file(save_statistics, overwrite=overwrite)

    place = rank_device(choose_device(device))
    settings = Settings(batch=batch, bootstrap=bootstrap, cache=cache)
    reals = None
    if real is not None:
        side = res if chosen.of_reals else None  # else only their labels are read
        reals = open_judged(real, option="--real", side=side, count=real_count, run=held_out, quiet=quiet)
    if save_statistics is not None and isinstance(reals, SavedStatistics):
        raise RequestError(f"--real {real} are statistics already; --save-statistics is for images")
    labels_note = ""
    if fake is not None:
        fakes: Judged = open_judged(fake, option="--fake", side=res, count=count, quiet=quiet)
    else:
        checkpoint, file = load_model(model, quiet=quiet)
        distribution, labels_note = _labels(chosen, checkpoint, reals, label=label, labels=labels)
        checkpoint.generator.to(device=place)
        fakes = DrawnImages(checkpoint, name=str(file), count=count or DRAWN, side=res, psi=psi, labels=distribution)
    subject = Subject(chosen, reals if chosen.of_reals else None, fakes)
    subject.check(settings)
    names = networks_of(subject.metrics.values())
    networks = load_networks(names, files, others=weights_of(chosen.figures.values()), download=download)
    means = load_means(chosen.figures.values(), files)
    if labels_note:
        streams.say(f"polyinr: {labels_note}", quiet=quiet, always=True)
    memory = total_memory(place) if place.type == "cuda" else available_memory()

    def keep_reals(seen: "Mapping[Sense, Seen]") -> None:
        if save_statistics is not None and reals is not None and not isinstance(reals, SavedStatistics):
            write_statistics(save_statistics, reals, seen, networks, overwrite=overwrite)

    with joined(place) as ranks, streams.progress_bars(quiet=quiet) as bar:
        result = measure(
            subject,
            networks,
            means,
            settings,
            ModelSettings(steps=steps or STEPS, memory=memory),
            device=place,
            progress=lambda what: bar(WORDS.get(what, what)),
            ranks=ranks,
            warn=lambda text: streams.say(f"polyinr: {text}", quiet=quiet, always=True),
            keep_reals=keep_reals,
        )
        if not ranks.is_main:
            return
    _warn(subject, result, quiet=quiet)
    _report(result, output, overwrite=overwrite, as_json=as_json)


def _labels(
    chosen: "Wanted",
    checkpoint: "Checkpoint",
    reals: "StoredImages | SavedStatistics | None",
    *,
    label: str | None,
    labels: Labels | None,
) -> tuple["LabelDistribution", str]:
    """Return how a model draws its labels: as the protocols have it, unless an option says otherwise.

    Where they have it from the data and that has no fitting labels, it is uniform, and the text says so. Raises
    RequestError where options ask for what is not there, and where metrics of two kinds would share images.
    """
    from polyinr_cli.image_selection import class_index
    from polyinr_core.evaluation.generated_images import dataset_labels
    from polyinr_core.latents.latents import UNIFORM, LabelDistribution

    index = class_index(label, checkpoint)
    classes = checkpoint.generator.config.classes
    by_data = chosen.of_many if labels is Labels.dataset else chosen.of_dataset_labels
    if not classes and labels is not None:
        raise RequestError("the model has no classes; leave out --labels")
    if not classes and reals is not None and not chosen.of_reals:
        raise RequestError(f"{first(chosen.of_many)} looks at no reals, and the model has no classes; leave out --real")
    if index is not None or not classes or not by_data or labels is Labels.uniform:
        return LabelDistribution(label=index), ""
    try:
        distribution = dataset_labels(reals, classes=classes)
    except RequestError as error:
        if labels is Labels.dataset:
            raise
        return UNIFORM, (
            f"{error}; the classes of generated images are drawn uniformly (--labels uniform says that this is meant)"
        )
    others = [name for name in chosen.of_many if name not in by_data]
    if labels is None and others and len(set(distribution.weights)) > 1:
        raise RequestError(
            f"{first(others)} draws all classes as often, {first(by_data)} as often as the data has them: "
            "measure them one after the other, or choose one for both with --labels"
        )
    return distribution, ""


def _warn(subject: "Subject", result: dict[str, Any], *, quiet: bool) -> None:
    """Say what makes these figures other than published ones: few images, another Inception."""
    sides = [] if subject.reals is None else [subject.reals, subject.fakes]
    known = [len(side) for side in sides if len(side)]  # statistics may not say
    distances = [metric for metric in subject.metrics.values() if metric.kind != "score"]
    if distances and len(known) == 2 and min(known) < ENOUGH:
        streams.say(
            f"polyinr: {known[0]} real and {known[1]} generated images: under {ENOUGH} the distances are "
            "biased by the counts; compare only figures of equal counts",
            quiet=quiet,
            always=True,
        )
    for name, facts in result["card"]["networks"].items():
        if facts.get("published") is False:
            words = f"polyinr: {name} is not the file of published figures; compare only figures of the same file"
            streams.say(words, quiet=quiet, always=True)


def _report(result: dict[str, Any], output: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Write figures and card where they are asked for; print a table where stdout is free."""
    from polyinr_core.evaluation.results import format_result
    from polyinr_core.runtime.atomic_io import written_beside

    text = format_result(result)
    if as_json or (output is not None and str(output) == "-"):
        streams.json_line(result)
    if output is not None and str(output) != "-":
        with written_beside(output, overwrite=overwrite) as draft:
            draft.write_text(text, encoding="utf-8")
    if not as_json and (output is None or str(output) != "-"):
        for line in table(result["figures"]):
            streams.line(line)


def table(figures: dict[str, dict[str, float]]) -> list[str]:
    """Return figures as lines: name, value, and the interval where there is one."""
    width = max(map(len, figures))
    lines = []
    for name, row in figures.items():
        value = row["value"]
        words = f"{name:<{width}}  " + (f"{value:12d}" if isinstance(value, int) else f"{value:12.6g}")
        if "low" in row:
            words += f"  {row['low']:.6g} to {row['high']:.6g}"
        elif "deviation" in row:
            words += f"  +- {row['deviation']:.3g}"
        lines.append(words)
    return lines
