"""polyinr evaluate: compute metrics of generated images, or of a model, with a card of what they depend on."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import (
    Device,
    Download,
    Json,
    Label,
    Model,
    Overwrite,
    Quiet,
    Verbose,
    Weights,
    check_output_file,
    check_paths,
    output_option,
    parse_res,
    parse_weights,
)
from polyinr_cli.rendering import load_model
from polyinr_cli.runtime import choose_device, joined, own_rank, rank_device
from polyinr_core.errors import RequestError
from polyinr_core.runtime.resources import working_memory


def evaluate(
    real: Annotated[
        Path | None,
        typer.Option(
            "--real",
            metavar="DATA",
            help="Real images: a .zip, tar shards, a folder, .npy or .npz; or their statistics, .safetensors or .npz.",
        ),
    ] = None,
    fake: Annotated[
        Path | None,
        typer.Option("--fake", metavar="DATA", help="Generated images, likewise. Default: those of the model."),
    ] = None,
    model: Model = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="Metrics to compute (docs/evaluation.md explains them). In features of Inception: fid, fid-clean, "
            "fid-adm, sfid, rfid, rfid-seed0, is, kid, pr, pr-adm. In those of another network: fd-, kd-, pr-, dc- or "
            "prdc- followed by lite2, inception, dinov2, timm:NAME or torchscript:FILE. Of a model alone: ppl, "
            "ppl-lite2, inversion, upsampling, speed, params.",
        ),
    ] = "fd-lite2,kd-lite2",
    protocol: Annotated[
        Literal["sgxl", "clean", "adm"],
        typer.Option(
            "--protocol",
            help="Compute fid and pr as StyleGAN-XL (sgxl), clean-fid (clean) or guided-diffusion (adm) do.",
        ),
    ] = "sgxl",
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            help="Evaluate N generated images: seeds 0 to N-1, or N of --fake. Default: 10000 seeds on a GPU, 1000 on "
            "a CPU, or all of --fake.",
        ),
    ] = None,
    real_count: Annotated[
        int | None, typer.Option("--real-count", metavar="N", help="Use N real images. Default: all.")
    ] = None,
    res: Annotated[
        int | None,
        typer.Option(
            "--res",
            metavar="N",
            parser=parse_res,
            help="Render at N pixels, and reduce larger stored images to N. Default: the model's training resolution.",
        ),
    ] = None,
    psi: Annotated[
        float, typer.Option("--psi", metavar="NUMBER", help="Truncation psi; 1 is off, 0 the mean image.")
    ] = 1.0,
    label: Label = None,
    labels: Annotated[
        Literal["dataset", "uniform"] | None,
        typer.Option(
            "--labels",
            help="Draw the classes of generated images with the frequencies in --real (dataset) or uniformly. Default: "
            "dataset, but uniform with --protocol adm.",
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(
            "--precision",
            help="Render the model's images in float32 or bfloat16; auto is bfloat16 on a GPU if that changes the "
            "first images by less than rounding to 8 bits does, else float32.",
        ),
    ] = "auto",
    weights: Weights = None,
    download: Download = False,
    bootstrap: Annotated[
        int,
        typer.Option(
            "--bootstrap", metavar="N", help="Compute 95 % confidence intervals from N resamples, 2 or more; 0 is off."
        ),
    ] = 0,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Compute the metrics of each class too; both sets need labels.")
    ] = False,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", help="Images in a batch of the feature extractors.")
    ] = 64,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Optimization steps of each inversion. Default: 400.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Cache features and statistics in DIR; an interrupted evaluation resumes from it.",
        ),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            metavar="RUN",
            help="Use only the images of --real that the training run in this folder held out.",
        ),
    ] = None,
    save_statistics: Annotated[
        Path | None,
        typer.Option(
            "--save-statistics",
            metavar="FILE",
            help="Save the statistics of the real images as .safetensors, to use as --real later.",
        ),
    ] = None,
    device: Device = "auto",
    output: Annotated[
        Path | None, output_option("FILE.json", "Save the metrics, with a card of all they depend on. - is stdout.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compute metrics of generated images against real ones, or of a model alone, each by its protocol.

    --json prints what -o saves. Processes started by torchrun share the images.

    Example: polyinr evaluate --real cats.zip -m model.safetensors --count 10000 -o result.json
    """
    quiet = quiet or own_rank() > 0
    console.refuse_two_payloads(output, as_json=as_json)
    if fake is not None and model is not None:
        raise RequestError("--fake names images and -m a model that generates them; give one of the two")
    files = parse_weights(weights or [])
    check_output_file(output, ".json", overwrite=overwrite)
    check_paths(real, fake, model, held_out)

    from polyinr_core.checkpoints.hub import hub_name_of
    from polyinr_core.evaluation.evaluate import evaluate
    from polyinr_core.evaluation.results import class_lines, format_result, metric_lines
    from polyinr_core.runtime.atomic_io import written_beside

    def say(text: str) -> None:
        console.say(f"polyinr: {text}", quiet=quiet, always=True)

    torch_device = rank_device(choose_device(device))
    evaluated: Any = fake
    name = None
    if fake is None:
        evaluated, file = load_model(model, quiet=quiet)
        evaluated.generator.to(device=torch_device)
        name = hub_name_of(file) or str(file)
    with joined(torch_device) as ranks, console.progress_bars(quiet=quiet, estimate=True) as bar:
        result = evaluate(
            evaluated,
            real,
            metrics=[metric.strip() for metric in metrics.split(",")],
            protocol=protocol,
            count=count,
            real_count=real_count,
            resolution=res,
            psi=psi,
            label=label,
            labels=labels,
            precision=precision,
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
            memory=working_memory(torch_device),
            name=name,
            ranks=ranks,
            progress=bar,
            warn=say,
            inform=say,
        )
        if not ranks.is_main:
            return
    text = format_result(result)  # before anything is printed or written
    to_stdout = output is not None and str(output) == "-"
    if as_json or to_stdout:
        console.json_line(result)
    if output is not None and not to_stdout:
        with written_beside(output, overwrite=overwrite) as draft:
            draft.write_text(text, encoding="utf-8")
    if not as_json and not to_stdout:
        console.lines([*metric_lines(result["metrics"]), *class_lines(result.get("classes", {}))])
