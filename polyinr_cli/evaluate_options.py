"""The options that `polyinr evaluate` alone has, read and checked, each against what is to be measured."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import RequestError

from .options import parse_res

if TYPE_CHECKING:
    from polyinr_core.evaluation.protocols import Wanted

DRAWN = 10_000
DEFAULT = "fd-lite2,kd-lite2"
MOST = 100_000_000  # of whatever is counted
MOST_STEPS = 10**6


class Protocol(StrEnum):
    """What `fid` and `pr` mean."""

    sgxl = "sgxl"
    clean = "clean"
    adm = "adm"


class Labels(StrEnum):
    """How the labels of generated pictures are drawn."""

    dataset = "dataset"
    uniform = "uniform"


Real = Annotated[
    Path | None,
    typer.Option(
        "--real",
        metavar="DATA",
        show_default=False,
        help="Real pictures: an archive, tar shards, a folder; or statistics of some, .safetensors or .npz.",
    ),
]
Fake = Annotated[
    Path | None,
    typer.Option(
        "--fake", metavar="DATA", show_default=False, help="Generated pictures, likewise; without it -m draws."
    ),
]
Metrics = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="A,B",
        help="fid, fid-clean, fid-adm, sfid, rfid, rfid-seed0, is, kid, pr, pr-adm, or fd-, kd-, pr-, dc- in "
        "lite2, inception, dinov2, timm:NAME, torchscript:FILE; of a model ppl, ppl-lite2, inversion, "
        "upsampling, speed, params.",
    ),
]
ProtocolOption = Annotated[
    Protocol,
    typer.Option("--protocol", help="What fid and pr are: StyleGAN-XL's, clean-fid's, guided-diffusion's."),
]
Count = Annotated[
    int | None,
    typer.Option(
        "--count",
        metavar="N",
        show_default=False,
        help=f"Generated pictures: seeds 0 to N-1, or N of --fake. Without it {DRAWN}, or all of --fake.",
    ),
]
RealCount = Annotated[
    int | None,
    typer.Option("--real-count", metavar="N", show_default=False, help="Real pictures; all without it."),
]
Side = Annotated[
    int | None,
    typer.Option(
        "--res",
        metavar="N",
        parser=parse_res,
        show_default=False,
        help="Draw at N pixels; reduce stored pictures to N.",
    ),
]
LabelsOption = Annotated[
    Labels | None,
    typer.Option(
        "--labels",
        show_default=False,
        help="Draw the classes of generated pictures as often as --real has them (dataset: without it, but for "
        "--protocol adm), or all as often.",
    ),
]
Psi = Annotated[float, typer.Option("--psi", metavar="NUMBER", help="Truncation; 1 is none.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", metavar="N", help="Intervals of 95 percent from N resamples; 0 is none.")
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Pictures looked at together.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        show_default=False,
        help="Keep what is seen of pictures here, for the next time and to go on after Ctrl-C.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", metavar="N", show_default=False, help="Of inversion, for each picture; 400 without it."
    ),
]


def check_numbers(
    *,
    count: int | None,
    real_count: int | None,
    res: int | None,
    batch: int,
    steps: int | None,
    bootstrap: int,
    psi: float,
) -> None:
    """Raise RequestError for numbers that make no sense."""
    numbers = {"--count": count, "--real-count": real_count, "--res": res, "--batch": batch, "--steps": steps}
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise RequestError(f"{name} {number} is below 1")
        if number is not None and number > MOST:
            raise RequestError(f"{name} {number} is above {MOST}")
    if steps is not None and steps > MOST_STEPS:
        raise RequestError(f"--steps {steps} is above {MOST_STEPS}")
    if bootstrap > MOST:
        raise RequestError(f"--bootstrap {bootstrap} is above {MOST}")
    if bootstrap < 0 or bootstrap == 1:
        raise RequestError(f"--bootstrap {bootstrap} is no number of resamples; give 2 or more, 100 say, or 0")
    if not abs(psi) <= 1e6:
        raise RequestError(f"psi {psi} is no number that pictures can be drawn with; 0.5 to 1 is usual")


def check_sources(
    wanted: "Wanted",
    *,
    real: Path | None,
    fake: Path | None,
    model: Path | None,
    label: str | None,
    labels: Labels | None,
    psi: float,
) -> None:
    """Raise RequestError unless metrics have the pictures or the model that they need, and no others."""
    if fake is not None and model is not None:
        raise RequestError("--fake gives pictures and -m draws them; give one of the two")
    if fake is not None and wanted.figures:
        raise RequestError(
            f"{first(wanted.figures)} is a figure of a model; name one with -m and leave out --fake"
        )
    if fake is not None and (label is not None or labels is not None or psi != 1):
        raise RequestError("--label, --labels and --psi are for a model that draws; leave them out with --fake")
    if label is not None and labels is not None:
        raise RequestError(
            "--label gives all pictures one class, --labels draws a class for each; give one of them"
        )
    if real is None and wanted.of_reals:
        raise RequestError(
            f"{first(wanted.of_reals)} needs real pictures; give an archive or a folder with --real"
        )
    by_data = wanted.of_many if labels is Labels.dataset else wanted.of_dataset_labels
    reads_labels = by_data and fake is None and label is None and labels is not Labels.uniform
    if real is not None and not wanted.of_reals and not reads_labels:
        raise RequestError(f"{first([*wanted.metrics, *wanted.figures])} looks at no reals; leave out --real")


def check_uses(wanted: "Wanted", given: dict[str, object]) -> None:
    """Raise RequestError for an option that is given, not None, and that nothing of what is wanted reads."""
    inverted = [name for name, figure in wanted.figures.items() if figure.kind == "inversion"]
    pictures = [name for name, metric in wanted.metrics.items() if metric.kind != "score"]
    users: dict[str, Sequence[str]] = {
        "--count": wanted.of_many,
        "--real-count": wanted.of_reals,
        "--held-out": wanted.of_reals,
        "--labels": wanted.of_many,
        "--steps": inverted,
        "--bootstrap": wanted.with_intervals,
        "--cache": wanted.of_networks,
        "--save-statistics": pictures,
    }
    for option, names in users.items():
        if given[option] is not None and not names:
            every = ", ".join([*wanted.metrics, *wanted.figures])
            raise RequestError(f"{option} has no use beside {every}; leave it out")


def check_output(output: Path | None, *, overwrite: bool) -> None:
    """Raise PolyinrError if figures cannot be written there."""
    if output is None or str(output) == "-":
        return
    from polyinr_core.errors import FileError
    from polyinr_core.files import check_place, refuse_overwrite

    if output.suffix != ".json":
        raise RequestError(f"-o {output}: figures and card are written as .json")
    if output.is_dir():
        raise FileError(output, "is a folder, a file is needed")
    refuse_overwrite(output, overwrite=overwrite)
    check_place(output)


def first(names: Iterable[str]) -> str:
    """Return the first of names."""
    return next(iter(names))
