"""Pictures drawn into what -o asks for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import RequestError

from . import streams
from .devices import check_memory
from .drawing import Drawing
from .named import Pictures
from .notes import Note, sheet_note
from .targets import Kind, Target, check_disk, write_latents_to, write_pixels_to

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.latents.file import Latents
    from polyinr_core.pictures.bulk import Image
    from polyinr_core.pictures.pixels import Pixels
    from polyinr_core.pictures.sheet import Layout

PIXEL_BYTES = 3 + 4 + 3  # our array, Pillow's copy, the encoded file at worst
CAPTION_HEIGHT = 20
CAPTION_WIDTH = 110


@dataclass(frozen=True)
class Arrangement:
    """How pictures stand on a sheet: in how many columns, with which words beside the rows and above."""

    columns: int | None = None
    row_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()

    def layout(self, count: int, width: int, height: int) -> "Layout":
        """Return the sheet's plan, with room for the words."""
        from polyinr_core.pictures.sheet import layout

        left = CAPTION_WIDTH if self.row_names else 0
        top = CAPTION_HEIGHT if self.column_names else 0
        return layout(count, width, height, columns=self.columns, left=left, top=top)

    def write_names(self, pixels: "Pixels", plan: "Layout") -> None:
        """Write the words into the sheet, in place."""
        if not (self.row_names or self.column_names):
            return
        from polyinr_core.pictures.captions import caption

        bits = 8 * pixels.itemsize
        for row, name in enumerate(self.row_names):
            rows, _ = plan.place(row * plan.columns)
            pixels[rows, : plan.left] = caption(name, width=plan.left, height=plan.height, bits=bits)
        for column, name in enumerate(self.column_names):
            _, columns = plan.place(column)
            pixels[: plan.top, columns] = caption(name, width=plan.width, height=plan.top, bits=bits)


SQUARE = Arrangement()


def check_target(target: Target, drawing: Drawing, *, count: int, arrangement: Arrangement = SQUARE) -> None:
    """Raise RequestError if the output cannot hold so many pictures of that size, before any is drawn."""
    from polyinr_core.pictures.files import check_depth, check_size, format_of

    if target.kind in (Kind.latents, Kind.array, Kind.zoomable):
        if target.kind is Kind.zoomable and count != 1:
            raise RequestError(f"a .dzi holds one picture, not {count}; name one seed or one picture")
        if drawing.bits != 8:
            raise RequestError(f"--bits {drawing.bits} is for PNG and TIFF, not for {target.path.suffix}")
        return
    format = format_of(target.path) if target.kind is Kind.picture else "png"
    check_depth(format, f"uint{drawing.bits}")
    width, height = drawing.width, drawing.height
    if target.kind is not Kind.folder:
        width, height = arrangement.layout(count, width, height).size
    check_size(format, width=width, height=height)
    if not (format == "tiff" and count == 1):
        needed = width * height * PIXEL_BYTES * drawing.bits // 8
        check_memory(needed, purpose=f"a picture of {width}x{height}", advice="take a smaller size, or .tif")


def draw_to(target: Target, drawing: Drawing, pictures: Pictures, *, arrangement: Arrangement = SQUARE) -> None:
    """Draw the pictures in the form that the output's kind asks for. Raises PolyinrError."""
    check_target(target, drawing, count=len(pictures), arrangement=arrangement)
    if target.kind is Kind.latents:
        write_latents_of(target, pictures)
    elif target.kind is Kind.folder:
        _draw_folder(target, drawing, pictures)
    elif target.kind is Kind.array:
        _draw_array(target, drawing, pictures)
    elif target.kind is Kind.zoomable or (target.path.suffix.lower() in (".tif", ".tiff") and len(pictures) == 1):
        _draw_tiles(target, drawing, pictures)
    else:
        _draw_sheet(target, drawing, pictures, arrangement)


def write_latents_of(target: Target, pictures: Pictures) -> None:
    """Write the pictures' latents into one file, or to stdout, drawing nothing."""
    from polyinr_core.latents.file import joined

    held: list[Latents] = []
    notes: list[Note] = []
    with streams.progress("latents", quiet=target.quiet) as move:
        for index in range(len(pictures)):
            held.append(pictures.latents(index))
            notes.append(pictures.note(held[-1], index))
            move(index + 1, len(pictures))
    write_latents_to(target, joined(held))
    target.report((target.path, note) for note in notes)
    target.say(f"{len(held)} pictures' latents in {target.path}")


def _draw_folder(target: Target, drawing: Drawing, pictures: Pictures) -> None:
    """Write one PNG a picture; each is whole when it appears, so an interruption loses only the last ones."""
    from polyinr_core.pictures.bulk import Image
    from polyinr_core.pictures.sheet import blank

    notes: list[Note] = []

    def drawn() -> "Iterator[Image]":
        for index, name in enumerate(pictures.names):
            latents = pictures.latents(index)
            notes.append(pictures.note(latents, index))
            pixels = blank((drawing.width, drawing.height), bits=drawing.bits)
            drawing.fill(pixels, maps_of(latents), progress=rows_done)
            yield Image(f"{name}.png", pixels, notes[-1])

    with rows_bar(target, drawing, pictures) as rows_done:
        write_folder(target, drawing, drawn(), names=[f"{name}.png" for name in pictures.names], notes=notes)
    _say_done(target, drawing, pictures)


def write_folder(
    target: Target, drawing: Drawing, images: "Iterator[Image]", *, names: list[str], notes: Sequence[Note]
) -> None:
    """Write images into the folder and report each, with its note, once it is in place.

    `names` is what they are called, `notes` grows as they are drawn.
    """
    from polyinr_core.files import refuse_overwrite
    from polyinr_core.pictures.bulk import write_images

    for name in names:
        refuse_overwrite(target.path / name, overwrite=target.overwrite)
    size = drawing.width * drawing.height * 3 * drawing.bits // 8
    written = write_images(target.path, images, image_bytes=size, overwrite=target.overwrite)
    with closing(written):
        for index, path in enumerate(written):
            target.report([(path, notes[index])])


def _draw_sheet(target: Target, drawing: Drawing, pictures: Pictures, arrangement: Arrangement) -> None:
    """Write one picture, or several on a sheet, to a file or to stdout; drawn straight into its place."""
    from polyinr_core.pictures.sheet import blank

    plan = arrangement.layout(len(pictures), drawing.width, drawing.height)
    pixels = blank(plan.size, bits=drawing.bits)
    notes = []
    with rows_bar(target, drawing, pictures) as rows_done:
        for index in range(len(pictures)):
            latents = pictures.latents(index)
            notes.append(pictures.note(latents, index))
            drawing.fill(pixels[plan.place(index)], maps_of(latents), progress=rows_done)
    arrangement.write_names(pixels, plan)
    write_pixels_to(target, pixels, notes[0] if len(notes) == 1 else sheet_note(notes))
    if target.kind is not Kind.stdout:
        target.report((target.path, note) for note in notes)
        _say_done(target, drawing, pictures)


def _draw_tiles(target: Target, drawing: Drawing, pictures: Pictures) -> None:
    """Write one picture of any size tile by tile, with smaller ones of itself: a tiled TIFF, or DeepZoom."""
    from polyinr_core.pictures.deep_zoom import write_deep_zoom, zoom_tile_count
    from polyinr_core.pictures.tiled_tiff import tile_count, write_tiled_tiff

    latents = pictures.latents(0)
    note, maps = pictures.note(latents, 0), maps_of(latents)
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
    _say_done(target, drawing, pictures)


def _draw_array(target: Target, drawing: Drawing, pictures: Pictures) -> None:
    """Write .npy [N, H, W, 3], about [-1, 1], row by row as it is drawn: float64 or float32.

    Written, not mapped into memory: on a full disk a mapping ends the process without a word.
    """
    import numpy as np
    import torch

    from polyinr_core.files import written_beside
    from polyinr_core.pictures.pixels import checked

    dtype = np.dtype("<f8" if drawing.painter.dtype == torch.float64 else "<f4")
    shape = (len(pictures), drawing.height, drawing.width, 3)
    check_disk(target.path, len(pictures) * drawing.height * drawing.width * 3 * dtype.itemsize)
    notes = []
    with (
        rows_bar(target, drawing, pictures) as rows_done,
        written_beside(target.path, overwrite=target.overwrite) as draft,
        draft.open("wb") as file,
    ):
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(len(pictures)):
            latents = pictures.latents(index)
            notes.append(pictures.note(latents, index))
            for band in checked(drawing.bands(maps_of(latents))):
                file.write(band.cpu().numpy().astype(dtype, copy=False).tobytes())
                rows_done(len(band))
    target.report((target.path, note) for note in notes)
    _say_done(target, drawing, pictures)


def maps_of(latents: "Latents") -> "Tensor":
    """Return the affine maps [1, L, 3, n] of a picture's completed latents."""
    assert latents.affine is not None
    return latents.affine


def rows_bar(
    target: Target, drawing: Drawing, pictures: Pictures
) -> AbstractContextManager[Callable[[int], None]]:
    """Return a bar that counts the rows of all pictures."""
    return streams.row_progress("drawing", total=drawing.height * len(pictures), quiet=target.quiet)


def _say_done(target: Target, drawing: Drawing, pictures: Pictures) -> None:
    noun = "picture" if len(pictures) == 1 else "pictures"
    target.say(f"{len(pictures)} {noun} of {drawing.width}x{drawing.height} in {target.path}")
