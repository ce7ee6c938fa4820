"""A walk's frames, made one at a time, and how smooth they follow each other."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import console as streams
from .drawing import Drawing, Painter
from .named import Images
from .notes import Note
from .outputs import maps_of

if TYPE_CHECKING:
    from polyinr_core.latents.interpolation import LatentPath
    from polyinr_core.latents.latents import Latents
    from polyinr_core.rendering.viewport import Viewport


def walk_of(ends: Images, painter: Painter, *, space: str, curve: str | None) -> "LatentPath":
    """Return the walk over the named images. Raises RequestError."""
    from polyinr_core.latents.interpolation import LatentPath

    way: Any = curve
    through: Any = space
    like = painter.checkpoint.generator.mapping.w_avg
    images = [ends.latents(index).to(like) for index in range(len(ends))]
    return LatentPath.through(images, space=through, curve=way)


def frames_of(
    walk: "LatentPath",
    drawing: Drawing,
    note: Note,
    *,
    frames: int,
    loop: bool,
    easing: str,
    zooms: tuple[float, float] | None,
) -> Images:
    """Return the frames as images, each made when it is asked for. Raises RequestError."""
    from polyinr_core.latents.interpolation import frame_positions, zoom, zoom_at
    from polyinr_core.latents.latents import to_affine

    speed: Any = easing
    steps = frame_positions(len(walk.images), frames, loop=loop, easing=speed)
    digits = max(4, len(str(frames - 1)))
    center = middle_of(drawing.view)
    sha256 = drawing.painter.checkpoint.sha256

    def latents_of(index: int) -> "Latents":
        latents = to_affine(drawing.painter.checkpoint.generator, walk.at(steps[index]))
        if zooms is not None:
            latents = zoom(latents, zoom_at(steps[index], *zooms), center)
        return replace(latents, model_sha256=sha256)

    names = tuple(f"frame{index:0{digits}d}" for index in range(frames))
    return Images(names, latents_of, lambda latents, index: note | {"index": index})


def load_features(painter: Painter) -> Any:
    """Return EfficientNet-lite0, by which frames are compared. Raises WeightsError."""
    from polyinr_core.discriminator.backbones import Lite0Features
    from polyinr_core.runtime.pretrained import load_pretrained

    return Lite0Features(load_pretrained("lite0")).to(painter.device)


def smoothness_of(drawing: Drawing, frames: Images, features: Any, *, loop: bool) -> dict[str, Any]:
    """Return how smooth the walk is, drawn once more in the size that frames are compared at."""
    import torch

    from polyinr_core.metrics.ppl import SMOOTHNESS_RESOLUTION, path_smoothness

    small = replace(drawing, view=replace(drawing.view, width=SMOOTHNESS_RESOLUTION, height=SMOOTHNESS_RESOLUTION))
    with streams.row_progress("comparing", total=len(frames)) as done:

        def looked_at() -> Any:
            for index in range(len(frames)):
                yield torch.cat(list(small.bands(maps_of(frames.latents(index))))).float()
                done(1)

        smoothness = path_smoothness(looked_at(), features, loop=loop)
    return {
        "largest": smoothness.largest,
        "largest_from_frame": smoothness.largest_from,
        "mean": smoothness.mean,
        "features": "lite0",
    }


def middle_of(view: "Viewport") -> tuple[float, float]:
    """Return the point of the plane that the window's middle shows, but for a warp."""
    x0, y0, x1, y1 = view.window
    x, y, scale = (a * (x0 + x1) / 2 + b * (y0 + y1) / 2 + c for a, b, c in view.matrix)
    return x / scale, y / scale
