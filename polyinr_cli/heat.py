"""Heat maps of images' levels into what -o asks for: a sheet, a folder, an array."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyinr_core.runtime.memory import check_disk, check_memory

from . import console as streams
from .drawing import Drawing
from .named import Images
from .notes import Note, sheet_note
from .outputs import Arrangement, check_target, maps_of, write_folder
from .targets import Kind, Target, write_pixels_to

if TYPE_CHECKING:
    from torch import Tensor

    from polyinr_core.images.batch_writer import Image
    from polyinr_core.images.quantize import Pixels

Heats = NDArray[np.float32]
Done = Callable[[int], None]
HEAT_BYTES = 4 + 4 + 8  # a pixel of a level: held, and its color on the way
WIDE = 60  # pixels: a cell that holds the word "level"


@dataclass(frozen=True)
class HeatMaps:
    """How heat maps are made: at which view, of which levels, in which colors, how strong over the image."""

    drawing: Drawing
    levels: list[int]
    colors: str = "inferno"
    overlay: float | None = None

    @property
    def arrangement(self) -> Arrangement:
        """A row for each image: itself, and its levels."""
        wide = self.drawing.width >= WIDE
        names = [f"level {level}" if wide else str(level) for level in self.levels]
        return Arrangement(columns=1 + len(self.levels), column_names=("image" if wide else "", *names))

    @property
    def points(self) -> int:
        """How many points of the plane are drawn twice for an image's heat."""
        return self.drawing.grid.width * self.drawing.grid.height

    def bands(self, maps: "Tensor", done: Done) -> "Iterator[Tensor]":
        """Return bands [rows, W, K] of the heat of affine maps [1, L, 3, n]. Raises PolyinrError."""
        from polyinr_core.rendering.heatmap import heatmap_rows

        drawing, painter = self.drawing, self.drawing.painter
        return heatmap_rows(
            painter.synthesis,
            painter.affine(maps),
            drawing.grid,
            levels=self.levels,
            supersample=drawing.view.supersample,
            progress=done,
        )

    def heats(self, maps: "Tensor", done: Done) -> Heats:
        """Return the heat of affine maps, [K, H, W]."""
        heats = np.empty((len(self.levels), self.drawing.height, self.drawing.width), dtype=np.float32)
        top = 0
        for band in self.bands(maps, done):
            heats[:, top : top + len(band)] = band.permute(2, 0, 1).cpu().numpy()
            top += len(band)
        return heats

    def cell(self, heat: NDArray[np.floating[Any]], image: "Pixels | None") -> "Pixels":
        """Return a level's heat [H, W] in colors, from its least to its greatest, over the image if asked."""
        from polyinr_core.rendering.heatmap import colorize

        if self.overlay is None:
            return colorize(heat, self.colors)
        return colorize(heat, self.colors, image=image, opacity=self.overlay)

    def note(self, note: Note, heats: Heats) -> Note:
        """Return an image's note with what was found: the least and the greatest heat of each level."""
        ranges = [[float(heat.min()), float(heat.max())] for heat in heats]
        return {**note, "heat_of_levels": self.levels, "heat_ranges": ranges}


def check_heat(target: Target, heat: HeatMaps, count: int) -> None:
    """Raise RequestError if the output cannot hold the heat maps of so many images, before any is drawn."""
    drawing, levels = heat.drawing, len(heat.levels)
    check_target(target, drawing, count=count * (1 + levels), arrangement=heat.arrangement)
    if target.kind is not Kind.array:
        needed = drawing.width * drawing.height * levels * HEAT_BYTES
        check_memory(needed, purpose=f"heat maps of {drawing.width}x{drawing.height}")


def draw_heat(target: Target, heat: HeatMaps, images: Images) -> None:
    """Draw the heat maps in the form that the output's kind asks for. Raises PolyinrError."""
    check_heat(target, heat, len(images))
    draw = {Kind.folder: _draw_folder, Kind.array: _draw_array}.get(target.kind, _draw_sheet)
    passes = 2 if target.kind is Kind.array or (target.kind is Kind.folder and heat.overlay is None) else 3
    total = passes * heat.points * len(images)
    with streams.row_progress("drawing", total=total, quiet=target.quiet) as done:
        draw(target, heat, images, done)
    noun = "image" if len(images) == 1 else "images"
    target.say(f"{len(heat.levels)} levels of {len(images)} {noun} in {target.path}")


def _draw_sheet(target: Target, heat: HeatMaps, images: Images, done: Done) -> None:
    """Write a sheet, a row for each image: itself, then its levels."""
    from polyinr_core.images.grid import blank

    drawing, columns = heat.drawing, 1 + len(heat.levels)
    plan = heat.arrangement.layout(len(images) * columns, drawing.width, drawing.height)
    pixels = blank(plan.size)
    notes, found = [], []
    for index in range(len(images)):
        latents = images.latents(index)
        image = pixels[plan.place(index * columns)]
        _draw_image(heat, image, maps_of(latents), done)
        heats = heat.heats(maps_of(latents), done)
        for k, own in enumerate(heats):
            pixels[plan.place(index * columns + 1 + k)] = heat.cell(own, image)
        notes.append(images.note(latents, index))
        found.append(heat.note(notes[-1], heats))
    heat.arrangement.write_names(pixels, plan)
    write_pixels_to(target, pixels, sheet_note(notes))
    if target.kind is not Kind.stdout:
        target.report((target.path, note) for note in found)


def _draw_folder(target: Target, heat: HeatMaps, images: Images, done: Done) -> None:
    """Write one PNG for each image and level."""
    from polyinr_core.images.batch_writer import Image
    from polyinr_core.images.grid import blank

    def name_of(index: int, level: int) -> str:
        return f"{images.names[index]}-level{level}.png"

    found: list[Note] = []

    def drawn() -> "Iterator[Image]":
        for index in range(len(images)):
            latents = images.latents(index)
            image = None
            if heat.overlay is not None:
                image = blank((heat.drawing.width, heat.drawing.height))
                _draw_image(heat, image, maps_of(latents), done)
            # what is drawn again is all of the folder
            note = {**images.note(latents, index), "folder": target.path.name}
            for level, own in zip(heat.levels, heat.heats(maps_of(latents), done), strict=True):
                ranges = [[float(own.min()), float(own.max())]]
                found.append({**note, "heat_of_levels": [level], "heat_ranges": ranges})
                yield Image(name_of(index, level), heat.cell(own, image), note)

    names = [name_of(index, level) for index in range(len(images)) for level in heat.levels]
    write_folder(target, heat.drawing, drawn(), names=names, notes=found)


def _draw_array(target: Target, heat: HeatMaps, images: Images, done: Done) -> None:
    """Write .npy [N, K, H, W], the sums themselves, band by band as they are found: float64 or float32."""
    import torch

    from polyinr_core.runtime.atomic_io import written_beside

    drawing, levels = heat.drawing, len(heat.levels)
    dtype = np.dtype("<f8" if drawing.painter.dtype == torch.float64 else "<f4")
    shape = (len(images), levels, drawing.height, drawing.width)
    row, plane = drawing.width * dtype.itemsize, drawing.height * drawing.width * dtype.itemsize
    check_disk(target.path, len(images) * levels * plane)
    notes = []
    with written_beside(target.path, overwrite=target.overwrite) as draft, draft.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for index in range(len(images)):
            latents = images.latents(index)
            notes.append(images.note(latents, index))
            top = 0
            for band in heat.bands(maps_of(latents), done):
                for k, own in enumerate(band.permute(2, 0, 1).cpu().numpy().astype(dtype)):
                    file.seek(start + (index * levels + k) * plane + top * row)
                    file.write(own.tobytes())
                top += len(band)
    target.report((target.path, note) for note in notes)


def _draw_image(heat: HeatMaps, pixels: "Pixels", maps: "Tensor", done: Done) -> None:
    """Draw an image itself into its place."""
    points = heat.points // heat.drawing.height
    heat.drawing.fill(pixels, maps, progress=lambda rows: done(rows * points))
