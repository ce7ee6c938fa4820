"""What the viewer shows: the selected image, and the windows, the dtype and the rendering of its tiles.

The square WORLD of the plane is an image of 2^level pixels a side, cut into tiles of TILE_SIZE pixels. Up to
MAX_LEVEL the pixel centers are exact in float64, so the tiles of a level join as if they were rendered as one image.
"""

import copy
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import PolyinrError, RequestError
from polyinr_core.images.grid import blank, fill_rows
from polyinr_core.images.io import encode_image
from polyinr_core.latents.interpolation import mix
from polyinr_core.latents.latents import (
    MAX_SEED,
    Latents,
    check_psi,
    draw_labels,
    from_seeds,
    in_space,
    parse_label,
    parse_levels,
    seeds_text,
    to_affine,
)
from polyinr_core.models.coordinates import Window
from polyinr_core.rendering.backends import Backend, in_precision, select_backend
from polyinr_core.rendering.render import render_rows
from polyinr_core.rendering.viewport import Viewport

FIELDS = ("seed", "label", "psi", "other", "levels")  # of a selection in a query
TILE_SIZE = 256  # pixels
WORLD_MIN, WORLD_SIZE = -7.5, 16.0  # the trained window 0..1 is in the middle
MIN_LEVEL = 8  # one tile shows the world
MAX_LEVEL = 50  # a position in the world has three bits left below a pixel, in float64 and in the page's numbers
MAX_FLOAT32_LEVEL = 20  # float32 resolves a sixteenth of a pixel anywhere in the world
BFLOAT16_OVERSAMPLING = 16  # bfloat16 is not visible up to so many pixels to one of the training resolution
MAX_SUPERSAMPLE = 4  # for pixels that are larger than those of the training resolution
AFFINE_CACHE_SIZE = 16  # images


@dataclass(frozen=True)
class Selection:
    """An image. Without a label, the seed draws the class. `levels` are taken from the seed `other`."""

    seed: int = 0
    label: int | None = None
    psi: float = 1.0
    other: int | None = None
    levels: tuple[int, ...] = ()

    def latents(self, checkpoint: Checkpoint) -> Latents:
        """Return the latents of the image, with affine [1, L, 3, n]."""
        generator = checkpoint.generator
        image = from_seeds(generator, [self.seed], label=self.label, psi=self.psi)
        if self.other is None:
            return image
        source = from_seeds(generator, [self.other], label=self.label, psi=self.psi)
        return to_affine(generator, mix(image, source, levels=self.levels))

    def label_shown(self, checkpoint: Checkpoint) -> int | None:
        """Return the class, None for an unconditional model and for a mix of two classes."""
        classes = checkpoint.generator.config.classes
        if self.label is not None or not classes:
            return self.label
        drawn = draw_labels([seed for seed in (self.seed, self.other) if seed is not None], classes).tolist()
        return drawn[0] if len(set(drawn)) == 1 else None

    def command(self) -> list[str]:
        """Return the command that renders the image, without model, size, window and output."""
        if self.other is None:
            words = ["sample", "--seeds", str(self.seed)]
        else:
            source, target = f"--source={self.other}", f"--target={self.seed}"
            words = ["mix", source, target, "--levels", seeds_text(self.levels)]
        if self.label is not None:
            words += ["--label", str(self.label)]
        return ["polyinr", *words] + (["--psi", repr(self.psi)] if self.psi != 1.0 else [])


def parse_selection(fields: Mapping[str, str], checkpoint: Checkpoint) -> Selection:
    """Parse the query fields FIELDS; a missing or empty field has the default of `Selection`.

    Raises RequestError, LabelError.
    """
    if unknown := sorted(set(fields) - set(FIELDS)):
        raise RequestError(f"{unknown[0][:40]!r} is not a field of an image; use {', '.join(FIELDS)}")
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    config = checkpoint.generator.config
    label = None
    if "label" in given:
        label = parse_label(given["label"], classes=config.classes, class_names=checkpoint.class_names)
    if ("other" in given) != ("levels" in given):
        raise RequestError("mixing requires both: another seed (other) and its levels")
    return Selection(
        seed=_seed(given.get("seed", "0")),
        label=label,
        psi=_psi(given.get("psi", "1")),
        other=_seed(given["other"]) if "other" in given else None,
        levels=tuple(parse_levels(given["levels"], levels=config.levels)) if "levels" in given else (),
    )


def _seed(text: str) -> int:
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or int(text) > MAX_SEED:
        raise RequestError(f"seed {text[:40]!r} is not an integer in 0-{MAX_SEED}")
    return int(text)


def _psi(text: str) -> float:
    try:
        psi = float(text)
        check_psi(psi)
    except (ValueError, RequestError) as error:
        raise RequestError(f"psi {text[:40]!r} is out of range; 0.5 to 1 is usual") from error
    return psi


@dataclass(frozen=True, order=True)
class TileIndex:
    """A zoom level, and a column and a row from the left and the top. Raises RequestError if out of range."""

    level: int
    column: int
    row: int

    def __post_init__(self) -> None:
        if not MIN_LEVEL <= self.level <= MAX_LEVEL:
            raise RequestError(f"level {self.level} is out of range {MIN_LEVEL}-{MAX_LEVEL}")
        last = tiles_across(self.level) - 1
        for name, index in (("column", self.column), ("row", self.row)):
            if not 0 <= index <= last:
                raise RequestError(f"{name} {index} is out of range 0-{last} (level {self.level})")

    @property
    def window(self) -> Window:
        """The centers of the outermost pixels: x0, y0, x1, y1."""
        step = pixel_size(self.level)
        x, y = (WORLD_MIN + (index * TILE_SIZE + 0.5) * step for index in (self.column, self.row))
        return x, y, x + (TILE_SIZE - 1) * step, y + (TILE_SIZE - 1) * step

    def viewport(self, resolution: int) -> Viewport:
        """Return the viewport of the tile, supersampled if its pixels are larger than those of `resolution`.

        `resolution` is the training resolution, 0 if it is unknown.
        """
        ratio = pixel_size(self.level) * resolution  # pixels of the training resolution across one of the tile
        supersample = 1 if ratio <= 1 else 2 if ratio <= 2 else MAX_SUPERSAMPLE
        return Viewport(TILE_SIZE, TILE_SIZE, self.window, supersample=supersample)


def pixel_size(level: int) -> float:
    """Return the side of a level's pixels in units of the plane."""
    return WORLD_SIZE / 2**level


def tiles_across(level: int) -> int:
    """Return the number of tiles in a row or a column of a level."""
    return 2 ** (level - MIN_LEVEL)


def dtype_of_level(level: int, *, resolution: int, dtype: torch.dtype) -> torch.dtype:
    """Return the narrowest dtype, not narrower than `dtype`, whose rounding is invisible at a level.

    The rounding of bfloat16 is visible in pixels that are much smaller than those of the training `resolution`.
    """
    if level > MAX_FLOAT32_LEVEL or dtype == torch.float64:
        return torch.float64
    if dtype == torch.bfloat16 and pixel_size(level) * resolution * BFLOAT16_OVERSAMPLING >= 1:
        return torch.bfloat16
    return torch.float32


class RenderCancelled(PolyinrError):
    """No client waits for the tile any more."""


@dataclass
class TileRenderer:
    """Renders tiles with a checkpoint on its device.

    `dtype` is that of large pixels, see `dtype_of_level`. With a `tolerance`, in steps of 1/255, tiles are rendered
    adaptively (rendering/adaptive.py). For use by one thread.
    """

    checkpoint: Checkpoint
    dtype: torch.dtype = torch.float32
    tolerance: float = 0.0
    backends: dict[torch.dtype, Backend] = field(default_factory=dict)
    affine_cache: OrderedDict[Selection, Tensor] = field(default_factory=OrderedDict)

    def render(self, selection: Selection, tile: TileIndex, *, is_wanted: Callable[[], bool] = lambda: True) -> bytes:
        """Return a tile as PNG. Raises RenderCancelled once `is_wanted`, called before each chunk, returns False."""
        dtype = dtype_of_level(tile.level, resolution=self.checkpoint.resolution, dtype=self.dtype)
        affine = self.affine(selection).to(torch.float64 if dtype == torch.float64 else torch.float32)
        backend = self.backend(dtype)
        viewport = tile.viewport(self.checkpoint.resolution)

        def cancellable(affine: Tensor, coordinates: Tensor) -> Tensor:
            if not is_wanted():
                raise RenderCancelled("the request was cancelled")
            return backend(affine, coordinates)

        pixels = blank((TILE_SIZE, TILE_SIZE))
        rows = render_rows(
            cancellable, affine, viewport.grid(), supersample=viewport.supersample, tolerance=self.tolerance
        )
        fill_rows(pixels, rows)
        return encode_image(pixels, format="png")

    def affine(self, selection: Selection) -> Tensor:
        """Return the affine parameters [L, 3, n] of an image, in the dtype of the generator."""
        if selection in self.affine_cache:
            self.affine_cache.move_to_end(selection)
            return self.affine_cache[selection]
        affine = self.affine_cache[selection] = in_space(selection.latents(self.checkpoint), "affine")[0]
        if len(self.affine_cache) > AFFINE_CACHE_SIZE:
            self.affine_cache.popitem(last=False)
        return affine

    def backend(self, dtype: torch.dtype) -> Backend:
        """Return the rendering backend for a dtype."""
        if dtype not in self.backends:
            synthesis = in_precision(copy.deepcopy(self.checkpoint.generator.synthesis), dtype)
            self.backends[dtype] = select_backend(synthesis, next(synthesis.parameters()).device)
        return self.backends[dtype]
