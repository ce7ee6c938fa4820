"""polyinr prepare: write a dataset for training from any images."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, Overwrite, Quiet, parse_res

if TYPE_CHECKING:
    from polyinr_core.data.prepare import Report

MAX_SHOWN = 20  # skipped images that are listed on stderr; the dataset lists all


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            help="Folders, zip, tar or parquet files, patterns of them, .npy or .npz stacks, or single images.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DATA.zip", help="The dataset to write.")],
    res: Annotated[
        int,
        typer.Option(
            metavar="N",
            parser=parse_res,
            help="Width and height of the images, 1-8192 pixels. Smaller images are skipped, not enlarged.",
        ),
    ],
    crop: Annotated[
        Literal["center", "pad", "none"],
        typer.Option(
            help="Make images square: center keeps the middle, pad adds borders of --background, none stretches."
        ),
    ] = "center",
    resize: Annotated[
        Literal["lanczos", "box", "bicubic", "bilinear"], typer.Option(help="Filter for resizing.")
    ] = "lanczos",
    background: Annotated[
        str, typer.Option(metavar="COLOR", help="Color behind transparent pixels and of borders: a name or #rrggbb.")
    ] = "white",
    labels: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FILE",
            help="auto takes the labels of the source, else its class folders; none writes none; a .csv, .tsv or .jsonl"
            " file lists file names and their labels.",
        ),
    ] = "auto",
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail instead of skipping images, ignoring other files or losing labels.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=512, help="Number of processes. Default: one for each core.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a dataset (.zip) of square images for training, from folders, zip, tar or parquet files, stacks or images.

    Class folders become labels. Images that are damaged, too small or too large are skipped and listed; other files
    are counted. After an interruption, run the same command again: it resumes from the folder DATA.zip.part.

    Example: polyinr prepare photos/ -o cats.zip --res 256
    """
    from polyinr_core.data.prepare import prepare as prepare_dataset

    try:
        with streams.progress("preparing", quiet=quiet) as progress:
            report = prepare_dataset(
                sources,
                output,
                resolution=res,
                crop=crop,
                resize=resize,
                background=background,
                labels=labels,
                strict=strict,
                workers=workers,
                overwrite=overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        if Path(f"{output}.part").is_dir():
            streams.say(f"finished images are in {output}.part; run the same command again to resume", quiet=quiet)
        raise
    if as_json:
        streams.json_line(report.to_dict() | {"resolution": res})
    print_report(report, res, quiet=quiet)


def print_report(report: "Report", res: int, *, quiet: bool) -> None:
    """Print what was written, and which images were skipped and why, also where stderr is no terminal."""
    say = partial(streams.say, quiet=quiet, always=True)
    for name, reason in report.skipped[:MAX_SHOWN]:
        say(f"skipped: {name!r} {reason}")
    if len(report.skipped) > MAX_SHOWN:
        say(f"skipped: {len(report.skipped) - MAX_SHOWN} more; dataset.json lists all")
    for note in report.notes:
        say(note)
    resumed = f", {report.resumed} of them from an earlier run" if report.resumed else ""
    names, more = report.class_names[:MAX_SHOWN], len(report.class_names) - MAX_SHOWN
    named = f" ({', '.join(names)}{f' and {more} more' if more > 0 else ''})" if names else ""
    classes = (
        f"{report.classes} {'class' if report.classes == 1 else 'classes'}{named}" if report.classes else "no labels"
    )
    say(f"{report.output}: {report.kept} of {report.found} images at {res} px{resumed}; {classes}")
