"""`polyinr directions`: principal directions of a model's latents: find them, look at them, go along them."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from polyinr_cli.drawing import Painter, drawing_at, load_painter
from polyinr_cli.edits import edited, find_and_write, read_fitting, walk_sheet
from polyinr_cli.named import check_names, images_named, refuse_second_stdin
from polyinr_cli.notes import again
from polyinr_cli.options import (
    Center,
    Device,
    Force,
    Grid,
    Json,
    Label,
    LatentsFile,
    Model,
    OutputText,
    Overwrite,
    Precision,
    PrecisionOption,
    Psi,
    Quiet,
    Res,
    Seeds,
    Size,
    Supersample,
    Verbose,
    Zoom,
)
from polyinr_cli.outputs import SQUARE, check_target, draw_to, write_latents_of
from polyinr_cli.targets import IMAGES, Kind, Target, target_for
from polyinr_cli.window import WHOLE, parse_window_options
from polyinr_core.errors import RequestError

AMOUNTS = "-3,-2,-1,0,1,2,3"
COUNT = 10
SAMPLES = 2000


class DirectionSpace(StrEnum):
    """The space that directions are found in."""

    w = "w"
    affine = "affine"


def directions(
    output: OutputText,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIRECTIONS]", show_default=False, help="A file of directions; without it they are found."
        ),
    ] = None,
    space: Annotated[
        DirectionSpace | None,
        typer.Option("--space", show_default=False, help="Where to find directions; w without it."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", metavar="N", show_default=False, help=f"In how many seeds; {SAMPLES} without it."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", show_default=False, help=f"How many to find or to show; {COUNT} without it."
        ),
    ] = None,
    take: Annotated[
        str | None,
        typer.Option(
            "--take",
            metavar="D:A,...",
            show_default=False,
            help="Go along direction D by A standard deviations, such as 2:1.5,0:-1.",
        ),
    ] = None,
    amounts: Annotated[
        str | None,
        typer.Option(
            "--amounts",
            metavar="A,...",
            show_default=False,
            help=f"The sheet's columns, in standard deviations; {AMOUNTS} without it.",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(
            "--levels", metavar="4-7", show_default=False, help="Go along at these levels alone; without it all."
        ),
    ] = None,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = WHOLE,
    center: Center = None,
    zoom: Zoom = None,
    supersample: Supersample = 1,
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find a model's principal directions, look at them, or move images along them.

    Without a file directions are found, of one class or of all, and written to a .safetensors file. With one,
    and images, a sheet shows what each direction does: a row a direction, a column an amount. With --take as
    well, the images are moved: a .safetensors file or - gets their latents, images are drawn.

    Example: polyinr directions dirs.safetensors --seeds 3 -o sheet.png
    """
    window = parse_window_options(res=res, size=size, grid=grid, center=center, zoom=zoom, supersample=supersample)
    finding, moving = file is None, take is not None
    target = _target(output, finding=finding, moving=moving, overwrite=overwrite, as_json=as_json, quiet=quiet)
    _refuse({"--space": space, "--samples": samples} if not finding else {}, beside="a directions file")
    _refuse({"--amounts": amounts, "--count": count} if moving else {}, beside="--take")
    of_images = {
        "--take": take,
        "--amounts": amounts,
        "--levels": levels,
        "--seeds": seeds,
        "--latents": latents,
    }
    _refuse(of_images if finding else {}, beside="finding directions")
    as_latents = target.kind is Kind.latents or (moving and target.kind is Kind.stdout)
    if finding or as_latents:
        window.check_unused()

    eight_bits = not finding and not as_latents and target.kind is not Kind.array
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    number = COUNT if count is None else count
    if file is None:
        find_and_write(
            target,
            painter,
            space=(space or DirectionSpace.w).value,
            samples=SAMPLES if samples is None else samples,
            count=number,
            label=label,
            psi=1.0 if psi is None else psi,
        )
        return

    check_names(seeds, latents)
    refuse_second_stdin(file, str(latents))
    held = read_fitting(file, painter, force=force)
    at_levels = _levels(levels, painter)
    drawing = drawing_at(painter, window, sized=not as_latents)
    words = again(
        [file],
        take=take,
        amounts=amounts,
        count=count,
        levels=levels,
        seeds=seeds,
        latents=latents,
        label=label,
        psi=psi,
    )
    note = {"command": "directions", "words": words, **drawing.note(window)}
    images = images_named(seeds, latents, painter, label=label, psi=psi, force=force)
    arrangement = SQUARE
    if take is not None:
        images = edited(images, held, painter, take=take, levels=at_levels)
    else:
        shown = min(number, len(held)) if count is None else number
        images, arrangement = walk_sheet(
            images, held, painter, count=shown, amounts=amounts or AMOUNTS, levels=at_levels
        )
    images = images.with_note(note)
    if as_latents:
        write_latents_of(target, images)
        return
    images = images.share(target)
    check_target(target, drawing, count=len(images), arrangement=arrangement)
    draw_to(target, drawing, images, arrangement=arrangement)


def _target(output: str, *, finding: bool, moving: bool, overwrite: bool, as_json: bool, quiet: bool) -> Target:
    """Read -o. Raises RequestError, FileError."""
    kinds = {Kind.latents, Kind.stdout} if finding else IMAGES if moving else IMAGES - {Kind.zoomable}
    payload = "directions" if finding else "latents" if moving else "image"
    return target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=kinds, payload=payload)


def _levels(text: str | None, painter: Painter) -> list[int] | None:
    """Return the levels that are asked for, None for all. Raises RequestError."""
    from polyinr_core.latents.naming import parse_levels

    return None if text is None else parse_levels(text, levels=painter.checkpoint.generator.config.levels)


def _refuse(options: Mapping[str, object], *, beside: str) -> None:
    """Raise RequestError for an option that is given and has no use."""
    for name, value in options.items():
        if value is not None:
            raise RequestError(f"{name} has no use beside {beside}; leave it out")
