"""`polyinr interpolate`: walks from image to image, as a strip, an animation, frames, or latents."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated

import typer

from polyinr_cli.drawing import drawing_at, load_painter
from polyinr_cli.frames import animate, check_frames, is_animation, pour
from polyinr_cli.named import images_of
from polyinr_cli.notes import again
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
from polyinr_cli.outputs import Arrangement, check_target, draw_to
from polyinr_cli.runtime import own_rank
from polyinr_cli.targets import IMAGES, Kind, Target, target_for
from polyinr_cli.walk import frames_of, load_features, smoothness_of, walk_of
from polyinr_cli.window import WHOLE, Window, parse_window_options
from polyinr_core.errors import RequestError

KINDS = (IMAGES | {Kind.animation}) - {Kind.zoomable}
FPS = 30.0
MAX_FRAMES = 1_000_000


class PathSpace(StrEnum):
    """The space that a walk leads through."""

    affine = "affine"
    w = "w"
    z = "z"


class PathCurve(StrEnum):
    """The way between two images."""

    linear = "linear"
    spherical = "spherical"


class PathEasing(StrEnum):
    """How the speed changes between two images."""

    linear = "linear"
    smooth = "smooth"


def interpolate(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            show_default=False,
            help="Two or more: seeds such as 3 or 0-7, latents files, - for latents on stdin.",
        ),
    ],
    output: OutputText,
    space: Annotated[
        PathSpace, typer.Option("--space", help="Where the way lies; in z all images are of one class.")
    ] = PathSpace.affine,
    curve: Annotated[
        PathCurve | None,
        typer.Option("--curve", show_default=False, help="Without it spherical in z, linear elsewhere."),
    ] = None,
    frames: Annotated[
        int, typer.Option("--frames", metavar="N", help="How many in all, the images themselves included.")
    ] = 60,
    loop: Annotated[bool, typer.Option("--loop", help="Go on to the first image, without showing it twice.")] = False,
    easing: Annotated[PathEasing, typer.Option("--easing", help="smooth: slower at each image.")] = PathEasing.linear,
    zoom_from: Annotated[
        float | None,
        typer.Option("--zoom-from", metavar="Z", show_default=False, help="Zoom at the first frame."),
    ] = None,
    zoom_to: Annotated[
        float | None,
        typer.Option(
            "--zoom-to",
            metavar="Z",
            show_default=False,
            help="And at the last, by the same factor from frame to frame, about the window's middle.",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", metavar="N", show_default=False, help="Frames a second, for what moves. Without it 30."),
    ] = None,
    columns: Annotated[
        int | None,
        typer.Option("--columns", metavar="N", show_default=False, help="Frames in a row of a strip. Without it all."),
    ] = None,
    label: Label = None,
    psi: Psi = None,
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
    """Walk from image to image, through the affine maps, w or z.

    .gif, .webp, .mp4 (which needs the extra `video`) are animations; .png, .jpg, .tif a strip of all frames;
    a folder gets numbered frames; .npy the unclamped colors; .safetensors the frames' latents; - raw frames
    of 24 bits a pixel for ffmpeg. --json also measures how smooth the walk is: the largest and the mean step
    between frames in EfficientNet-lite0's features, looked at in 128 x 128 pixels.

    Example: polyinr interpolate 3 17 --space affine --frames 60 -o walk.gif
    """
    zooms = _zooms(zoom_from, zoom_to, zoom=zoom, grid=grid)
    window = parse_window_options(
        res=res,
        size=size,
        grid=grid,
        center=center,
        zoom=1.0 if zooms and grid == WHOLE else zoom,
        rotate=rotate,
        shear=shear,
        transform=transform,
        warp=warp,
        supersample=supersample,
    )
    target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet, kinds=KINDS, payload="frame")
    _check_use(target, fps=fps, columns=columns, frames=frames, window=window, zooming=zooms is not None)
    speed = FPS if fps is None else fps
    eight_bits = target.kind not in (Kind.array, Kind.latents)
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    drawing = drawing_at(painter, window, sized=target.kind is not Kind.latents)
    arrangement = Arrangement(columns=columns or frames)
    if is_animation(target.path):
        check_frames(target, drawing, count=frames, fps=speed)
    else:
        check_target(target, drawing, count=1 if target.kind is Kind.stdout else frames, arrangement=arrangement)
    features = load_features(painter) if as_json and own_rank() == 0 else None

    ends = images_of(images, painter, label=label, psi=psi, force=force)
    walk = walk_of(ends, painter, space=space, curve=curve)
    words = again(
        images,
        space=space,
        curve=walk.curve,
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
    note = {
        **painter.note,
        "command": "interpolate",
        "words": words,
        "images": list(ends.names),
        "space": str(space),
        "count": frames,
        **drawing.note(window),
    }
    shown = frames_of(walk, drawing, note, frames=frames, loop=loop, easing=easing, zooms=zooms)
    own = shown.share(target)
    if is_animation(target.path):
        animate(target, drawing, own, fps=speed, note=note)
    elif target.kind is Kind.stdout:
        pour(target, drawing, own, fps=speed)
    else:
        draw_to(replace(target, as_json=False), drawing, own, arrangement=arrangement)
    if features is not None:
        target.report([(target.path, note | {"smoothness": smoothness_of(drawing, shown, features, loop=loop)})])


def _zooms(start: float | None, end: float | None, *, zoom: float | None, grid: str) -> tuple[float, float] | None:
    """Return the zooms at both ends, None if none is asked for. Raises RequestError."""
    if start is None and end is None:
        return None
    if zoom is not None:
        raise RequestError("--zoom stands still; give it, or --zoom-from and --zoom-to")
    zooms = (1.0 if start is None else start, 1.0 if end is None else end)
    for name, value in zip(("--zoom-from", "--zoom-to"), zooms, strict=True):
        if not 1e-6 <= value <= 1e15:
            raise RequestError(f"{name} {value:g} is outside 1e-6 to 1e15")
    return zooms


def _check_use(
    target: Target, *, fps: float | None, columns: int | None, frames: int, window: Window, zooming: bool
) -> None:
    """Raise RequestError for options that the output has no use for."""
    if not 2 <= frames <= MAX_FRAMES:
        raise RequestError(f"--frames {frames} is outside 2-{MAX_FRAMES}")
    strip = target.kind is Kind.image and not is_animation(target.path)
    if columns is not None and not strip:
        raise RequestError("--columns arranges a strip of frames: .png, .jpg or .tif")
    if columns is not None and columns < 1:
        raise RequestError(f"--columns {columns} leaves no place for a frame")
    if fps is not None and not (is_animation(target.path) or target.kind is Kind.stdout):
        raise RequestError("--fps is the speed of what moves: .gif, .webp, .mp4 or -")
    if fps is not None and not 0 < fps <= 1000:
        raise RequestError(f"--fps {fps:g} is outside 0 to 1000")
    if target.kind is Kind.latents:
        (replace(window, center=None) if zooming else window).check_unused()
