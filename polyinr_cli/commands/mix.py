"""`polyinr mix`: mix levels of one image into another, everywhere or under a mask."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import Bits, OutputText, StdoutFormat, with_groups
from polyinr_cli.rendering import LabelOptions, RunOptions, WindowOptions, check_stdin_once, fit_to_photo
from polyinr_core.errors import RequestError
from polyinr_core.rendering import writers
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, OutputKind

DEFAULT_LEVELS = 2  # the last ones; levels 8 and 9 of ten in the paper's Figure 6


@with_groups
def mix(
    *,
    output: OutputText,
    pair: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE TARGET",
            show_default=False,
            help="Seeds such as 3 or 0-7, a latents file, or - for latents on stdin.",
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="IMAGES", help="Images whose levels are mixed in.")] = None,
    target: Annotated[str | None, typer.Option(metavar="IMAGES", help="Images that keep the other levels.")] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="8-9",
            help="Levels to mix, such as 8-9 or 0,5-7; repeat it for another group. "
            "Default: the last two, with --mask all.",
        ),
    ] = None,
    amount: Annotated[
        float, typer.Option(metavar="NUMBER", help="Mixing strength: 0 keeps the target, 1 takes the source.")
    ] = 1.0,
    space: Annotated[
        Literal["affine", "w"],
        typer.Option(help="Latent space to mix in. In w later levels change as well (form of the release)."),
    ] = "affine",
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Mix only where the mask is white, proportionally where it is gray. Needs a single source.",
        ),
    ] = None,
    labels: LabelOptions,
    window: WindowOptions,
    bits: Bits = 8,
    format: StdoutFormat = None,
    run: RunOptions,
) -> None:
    """Mix levels of source images into target images.

    An image file gets one mixture, or a grid of several with the sources on the left and the targets on top; a
    folder one PNG per mixture; .tif and .dzi one of any size; .npy the unclamped colors; .safetensors the mixtures'
    latents. Without --format, - is latents, and a PNG with --mask, which latents cannot hold.

    Example: polyinr mix --source 1-4 --target 5-8 --levels 8-9 -o grid.png
    """
    viewport = window.parse()
    source, target = _names(pair, source, target)
    from polyinr_core.rendering.edits import MixtureGrid, Mixtures, mask_weights

    kinds = IMAGE_KINDS if mask is None else IMAGE_KINDS - {OutputKind.latents}
    default: writers.StdoutFormat = "latents" if mask is None else "png"
    out = run.output(output, kinds=kinds, payload=default, stdout_format=format, default_format=default)
    if out.kind is OutputKind.latents:
        viewport.check_unused()

    model, renderer = run.open_for(out, viewport, bits=bits)
    groups = _groups(levels, model.generator.config.levels, every=mask is not None)
    sources, targets = labels.select(model, source), labels.select(model, target)
    renderer = fit_to_photo(renderer, window, viewport, targets)
    if mask is not None:
        if len(sources) != 1:
            raise RequestError(f"--mask needs a single source; {source} names {len(sources)}")
        weights, (width, height) = mask_weights(mask, renderer)
        if (width, height) != (renderer.width, renderer.height):
            run.reporter.say(f"{mask} is {width}x{height}; it is resized to {renderer.width}x{renderer.height}")
        renderer = replace(renderer, blend_weights=weights)
    mixtures = Mixtures(model, sources, targets, groups, space, amount, is_masked=mask is not None)

    given = {"source": source, "target": target, "levels": levels, "amount": amount, "space": space}
    words = format_options([], **given, mask=mask, label=labels.label, psi=labels.psi)
    metadata = model_metadata(model) | {"command": "mix", "words": words}
    metadata |= renderer_metadata(renderer, warp=viewport.warp)
    if len(mixtures) == 1 or out.kind not in (OutputKind.image, OutputKind.stdout):
        run.write(out, renderer, mixtures.requests(metadata))
        return
    grid = MixtureGrid(mixtures, renderer)
    grid.check(out)
    metadata |= {"sources": list(sources.names), "targets": list(targets.names)}
    with console.row_progress("rendering", total=(grid.count - 1) * renderer.height, quiet=run.quiet) as done:
        grid.write(out, metadata, progress=done)
    if out.stream is None:
        run.reporter.json(out.path, metadata)
        run.reporter.say(f"{len(mixtures)} mixtures of {renderer.width}x{renderer.height} in {out.path}")


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
