"""`polyinr heatmap`: visualize the activations of each level."""

from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.image_selection import check_selection, select_images, split_over_ranks
from polyinr_cli.model_lookup import open_model, renderer_for
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
    Rotate,
    Seeds,
    Shear,
    Size,
    Supersample,
    Transform,
    Verbose,
    Warp,
    Zoom,
)
from polyinr_cli.outputs import Reporter, parse_output
from polyinr_cli.parsing import TRAINED_WINDOW, parse_viewport_options
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_options, renderer_metadata
from polyinr_core.rendering.writers import OutputKind

KINDS = frozenset({OutputKind.folder, OutputKind.image, OutputKind.array, OutputKind.stdout})


def heatmap(
    output: OutputText,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="0-9", show_default=False, help="Levels to show. Default: all."),
    ] = None,
    colors: Annotated[
        str, typer.Option("--colors", metavar="NAME", help="Colormap: inferno, viridis, plasma, cividis or gray.")
    ] = "inferno",
    overlay: Annotated[
        float | None,
        typer.Option(
            "--overlay",
            metavar="OPACITY",
            show_default=False,
            help="Blend the heat map over the image with this opacity, 0 (the image) to 1 (the heat map).",
        ),
    ] = None,
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
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Visualize the activations of each level: the sum of its features, weighted by their spatial means.

    An image file (.png, .jpg, .webp, .tif, - for stdout) is a grid with a row for each image: the image, then its
    levels, each normalized to its own minimum and maximum. A folder gets one PNG for each level. An array (.npy,
    [N, levels, H, W]) holds the sums before normalization.

    Example: polyinr heatmap --seeds 3 -o levels.png
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
    if overlay is not None and not 0 <= overlay <= 1:
        raise RequestError(f"--overlay {overlay:g} is out of range 0-1")
    _check_colors(colors)
    target = parse_output(output, overwrite=overwrite, as_json=as_json, kinds=KINDS)
    check_selection(seeds, latents)

    is_8_bit = target.kind is not OutputKind.array
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    from polyinr_core.latents.latents import parse_levels
    from polyinr_core.rendering.heatmap import HeatmapOptions, check_heatmaps, count_evaluations, write_heatmaps

    count = opened.generator.config.levels
    shown = range(count) if levels is None else parse_levels(levels, levels=count)
    options = HeatmapOptions(tuple(shown), colors, overlay)
    words = format_options(
        [],
        seeds=seeds,
        latents=None if latents is None else latents.name,
        label=label,
        psi=psi,
        levels=levels,
        colors=colors,
        overlay=overlay,
    )
    renderer = renderer_for(opened, viewport)
    images = select_images(opened, seeds, latents, label=label, psi=psi, force=force)
    metadata = {"command": "heatmap", "words": words, **renderer_metadata(renderer, warp=viewport.warp)}
    images = split_over_ranks(images.with_metadata(metadata), target, quiet=quiet)

    check_heatmaps(target, renderer, options, count=len(images))
    reporter = Reporter(as_json=as_json, quiet=quiet)
    total = count_evaluations(target, renderer, options, count=len(images))
    with console.row_progress("rendering", total=total, quiet=quiet) as progress:
        for path, facts in write_heatmaps(target, renderer, images, options, progress=progress):
            reporter.json(path, facts)
    if target.stream is None:
        noun = "image" if len(images) == 1 else "images"
        reporter.say(f"{len(options.levels)} levels of {len(images)} {noun} in {target.path}")


def _check_colors(name: str) -> None:
    """Raise RequestError for an unknown color map."""
    from polyinr_core.images.grid import COLORMAPS

    if name not in COLORMAPS:
        raise RequestError(f"--colors {name!r} is unknown; use {', '.join(COLORMAPS)}")
