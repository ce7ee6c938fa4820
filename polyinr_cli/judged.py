"""What evaluate is given to judge: pictures, saved statistics, the pictures that a run held out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import ConfigError, FileError, RequestError

from . import streams
from .ranks import several

if TYPE_CHECKING:
    from polyinr_core.evaluation.saved import SavedStatistics
    from polyinr_core.evaluation.stored import HeldOut, StoredPictures

HeldOutRun = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="RUN",
        show_default=False,
        help="Of --real, only the pictures that the run in this folder kept from training.",
    ),
]
SaveStatistics = Annotated[
    Path | None,
    typer.Option(
        "--save-statistics",
        metavar="FILE",
        show_default=False,
        help="Keep what is seen of the real pictures as .safetensors, to give as --real another time.",
    ),
]
SplitOverRanks = Annotated[
    bool,
    typer.Option(
        "--split-over-ranks",
        help="Refuse to run alone: processes that torchrun starts always share the pictures.",
    ),
]


def check_ranks(split: bool) -> None:
    """Raise RequestError if there must be several processes and there is one."""
    if split and not several():
        raise RequestError(
            "--split-over-ranks shares the pictures among processes, and this is the only one; start several: "
            "torchrun --nproc-per-node 2 -m polyinr_cli.main evaluate ..."
        )


def check_statistics_file(path: Path | None, *, overwrite: bool) -> None:
    """Raise PolyinrError if statistics cannot be written there."""
    if path is None:
        return
    from polyinr_core.files import check_place, refuse_overwrite

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
) -> "StoredPictures | SavedStatistics":
    """Open pictures, in part or as a run held them out, or statistics of some. Raises PolyinrError."""
    from polyinr_core.evaluation.saved import means_statistics, open_statistics
    from polyinr_core.evaluation.stored import open_pictures

    if not means_statistics(path):
        pictures = open_pictures(path, side=side, count=count, held_out=None if run is None else held_out_of(run))
        streams.say_notes(f"{option} {path}", pictures.data.notes, quiet=quiet)
        return pictures
    for given, name in ((count, "a count"), (run, "--held-out")):
        if given is not None:
            raise RequestError(f"{option} {path} are statistics of all their pictures; leave out {name}")
    saved = open_statistics(path)
    if side and saved.side and side != saved.side:
        raise FileError(path, f"statistics of pictures of {saved.side} px; {side} px are asked for")
    return saved


def held_out_of(run: Path) -> "HeldOut":
    """Return which pictures a training run kept from itself. Raises PolyinrError."""
    from dataclasses import replace

    from polyinr_core.evaluation.stored import HeldOut
    from polyinr_core.training.config import TrainingConfig
    from polyinr_core.training.folder import RunFolder

    folder = RunFolder(run)
    if not folder.config.is_file():
        raise FileError(run, "is no folder of a training run: it has no config.json")
    stored = folder.read()
    training, data = stored["training"], stored["data"]
    try:
        seed, pictures, sha256 = int(training["seed"]), int(data["pictures"]), str(data["sha256"])
        config = replace(TrainingConfig(), held_out=training["held_out"])
        return HeldOut(run.name, seed, config.held_out_of(pictures), sha256)
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise FileError(folder.config, "does not say which pictures the run held out; is it damaged?") from error
