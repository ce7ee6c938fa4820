"""`polyinr interpolate`: interpolate from image to image, as an animation, a grid, frames, or latents."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.model_lookup import open_model, renderer_for
from polyinr_cli.options import (
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
from polyinr_cli.outputs import Reporter, parse_output, write, write_animation
from polyinr_cli.parsing import MAX_ZOOM, MIN_ZOOM, TRAINED_WINDOW, ViewportOptions, parse_viewport_options
from polyinr_cli.runtime import own_rank
from polyinr_cli.selection import select_by_words, split_over_ranks
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, GridSpec, Output, OutputKind, check_frames, check_output

KINDS = (IMAGE_KINDS | {OutputKind.animation}) - {OutputKind.zoomable}
FPS = 30.0
MAX_FRAMES = 1_000_000


class PathSpace(StrEnum):
    """The space of the interpolation."""

    affine = "affine"
    w = "w"
    z = "z"


class PathCurve(StrEnum):
    """The curve between two images."""

    linear = "linear"
    spherical = "spherical"


class PathEasing(StrEnum):
    """The speed between two images."""

    linear = "linear"
    smooth = "smooth"


def interpolate(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            show_default=False,
            help="Two or more images: seeds such as 3 or 0-7, latents files, - for latents on stdin.",
        ),
    ],
    output: OutputText,
    space: Annotated[
        PathSpace, typer.Option("--space", help="Latent space to interpolate in. In z all images must be of one class.")
    ] = PathSpace.affine,
    curve: Annotated[
        PathCurve | None,
        typer.Option("--curve", show_default=False, help="Default: spherical in z, linear elsewhere."),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", metavar="N", help="Number of frames, the images themselves included.")
    ] = 60,
    loop: Annotated[bool, typer.Option("--loop", help="Return to the first image, without repeating it.")] = False,
    easing: Annotated[
        PathEasing, typer.Option("--easing", help="smooth slows down at each image.")
    ] = PathEasing.linear,
    zoom_from: Annotated[
        float | None,
        typer.Option("--zoom-from", metavar="Z", show_default=False, help="Magnification of the first frame."),
    ] = None,
    zoom_to: Annotated[
        float | None,
        typer.Option(
            "--zoom-to",
            metavar="Z",
            show_default=False,
            help="Magnification of the last frame, about the window's center; it grows exponentially.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", metavar="N", show_default=False, help="Frames per second of an animation. Default: 30."),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option("--columns", metavar="N", show_default=False, help="Frames per row of a grid. Default: one row."),
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
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Interpolate from image to image, in affine, w or z space.

    The suffix of -o gives the form: .gif, .webp and .mp4 (which needs the extra `video`) are animations; .png,
    .jpg and .tif a grid of all frames; a folder gets numbered frames; .npy the unclamped colors; .safetensors the
    frames' latents; - raw frames of 24 bits per pixel for ffmpeg. --json also reports how smooth the path is: the
    largest and the mean distance between successive frames in features of EfficientNet-lite0, at 128 x 128.

    Example: polyinr interpolate 3 17 --space affine --frames 60 -o path.gif
    """
    zooms = _zooms(zoom_from, zoom_to, zoom=zoom, grid=grid)
    viewport = parse_viewport_options(
        res=res,
        size=size,
        grid=grid,
        center=center,
        zoom=1.0 if zooms and grid == TRAINED_WINDOW else zoom,
        rotate=rotate,
        shear=shear,
        transform=transform,
        warp=warp,
        supersample=supersample,
    )
    target = parse_output(output, overwrite=overwrite, as_json=as_json, kinds=KINDS, payload="frame")
    _check_options(target, fps=fps, columns=columns, frames=frames, viewport=viewport, has_zooms=zooms is not None)
    from polyinr_core.latents.interpolation import LatentPath
    from polyinr_core.rendering.edits import frame_requests, frame_smoothness

    is_8_bit = target.kind not in (OutputKind.array, OutputKind.latents)
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    renderer = renderer_for(opened, viewport, is_sized=target.kind is not OutputKind.latents)
    layout = GridSpec(columns=columns or frames)
    rate = FPS if fps is None else fps
    if target.is_animation:
        check_frames(target, renderer, count=frames, fps=rate)
    else:
        check_output(target, renderer, count=1 if target.kind is OutputKind.stdout else frames, grid=layout)
    features = None
    if as_json and own_rank() == 0:
        from polyinr_core.discriminator.backbones import Lite0Features
        from polyinr_core.runtime.pretrained import load_pretrained

        features = Lite0Features(load_pretrained("lite0")).to(opened.device)

    ends = select_by_words(opened, images, label=label, psi=psi, force=force)
    like = opened.generator.mapping.w_avg
    path = LatentPath.through(
        [image.latents.to(like) for image in ends], space=space.value, curve=None if curve is None else curve.value
    )
    words = format_options(
        images,
        space=space,
        curve=path.curve,
        frames=frames,
        loop=loop,
        easing=easing,
        zoom_from=None if zooms is None else zooms[0],
        zoom_to=None if zooms is None else zooms[1],
        fps=fps,
        columns=columns,
        label=label,
        psi=psi,
    )
    metadata = model_metadata(opened) | {
        "command": "interpolate",
        "words": words,
        "images": list(ends.names),
        "space": space.value,
        "count": frames,
        **renderer_metadata(renderer, warp=viewport.warp),
    }
    all_frames = frame_requests(
        opened,
        path,
        renderer.viewport,
        frames=frames,
        metadata=metadata,
        loop=loop,
        easing=easing.value,
        zooms=zooms,
    )
    reporter = Reporter(quiet=quiet)
    shown = split_over_ranks(all_frames, target, quiet=quiet)
    if target.is_animation or target.kind is OutputKind.stdout:
        write_animation(target, renderer, shown, reporter, fps=rate, metadata=metadata)
    else:
        write(target, renderer, shown, reporter, grid=layout)
    if features is not None:
        with console.row_progress("comparing frames", total=frames, quiet=quiet) as done:
            smoothness = frame_smoothness(renderer, all_frames, features, loop=loop, progress=done)
        Reporter(as_json).json(target.path, metadata | {"smoothness": smoothness})


def _zooms(start: float | None, end: float | None, *, zoom: float | None, grid: str) -> tuple[float, float] | None:
    """Return the zooms of the first and the last frame, None if none is given. Raises RequestError."""
    if start is None and end is None:
        return None
    if zoom is not None:
        raise RequestError("--zoom is constant; give either --zoom or --zoom-from and --zoom-to")
    zooms = (1.0 if start is None else start, 1.0 if end is None else end)
    for name, value in zip(("--zoom-from", "--zoom-to"), zooms, strict=True):
        if not MIN_ZOOM <= value <= MAX_ZOOM:
            raise RequestError(f"{name} {value:g} is outside {MIN_ZOOM:g} to {MAX_ZOOM:g}")
    return zooms


def _check_options(
    target: Output,
    *,
    fps: float | None,
    columns: int | None,
    frames: int,
    viewport: ViewportOptions,
    has_zooms: bool,
) -> None:
    """Raise RequestError for options that do not apply to the output."""
    if not 2 <= frames <= MAX_FRAMES:
        raise RequestError(f"--frames {frames} is outside 2-{MAX_FRAMES}")
    is_grid = target.kind is OutputKind.image and not target.is_animation
    if columns is not None and not is_grid:
        raise RequestError("--columns is for a grid of frames: .png, .jpg or .tif")
    if columns is not None and columns < 1:
        raise RequestError(f"--columns {columns} is less than 1")
    if fps is not None and not (target.is_animation or target.kind is OutputKind.stdout):
        raise RequestError("--fps is for animations: .gif, .webp, .mp4 or -")
    if fps is not None and not 0 < fps <= 1000:
        raise RequestError(f"--fps {fps:g} is outside 0 to 1000")
    if target.kind is OutputKind.latents:
        (replace(viewport, center=None) if has_zooms else viewport).check_unused()
