"""The options that `polyinr evaluate` alone has, read and checked, each against what is to be measured."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import ConfigError, FileError, RequestError

from . import console as streams
from .options import parse_res
from .runtime import several

if TYPE_CHECKING:
    from polyinr_core.evaluation.image_sources import HeldOut, StoredImages
    from polyinr_core.evaluation.protocols import Wanted
    from polyinr_core.evaluation.results import Result
    from polyinr_core.evaluation.statistics_io import SavedStatistics


DRAWN = 10_000
DEFAULT = "fd-lite2,kd-lite2"
MOST = 100_000_000  # of whatever is counted
MAX_STEPS = 10**6


class Protocol(StrEnum):
    """What `fid` and `pr` mean."""

    sgxl = "sgxl"
    clean = "clean"
    adm = "adm"


class Labels(StrEnum):
    """How the labels of generated images are drawn."""

    dataset = "dataset"
    uniform = "uniform"


Real = Annotated[
    Path | None,
    typer.Option(
        "--real",
        metavar="DATA",
        show_default=False,
        help="Real images: an archive, tar shards, a folder; or statistics of some, .safetensors or .npz.",
    ),
]
Fake = Annotated[
    Path | None,
    typer.Option("--fake", metavar="DATA", show_default=False, help="Generated images, likewise; without it -m draws."),
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
        help=f"Generated images: seeds 0 to N-1, or N of --fake. Without it {DRAWN}, or all of --fake.",
    ),
]
RealCount = Annotated[
    int | None,
    typer.Option("--real-count", metavar="N", show_default=False, help="Real images; all without it."),
]
Side = Annotated[
    int | None,
    typer.Option(
        "--res",
        metavar="N",
        parser=parse_res,
        show_default=False,
        help="Draw at N pixels; reduce stored images to N.",
    ),
]
LabelsOption = Annotated[
    Labels | None,
    typer.Option(
        "--labels",
        show_default=False,
        help="Draw the classes of generated images as often as --real has them (dataset: without it, but for "
        "--protocol adm), or all as often.",
    ),
]
Psi = Annotated[float, typer.Option("--psi", metavar="NUMBER", help="Truncation; 1 is none.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", metavar="N", help="Intervals of 95 percent from N resamples; 0 is none.")
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", help="Images looked at together.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        show_default=False,
        help="Keep what is seen of images here, for the next time and to go on after Ctrl-C.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option("--steps", metavar="N", show_default=False, help="Of inversion, for each image; 400 without it."),
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
    if steps is not None and steps > MAX_STEPS:
        raise RequestError(f"--steps {steps} is above {MAX_STEPS}")
    if bootstrap > MOST:
        raise RequestError(f"--bootstrap {bootstrap} is above {MOST}")
    if bootstrap < 0 or bootstrap == 1:
        raise RequestError(f"--bootstrap {bootstrap} is no number of resamples; give 2 or more, 100 say, or 0")
    if not abs(psi) <= 1e6:
        raise RequestError(f"psi {psi} is no number that images can be drawn with; 0.5 to 1 is usual")


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
    """Raise RequestError unless metrics have the images or the model that they need, and no others."""
    if fake is not None and model is not None:
        raise RequestError("--fake gives images and -m draws them; give one of the two")
    if fake is not None and wanted.figures:
        raise RequestError(f"{first(wanted.figures)} is a figure of a model; name one with -m and leave out --fake")
    if fake is not None and (label is not None or labels is not None or psi != 1):
        raise RequestError("--label, --labels and --psi are for a model that draws; leave them out with --fake")
    if label is not None and labels is not None:
        raise RequestError("--label gives all images one class, --labels draws a class for each; give one of them")
    if real is None and wanted.of_reals:
        raise RequestError(f"{first(wanted.of_reals)} needs real images; give an archive or a folder with --real")
    by_data = wanted.of_many if labels is Labels.dataset else wanted.of_dataset_labels
    reads_labels = by_data and fake is None and label is None and labels is not Labels.uniform
    if real is not None and not wanted.of_reals and not reads_labels:
        raise RequestError(f"{first([*wanted.metrics, *wanted.figures])} looks at no reals; leave out --real")


def check_uses(wanted: "Wanted", given: dict[str, object]) -> None:
    """Raise RequestError for an option that is given, not None, and that nothing of what is wanted reads."""
    inverted = [name for name, figure in wanted.figures.items() if figure.kind == "inversion"]
    images = [name for name, metric in wanted.metrics.items() if metric.kind != "score"]
    users: dict[str, Sequence[str]] = {
        "--count": wanted.of_many,
        "--real-count": wanted.of_reals,
        "--held-out": wanted.of_reals,
        "--labels": wanted.of_many,
        "--steps": inverted,
        "--bootstrap": wanted.with_intervals,
        "--cache": wanted.of_networks,
        "--save-statistics": images,
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
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if output.suffix != ".json":
        raise RequestError(f"-o {output}: figures and card are written as .json")
    if output.is_dir():
        raise FileError(output, "is a folder, a file is needed")
    refuse_overwrite(output, overwrite=overwrite)
    check_place(output)


def first(names: Iterable[str]) -> str:
    """Return the first of names."""
    return next(iter(names))


def load_results(files: Sequence[Path]) -> "list[Result]":
    """Read results, each under a name of its own; - is stdin. Raises RequestError, FileError."""
    from polyinr_core.evaluation.results import distinct_names, parse_result, read_result

    places = [path if _is_stdin(path) else path.resolve() for path in files]
    for path, place in zip(files, places, strict=True):
        if places.count(place) > 1:
            raise RequestError(f"{path} is given twice; a result says nothing beside itself")
    found = [
        parse_result(streams.binary_stdin("result"), Path("stdin")) if _is_stdin(path) else read_result(path)
        for path in files
    ]
    names = distinct_names([Path("stdin") if _is_stdin(path) else path for path in files])
    return [replace(result, name=name) for result, name in zip(found, names, strict=True)]


def _is_stdin(path: Path) -> bool:
    return str(path) == "-"


HeldOutRun = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="RUN",
        show_default=False,
        help="Of --real, only the images that the run in this folder kept from training.",
    ),
]
SaveStatistics = Annotated[
    Path | None,
    typer.Option(
        "--save-statistics",
        metavar="FILE",
        show_default=False,
        help="Keep what is seen of the real images as .safetensors, to give as --real another time.",
    ),
]
SplitOverRanks = Annotated[
    bool,
    typer.Option(
        "--split-over-ranks",
        help="Refuse to run alone: processes that torchrun starts always share the images.",
    ),
]


def check_ranks(split: bool) -> None:
    """Raise RequestError if there must be several processes and there is one."""
    if split and not several():
        raise RequestError(
            "--split-over-ranks shares the images among processes, and this is the only one; start several: "
            "torchrun --nproc-per-node 2 -m polyinr_cli evaluate ..."
        )


def check_statistics_file(path: Path | None, *, overwrite: bool) -> None:
    """Raise PolyinrError if statistics cannot be written there."""
    if path is None:
        return
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if path.suffix != ".safetensors":
        raise RequestError(f"--save-statistics {path}: statistics are written as .safetensors")
    refuse_overwrite(path, overwrite=overwrite)
    check_place(path)


def open_judged(
    path: Path,
    *,
    option: str,
    side: int | None = None,
    count: int | None = None,
    run: Path | None = None,
    quiet: bool = False,
) -> "StoredImages | SavedStatistics":
    """Open images, in part or as a run held them out, or statistics of some. Raises PolyinrError."""
    from polyinr_core.evaluation.image_sources import open_images
    from polyinr_core.evaluation.statistics_io import means_statistics, open_statistics

    if not means_statistics(path):
        images = open_images(path, side=side, count=count, held_out=None if run is None else held_out_of(run))
        streams.say_notes(f"{option} {path}", images.data.notes, quiet=quiet)
        return images
    for given, name in ((count, "a count"), (run, "--held-out")):
        if given is not None:
            raise RequestError(f"{option} {path} are statistics of all their images; leave out {name}")
    saved = open_statistics(path)
    if side and saved.side and side != saved.side:
        raise FileError(path, f"statistics of images of {saved.side} px; {side} px are asked for")
    return saved


def held_out_of(run: Path) -> "HeldOut":
    """Return which images a training run kept from itself. Raises PolyinrError."""
    from dataclasses import replace

    from polyinr_core.evaluation.image_sources import HeldOut
    from polyinr_core.training.config import TrainingConfig
    from polyinr_core.training.run_dir import RunFolder

    folder = RunFolder(run)
    if not folder.config.is_file():
        raise FileError(run, "is no folder of a training run: it has no config.json")
    stored = folder.read()
    training, data = stored["training"], stored["data"]
    try:
        seed, images, sha256 = int(training["seed"]), int(data["images"]), str(data["sha256"])
        config = replace(TrainingConfig(), held_out=training["held_out"])
        return HeldOut(run.name, seed, config.held_out_of(images), sha256)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise FileError(folder.config, "does not say which images the run held out; is it damaged?") from error
