"""Images drawn into what -o asks for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import RequestError
from polyinr_core.runtime.memory import check_disk, check_memory

from . import console as streams
from .drawing import Drawing
from .named import Images
from .notes import Note, sheet_note
from .targets import Kind, Target, write_latents_to, write_pixels_to

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.images.batch_writer import Image
    from polyinr_core.images.grid import GridLayout
    from polyinr_core.images.quantize import Pixels
    from polyinr_core.latents.latents import Latents

PIXEL_BYTES = 3 + 4 + 3  # our array, Pillow's copy, the encoded file at worst
CAPTION_HEIGHT = 20
CAPTION_WIDTH = 110


@dataclass(frozen=True)
class Arrangement:
    """How images stand on a sheet: in how many columns, with which words beside the rows and above."""

    columns: int | None = None
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()

    def layout(self, count: int, width: int, height: int) -> "GridLayout":
        """Return the sheet's plan, with room for the words."""
        from polyinr_core.images.grid import grid_layout

        left = CAPTION_WIDTH if self.row_names else 0
        top = CAPTION_HEIGHT if self.column_names else 0
        return grid_layout(count, width, height, columns=self.columns, left=left, top=top)

    def write_names(self, pixels: "Pixels", plan: "GridLayout") -> None:
        """Write the words into the sheet, in place."""
        if not (self.row_names or self.column_names):
            return
        from polyinr_core.images.grid import caption

        bits = 8 * pixels.itemsize
        for row, name in enumerate(self.row_names):
            rows, _ = plan.place(row * plan.columns)
            pixels[rows, : plan.left] = caption(name, width=plan.left, height=plan.height, bits=bits)
        for column, name in enumerate(self.column_names):
            _, columns = plan.place(column)
            pixels[: plan.top, columns] = caption(name, width=plan.width, height=plan.top, bits=bits)


SQUARE = Arrangement()


def check_target(target: Target, drawing: Drawing, *, count: int, arrangement: Arrangement = SQUARE) -> None:
    """Raise RequestError if the output cannot hold so many images of that size, before any is drawn."""
    from polyinr_core.images.io import check_depth, check_size, format_of

    if target.kind in (Kind.latents, Kind.array, Kind.zoomable):
        if target.kind is Kind.zoomable and count != 1:
            raise RequestError(f"a .dzi holds one image, not {count}; name one seed or one image")
        if drawing.bits != 8:
            raise RequestError(f"--bits {drawing.bits} is for PNG and TIFF, not for {target.path.suffix}")
        return
    format = format_of(target.path) if target.kind is Kind.image else "png"
    check_depth(format, f"uint{drawing.bits}")
    width, height = drawing.width, drawing.height
    if target.kind is not Kind.folder:
        width, height = arrangement.layout(count, width, height).size
    check_size(format, width=width, height=height)
    if not (format == "tiff" and count == 1):
        needed = width * height * PIXEL_BYTES * drawing.bits // 8
        check_memory(needed, purpose=f"an image of {width}x{height}", advice="take a smaller size, or .tif")


def draw_to(target: Target, drawing: Drawing, images: Images, *, arrangement: Arrangement = SQUARE) -> None:
    """Draw the images in the form that the output's kind asks for. Raises PolyinrError."""
    check_target(target, drawing, count=len(images), arrangement=arrangement)
    if target.kind is Kind.latents:
        write_latents_of(target, images)
    elif target.kind is Kind.folder:
        _draw_folder(target, drawing, images)
    elif target.kind is Kind.array:
        _draw_array(target, drawing, images)
    elif target.kind is Kind.zoomable or (target.path.suffix.lower() in (".tif", ".tiff") and len(images) == 1):
        _draw_tiles(target, drawing, images)
    else:
        _draw_sheet(target, drawing, images, arrangement)


def write_latents_of(target: Target, images: Images) -> None:
    """Write the images' latents into one file, or to stdout, drawing nothing."""
    from polyinr_core.latents.latents import concatenate

    held: list[Latents] = []
    notes: list[Note] = []
    with streams.progress("latents", quiet=target.quiet) as move:
        for index in range(len(images)):
            held.append(images.latents(index))
            notes.append(images.note(held[-1], index))
            move(index + 1, len(images))
    write_latents_to(target, concatenate(held))
    target.report((target.path, note) for note in notes)
    target.say(f"{len(held)} images' latents in {target.path}")


def _draw_folder(target: Target, drawing: Drawing, images: Images) -> None:
    """Write one PNG an image; each is whole when it appears, so an interruption loses only the last ones."""
    from polyinr_core.images.batch_writer import Image
    from polyinr_core.images.grid import blank

    notes: list[Note] = []

    def drawn() -> "Iterator[Image]":
        for index, name in enumerate(images.names):
            latents = images.latents(index)
            notes.append(images.note(latents, index))
            pixels = blank((drawing.width, drawing.height), bits=drawing.bits)
            drawing.fill(pixels, maps_of(latents), progress=rows_done)
            yield Image(f"{name}.png", pixels, notes[-1])

    with rows_bar(target, drawing, images) as rows_done:
        write_folder(target, drawing, drawn(), names=[f"{name}.png" for name in images.names], notes=notes)
    _say_done(target, drawing, images)


def write_folder(
    target: Target, drawing: Drawing, images: "Iterator[Image]", *, names: list[str], notes: Sequence[Note]
) -> None:
    """Write images into the folder and report each, with its note, once it is in place.

    `names` is what they are called, `notes` grows as they are drawn.
    """
    from polyinr_core.images.batch_writer import write_images
    from polyinr_core.runtime.atomic_io import refuse_overwrite

    for name in names:
        refuse_overwrite(target.path / name, overwrite=target.overwrite)
    size = drawing.width * drawing.height * 3 * drawing.bits // 8
    written = write_images(target.path, images, image_bytes=size, overwrite=target.overwrite)
    with closing(written):
        for index, path in enumerate(written):
            target.report([(path, notes[index])])


def _draw_sheet(target: Target, drawing: Drawing, images: Images, arrangement: Arrangement) -> None:
    """Write one image, or several on a sheet, to a file or to stdout; drawn straight into its place."""
    from polyinr_core.images.grid import blank

    plan = arrangement.layout(len(images), drawing.width, drawing.height)
    pixels = blank(plan.size, bits=drawing.bits)
    notes = []
    with rows_bar(target, drawing, images) as rows_done:
        for index in range(len(images)):
            latents = images.latents(index)
            notes.append(images.note(latents, index))
            drawing.fill(pixels[plan.place(index)], maps_of(latents), progress=rows_done)
    arrangement.write_names(pixels, plan)
    write_pixels_to(target, pixels, notes[0] if len(notes) == 1 else sheet_note(notes))
    if target.kind is not Kind.stdout:
        target.report((target.path, note) for note in notes)
        _say_done(target, drawing, images)


def _draw_tiles(target: Target, drawing: Drawing, images: Images) -> None:
    """Write one image of any size tile by tile, with smaller ones of itself: a tiled TIFF, or DeepZoom."""
    from polyinr_core.images.tiled import tile_count, write_deep_zoom, write_tiled_tiff, zoom_tile_count

    latents = images.latents(0)
    note, maps = images.note(latents, 0), maps_of(latents)
    levels: dict[int, Drawing] = {}

    def draw(level: int, left: int, top: int, width: int, height: int) -> "Pixels":
        if level not in levels:
            levels[level] = drawing.reduced(level)
        return levels[level].tile(maps, left=left, top=top, width=width, height=height)

    size: dict[str, Any] = {"width": drawing.width, "height": drawing.height}
    how: dict[str, Any] = {"note": note, "overwrite": target.overwrite}
    if target.kind is Kind.zoomable:
        with streams.row_progress("drawing", total=zoom_tile_count(**size), quiet=target.quiet) as done:
            write_deep_zoom(target.path, draw, **size, **how, progress=done)
    else:
        with streams.row_progress("drawing", total=tile_count(**size), quiet=target.quiet) as done:
            write_tiled_tiff(target.path, draw, **size, **how, dtype=f"uint{drawing.bits}", progress=done)
    target.report([(target.path, note)])
    _say_done(target, drawing, images)


def _draw_array(target: Target, drawing: Drawing, images: Images) -> None:
    """Write .npy [N, H, W, 3], about [-1, 1], row by row as it is drawn: float64 or float32.

    Written, not mapped into memory: on a full disk a mapping ends the process without a word.
    """
    import numpy as np
    import torch

    from polyinr_core.images.quantize import check_finite
    from polyinr_core.runtime.atomic_io import written_beside

    dtype = np.dtype("<f8" if drawing.painter.dtype == torch.float64 else "<f4")
    shape = (len(images), drawing.height, drawing.width, 3)
    check_disk(target.path, len(images) * drawing.height * drawing.width * 3 * dtype.itemsize)
    notes = []
    with (
        rows_bar(target, drawing, images) as rows_done,
        written_beside(target.path, overwrite=target.overwrite) as draft,
        draft.open("wb") as file,
    ):
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(len(images)):
            latents = images.latents(index)
            notes.append(images.note(latents, index))
            for band in check_finite(drawing.bands(maps_of(latents))):
                file.write(band.cpu().numpy().astype(dtype, copy=False).tobytes())
                rows_done(len(band))
    target.report((target.path, note) for note in notes)
    _say_done(target, drawing, images)


def maps_of(latents: "Latents") -> "Tensor":
    """Return the affine maps [1, L, 3, n] of an image's completed latents."""
    assert latents.affine is not None
    return latents.affine


def rows_bar(target: Target, drawing: Drawing, images: Images) -> AbstractContextManager[Callable[[int], None]]:
    """Return a bar that counts the rows of all images."""
    return streams.row_progress("drawing", total=drawing.height * len(images), quiet=target.quiet)


def _say_done(target: Target, drawing: Drawing, images: Images) -> None:
    noun = "image" if len(images) == 1 else "images"
    target.say(f"{len(images)} {noun} of {drawing.width}x{drawing.height} in {target.path}")
