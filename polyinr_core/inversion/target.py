"""A photo, and the size at which it is matched."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.data.decode import MAX_IMAGE_BYTES, decode, frame_count
from polyinr_core.errors import FileError, ImageError
from polyinr_core.images.grid import Pixels
from polyinr_core.models.checkpointing import draw_replayed
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import UNIT, Bounds, Grid, RegularGrid
from polyinr_core.models.generator import Synthesis
from polyinr_core.models.layers import TRACE_BYTES

SHORTER_SIDE = 256  # of the matched image, unless the model was trained on larger ones


@dataclass(frozen=True)
class Photo:
    """Pixels [H, W, 3] at the size of matching, and the size and number of frames of the file."""

    name: str
    pixels: Pixels
    width: int
    height: int
    frames: int = 1

    @property
    def resized(self) -> bool:
        """Whether the pixels are not the file's own."""
        return self.pixels.shape[:2] != (self.height, self.width)

    def target(self, like: Tensor) -> Tensor:
        """Return colors [1, 3, H, W] that drawing rounds to these very pixels, in the dtype of `like`.

        Drawing drops the fraction, so a pixel's aim is the middle of its step: (u + 1/2) / 127.5 - 1.
        """
        colors = (torch.from_numpy(self.pixels.astype(np.float64)) + 0.5) / 127.5 - 1
        return colors.permute(2, 0, 1).unsqueeze(0).to(like)


def read_photo(
    data: bytes,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    shorter: int | None = None,
    resolution: int = 0,
) -> Photo:
    """Decode an image file's bytes and bring it to `size` (width, height), or to `matching_size` of it.

    The first frame of an animation is taken. Reduced with antialiasing, enlarged bicubically. Raises FileError.
    """
    if len(data) > MAX_IMAGE_BYTES:
        raise FileError(name, f"holds more than {MAX_IMAGE_BYTES // 2**20} MiB; give a smaller file")
    try:
        image = decode(data)
    except ImageError as error:
        raise FileError(name, f"{error}; a photo is a PNG, JPEG, WebP, TIFF or the like") from error
    wanted = size or matching_size(*image.size, shorter=shorter, resolution=resolution)
    width, height = image.size
    if wanted != image.size:
        larger = wanted[0] > width or wanted[1] > height
        image = image.resize(wanted, Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS)
    return Photo(name, np.array(image, dtype=np.uint8), width, height, frames=frame_count(data))


def matching_size(width: int, height: int, *, shorter: int | None, resolution: int) -> tuple[int, int]:
    """Return the size (width, height) at which a photo is matched, in its own shape.

    Its shorter side is `shorter`; without that its own, at most 256 or the model's resolution if that is more.
    """
    if shorter is None:
        shorter = min(width, height, max(SHORTER_SIDE, resolution))
    scale = shorter / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def photo_name(path: Path) -> str:
    """Return what a photo is called in messages."""
    return "stdin" if str(path) == "-" else str(path)


@dataclass(frozen=True)
class Canvas:
    """The points [P, 3] of an image of width x height; `chunk` pixels of it are replayed at a time (0: all)."""

    width: int
    height: int
    points: Tensor
    chunk: int = 0

    def draw(self, synthesis: Synthesis, affine: Tensor) -> Tensor:
        """Draw affine [N, L, 3, n] as colors [N, 3, H, W], about [-1, 1], with gradients."""
        if self.chunk and torch.is_grad_enabled():
            colors = draw_replayed(synthesis, affine, self.points, chunk=self.chunk)
        else:
            colors = synthesis(affine, self.points)
        return colors.unflatten(1, (self.height, self.width)).permute(0, 3, 1, 2)


def canvas_for(
    config: GeneratorConfig,
    *,
    width: int,
    height: int,
    like: Tensor,
    bounds: Bounds = UNIT,
    grid: Grid | None = None,
    memory: int | None = None,
) -> Canvas:
    """Return the canvas of an image, with points in the dtype and on the device of `like`.

    `grid` is the regular one of `bounds` unless given. What a pass leaves for the backward pass must fit into a
    quarter of `memory` bytes (None: as much as it takes); otherwise it is replayed in chunks that do.
    Raises ConfigError.
    """
    grid = RegularGrid(width, height, bounds) if grid is None else grid
    pixels = width * height
    points = grid.at(torch.arange(pixels, device=like.device), dtype=like.dtype)
    most = (memory or 2**62) // 4 // (TRACE_BYTES * config.channels * config.levels)
    chunk = 0 if pixels <= most else max(1024, 1 << (most // 4).bit_length() - 1)
    return Canvas(width, height, points, chunk if chunk < pixels else 0)
