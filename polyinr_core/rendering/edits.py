"""Requests of edited images: style mixtures, frames of an interpolation, moves along principal directions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.errors import FileError, ImageError, RequestError
from polyinr_core.images.grid import Pixels, blank
from polyinr_core.latents.directions import Directions, move
from polyinr_core.latents.interpolation import (
    Easing,
    LatentPath,
    MixSpace,
    frame_positions,
    mix,
    stack_affine,
    zoom,
    zoom_at,
)
from polyinr_core.latents.latents import Latents, seeds_text
from polyinr_core.runtime.atomic_io import read_bytes
from polyinr_core.runtime.resources import check_memory

from .metadata import Metadata, model_metadata
from .model import Model
from .requests import ImageRequests, RequestedImage
from .writers import FRAME_BYTES, GridSpec, Output, check_output, write_pixels, write_stream

if TYPE_CHECKING:
    from .render import Renderer
    from .viewport import Viewport

WEIGHT_BYTES = 4 + 8 + 16 + 16  # per pixel: the resized mask, its float64, two weights, and their copy


@dataclass(frozen=True)
class Mixtures:
    """Every source mixed into every target, for one group of levels after another; targets change fastest."""

    model: Model
    sources: ImageRequests
    targets: ImageRequests
    groups: tuple[tuple[int, ...], ...]
    space: MixSpace = "affine"
    strength: float = 1.0
    is_masked: bool = False  # a mixture and its target are stacked, to be rendered as a blend

    def __len__(self) -> int:
        return len(self.groups) * len(self.sources) * len(self.targets)

    def requests(self, metadata: Metadata) -> ImageRequests:
        """Return the mixtures as images, with what the metadata of all says."""

        def names(index: int) -> dict[str, str]:
            levels, source, target = self._parts(index)
            return {
                "source": self.sources.names[source],
                "target": self.targets.names[target],
                "levels": seeds_text(levels),
            }

        def file_name(index: int) -> str:
            parts = names(index)
            group = f"-levels{parts['levels']}" if len(self.groups) > 1 else ""
            return f"{parts['source']}-{parts['target']}{group}"

        def make(index: int) -> RequestedImage:
            return RequestedImage(self.latents(index), metadata | names(index) | {"index": index, "count": len(self)})

        return ImageRequests(tuple(map(file_name, range(len(self)))), make)

    def latents(self, index: int) -> Latents:
        """Return a mixture's latents, completed to its affine parameters. Raises RequestError."""
        levels, source, target = self._parts(index)
        like = self.model.generator.mapping.w_avg
        a, b = (images[i].latents.to(like) for images, i in ((self.targets, target), (self.sources, source)))
        mixed = self.model.complete(mix(a, b, levels=levels, strength=self.strength, space=self.space))
        return stack_affine([mixed, a]) if self.is_masked else mixed

    def _parts(self, index: int) -> tuple[tuple[int, ...], int, int]:
        """Return a mixture's levels, source and target."""
        rest, target = divmod(index, len(self.targets))
        group, source = divmod(rest, len(self.sources))
        return self.groups[group], source, target


@dataclass(frozen=True)
class MixtureGrid:
    """A grid with the sources on the left, the targets on top, and a block for each group of levels."""

    mixtures: Mixtures
    renderer: "Renderer"

    @property
    def grid(self) -> GridSpec:
        """The columns, and the levels as captions where there are several groups."""
        groups, rows = self.mixtures.groups, len(self.mixtures.sources)
        captions = [f"levels {seeds_text(group)}" for group in groups for _ in range(rows)]
        return GridSpec(len(self.mixtures.targets) + 1, ("", *captions) if len(groups) > 1 else ())

    @property
    def count(self) -> int:
        """The number of cells, with the blank corner."""
        mixtures = self.mixtures
        return (len(mixtures.targets) + 1) * (len(mixtures.groups) * len(mixtures.sources) + 1)

    def check(self, output: Output) -> None:
        """Raise RequestError if the output cannot hold the grid."""
        check_output(output, self.renderer, count=self.count, grid=self.grid)

    def write(self, output: Output, metadata: Metadata, *, progress: Callable[[int], None]) -> None:
        """Render the grid and write it; `progress` is called with rows. Raises PolyinrError."""
        layout = self.grid.layout(self.count, self.renderer)
        pixels = blank(layout.size, bits=self.renderer.bits)
        for cell, renderer, latents in self._cells():
            renderer.fill(pixels[layout.place(cell)], latents, progress=progress)
        self.grid.draw_captions(pixels, layout)
        write_pixels(output, pixels, metadata)

    def _cells(self) -> "Iterator[tuple[int, Renderer, Latents]]":
        """Yield all cells but the corner: the index, the renderer and the latents."""
        sources, targets = self.mixtures.sources, self.mixtures.targets
        unblended = replace(self.renderer, blend_weights=None)
        for column, target in enumerate(targets):
            yield column + 1, unblended, target.latents
        width = len(targets) + 1
        for row in range(len(self.mixtures.groups) * len(sources)):
            yield (row + 1) * width, unblended, sources[row % len(sources)].latents
            for column in range(len(targets)):
                index = row * len(targets) + column
                yield (row + 1) * width + column + 1, self.renderer, self.mixtures.latents(index)


def mask_weights(mask: Path, renderer: "Renderer") -> tuple[Tensor, tuple[int, int]]:
    """Return blend weights [2, H, W] of the source and the target, and the mask's size (width, height).

    White is the source's, black and transparent the target's. A mask of another size is resized.
    Raises FileError, RequestError.
    """
    from polyinr_core.data.decode import decode

    size = (renderer.width, renderer.height)
    purpose = f"a mask of {size[0]}x{size[1]}"
    check_memory(WEIGHT_BYTES * size[0] * size[1], purpose=purpose, advice="use a smaller size")
    try:
        gray = decode(read_bytes(mask), background=(0, 0, 0)).convert("L")
    except ImageError as error:
        raise FileError(mask, str(error)) from error
    own_size = gray.size
    if own_size != size:
        gray = gray.convert("F").resize(size, Image.Resampling.BILINEAR)  # averages where it downscales
    source = torch.from_numpy(np.asarray(gray, dtype=np.float64) / 255).clamp(0, 1)
    dtype = torch.float64 if renderer.model.dtype == torch.float64 else torch.float32
    return torch.stack([source, 1 - source]).to(dtype), own_size


def frame_requests(
    model: Model,
    path: LatentPath,
    viewport: "Viewport",
    *,
    frames: int,
    metadata: Metadata,
    loop: bool = False,
    easing: Easing = "linear",
    zooms: tuple[float, float] | None = None,
) -> ImageRequests:
    """Request the frames of a path through latents.

    Args:
        model: The model.
        path: The path.
        viewport: Its center is where `zooms` magnify.
        frames: How many.
        metadata: What the metadata of all frames says.
        loop: Go on to the first image, without showing it twice.
        easing: "smooth" slows down at each image.
        zooms: The magnification of the first and the last frame.

    Raises RequestError.
    """
    positions = frame_positions(len(path.images), frames, loop=loop, easing=easing)
    digits = max(4, len(str(frames - 1)))
    center = viewport_center(viewport)

    def make(index: int) -> RequestedImage:
        latents = model.complete(path.at(positions[index]))
        if zooms is not None:
            latents = zoom(latents, zoom_at(positions[index], *zooms), center)
        return RequestedImage(replace(latents, model_sha256=model.sha256), metadata | {"index": index})

    return ImageRequests(tuple(f"frame{index:0{digits}d}" for index in range(frames)), make)


def check_frames(output: Output, renderer: "Renderer", *, count: int, fps: float) -> None:
    """Raise PolyinrError if an animation cannot be written, before any frame is rendered."""
    from polyinr_core.images.animation import check_animation, check_encoder

    check_encoder(output.path)
    check_animation(output.path, width=renderer.width, height=renderer.height, count=count, fps=fps)
    needed = count * renderer.width * renderer.height * FRAME_BYTES[output.path.suffix.lower()]
    advice = "use .mp4, which is written frame by frame, a smaller size, or a folder of frames"
    check_memory(needed, purpose=f"an animation of {count} frames", advice=advice)


def write_frames(
    output: Output,
    renderer: "Renderer",
    frames: "ImageRequests",
    *,
    fps: float,
    metadata: Metadata,
    progress: Callable[[int], None] = lambda rows: None,
) -> None:
    """Render frames into a .gif, .webp or .mp4; into a stream as raw RGB bytes, row by row. Raises PolyinrError."""
    from polyinr_core.images.animation import write_animation

    def render() -> Iterator[Pixels]:
        pixels = blank((renderer.width, renderer.height))
        for latents, _ in frames:
            renderer.fill(pixels, latents, progress=progress)
            yield pixels

    if output.stream is not None:
        for pixels in render():
            write_stream(output.stream, pixels.tobytes())
        return
    write_animation(
        output.path,
        (pixels.copy() for pixels in render()),
        count=len(frames),
        fps=fps,
        metadata=metadata,
        overwrite=output.overwrite,
    )


def viewport_center(viewport: "Viewport") -> tuple[float, float]:
    """Return the point of the plane at the center of a viewport, without its warp."""
    x0, y0, x1, y1 = viewport.window
    x, y, scale = (a * (x0 + x1) / 2 + b * (y0 + y1) / 2 + c for a, b, c in viewport.matrix)
    return x / scale, y / scale


def moved_requests(
    model: Model,
    images: ImageRequests,
    directions: Directions,
    amounts: dict[int, float],
    *,
    levels: Sequence[int] | None = None,
) -> ImageRequests:
    """Request images moved along directions, by standard deviations. Raises RequestError."""
    if beyond := [number for number in amounts if number >= len(directions)]:
        raise RequestError(
            f"direction {beyond[0]} is outside 0-{len(directions) - 1} (the file holds {len(directions)})"
        )

    def make(index: int) -> RequestedImage:
        latents = _move(model, images[index].latents, directions, amounts, levels=levels)
        return RequestedImage(latents, _without_seed(model, images, index) | {"index": index, "count": len(images)})

    return ImageRequests(images.names, make)


def direction_grid(
    model: Model,
    images: ImageRequests,
    directions: Directions,
    *,
    count: int,
    amounts: Sequence[float],
    levels: Sequence[int] | None = None,
) -> tuple[ImageRequests, GridSpec]:
    """Request each image moved along each of the first directions, a row each. Raises RequestError."""
    if not 1 <= count <= len(directions):
        raise RequestError(f"--count {count} is outside 1-{len(directions)}, the directions of the file")
    rows = [(image, direction) for image in range(len(images)) for direction in range(count)]
    titles = [f"{images.names[image]}-direction{direction:03d}" for image, direction in rows]
    names = tuple(f"{title}-{column:02d}" for title in titles for column in range(len(amounts)))

    def make(index: int) -> RequestedImage:
        row, column = divmod(index, len(amounts))
        image, direction = rows[row]
        amount = amounts[column]
        latents = _move(model, images[image].latents, directions, {direction: amount}, levels=levels)
        own = {"direction": direction, "amount": amount, "index": index, "count": len(names)}
        return RequestedImage(latents, _without_seed(model, images, image) | own)

    row_names = tuple(
        f"{images.names[image]}: {directions.name(direction).removeprefix('direction ')}"
        if len(images) > 1
        else directions.name(direction)
        for image, direction in rows
    )
    column_names = tuple(f"{amount:+g}" if amount else "0" for amount in amounts)
    return ImageRequests(names, make), GridSpec(len(amounts), row_names, column_names)


def _move(
    model: Model,
    latents: Latents,
    directions: Directions,
    amounts: dict[int, float],
    *,
    levels: Sequence[int] | None,
) -> Latents:
    like = model.generator.mapping.w_avg
    return model.complete(move(latents.to(like), directions, amounts, levels=levels))


def _without_seed(model: Model, images: ImageRequests, index: int) -> Metadata:
    """Return the metadata of an edited image: its seed alone does not render it."""
    return model_metadata(model) | {"image": images.names[index]}


def load_smoothness_features(device: torch.device) -> torch.nn.Module:
    """Load EfficientNet-lite0, in whose features `frame_smoothness` compares frames. Raises WeightsError."""
    from polyinr_core.discriminator.backbones import Lite0Features
    from polyinr_core.runtime.pretrained import load_pretrained

    return Lite0Features(load_pretrained("lite0")).to(device)


def frame_smoothness(
    renderer: "Renderer",
    frames: ImageRequests,
    features: torch.nn.Module,
    *,
    loop: bool,
    progress: Callable[[int], None] = lambda frames: None,
) -> Metadata:
    """Return the largest and the mean distance between successive frames, in features of EfficientNet-lite0.

    The frames are rendered once more, in the resolution they are compared at. `progress` is called with 1 a frame.
    """
    from polyinr_core.metrics.ppl import SMOOTHNESS_RESOLUTION, path_smoothness

    viewport = replace(renderer.viewport, width=SMOOTHNESS_RESOLUTION, height=SMOOTHNESS_RESOLUTION)
    small = replace(renderer, viewport=viewport)

    def render() -> Iterator[Tensor]:
        for latents, _ in frames:
            yield torch.cat(list(small.rows(latents))).float()
            progress(1)

    smoothness = path_smoothness(render(), features, loop=loop)
    return {
        "largest": smoothness.largest,
        "largest_from_frame": smoothness.largest_from,
        "mean": smoothness.mean,
        "features": "lite0",
    }
