"""`polyinr interpolate`: interpolate from image to image, as an animation, a grid, frames, or latents."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import OutputText, StdoutFormat, with_groups
from polyinr_cli.parsing import MAX_ZOOM, MIN_ZOOM
from polyinr_cli.rendering import LabelOptions, RunOptions, WindowOptions, fit_to_photo
from polyinr_cli.runtime import own_rank
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, GridSpec, Output, OutputKind, check_output

KINDS = (IMAGE_KINDS | {OutputKind.animation}) - {OutputKind.zoomable}
FPS = 30.0
MAX_FRAMES = 1_000_000


@dataclass(frozen=True)
class PathOptions:
    """The path through the images, and how it is shown: the options that the metadata of a frame holds."""

    space: Annotated[
        Literal["affine", "w", "z"],
        typer.Option(help="Latent space to interpolate in. In z all images must be of one class."),
    ] = "affine"
    curve: Annotated[
        Literal["linear", "spherical"] | None,
        typer.Option(help="Path between two images: a line, or an arc. Default: spherical in z, linear elsewhere."),
    ] = None
    frames: Annotated[int, typer.Option(metavar="N", help="Number of frames, the images themselves included.")] = 60
    loop: Annotated[bool, typer.Option("--loop", help="Return to the first image, without repeating it.")] = False
    easing: Annotated[
        Literal["linear", "smooth"], typer.Option(help="Speed along the path: constant, or slower near each image.")
    ] = "linear"
    zoom_from: Annotated[float | None, typer.Option(metavar="Z", help="Magnification of the first frame.")] = None
    zoom_to: Annotated[
        float | None,
        typer.Option(
            metavar="Z", help="Magnification of the last frame, about the window's center; it grows exponentially."
        ),
    ] = None
    fps: Annotated[float | None, typer.Option(metavar="N", help="Frames per second of an animation. Default: 30.")] = (
        None
    )
    columns: Annotated[int | None, typer.Option(metavar="N", help="Frames per row of a grid. Default: one row.")] = None

    def zooms(self, zoom: float | None) -> tuple[float, float] | None:
        """Return the zooms of the first and the last frame, None if none is given. Raises RequestError."""
        if self.zoom_from is None and self.zoom_to is None:
            return None
        if zoom is not None:
            raise RequestError("--zoom is constant; give either --zoom or --zoom-from and --zoom-to")
        zooms = (1.0 if self.zoom_from is None else self.zoom_from, 1.0 if self.zoom_to is None else self.zoom_to)
        for name, value in zip(("--zoom-from", "--zoom-to"), zooms, strict=True):
            if not MIN_ZOOM <= value <= MAX_ZOOM:
                raise RequestError(f"{name} {value:g} is outside {MIN_ZOOM:g} to {MAX_ZOOM:g}")
        return zooms

    def check(self, target: Output) -> None:
        """Raise RequestError for options that are out of range or do not apply to the output."""
        if not 2 <= self.frames <= MAX_FRAMES:
            raise RequestError(f"--frames {self.frames} is outside 2-{MAX_FRAMES}")
        is_grid = target.kind in (OutputKind.image, OutputKind.stdout) and not target.is_animation
        if self.columns is not None and not is_grid:
            raise RequestError("--columns is for a grid of frames: .png, .jpg or .tif")
        if self.columns is not None and self.columns < 1:
            raise RequestError(f"--columns {self.columns} is less than 1")
        if self.fps is not None and not (target.is_animation or target.kind is OutputKind.frames):
            raise RequestError("--fps is for animations: .gif, .webp, .mp4 or -")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise RequestError(f"--fps {self.fps:g} is outside 0 to 1000")


@with_groups
def interpolate(
    *,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            show_default=False,
            help="Two or more images: seeds such as 3 or 0-7, latents files, - for latents on stdin.",
        ),
    ],
    output: OutputText,
    path: PathOptions,
    labels: LabelOptions,
    window: WindowOptions,
    format: StdoutFormat = None,
    run: RunOptions,
) -> None:
    """Interpolate from image to image, in affine, w or z space.

    The suffix of -o gives the form: .gif, .webp and .mp4 (which needs the extra `video`) are animations; .png,
    .jpg and .tif a grid of all frames; a folder gets numbered frames; .npy the unclamped colors; .safetensors the
    frames' latents; - raw frames of 24 bits per pixel for ffmpeg, or another --format. --json also reports how smooth
    the path is: the largest and the mean distance between successive frames in features of EfficientNet-lite0, at
    128 x 128.

    Example: polyinr interpolate 3 17 --space affine --frames 60 -o path.gif
    """
    zooms = path.zooms(window.zoom)
    centered = replace(window, zoom=1.0) if zooms and window.grid is None and not window.stretch else window
    viewport = centered.parse()
    target = run.output(output, kinds=KINDS, payload="frame", stdout_format=format, default_format="rgb24")
    path.check(target)
    if target.kind is OutputKind.latents:
        (replace(viewport, center=None) if zooms else viewport).check_unused()
    from polyinr_core.latents.interpolation import LatentPath
    from polyinr_core.rendering.edits import check_frames, frame_requests, frame_smoothness, load_smoothness_features

    model, renderer = run.open_for(target, viewport)
    ends = labels.select(model, *images)
    renderer = fit_to_photo(renderer, window, viewport, ends)
    layout, rate = GridSpec(columns=path.columns or path.frames), FPS if path.fps is None else path.fps
    if target.is_animation:
        check_frames(target, renderer, count=path.frames, fps=rate)
    else:
        check_output(target, renderer, count=path.frames, grid=layout)
    features = load_smoothness_features(model.device) if run.as_json and own_rank() == 0 else None

    like = model.generator.mapping.w_avg
    curve = LatentPath.through([image.latents.to(like) for image in ends], space=path.space, curve=path.curve)
    first_zoom, last_zoom = zooms or (None, None)
    chosen = {**vars(path), "curve": curve.curve, "zoom_from": first_zoom, "zoom_to": last_zoom}
    words = format_options(images, **chosen, label=labels.label, psi=labels.psi)
    metadata = model_metadata(model) | {"command": "interpolate", "words": words, "images": list(ends.names)}
    metadata |= {"space": path.space, "count": path.frames, **renderer_metadata(renderer, warp=viewport.warp)}
    frames = frame_requests(
        model,
        curve,
        renderer.viewport,
        frames=path.frames,
        metadata=metadata,
        loop=path.loop,
        easing=path.easing,
        zooms=zooms,
    )
    messages = replace(run, as_json=False)  # one JSON line in all
    if target.is_animation or target.kind is OutputKind.frames:
        messages.write_animation(target, renderer, frames, fps=rate, metadata=metadata)
    else:
        messages.write(target, renderer, frames, grid=layout)
    if features is not None:
        with console.row_progress("comparing frames", total=path.frames, quiet=run.quiet) as done:
            smoothness = frame_smoothness(renderer, frames, features, loop=path.loop, progress=done)
        run.reporter.json(target.path, metadata | {"smoothness": smoothness})
