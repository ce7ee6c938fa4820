"""Write a command's result to -o, with a progress bar, JSON lines and a closing message."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from polyinr_core.rendering.render import Renderer
    from polyinr_core.rendering.requests import ImageRequests
    from polyinr_core.rendering.writers import GridSpec, Output, OutputKind


@dataclass(frozen=True)
class Reporter:
    """What a command says: JSON lines on stdout if asked, messages and progress on stderr unless quiet."""

    as_json: bool = False
    quiet: bool = False

    def json(self, path: Path, facts: dict[str, Any]) -> None:
        """Print one JSON line for a file."""
        if self.as_json:
            console.json_line({"file": str(path), **facts})

    def say(self, message: str) -> None:
        """Print a line on a terminal."""
        console.say(message, quiet=self.quiet)


def parse_output(
    text: str,
    *,
    overwrite: bool,
    as_json: bool,
    kinds: "Collection[OutputKind] | None" = None,
    payload: str = "image",
) -> "Output":
    """Read -o; `payload` is what stdout would carry. Raises RequestError, FileError."""
    from polyinr_core.rendering import writers

    console.refuse_two_payloads(text, as_json=as_json)
    kinds = writers.IMAGE_KINDS if kinds is None else kinds
    return writers.parse_output(text, overwrite=overwrite, kinds=kinds, stdout=lambda: console.binary_stdout(payload))


def as_latents(output: "Output") -> "Output":
    """Return an output whose stdout carries latents."""
    from polyinr_core.rendering.writers import OutputKind

    return replace(output, kind=OutputKind.latents)


def write(
    output: "Output",
    renderer: "Renderer",
    images: "ImageRequests",
    reporter: Reporter,
    *,
    grid: "GridSpec | None" = None,
) -> None:
    """Render images, write them, and report each. Raises PolyinrError."""
    from polyinr_core.rendering.writers import SQUARE, OutputKind, check_output, count_steps, write_images

    grid = SQUARE if grid is None else grid
    check_output(output, renderer, count=len(images), grid=grid)
    total = count_steps(output, renderer, len(images))
    with console.row_progress("rendering", total=total, quiet=reporter.quiet) as done:
        for path, metadata in write_images(output, renderer, images, grid=grid, progress=done):
            reporter.json(path, metadata)
    if output.stream is not None:
        return
    if output.kind is OutputKind.latents:
        reporter.say(f"{len(images)} images' latents in {output.path}")
        return
    noun = "image" if len(images) == 1 else "images"
    reporter.say(f"{len(images)} {noun} of {renderer.width}x{renderer.height} in {output.path}")


def write_animation(
    output: "Output",
    renderer: "Renderer",
    frames: "ImageRequests",
    reporter: Reporter,
    *,
    fps: float,
    metadata: dict[str, Any],
) -> None:
    """Render frames into an animation, or to stdout as raw RGB bytes. Raises PolyinrError."""
    from polyinr_core.rendering.writers import write_frames

    size = f"{renderer.width}x{renderer.height}"
    if output.stream is not None:
        reporter.say(f"read it with: ffmpeg -f rawvideo -pix_fmt rgb24 -s {size} -r {fps:g} -i - path.mkv")
    total = renderer.height * len(frames)
    with console.row_progress("rendering", total=total, quiet=reporter.quiet) as done:
        write_frames(output, renderer, frames, fps=fps, metadata=metadata, progress=done)
    if output.stream is None:
        reporter.say(f"{len(frames)} frames of {size} in {output.path}")
