"""The frames of a walk, one at a time, into an animation or down a pipe."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from polyinr_core.runtime.memory import check_memory

from . import console as streams
from .drawing import Drawing
from .named import Images
from .notes import Note
from .outputs import maps_of, rows_bar
from .targets import Target

if TYPE_CHECKING:
    from pathlib import Path

    from polyinr_core.images.quantize import Pixels

FRAME_BYTES = {".gif": 1, ".webp": 4, ".mp4": 0}  # a pixel, held until the last frame


def is_animation(path: "Path") -> bool:
    """Say whether a file's suffix is that of a moving image; .webp may hold either."""
    return path.suffix.lower() in FRAME_BYTES


def check_frames(target: Target, drawing: Drawing, *, count: int, fps: float) -> None:
    """Raise PolyinrError if the animation cannot be written, before any frame is drawn."""
    from polyinr_core.images.animation import check_animation, check_encoder

    check_encoder(target.path)
    check_animation(target.path, width=drawing.width, height=drawing.height, count=count, fps=fps)
    needed = count * drawing.width * drawing.height * FRAME_BYTES[target.path.suffix.lower()]
    advice = "take .mp4, which is written as it is drawn, a smaller size, or a folder of frames"
    check_memory(needed, purpose=f"an animation of {count} frames", advice=advice)


def animate(target: Target, drawing: Drawing, frames: Images, *, fps: float, note: Note) -> None:
    """Draw the frames into a .gif, .webp or .mp4. Raises PolyinrError."""
    from polyinr_core.images.animation import write_animation

    with rows_bar(target, drawing, frames) as rows_done:
        write_animation(
            target.path,
            (pixels.copy() for pixels in drawn(drawing, frames, progress=rows_done)),
            count=len(frames),
            fps=fps,
            note=note,
            overwrite=target.overwrite,
        )
    target.say(f"{len(frames)} frames of {drawing.width}x{drawing.height} in {target.path}")


def pour(target: Target, drawing: Drawing, frames: Images, *, fps: float) -> None:
    """Send the frames to stdout as raw bytes, red, green, blue, row by row, for ffmpeg to read."""
    stdout = streams.binary_stdout("frame")
    size = f"{drawing.width}x{drawing.height}"
    target.say(f"to be read by: ffmpeg -f rawvideo -pix_fmt rgb24 -s {size} -r {fps:g} -i - walk.mkv")
    with rows_bar(target, drawing, frames) as rows_done:
        for pixels in drawn(drawing, frames, progress=rows_done):
            stdout.write(pixels.tobytes())
            stdout.flush()


def drawn(drawing: Drawing, frames: Images, *, progress: Callable[[int], None] | None = None) -> "Iterator[Pixels]":
    """Yield the frames [H, W, 3] one after another, each in the place of the one before."""
    from polyinr_core.images.grid import blank

    pixels = blank((drawing.width, drawing.height))
    for index in range(len(frames)):
        drawing.fill(pixels, maps_of(frames.latents(index)), progress=progress)
        yield pixels
