"""`polyinr extrapolate`: render images beyond the trained square, which is framed."""

from dataclasses import replace
from typing import Annotated

import typer

from polyinr_cli.model_lookup import open_model, renderer_for
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
from polyinr_cli.outputs import Reporter, parse_output, write
from polyinr_cli.parsing import MAX_SIZE, ViewportOptions, parse_viewport_options
from polyinr_cli.selection import check_selection, select_images, split_over_ranks
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, OutputKind

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
            metavar="FRACTION",
            show_default=False,
            help="Extent beyond each border, as a fraction of the trained square's side. Default: 0.25.",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(
            "--grid",
            metavar="A:B",
            show_default=False,
            help="Window A:B or X0:X1,Y0:Y1, instead of a margin; 0:1 is the trained square.",
        ),
    ] = None,
    res: Res = None,
    size: Size = None,
    frame: Annotated[bool, typer.Option("--frame/--no-frame", help="Frame the trained square in yellow.")] = True,
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
    """Render images beyond the square that the model was trained on, which is framed in yellow.

    Without --res or --size the trained square keeps the training resolution. The suffix of -o gives the form, as
    in `polyinr sample`; .npy carries no frame, and latents have no window.

    Example: polyinr extrapolate --seeds 0-7 --margin 0.25 -o beyond.png
    """
    viewport = _viewport_options(margin, grid, res=res, size=size, supersample=supersample)
    from polyinr_core.models.coordinates import UNIT

    kinds = IMAGE_KINDS - {OutputKind.latents}
    target = parse_output(output, overwrite=overwrite, as_json=as_json, kinds=kinds)
    check_selection(seeds, latents)
    is_array = target.kind is OutputKind.array
    is_8_bit = bits == 8 and not is_array
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    if viewport.size is None and opened.resolution:
        viewport = replace(viewport, size=_size(viewport, opened.resolution))
    renderer = renderer_for(opened, viewport, bits=bits)
    metadata = renderer_metadata(renderer)
    if frame and not is_array:
        renderer = replace(renderer, frame=UNIT)
        metadata["command"] = "extrapolate"  # without a frame `sample` renders the same image
    images = select_images(opened, seeds, latents, label=label, psi=psi, force=force).with_metadata(metadata)
    write(target, renderer, split_over_ranks(images, target, quiet=quiet), Reporter(as_json, quiet))


def _viewport_options(
    margin: float | None, grid: str | None, *, res: int | None, size: str | None, supersample: int
) -> ViewportOptions:
    """Return the window of --margin or --grid. Raises RequestError."""
    if margin is not None and grid is not None:
        raise RequestError("--margin and --grid both give the window; give one of the two")
    if grid is None:
        margin = MARGIN if margin is None else margin
        if not 0 <= margin <= MAX_MARGIN:
            raise RequestError(f"--margin {margin:g} is outside 0-{MAX_MARGIN:g}; 0.25 is a quarter of a side")
        grid = f"{-margin!r}:{1 + margin!r}"
    return parse_viewport_options(res=res, size=size, grid=grid, supersample=supersample)


def _size(viewport: ViewportOptions, resolution: int) -> tuple[int, int]:
    """Return the size at which the trained square has the training resolution. Raises RequestError."""
    x0, y0, x1, y1 = viewport.window
    width, height = max(1, round(resolution * abs(x1 - x0))), max(1, round(resolution * abs(y1 - y0)))
    if max(width, height) > MAX_SIZE:
        raise RequestError(f"at the model's resolution the window has {width}x{height} pixels; give --res or --size")
    return width, height
