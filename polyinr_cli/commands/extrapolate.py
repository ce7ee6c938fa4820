"""`polyinr extrapolate`: render images beyond the trained square, which is framed."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from polyinr_cli.options import Bits, OutputText, Res, Size, Supersample, with_groups
from polyinr_cli.parsing import MAX_SIZE, ViewportOptions, parse_viewport_options
from polyinr_cli.rendering import ImageOptions, RunOptions, renderer_for
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, OutputKind

MARGIN, MAX_MARGIN = 0.25, 1000.0


@with_groups
def extrapolate(
    *,
    output: OutputText,
    images: ImageOptions,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            help="Extent beyond each border, as a fraction of the trained square's side. Default: 0.25.",
        ),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(metavar="A:B", help="Window A:B or X0:X1,Y0:Y1, instead of a margin; 0:1 is the trained square."),
    ] = None,
    res: Res = None,
    size: Size = None,
    frame: Annotated[bool, typer.Option("--frame/--no-frame", help="Frame the trained square in yellow.")] = True,
    supersample: Supersample = 1,
    bits: Bits = 8,
    run: RunOptions,
) -> None:
    """Render images beyond the square that the model was trained on, which is framed in yellow.

    Without --res or --size the trained square keeps the training resolution. The suffix of -o gives the form, as
    in `polyinr sample`; .npy carries no frame, and latents have no window.

    Example: polyinr extrapolate --seeds 0-7 --margin 0.25 -o beyond.png
    """
    if margin is not None and grid is not None:
        raise RequestError("--margin and --grid both give the window; give one of the two")
    margin = MARGIN if margin is None else margin
    if not 0 <= margin <= MAX_MARGIN:
        raise RequestError(f"--margin {margin:g} is outside 0-{MAX_MARGIN:g}; 0.25 is a quarter of a side")
    viewport = parse_viewport_options(res=res, size=size, grid=grid, supersample=supersample)
    if grid is None:
        width, height = viewport.size or (1, 1)
        around = {"center": (0.5, 0.5), "zoom": 1 / (1 + 2 * margin)}  # square pixels in another shape
        square: dict[str, Any] = {"window": (-margin, -margin, 1 + margin, 1 + margin)}
        viewport = replace(viewport, **(square if width == height else around))
    target = run.output(output, kinds=IMAGE_KINDS - {OutputKind.latents})
    images.check()

    from polyinr_core.models.coordinates import UNIT

    is_array = target.kind is OutputKind.array
    model = run.open(is_8_bit=bits == 8 and not is_array)
    if viewport.size is None and model.resolution:
        viewport = replace(viewport, size=_size(viewport, model.resolution))
    renderer = renderer_for(model, viewport, bits=bits)
    metadata = renderer_metadata(renderer)
    if frame and not is_array:
        renderer = replace(renderer, frame=UNIT)
        metadata["command"] = "extrapolate"  # without a frame `sample` renders the same image
    run.write(target, renderer, images.select(model).with_metadata(metadata))


def _size(viewport: ViewportOptions, resolution: int) -> tuple[int, int]:
    """Return the size at which the trained square has the training resolution. Raises RequestError."""
    assert viewport.window is not None
    x0, y0, x1, y1 = viewport.window
    width, height = max(1, round(resolution * abs(x1 - x0))), max(1, round(resolution * abs(y1 - y0)))
    if max(width, height) > MAX_SIZE:
        raise RequestError(f"at the model's resolution the window has {width}x{height} pixels; give --res or --size")
    return width, height
