"""`polyinr mix`: levels of one image in another, everywhere or under a mask."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli.drawing import Painter, drawing_at, load_painter
from polyinr_cli.mixtures import Mixtures, Sheet, shares_of
from polyinr_cli.named import images_of, refuse_second_stdin
from polyinr_cli.notes import Note, again
from polyinr_cli.options import (
    Bits,
    Center,
    Device,
    Force,
    Grid,
    Json,
    Label,
    Model,
    OutputText,
    Overwrite,
    Precision,
    PrecisionOption,
    Psi,
    Quiet,
    Res,
    Rotate,
    Shear,
    Size,
    Supersample,
    Transform,
    Verbose,
    Warp,
    Zoom,
)
from polyinr_cli.outputs import check_target, draw_to, write_latents_of
from polyinr_cli.targets import IMAGES, Kind, target_for
from polyinr_cli.window import WHOLE, parse_window_options
from polyinr_core.errors import RequestError

DEFAULT_LEVELS = 2  # the last ones: in the paper's Figure 6, levels 8 and 9 of ten


class MixSpace(StrEnum):
    """The space in which levels are exchanged."""

    affine = "affine"
    w = "w"


def mix(
    output: OutputText,
    pair: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE TARGET]",
            show_default=False,
            help="Seeds such as 3 or 0-7, a latents file, or - for latents on stdin.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--source", metavar="WORD", show_default=False, help="Whose levels are taken."),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option("--target", metavar="WORD", show_default=False, help="In which they are put."),
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            metavar="8-9",
            show_default=False,
            help="Which levels, such as 8-9 or 0,5-7; given again, another group. "
            "Without it the last two, with --mask all.",
        ),
    ] = None,
    amount: Annotated[
        float, typer.Option("--amount", metavar="SHARE", help="How far from the target's to the source's.")
    ] = 1.0,
    space: Annotated[
        MixSpace,
        typer.Option("--space", help="In w, in the release's form, the levels that follow change as well."),
    ] = MixSpace.affine,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="IMAGE",
            show_default=False,
            help="Mix only where it is white, and softly where it is gray. One source.",
        ),
    ] = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = WHOLE,
    center: Center = None,
    zoom: Zoom = None,
    rotate: Rotate = 0.0,
    shear: Shear = None,
    transform: Transform = None,
    warp: Warp = None,
    supersample: Supersample = 1,
    bits: Bits = 8,
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Put levels of source images into target images.

    An image file gets one mixture, or a sheet of several with the sources on the left and the targets above;
    a folder one PNG a mixture; .tif and .dzi one of any size; .npy the unclamped colors; .safetensors and -
    the mixtures' latents. A mask belongs to the pixels and not to the latents: with it, - is a PNG.

    Example: polyinr mix --source 1-4 --target 5-8 --levels 8-9 -o sheet.png
    """
    window = parse_window_options(
        res=res,
        size=size,
        grid=grid,
        center=center,
        zoom=zoom,
        rotate=rotate,
        shear=shear,
        transform=transform,
        warp=warp,
        supersample=supersample,
    )
    source, goal = _names(pair, source, goal)
    kinds = IMAGES if mask is None else IMAGES - {Kind.latents}
    payload = "latents" if mask is None else "image"
    target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=kinds, payload=payload)
    as_latents = target.kind is Kind.latents or (target.kind is Kind.stdout and mask is None)
    if as_latents:
        window.check_unused()

    eight_bits = bits == 8 and not as_latents and target.kind is not Kind.array
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    drawing = drawing_at(painter, window, bits=bits, sized=not as_latents)
    groups = _groups(levels, painter, every=mask is not None)
    sources = images_of([source], painter, label=label, psi=psi, force=force)
    targets = images_of([goal], painter, label=label, psi=psi, force=force)
    if mask is not None:
        if len(sources) != 1:
            raise RequestError(f"a mask shows one source; {source} names {len(sources)}")
        drawing = replace(drawing, shares=shares_of(mask, drawing, target=target))
    mixtures = Mixtures(painter, sources, targets, groups, space.value, amount, masked=mask is not None)

    given = {"source": source, "target": goal, "levels": levels, "amount": amount, "space": space}
    words = again([], **given, mask=mask, label=label, psi=psi)
    note: Note = {**painter.note, "command": "mix", "words": words, **drawing.note(window)}
    images = mixtures.images(note)
    if as_latents:
        write_latents_of(target, images)
    elif len(mixtures) > 1 and target.kind in (Kind.image, Kind.stdout):
        sheet = Sheet(mixtures, drawing)
        sheet.check(target)
        sheet.draw(target, note | {"sources": list(sources.names), "targets": list(targets.names)})
    else:
        images = images.share(target)
        check_target(target, drawing, count=len(images))
        draw_to(target, drawing, images)


def _names(pair: list[str] | None, source: str | None, goal: str | None) -> tuple[str, str]:
    """Return the words that name sources and targets. Raises RequestError."""
    if pair and (source is not None or goal is not None or len(pair) != 2):
        raise RequestError("name a source and a target as two words, or by --source and --target")
    if pair:
        source, goal = pair
    if source is None or goal is None:
        raise RequestError("name the images by --source 1-4 and --target 5-8")
    refuse_second_stdin(source, goal)
    return source, goal


def _groups(texts: list[str] | None, painter: Painter, *, every: bool) -> tuple[tuple[int, ...], ...]:
    """Return the groups of levels. Raises RequestError."""
    from polyinr_core.latents.naming import parse_levels

    count = painter.checkpoint.generator.config.levels
    if not texts:
        return (tuple(range(0 if every else max(0, count - DEFAULT_LEVELS), count)),)
    groups = tuple(tuple(parse_levels(text, levels=count)) for text in texts)
    if len(set(groups)) < len(groups):
        raise RequestError("--levels names the same levels twice")
    return groups
