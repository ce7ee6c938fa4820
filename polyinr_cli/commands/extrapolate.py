"""`polyinr extrapolate`: images beyond their border, the trained square framed."""

from dataclasses import replace
from typing import Annotated

import typer

from polyinr_cli.drawing import Drawing, default_side, load_painter
from polyinr_cli.named import check_names, images_named
from polyinr_cli.options import (
    Bits,
    Device,
    Force,
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
)
from polyinr_cli.outputs import check_target, draw_to
from polyinr_cli.targets import IMAGES, Kind, target_for
from polyinr_cli.window import Window, parse_window_options
from polyinr_core.errors import RequestError

KINDS = IMAGES - {Kind.latents}
MARGIN = 0.25
MAX_MARGIN = 1000.0


def extrapolate(
    output: OutputText,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="SHARE",
            show_default=False,
            help="How far beyond each border, as a share of the trained square's side. Without it 0.25.",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            "--grid",
            metavar="A:B",
            show_default=False,
            help="The window, A:B or X0:X1,Y0:Y1, in place of a margin; 0:1 is the trained square.",
        ),
    ] = None,
    res: Res = None,
    size: Size = None,
    frame: Annotated[bool, typer.Option("--frame/--no-frame", help="A yellow frame around the trained square.")] = True,
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
    """Draw images beyond the square that the model was trained on, which is framed in yellow.

    Without --res or --size the trained square keeps the model's resolution. A folder gets one PNG an image;
    .png, .jpg, .webp, .tif an image, or a sheet of several; .dzi a DeepZoom image; - a PNG on stdout;
    .npy the unclamped colors, which carry no frame. Latents have no window: they are sample's.

    Example: polyinr extrapolate --seeds 0-7 --margin 0.25 -o beyond.png
    """
    window = _window(margin, grid, res=res, size=size, supersample=supersample)
    target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=KINDS)
    check_names(seeds, latents)
    in_image = target.kind is not Kind.array
    painter = load_painter(
        model,
        precision=precision,
        device=device,
        eight_bits=bits == 8 and in_image,
        quiet=quiet,
    )
    if window.sides is None:
        window = replace(window, sides=_sides(window, default_side(painter)))
    drawing = Drawing(painter, window.view(1), bits=bits, frame=(0.0, 0.0, 1.0, 1.0) if frame and in_image else None)
    note = drawing.note(window)
    if drawing.frame is not None:
        note["command"] = "extrapolate"  # without a frame the image is one of sample's
    images = images_named(seeds, latents, painter, label=label, psi=psi, force=force)
    images = images.with_note(note).share(target)
    check_target(target, drawing, count=len(images))
    draw_to(target, drawing, images)


def _window(margin: float | None, grid: str | None, *, res: int | None, size: str | None, supersample: int) -> Window:
    """Return the window that --margin or --grid says. Raises RequestError."""
    if margin is not None and grid is not None:
        raise RequestError("--margin and --grid both say the window; give one of the two")
    if grid is None:
        margin = MARGIN if margin is None else margin
        if not 0 <= margin <= MAX_MARGIN:
            raise RequestError(f"--margin {margin:g} is outside 0-{MAX_MARGIN:g}; 0.25 is a quarter of a side")
        grid = f"{-margin!r}:{1 + margin!r}"
    return parse_window_options(res=res, size=size, grid=grid, supersample=supersample)


def _sides(window: Window, side: int) -> tuple[int, int]:
    """Return the size at which the trained square keeps its own, `side` pixels. Raises RequestError."""
    from polyinr_core.images.sizes import MAX_SIDE

    x0, y0, x1, y1 = window.bounds
    width, height = max(1, round(side * abs(x1 - x0))), max(1, round(side * abs(y1 - y0)))
    if max(width, height) > MAX_SIDE:
        raise RequestError(f"at the model's resolution the window has {width}x{height} pixels; give --res or --size")
    return width, height
