"""`polyinr heatmap`: what each level of an image draws, and which orders its maps reach."""

from typing import Annotated

import typer

from polyinr_cli.drawing import drawing_at, load_painter
from polyinr_cli.named import check_names, images_named
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
    OptionalOutputText,
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
from polyinr_cli.targets import Kind, target_for
from polyinr_cli.window import WHOLE, parse_window_options
from polyinr_core.errors import RequestError

KINDS = frozenset({Kind.folder, Kind.image, Kind.array, Kind.stdout})


def heatmap(
    output: OptionalOutputText = None,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="0-9", show_default=False, help="Which levels. Without it all."),
    ] = None,
    degrees: Annotated[
        bool,
        typer.Option("--degrees", help="Instead: which orders of x and y the maps reach, level by level."),
    ] = False,
    colors: Annotated[
        str, typer.Option("--colors", metavar="NAME", help="Colormap: inferno, viridis, plasma, cividis or gray.")
    ] = "inferno",
    overlay: Annotated[
        float | None,
        typer.Option(
            "--overlay",
            metavar="SHARE",
            show_default=False,
            help="Lay the colors over the image: 0 is the image, 1 the colors alone.",
        ),
    ] = None,
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
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw what each level of an image has drawn so far: its features' sum, weighted by their means.

    An image (.png, .jpg, .webp, .tif, - for stdout) gets a row for each of the images: itself, then its
    levels, each from its own least to its own greatest. A folder gets one PNG a level; .npy the sums themselves,
    [N, levels, H, W].

    With --degrees: which orders of x and y the affine maps alone let an image reach after each level, as a
    image, .npy [N, 2, levels, orders], or figures with --json, where -o may be left out.

    Example: polyinr heatmap --seeds 3 -o levels.png
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
    if degrees and not (window.is_default and overlay is None):
        raise RequestError("--degrees looks at the affine maps alone: leave size, window and --overlay out")
    if output is None and not (degrees and as_json):
        raise RequestError("say with -o where the result goes")
    if overlay is not None and not 0 <= overlay <= 1:
        raise RequestError(f"--overlay {overlay:g} is outside 0-1")
    _check_colors(colors)
    target = None
    if output is not None:
        target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=KINDS)
    check_names(seeds, latents)

    eight_bits = target is not None and target.kind is not Kind.array
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    chosen = _levels(levels, painter.checkpoint.generator.config.levels)
    words = again(
        [],
        seeds=seeds,
        latents=None if latents is None else latents.name,
        label=label,
        psi=psi,
        levels=levels,
        degrees=degrees,
        colors=colors,
        overlay=overlay,
    )
    note = {"command": "heatmap", "words": words}
    images = images_named(seeds, latents, painter, label=label, psi=psi, force=force)
    if degrees:
        from polyinr_cli.degrees import report_degrees

        images = images.with_note(note)
        images = images if target is None else images.share(target)
        report_degrees(target, images, levels=chosen, colors=colors)
        return
    from polyinr_cli.heat import HeatMaps, draw_heat

    assert target is not None
    drawing = drawing_at(painter, window)
    images = images.with_note(note | drawing.note(window)).share(target)
    draw_heat(target, HeatMaps(drawing, chosen, colors, overlay), images)


def _levels(text: str | None, levels: int) -> list[int]:
    """Return the levels that --levels names, all of them without it. Raises RequestError."""
    from polyinr_core.latents.naming import parse_levels

    return list(range(levels)) if text is None else parse_levels(text, levels=levels)


def _check_colors(name: str) -> None:
    """Raise RequestError for a color map that is not known."""
    from polyinr_core.images.grid import COLORMAPS

    if name not in COLORMAPS:
        raise RequestError(f"--colors {name!r} is unknown; use {', '.join(COLORMAPS)}")
