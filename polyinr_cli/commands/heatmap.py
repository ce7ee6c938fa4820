"""`polyinr heatmap`: visualize the activations of each level."""

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
from polyinr_cli.targets import Kind, target_for
from polyinr_cli.window import WHOLE, parse_window_options
from polyinr_core.errors import RequestError

KINDS = frozenset({Kind.folder, Kind.image, Kind.array, Kind.stdout})


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
    """Visualize the activations of each level: the sum of its features, weighted by their spatial means.

    An image file (.png, .jpg, .webp, .tif, - for stdout) is a grid with a row for each image: the image, then its
    levels, each normalized to its own minimum and maximum. A folder gets one PNG for each level. An array (.npy,
    [N, levels, H, W]) holds the sums before normalization.

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
    if overlay is not None and not 0 <= overlay <= 1:
        raise RequestError(f"--overlay {overlay:g} is out of range 0-1")
    _check_colors(colors)
    target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=KINDS)
    check_names(seeds, latents)

    eight_bits = target.kind is not Kind.array
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    chosen = _levels(levels, painter.checkpoint.generator.config.levels)
    words = again(
        [],
        seeds=seeds,
        latents=None if latents is None else latents.name,
        label=label,
        psi=psi,
        levels=levels,
        colors=colors,
        overlay=overlay,
    )
    note = {"command": "heatmap", "words": words}
    images = images_named(seeds, latents, painter, label=label, psi=psi, force=force)
    from polyinr_cli.heat import HeatMaps, draw_heat

    drawing = drawing_at(painter, window)
    images = images.with_note(note | drawing.note(window)).share(target)
    draw_heat(target, HeatMaps(drawing, chosen, colors, overlay), images)


def _levels(text: str | None, levels: int) -> list[int]:
    """Return the levels of --levels, by default all. Raises RequestError."""
    from polyinr_core.latents.naming import parse_levels

    return list(range(levels)) if text is None else parse_levels(text, levels=levels)


def _check_colors(name: str) -> None:
    """Raise RequestError for an unknown color map."""
    from polyinr_core.images.grid import COLORMAPS

    if name not in COLORMAPS:
        raise RequestError(f"--colors {name!r} is unknown; use {', '.join(COLORMAPS)}")
