"""Write rendered images: a folder of PNG files, one image or a grid, a tiled image, an array, latents, an animation."""

import math
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite, written_beside
from polyinr_core.runtime.resources import check_disk, check_memory

from .metadata import Metadata, carries, grid_metadata

if TYPE_CHECKING:
    import numpy as np

    from polyinr_core.images.grid import GridLayout, Pixels
    from polyinr_core.images.io import ImageFile
    from polyinr_core.latents.latents import Latents

    from .render import Renderer
    from .requests import ImageRequests

Progress = Callable[[int], None]
Written = tuple[Path, Metadata]
PIXEL_BYTES = 3 + 4 + 3  # our array, Pillow's copy, the encoded file at worst
FRAME_BYTES = {".gif": 1, ".webp": 4, ".mp4": 0}  # per pixel, held until the last frame
CAPTION_HEIGHT = 20
CAPTION_WIDTH = 110


class OutputKind(StrEnum):
    """What an output is, by its suffix."""

    folder = "folder"
    image = "image"
    zoomable = "zoomable"
    animation = "animation"
    array = "array"
    latents = "latents"
    frames = "frames"
    stdout = "stdout"


SUFFIXES = {
    ".npy": OutputKind.array,
    ".safetensors": OutputKind.latents,
    ".dzi": OutputKind.zoomable,
    ".gif": OutputKind.animation,
    ".mp4": OutputKind.animation,
}
IMAGE_KINDS = frozenset(OutputKind) - {OutputKind.animation}
StdoutFormat = Literal["png", "npy", "latents", "rgb24"]
STDOUT_KINDS: dict[StdoutFormat, OutputKind] = {  # what --format says that stdout carries
    "png": OutputKind.stdout,
    "npy": OutputKind.array,
    "latents": OutputKind.latents,
    "rgb24": OutputKind.frames,
}


@dataclass(frozen=True)
class Output:
    """Where a result goes: a path, or a stream in its place."""

    path: Path
    kind: OutputKind
    overwrite: bool = False
    stream: BinaryIO | None = None

    @property
    def is_animation(self) -> bool:
        """Whether the suffix is that of an animation; .webp may be an image as well."""
        return self.path.suffix.lower() in FRAME_BYTES

    def is_tiled(self, count: int) -> bool:
        """Whether `count` images are written tile by tile, so that they may be of any size: DeepZoom, one in a TIFF."""
        is_tiff = self.kind is OutputKind.image and self.path.suffix.lower() in (".tif", ".tiff")
        return self.kind is OutputKind.zoomable or (is_tiff and count == 1)


def parse_output(
    text: str,
    *,
    overwrite: bool = False,
    kinds: Collection[OutputKind] = IMAGE_KINDS,
    stdout: Callable[[], BinaryIO] | None = None,
    stdout_format: StdoutFormat = "png",
) -> Output:
    """Read the name of an output.

    Args:
        text: A path, whose suffix says the kind; a folder; or "-" for stdout.
        overwrite: Replace what exists.
        kinds: The kinds that are allowed.
        stdout: Opens stdout for bytes.
        stdout_format: What stdout carries: a PNG, an array, latents, or raw pixels of 24 bits.

    Raises RequestError, FileError.
    """
    if not text or "\0" in text:
        raise RequestError("-o needs a path")
    path = Path(text)
    kind = _kind_of(text, path)
    if kind is None:
        raise RequestError(f"{text}: the suffix {path.suffix.lower()!r} is unknown; use {_choices(kinds)}")
    if kind not in kinds:
        raise RequestError(f"{text}: this command writes no file of that kind ({kind.value}); use {_choices(kinds)}")
    if kind is OutputKind.stdout:
        if (kind := STDOUT_KINDS[stdout_format]) not in kinds:
            raise RequestError(f"this command writes no {stdout_format} to stdout; give another --format")
        return Output(path, kind, stream=None if stdout is None else stdout())
    if kind is OutputKind.folder:
        if os.path.exists(path) and not path.is_dir():  # unlike Path.exists, takes names that are too long
            raise FileError(path, "is a file; name a folder for several images, or give the file a suffix")
        if not os.path.exists(path):
            check_place(path)
    else:
        refuse_overwrite(path, overwrite=overwrite)
        check_place(path)
    return Output(path, kind, overwrite=overwrite)


@dataclass(frozen=True)
class GridSpec:
    """How images are arranged on a grid: the columns, and captions beside the rows and above the columns."""

    columns: int | None = None
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()

    def layout(self, count: int, renderer: "Renderer") -> "GridLayout":
        """Return the positions of `count` images, with margins for the captions."""
        from polyinr_core.images.grid import grid_layout

        left = CAPTION_WIDTH if self.row_names else 0
        top = CAPTION_HEIGHT if self.column_names else 0
        return grid_layout(count, renderer.width, renderer.height, columns=self.columns, left=left, top=top)

    def draw_captions(self, pixels: "Pixels", layout: "GridLayout") -> None:
        """Draw the captions into the grid, in place."""
        from polyinr_core.images.grid import caption

        bits = 8 * pixels.itemsize
        for row, name in enumerate(self.row_names):
            rows, _ = layout.place(row * layout.columns)
            pixels[rows, : layout.left] = caption(name, width=layout.left, height=layout.height, bits=bits)
        for column, name in enumerate(self.column_names):
            _, columns = layout.place(column)
            pixels[: layout.top, columns] = caption(name, width=layout.width, height=layout.top, bits=bits)


SQUARE = GridSpec()


def check_output(output: Output, renderer: "Renderer", *, count: int, grid: GridSpec = SQUARE) -> None:
    """Raise RequestError if the output cannot hold `count` images of that size, before any is rendered."""
    from polyinr_core.images.io import check_depth, check_size, format_of

    if output.kind in (OutputKind.latents, OutputKind.array, OutputKind.zoomable, OutputKind.frames):
        if output.kind is OutputKind.zoomable and count != 1:
            raise RequestError(f"a .dzi holds one image, not {count}; name one seed or one image")
        if renderer.bits != 8:
            raise RequestError(f"--bits {renderer.bits} is for PNG and TIFF, not for {output.path.suffix or 'rgb24'}")
        return
    format = format_of(output.path) if output.kind is OutputKind.image else "png"
    check_depth(format, f"uint{renderer.bits}")
    width, height = renderer.width, renderer.height
    if output.kind is not OutputKind.folder:
        width, height = grid.layout(count, renderer).size
    check_size(format, width=width, height=height)
    if not output.is_tiled(count):
        needed = width * height * PIXEL_BYTES * renderer.bits // 8
        check_memory(needed, purpose=f"an image of {width}x{height}", advice="use a smaller size, or .tif")


def count_steps(output: Output, renderer: "Renderer", count: int) -> int:
    """Return how many steps `write_images` reports for `count` images: rows, tiles or latents."""
    from polyinr_core.images.tiled import tile_count, zoom_tile_count

    if output.kind is OutputKind.latents:
        return count
    if output.kind is OutputKind.zoomable:
        return zoom_tile_count(width=renderer.width, height=renderer.height)
    if output.is_tiled(count):
        return tile_count(width=renderer.width, height=renderer.height)
    return renderer.height * count


def write_images(
    output: Output,
    renderer: "Renderer",
    images: "ImageRequests",
    *,
    grid: GridSpec = SQUARE,
    progress: Progress = lambda steps: None,
) -> Iterator[Written]:
    """Render images and write them in the form of the output.

    Args:
        output: Where they go; several images in one image file are arranged on a grid.
        renderer: How they are rendered.
        images: Which images.
        grid: How they are arranged.
        progress: Called with the number of steps done, of `count_steps`.

    Yields:
        The file and the metadata of each image, once the file is complete.

    Raises PolyinrError.
    """
    check_output(output, renderer, count=len(images), grid=grid)
    if output.is_tiled(len(images)):
        return _write_tiles(output, renderer, images, progress)
    if output.kind in (OutputKind.image, OutputKind.stdout):
        return _write_grid(output, renderer, images, grid, progress)
    write = {
        OutputKind.latents: _write_latents,
        OutputKind.folder: _write_folder,
        OutputKind.array: _write_array,
        OutputKind.frames: _write_raw,
    }[output.kind]
    return write(output, renderer, images, progress)


def write_files(
    output: Output, renderer: "Renderer", images: "Iterator[ImageFile]", *, names: Collection[str]
) -> Iterator[Path]:
    """Write images of the renderer's size into the folder; yield the path of each once it is complete.

    `names` are those of all files. Raises FileError if one exists.
    """
    from polyinr_core.images import io

    for name in names:
        refuse_overwrite(output.path / name, overwrite=output.overwrite)
    image_bytes = renderer.width * renderer.height * 3 * renderer.bits // 8
    written = io.write_images(output.path, images, image_bytes=image_bytes, overwrite=output.overwrite)
    with closing(written):
        yield from written


def write_pixels(output: Output, pixels: "Pixels", metadata: Metadata) -> None:
    """Write a finished image to a file or to the stream. Raises PolyinrError."""
    from polyinr_core.images.io import encode_image, write_image

    if output.stream is not None:
        write_stream(output.stream, encode_image(pixels, metadata=metadata))
    else:
        write_image(output.path, pixels, metadata=metadata, overwrite=output.overwrite)


def write_latents_to(output: Output, latents: "Latents") -> None:
    """Write latents to a file or to the stream. Raises PolyinrError."""
    from polyinr_core.latents.io import encode_latents, write_latents

    if output.stream is not None:
        write_stream(output.stream, encode_latents(latents))
    else:
        write_latents(output.path, latents, overwrite=output.overwrite)


def write_stream(stream: BinaryIO, data: bytes) -> None:
    """Write bytes and flush."""
    stream.write(data)
    stream.flush()


def _write_latents(
    output: Output, renderer: "Renderer", images: "ImageRequests", progress: Progress
) -> Iterator[Written]:
    from polyinr_core.latents.latents import concatenate

    made = []
    for image in images:
        made.append(image)
        progress(1)
    write_latents_to(output, concatenate([image.latents for image in made]))
    for image in made:
        yield output.path, image.metadata


def _write_folder(
    output: Output, renderer: "Renderer", images: "ImageRequests", progress: Progress
) -> Iterator[Written]:
    """Write one PNG an image; each appears when it is complete, so an interruption loses only the last ones.

    Those of an earlier, interrupted call are kept: complete files with the very metadata of the image.
    """
    from polyinr_core.images.grid import blank
    from polyinr_core.images.io import ImageFile

    metadata: list[Metadata] = []
    left = []
    for index, name in enumerate(images.names):
        path = output.path / f"{name}.png"
        if output.overwrite or not path.is_file() or not carries(path, own := images[index].metadata):
            left.append(index)
            continue
        progress(renderer.height)
        yield path, own
    images = images.select(left)

    def render() -> Iterator[ImageFile]:
        for name, image in zip(images.names, images, strict=True):
            pixels = blank((renderer.width, renderer.height), bits=renderer.bits)
            renderer.fill(pixels, image.latents, progress=progress)
            metadata.append(image.metadata)
            yield ImageFile(f"{name}.png", pixels, image.metadata)

    names = [f"{name}.png" for name in images.names]
    for index, path in enumerate(write_files(output, renderer, render(), names=names)):
        yield path, metadata[index]


def _write_grid(
    output: Output, renderer: "Renderer", images: "ImageRequests", grid: GridSpec, progress: Progress
) -> Iterator[Written]:
    """Write one image, or several on a grid, rendered straight into their places."""
    from polyinr_core.images.grid import blank

    layout = grid.layout(len(images), renderer)
    pixels = blank(layout.size, bits=renderer.bits)
    metadata = []
    for index, image in enumerate(images):
        renderer.fill(pixels[layout.place(index)], image.latents, progress=progress)
        metadata.append(image.metadata)
    grid.draw_captions(pixels, layout)
    write_pixels(output, pixels, metadata[0] if len(metadata) == 1 else grid_metadata(metadata))
    for one in metadata:
        yield output.path, one


def _write_tiles(
    output: Output, renderer: "Renderer", images: "ImageRequests", progress: Progress
) -> Iterator[Written]:
    """Write one image of any size tile by tile, with downscaled copies: a tiled TIFF, or DeepZoom."""
    from polyinr_core.images.tiled import write_deep_zoom, write_tiled_tiff

    image = images[0]
    renderers: dict[int, Renderer] = {}

    def render_tile(level: int, left: int, top: int, width: int, height: int) -> "Pixels":
        if level not in renderers:
            renderers[level] = renderer.downscaled(level)
        return renderers[level].tile(image.latents, left=left, top=top, width=width, height=height)

    options: dict[str, Any] = {
        "width": renderer.width,
        "height": renderer.height,
        "metadata": image.metadata,
        "overwrite": output.overwrite,
        "progress": progress,
    }
    if output.kind is OutputKind.zoomable:
        write_deep_zoom(output.path, render_tile, **options)
    else:
        write_tiled_tiff(output.path, render_tile, **options, dtype=f"uint{renderer.bits}")
    yield output.path, image.metadata


def _write_array(
    output: Output, renderer: "Renderer", images: "ImageRequests", progress: Progress
) -> Iterator[Written]:
    """Write .npy [N, H, W, 3], about -1 to 1, row by row."""
    from polyinr_core.images.grid import check_finite

    metadata = []
    with array_file(output, renderer, (len(images), renderer.height, renderer.width, 3)) as (file, dtype):
        for image in images:
            metadata.append(image.metadata)
            for band in check_finite(renderer.rows(image.latents)):
                file.write(band.cpu().numpy().astype(dtype, copy=False).tobytes())
                progress(len(band))
    for one in metadata:
        yield output.path, one


def _write_raw(output: Output, renderer: "Renderer", images: "ImageRequests", progress: Progress) -> Iterator[Written]:
    """Write the pixels of each image as bytes R, G, B, row by row, one image after another."""
    from polyinr_core.images.grid import blank

    assert output.stream is not None
    pixels = blank((renderer.width, renderer.height))
    for image in images:
        renderer.fill(pixels, image.latents, progress=progress)
        write_stream(output.stream, pixels.tobytes())
        yield output.path, image.metadata


@contextmanager
def array_file(
    output: Output, renderer: "Renderer", shape: tuple[int, ...]
) -> "Iterator[tuple[BinaryIO, np.dtype[Any]]]":
    """Open a .npy file of a shape for its values, in float64 for such a model, else float32. Raises FileError.

    Not by np.memmap: on a full disk a write to a mapping kills the process.
    """
    import numpy as np
    import torch

    dtype = np.dtype("<f8" if renderer.model.dtype == torch.float64 else "<f4")
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    if output.stream is not None:
        np.lib.format.write_array_header_1_0(output.stream, header)
        yield output.stream, dtype
        output.stream.flush()
        return
    check_disk(output.path, math.prod(shape) * dtype.itemsize)
    with written_beside(output.path, overwrite=output.overwrite) as draft, draft.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield file, dtype


def _kind_of(text: str, path: Path) -> OutputKind | None:
    from polyinr_core.images.io import FORMATS

    suffix = path.suffix.lower()
    if text == "-":
        return OutputKind.stdout
    if text.endswith("/") or os.path.isdir(path) or not suffix:
        return OutputKind.folder
    return OutputKind.image if suffix in FORMATS else SUFFIXES.get(suffix)


def _choices(kinds: Collection[OutputKind]) -> str:
    from polyinr_core.images.io import FORMATS

    suffixes = [
        *(FORMATS if OutputKind.image in kinds else ()),
        *(suffix for suffix, kind in SUFFIXES.items() if kind in kinds),
    ]
    return ", ".join([*suffixes, *(["a folder"] if OutputKind.folder in kinds else []), "or -"])
