"""Heat maps of images' levels into what -o asks for: a sheet, a folder, an array."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from polyinr_core.latents.latents import Latents
from polyinr_core.rendering.metadata import Metadata, grid_metadata
from polyinr_core.rendering.render import Renderer
from polyinr_core.rendering.requests import ImageRequests
from polyinr_core.rendering.writers import GridSpec, Output, OutputKind, check_output, write_files, write_pixels
from polyinr_core.runtime.memory import check_disk, check_memory

from . import console
from .outputs import Reporter

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

    renderer: Renderer
    levels: list[int]
    colors: str = "fire"
    overlay: float | None = None

    @property
    def grid(self) -> GridSpec:
        """A row for each image: itself, and its levels."""
        wide = self.renderer.width >= WIDE
        names = [f"level {level}" if wide else str(level) for level in self.levels]
        return GridSpec(columns=1 + len(self.levels), column_names=("image" if wide else "", *names))

    @property
    def points(self) -> int:
        """How many points of the plane are drawn twice for an image's heat."""
        return self.renderer.grid.width * self.renderer.grid.height

    def bands(self, latents: Latents, done: Done) -> "Iterator[Tensor]":
        """Return bands [rows, W, K] of the heat of affine maps [1, L, 3, n]. Raises PolyinrError."""
        from polyinr_core.rendering.heatmap import heatmap_rows

        renderer = self.renderer
        return heatmap_rows(
            renderer.model.synthesis,
            renderer.model.affine_of(latents)[0],
            renderer.grid,
            levels=self.levels,
            supersample=renderer.viewport.supersample,
            progress=done,
        )

    def heats(self, latents: Latents, done: Done) -> Heats:
        """Return the heat of affine maps, [K, H, W]."""
        heats = np.empty((len(self.levels), self.renderer.height, self.renderer.width), dtype=np.float32)
        top = 0
        for band in self.bands(latents, done):
            heats[:, top : top + len(band)] = band.permute(2, 0, 1).cpu().numpy()
            top += len(band)
        return heats

    def cell(self, heat: NDArray[np.floating[Any]], image: "Pixels | None") -> "Pixels":
        """Return a level's heat [H, W] in colors, from its least to its greatest, over the image if asked."""
        from polyinr_core.rendering.heatmap import colorize

        if self.overlay is None:
            return colorize(heat, self.colors)
        return colorize(heat, self.colors, image=image, opacity=self.overlay)

    def note(self, note: Metadata, heats: Heats) -> Metadata:
        """Return an image's note with what was found: the least and the greatest heat of each level."""
        ranges = [[float(heat.min()), float(heat.max())] for heat in heats]
        return {**note, "heat_of_levels": self.levels, "heat_ranges": ranges}


def check_heat(target: Output, heat: HeatMaps, count: int) -> None:
    """Raise RequestError if the output cannot hold the heat maps of so many images, before any is drawn."""
    renderer, levels = heat.renderer, len(heat.levels)
    check_output(target, renderer, count=count * (1 + levels), grid=heat.grid)
    if target.kind is not OutputKind.array:
        needed = renderer.width * renderer.height * levels * HEAT_BYTES
        check_memory(needed, purpose=f"heat maps of {renderer.width}x{renderer.height}")


def draw_heat(target: Output, heat: HeatMaps, images: ImageRequests, reporter: Reporter) -> None:
    """Draw the heat maps in the form that the output's kind asks for. Raises PolyinrError."""
    check_heat(target, heat, len(images))
    draw = {OutputKind.folder: _draw_folder, OutputKind.array: _draw_array}.get(target.kind, _draw_sheet)
    passes = 2 if target.kind is OutputKind.array or (target.kind is OutputKind.folder and heat.overlay is None) else 3
    total = passes * heat.points * len(images)
    with console.row_progress("rendering", total=total, quiet=reporter.quiet) as done:
        draw(target, heat, images, reporter, done)
    if target.stream is not None:
        return
    noun = "image" if len(images) == 1 else "images"
    reporter.say(f"{len(heat.levels)} levels of {len(images)} {noun} in {target.path}")


def _draw_sheet(target: Output, heat: HeatMaps, images: ImageRequests, reporter: Reporter, done: Done) -> None:
    """Write a sheet, a row for each image: itself, then its levels."""
    from polyinr_core.images.grid import blank

    renderer, columns = heat.renderer, 1 + len(heat.levels)
    plan = heat.grid.layout(len(images) * columns, renderer)
    pixels = blank(plan.size)
    notes, found = [], []
    for index, (latents, metadata) in enumerate(images):
        image = pixels[plan.place(index * columns)]
        _draw_image(heat, image, latents, done)
        heats = heat.heats(latents, done)
        for k, own in enumerate(heats):
            pixels[plan.place(index * columns + 1 + k)] = heat.cell(own, image)
        notes.append(metadata)
        found.append(heat.note(notes[-1], heats))
    heat.grid.draw_captions(pixels, plan)
    write_pixels(target, pixels, grid_metadata(notes))
    for one in found:
        reporter.json(target.path, one)


def _draw_folder(target: Output, heat: HeatMaps, images: ImageRequests, reporter: Reporter, done: Done) -> None:
    """Write one PNG for each image and level."""
    from polyinr_core.images.batch_writer import Image
    from polyinr_core.images.grid import blank

    def name_of(index: int, level: int) -> str:
        return f"{images.names[index]}-level{level}.png"

    found: list[Metadata] = []

    def drawn() -> "Iterator[Image]":
        for index, (latents, metadata) in enumerate(images):
            image = None
            if heat.overlay is not None:
                image = blank((heat.renderer.width, heat.renderer.height))
                _draw_image(heat, image, latents, done)
            # what is drawn again is all of the folder
            note = {**metadata, "folder": target.path.name}
            for level, own in zip(heat.levels, heat.heats(latents, done), strict=True):
                ranges = [[float(own.min()), float(own.max())]]
                found.append({**note, "heat_of_levels": [level], "heat_ranges": ranges})
                yield Image(name_of(index, level), heat.cell(own, image), note)

    names = [name_of(index, level) for index in range(len(images)) for level in heat.levels]
    for index, path in enumerate(write_files(target, heat.renderer, drawn(), names=names)):
        reporter.json(path, found[index])


def _draw_array(target: Output, heat: HeatMaps, images: ImageRequests, reporter: Reporter, done: Done) -> None:
    """Write .npy [N, K, H, W], the sums themselves, band by band as they are found: float64 or float32."""
    import torch

    from polyinr_core.runtime.atomic_io import written_beside

    renderer, levels = heat.renderer, len(heat.levels)
    dtype = np.dtype("<f8" if renderer.model.dtype == torch.float64 else "<f4")
    shape = (len(images), levels, renderer.height, renderer.width)
    row, plane = renderer.width * dtype.itemsize, renderer.height * renderer.width * dtype.itemsize
    check_disk(target.path, len(images) * levels * plane)
    notes = []
    with written_beside(target.path, overwrite=target.overwrite) as draft, draft.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        start = file.tell()
        for index, (latents, metadata) in enumerate(images):
            notes.append(metadata)
            top = 0
            for band in heat.bands(latents, done):
                for k, own in enumerate(band.permute(2, 0, 1).cpu().numpy().astype(dtype)):
                    file.seek(start + (index * levels + k) * plane + top * row)
                    file.write(own.tobytes())
                top += len(band)
    for one in notes:
        reporter.json(target.path, one)


def _draw_image(heat: HeatMaps, pixels: "Pixels", latents: Latents, done: Done) -> None:
    """Draw an image itself into its place."""
    points = heat.points // heat.renderer.height
    heat.renderer.fill(pixels, latents, progress=lambda rows: done(rows * points))
