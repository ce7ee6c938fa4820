"""`polyinr heatmap`: what each level of a picture draws, and which orders its maps reach."""

from typing import Annotated

import typer

from polyinr_core.errors import RequestError

from .drawing import drawing_at, load_painter
from .named import check_names, pictures_named
from .notes import again
from .options import (
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
from .targets import Kind, target_for
from .window import WHOLE, parse_window_options

KINDS = frozenset({Kind.folder, Kind.picture, Kind.array, Kind.stdout})


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
    colours: Annotated[
        str, typer.Option("--colours", metavar="NAME", help="fire, bmy, bgy, kbc or gray, dark to light.")
    ] = "fire",
    overlay: Annotated[
        float | None,
        typer.Option(
            "--overlay",
            metavar="SHARE",
            show_default=False,
            help="Lay the colours over the picture: 0 is the picture, 1 the colours alone.",
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
    """Draw what each level of a picture has drawn so far: its features' sum, weighted by their means.

    A picture (.png, .jpg, .webp, .tif, - for stdout) gets a row for each of the pictures: itself, then its
    levels, each from its own least to its own greatest. A folder gets one PNG a level; .npy the sums themselves,
    [N, levels, H, W].

    With --degrees: which orders of x and y the affine maps alone let a picture reach after each level, as a
    picture, .npy [N, 2, levels, orders], or figures with --json, where -o may be left out.

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
    _check_colours(colours)
    target = None
    if output is not None:
        target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=KINDS)
    check_names(seeds, latents)

    eight_bits = target is not None and target.kind is not Kind.array
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    chosen = _levels(levels, painter.snapshot.generator.config.levels)
    words = again(
        [],
        seeds=seeds,
        latents=None if latents is None else latents.name,
        label=label,
        psi=psi,
        levels=levels,
        degrees=degrees,
        colours=colours,
        overlay=overlay,
    )
    note = {"command": "heatmap", "words": words}
    pictures = pictures_named(seeds, latents, painter, label=label, psi=psi, force=force)
    if degrees:
        from .degrees import report_degrees

        pictures = pictures.with_note(note)
        pictures = pictures if target is None else pictures.share(target)
        report_degrees(target, pictures, levels=chosen, colours=colours)
        return
    from .heat import HeatMaps, draw_heat

    assert target is not None
    drawing = drawing_at(painter, window)
    pictures = pictures.with_note(note | drawing.note(window)).share(target)
    draw_heat(target, HeatMaps(drawing, chosen, colours, overlay), pictures)


def _levels(text: str | None, levels: int) -> list[int]:
    """Return the levels that --levels names, all of them without it. Raises RequestError."""
    from polyinr_core.latents.naming import parse_levels

    return list(range(levels)) if text is None else parse_levels(text, levels=levels)


def _check_colours(name: str) -> None:
    """Raise RequestError for a colour map that is not known."""
    from polyinr_core.pictures.colour_map import NAMES

    if name not in NAMES:
        raise RequestError(f"--colours {name!r} is unknown; use {', '.join(NAMES)}")
