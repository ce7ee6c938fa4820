"""`polyinr mix`: mix levels of one image into another, everywhere or under a mask."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.image_selection import check_stdin_once, select_by_words, split_over_ranks
from polyinr_cli.model_lookup import open_model, renderer_for
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
from polyinr_cli.outputs import Reporter, as_latents, parse_output, write
from polyinr_cli.parsing import TRAINED_WINDOW, parse_viewport_options
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, OutputKind

DEFAULT_LEVELS = 2  # the last ones; levels 8 and 9 of ten in the paper's Figure 6


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
        typer.Option("--source", metavar="IMAGES", show_default=False, help="Images whose levels are mixed in."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="IMAGES", show_default=False, help="Images that keep the other levels."),
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            "--levels",
            metavar="8-9",
            show_default=False,
            help="Levels to mix, such as 8-9 or 0,5-7; repeat it for another group. "
            "Default: the last two, with --mask all.",
        ),
    ] = None,
    amount: Annotated[
        float,
        typer.Option("--amount", metavar="NUMBER", help="Mixing strength: 0 keeps the target, 1 takes the source."),
    ] = 1.0,
    space: Annotated[
        MixSpace,
        typer.Option("--space", help="Latent space to mix in. In w later levels change as well (form of the release)."),
    ] = MixSpace.affine,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="IMAGE",
            show_default=False,
            help="Mix only where the mask is white, proportionally where it is gray. Needs a single source.",
        ),
    ] = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = TRAINED_WINDOW,
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
    """Mix levels of source images into target images.

    An image file gets one mixture, or a grid of several with the sources on the left and the targets on top; a
    folder one PNG per mixture; .tif and .dzi one of any size; .npy the unclamped colors; .safetensors and - the
    mixtures' latents. With --mask, which latents cannot hold, - is a PNG.

    Example: polyinr mix --source 1-4 --target 5-8 --levels 8-9 -o grid.png
    """
    viewport = parse_viewport_options(
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
    source, target = _names(pair, source, target)
    from polyinr_core.rendering.edits import MixtureGrid, Mixtures, mask_weights

    kinds = IMAGE_KINDS if mask is None else IMAGE_KINDS - {OutputKind.latents}
    payload = "latents" if mask is None else "image"
    out = parse_output(output, overwrite=overwrite, as_json=as_json, kinds=kinds, payload=payload)
    if out.kind is OutputKind.stdout and mask is None:
        out = as_latents(out)
    is_latents = out.kind is OutputKind.latents
    if is_latents:
        viewport.check_unused()

    is_8_bit = bits == 8 and not is_latents and out.kind is not OutputKind.array
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    renderer = renderer_for(opened, viewport, bits=bits, is_sized=not is_latents)
    groups = _groups(levels, opened.generator.config.levels, every=mask is not None)
    sources = select_by_words(opened, [source], label=label, psi=psi, force=force)
    targets = select_by_words(opened, [target], label=label, psi=psi, force=force)
    reporter = Reporter(as_json, quiet)
    if mask is not None:
        if len(sources) != 1:
            raise RequestError(f"--mask needs a single source; {source} names {len(sources)}")
        weights, size_of_mask = mask_weights(mask, renderer)
        if size_of_mask != (renderer.width, renderer.height):
            width, height = size_of_mask
            reporter.say(f"{mask} is {width}x{height}; it is resized to {renderer.width}x{renderer.height}")
        renderer = replace(renderer, blend_weights=weights)
    mixtures = Mixtures(opened, sources, targets, groups, space.value, amount, is_masked=mask is not None)

    given = {"source": source, "target": target, "levels": levels, "amount": amount, "space": space}
    words = format_options([], **given, mask=mask, label=label, psi=psi)
    metadata = model_metadata(opened) | {"command": "mix", "words": words}
    metadata |= renderer_metadata(renderer, warp=viewport.warp)
    if len(mixtures) > 1 and out.kind in (OutputKind.image, OutputKind.stdout):
        grid_of_all = MixtureGrid(mixtures, renderer)
        grid_of_all.check(out)
        metadata |= {"sources": list(sources.names), "targets": list(targets.names)}
        total = (grid_of_all.count - 1) * renderer.height
        with console.row_progress("rendering", total=total, quiet=quiet) as done:
            grid_of_all.write(out, metadata, progress=done)
        if out.stream is None:
            reporter.json(out.path, metadata)
            reporter.say(f"{len(mixtures)} mixtures of {renderer.width}x{renderer.height} in {out.path}")
        return
    images = mixtures.requests(metadata)
    write(out, renderer, images if is_latents else split_over_ranks(images, out, quiet=quiet), reporter)


def _names(pair: list[str] | None, source: str | None, target: str | None) -> tuple[str, str]:
    """Return the words that select sources and targets. Raises RequestError."""
    if pair and (source is not None or target is not None or len(pair) != 2):
        raise RequestError("name a source and a target as two words, or by --source and --target")
    if pair:
        source, target = pair
    if source is None or target is None:
        raise RequestError("name the images by --source 1-4 and --target 5-8")
    check_stdin_once(source, target)
    return source, target


def _groups(texts: list[str] | None, levels: int, *, every: bool) -> tuple[tuple[int, ...], ...]:
    """Return the groups of levels. Raises RequestError."""
    from polyinr_core.latents.latents import parse_levels

    if not texts:
        return (tuple(range(0 if every else max(0, levels - DEFAULT_LEVELS), levels)),)
    groups = tuple(tuple(parse_levels(text, levels=levels)) for text in texts)
    if len(set(groups)) < len(groups):
        raise RequestError("--levels names the same levels twice")
    return groups
