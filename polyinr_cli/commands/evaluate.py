"""polyinr evaluate: compute metrics of generated images, or of a model, with a card of what they depend on."""

from pathlib import Path
from typing import Any

from polyinr_cli import console
from polyinr_cli.evaluate_options import (
    Batch,
    Bootstrap,
    CacheFolder,
    Count,
    Fake,
    HeldOutRun,
    LabelsOption,
    Metrics,
    PerClass,
    Protocol,
    ProtocolOption,
    Psi,
    Real,
    RealCount,
    Resolution,
    SaveStatistics,
    Steps,
)
from polyinr_cli.model_lookup import load_model
from polyinr_cli.options import Device, Json, Label, Model, OptionalOutput, Overwrite, Quiet, Verbose
from polyinr_cli.runtime import choose_device, joined, own_rank, rank_device
from polyinr_cli.train_options import Download, Weights, parse_weights
from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.resources import available_memory, total_memory


def evaluate(
    real: Real = None,
    fake: Fake = None,
    model: Model = None,
    metrics: Metrics = "fd-lite2,kd-lite2",
    protocol: ProtocolOption = Protocol.sgxl,
    count: Count = None,
    real_count: RealCount = None,
    res: Resolution = None,
    psi: Psi = 1.0,
    label: Label = None,
    labels: LabelsOption = None,
    weights: Weights = None,
    download: Download = False,
    bootstrap: Bootstrap = 0,
    per_class: PerClass = False,
    batch: Batch = 64,
    steps: Steps = None,
    cache: CacheFolder = None,
    held_out: HeldOutRun = None,
    save_statistics: SaveStatistics = None,
    device: Device = "auto",
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compute metrics of generated images against real ones, or of a model alone, each by its protocol.

    -o result.json saves the metrics with a card: everything that they depend on. --json prints the same. Processes
    started by torchrun share the images.

    Example: polyinr evaluate --real cats.zip -m model.safetensors --count 10000 -o result.json
    """
    quiet = quiet or own_rank() > 0
    console.refuse_two_payloads(output, as_json=as_json)
    if fake is not None and model is not None:
        raise RequestError("--fake names images and -m a model that generates them; give one of the two")
    files = parse_weights(weights or [])
    _check_output(output, overwrite=overwrite)

    from polyinr_core.evaluation.evaluate import evaluate

    torch_device = rank_device(choose_device(device))
    name = None
    evaluated: Any = fake
    if fake is None:
        evaluated, file = load_model(model, quiet=quiet)
        evaluated.generator.to(device=torch_device)
        name = str(file)
    with joined(torch_device) as ranks, console.progress_bars(quiet=quiet) as bar:
        result = evaluate(
            evaluated,
            real,
            metrics=[metric.strip() for metric in metrics.split(",")],
            protocol=protocol.value,
            count=count,
            real_count=real_count,
            resolution=res,
            psi=psi,
            label=label,
            labels=None if labels is None else labels.value,
            held_out=held_out,
            weights=files,
            download=download,
            bootstrap=bootstrap,
            per_class=per_class,
            batch=batch,
            steps=steps,
            cache=cache,
            save_statistics_to=save_statistics,
            overwrite=overwrite,
            device=torch_device,
            memory=total_memory(torch_device) if torch_device.type == "cuda" else available_memory(),
            name=name,
            ranks=ranks,
            progress=bar,
            warn=lambda text: console.say(f"polyinr: {text}", quiet=quiet, always=True),
        )
        if not ranks.is_main:
            return
    _write(result, output, overwrite=overwrite, as_json=as_json)


def _check_output(output: Path | None, *, overwrite: bool) -> None:
    """Raise PolyinrError if the result cannot be written to -o."""
    if output is None or str(output) == "-":
        return
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if output.suffix != ".json":
        raise RequestError(f"-o {output}: the result is written as .json")
    if output.is_dir():
        raise FileError(output, "is a folder; name a file")
    refuse_overwrite(output, overwrite=overwrite)
    check_place(output)


def _write(result: dict[str, Any], output: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Write the result as JSON where that is requested; print a table if stdout is free."""
    from polyinr_core.evaluation.results import format_result
    from polyinr_core.runtime.atomic_io import written_beside

    text = format_result(result)
    to_stdout = output is not None and str(output) == "-"
    if as_json or to_stdout:
        console.json_line(result)
    if output is not None and not to_stdout:
        with written_beside(output, overwrite=overwrite) as draft:
            draft.write_text(text, encoding="utf-8")
    if not as_json and not to_stdout:
        for line in [*_table(result["metrics"]), *_class_table(result.get("classes", {}))]:
            console.line(line)


def _table(metrics: dict[str, dict[str, float]]) -> list[str]:
    """Return a line for each metric: name, value, and the interval if there is one."""
    width = max(map(len, metrics))
    lines = []
    for name, estimate in metrics.items():
        value = estimate["value"]
        line = f"{name:<{width}}  " + (f"{value:12d}" if isinstance(value, int) else f"{value:12.6g}")
        if "low" in estimate:
            line += f"  {estimate['low']:.6g} to {estimate['high']:.6g}"
        elif "std" in estimate:
            line += f"  +- {estimate['std']:.3g}"
        lines.append(line)
    return lines


def _class_table(classes: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each class: name, counts, and its metrics, - for those that need more images."""
    names = list(dict.fromkeys(name for row in classes.values() for name in row["metrics"]))
    if not classes:
        return []
    width = max(len("class"), *map(len, classes))
    columns = [(name, max(11, len(name))) for name in names]
    lines = ["", f"{'class':<{width}}    reals    fakes" + "".join(f"  {name:>{size}}" for name, size in columns)]
    for class_name, row in classes.items():
        values = [row["metrics"][name]["value"] if name in row["metrics"] else None for name in names]
        cells = ["-" if value is None else f"{value:.5g}" for value in values]
        texts = "".join(f"  {cell:>{size}}" for cell, (_, size) in zip(cells, columns, strict=True))
        lines.append(f"{class_name:<{width}} {row['reals']:8d} {row['fakes']:8d}{texts}")
    return lines
