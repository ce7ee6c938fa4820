"""polyinr prepare: from any images to an archive that trains a model."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, Overwrite, Quiet, parse_res

if TYPE_CHECKING:
    from polyinr_core.data.prepare import Report

SHOWN = 20  # skipped images told one by one; the archive lists them all


class Crop(StrEnum):
    """What becomes of images that are not square."""

    center = "center"  # type: ignore[assignment]  # str has a method of that name
    pad = "pad"
    none = "none"


class Resize(StrEnum):
    """The filter that makes images smaller."""

    lanczos = "lanczos"
    box = "box"
    bicubic = "bicubic"
    bilinear = "bilinear"


class Labels(StrEnum):
    """Where labels come from."""

    auto = "auto"
    none = "none"


def prepare(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE",
            show_default=False,
            help="Folders, zips, tars, images, cifar-10-python.tar.gz, train-images-idx3-ubyte(.gz).",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DATA.zip", help="The archive.")],
    res: Annotated[
        int,
        typer.Option(
            "--res", metavar="N", parser=parse_res, show_default=False, help="Width and height of the images."
        ),
    ],
    crop: Annotated[
        Crop,
        typer.Option(
            "--crop", help="center: the middle square. pad: all of it on the background. none: all, stretched."
        ),
    ] = Crop.center,
    resize: Annotated[Resize, typer.Option("--resize", help="The filter; the archive names it.")] = Resize.lanczos,
    background: Annotated[
        str,
        typer.Option("--background", metavar="COLOR", help="A name or #rrggbb: below transparency, beside padding."),
    ] = "white",
    labels: Annotated[
        Labels,
        typer.Option("--labels", help="auto: the source's own labels, else class folders. none: no labels."),
    ] = Labels.auto,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse images that cannot be used, files of other kinds and lost labels."),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", min=1, max=512, show_default=False, help="Processes; all cores without it."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an archive of square images to train on from folders, zips, tars and the like.

    Class folders become labels. Images that are broken, too small or absurdly large are skipped and listed,
    files of other kinds are counted.
    After an interruption the same command goes on where it stopped, from the folder DATA.zip.part.

    Example: polyinr prepare photos/ -o cats.zip --res 256
    """
    from polyinr_core.data.prepare import prepare as prepare_archive

    try:
        with streams.progress("preparing", quiet=quiet) as progress:
            report = prepare_archive(
                sources,
                output,
                resolution=res,
                crop=crop.value,
                resize=resize.value,
                background=background,
                labels=labels.value,
                strict=strict,
                workers=workers,
                overwrite=overwrite,
                progress=progress,
            )
    except KeyboardInterrupt:
        if Path(f"{output}.part").is_dir():
            streams.say(f"what is done waits in {output}.part; the same command goes on from there", quiet=quiet)
        raise
    if as_json:
        streams.json_line(facts_of(report, res))
    tell(report, res, quiet=quiet)


def facts_of(report: "Report", res: int) -> dict[str, object]:
    """Return the report as plain facts for `--json`."""
    return {
        "output": str(report.output),
        "resolution": res,
        "found": report.found,
        "kept": report.kept,
        "resumed": report.resumed,
        "classes": report.classes,
        "class_names": list(report.class_names),
        "skipped": [{"name": name, "reason": reason} for name, reason in report.skipped],
        "other_files": report.other_files,
        "second_images": report.second_images,
        "notes": list(report.notes),
    }


def tell(report: "Report", res: int, *, quiet: bool) -> None:
    """Say what was made, and which images were skipped and why: to a log as well as to a person."""
    say = partial(streams.say, quiet=quiet, always=True)
    for name, reason in report.skipped[:SHOWN]:
        say(f"skipped: {name!r} {reason}")
    if len(report.skipped) > SHOWN:
        say(f"skipped: {len(report.skipped) - SHOWN} more; the archive lists them all")
    for note in report.notes:
        say(note)
    resumed = f", {report.resumed} of them taken up from before" if report.resumed else ""
    classes = f"{report.classes} classes" if report.classes else "no labels"
    say(f"{report.output}: {report.kept} of {report.found} images at {res} px{resumed}; {classes}")
