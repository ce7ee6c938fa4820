"""The options of `polyinr evaluate`, and the result files that `compare` and `table` read."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import RequestError

from . import console
from .options import parse_res

if TYPE_CHECKING:
    from polyinr_core.evaluation.results import Result


class Protocol(StrEnum):
    """What the metrics fid and pr mean."""

    sgxl = "sgxl"
    clean = "clean"
    adm = "adm"


class Labels(StrEnum):
    """How the classes of generated images are drawn."""

    dataset = "dataset"
    uniform = "uniform"


Real = Annotated[
    Path | None,
    typer.Option(
        "--real",
        metavar="DATA",
        show_default=False,
        help="Real images: a .zip, tar shards, a folder, .npy or .npz; or their statistics, .safetensors or .npz.",
    ),
]
Fake = Annotated[
    Path | None,
    typer.Option(
        "--fake", metavar="DATA", show_default=False, help="Generated images, likewise. Default: those of the model."
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="A,B",
        help="fid, fid-clean, fid-adm, sfid, rfid, rfid-seed0, is, kid, pr, pr-adm; fd-, kd-, pr-, dc- or prdc-, each "
        "followed by lite2, inception, dinov2, timm:NAME or torchscript:FILE; of a model ppl, ppl-lite2, inversion, "
        "upsampling, speed, params.",
    ),
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option(
        "--protocol", help="Compute fid and pr as StyleGAN-XL (sgxl), clean-fid (clean) or guided-diffusion (adm) do."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--count",
        metavar="N",
        show_default=False,
        help="Evaluate N generated images: seeds 0 to N-1, or N of --fake. Default: 10000 seeds, or all of --fake.",
    ),
]
RealCount = Annotated[
    int | None,
    typer.Option("--real-count", metavar="N", show_default=False, help="Use N real images. Default: all."),
]
Resolution = Annotated[
    int | None,
    typer.Option(
        "--res",
        metavar="N",
        parser=parse_res,
        show_default=False,
        help="Render at N pixels, and reduce larger stored images to N. Default: the model's training resolution.",
    ),
]
LabelsOption = Annotated[
    Labels | None,
    typer.Option(
        "--labels",
        show_default=False,
        help="Draw the classes of generated images with the frequencies in --real (dataset) or uniformly. Default: "
        "dataset, but uniform with --protocol adm.",
    ),
]
Psi = Annotated[float, typer.Option("--psi", metavar="NUMBER", help="Truncation psi; 1 is off, 0 the mean image.")]
Bootstrap = Annotated[
    int,
    typer.Option(
        "--bootstrap", metavar="N", help="Compute 95 % confidence intervals from N resamples, 2 or more; 0 is off."
    ),
]
PerClass = Annotated[
    bool,
    typer.Option("--per-class", help="Compute the metrics of each class too; both sets need labels."),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Images in a batch of the feature extractors.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        show_default=False,
        help="Cache features and statistics in DIR; an interrupted evaluation resumes from it.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", show_default=False, help="Optimization steps of each inversion. Default: 400."
    ),
]
HeldOutRun = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="RUN",
        show_default=False,
        help="Use only the images of --real that the training run in this folder held out.",
    ),
]
SaveStatistics = Annotated[
    Path | None,
    typer.Option(
        "--save-statistics",
        metavar="FILE",
        show_default=False,
        help="Save the statistics of the real images as .safetensors, to use as --real later.",
    ),
]


def load_results(files: Sequence[Path]) -> "list[Result]":
    """Read result files, each under a unique name; - is stdin. Raises RequestError, FileError."""
    from polyinr_core.evaluation.results import distinct_names, parse_result, read_result

    resolved = [path if _is_stdin(path) else path.resolve() for path in files]
    for path, target in zip(files, resolved, strict=True):
        if resolved.count(target) > 1:
            raise RequestError(f"{path} is given twice")
    results = [
        parse_result(console.binary_stdin("result"), Path("stdin")) if _is_stdin(path) else read_result(path)
        for path in files
    ]
    names = distinct_names([Path("stdin") if _is_stdin(path) else path for path in files])
    return [replace(result, name=name) for result, name in zip(results, names, strict=True)]


def _is_stdin(path: Path) -> bool:
    return str(path) == "-"
