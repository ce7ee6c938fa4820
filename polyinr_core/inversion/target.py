"""The target image of an inversion, and the coordinate grid at which the model is compared with it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.data.decode import MAX_IMAGE_BYTES, decode, frame_count
from polyinr_core.errors import FileError, ImageError, RequestError
from polyinr_core.images.grid import Pixels
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import UNIT, Grid, RegularGrid, Window
from polyinr_core.models.generator import Synthesis, render_checkpointed
from polyinr_core.models.layers import SAVED_BYTES
from polyinr_core.runtime.atomic_io import PathLike, read_bytes

MAX_SHORTER_SIDE = 256  # default limit in pixels, raised to the training resolution of larger models
MEMORY_SHARE = 4  # activations may take one part in MEMORY_SHARE of the memory


@dataclass(frozen=True)
class TargetImage:
    """The image to invert: `pixels` [H, W, 3] uint8, and the `width`, `height` and frame count of its file."""

    name: str
    pixels: Pixels
    width: int
    height: int
    frames: int = 1

    @property
    def is_resized(self) -> bool:
        """Whether the size of `pixels` differs from that of the file."""
        return self.pixels.shape[:2] != (self.height, self.width)

    def colors(self, like: Tensor) -> Tensor:
        """Return colors [1, 3, H, W] in [-1, 1] that quantize to exactly these pixels, in the dtype of `like`.

        Quantization truncates, so the target of a pixel is the middle of its step: (u + 1/2) / 127.5 - 1.
        """
        colors = (torch.from_numpy(self.pixels.astype(np.float64)) + 0.5) / 127.5 - 1
        return colors.permute(2, 0, 1).unsqueeze(0).to(like)


def load_target(
    image: PathLike | bytes | Image.Image | Pixels | TargetImage,
    *,
    name: str = "",
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    resolution: int = 0,
) -> TargetImage:
    """Decode and resize a target image.

    Args:
        image: a path, the bytes of an image file, a PIL image, or a uint8 array [H, W, 3] or [H, W]. Of an
            animation, the first frame is used. A TargetImage is returned unchanged.
        name: the name for messages; by default the path.
        size: (width, height) in pixels; without it the aspect ratio is kept, see `target_size`.
        shorter_side: the shorter side in pixels.
        resolution: the training resolution of the model.

    Images are reduced by Lanczos resampling and enlarged by bicubic resampling. Raises FileError, RequestError.
    """
    if isinstance(image, TargetImage):
        return image
    frames = 1
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            shape = list(image.shape)
            raise RequestError(f"the array is {image.dtype} {shape}; a target image is uint8 [H, W, 3] or [H, W]")
        decoded = Image.fromarray(image).convert("RGB")
    elif isinstance(image, Image.Image):
        decoded = image.convert("RGB")
    else:
        data = image if isinstance(image, bytes) else read_bytes(Path(image))
        name = name or ("image" if isinstance(image, bytes) else str(image))
        decoded, frames = _decoded(data, name), frame_count(data)
    width, height = decoded.size
    wanted = size or target_size(width, height, shorter_side=shorter_side, resolution=resolution)
    if wanted != (width, height):
        is_larger = wanted[0] > width or wanted[1] > height
        decoded = decoded.resize(wanted, Image.Resampling.BICUBIC if is_larger else Image.Resampling.LANCZOS)
    return TargetImage(name or "image", np.array(decoded, dtype=np.uint8), width, height, frames=frames)


def _decoded(data: bytes, name: str) -> Image.Image:
    if len(data) > MAX_IMAGE_BYTES:
        raise FileError(name, f"the file is larger than {MAX_IMAGE_BYTES // 2**20} MiB; give a smaller file")
    try:
        return decode(data)
    except ImageError as error:
        raise FileError(name, f"{error}; use an image file such as PNG, JPEG, WebP or TIFF") from error


def target_size(width: int, height: int, *, shorter_side: int | None, resolution: int) -> tuple[int, int]:
    """Return the (width, height) at which an image of width x height is inverted; the aspect ratio is kept.

    The default of `shorter_side` is that of the image, at most 256 or, if that is more, `resolution`.
    """
    if shorter_side is None:
        shorter_side = min(width, height, max(MAX_SHORTER_SIDE, resolution))
    scale = shorter_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class TargetGrid:
    """The coordinates [P, 3] of an image of width x height; with `chunk` > 0 its gradients are recomputed in chunks."""

    width: int
    height: int
    coordinates: Tensor
    chunk: int = 0

    def render(self, synthesis: Synthesis, affine: Tensor) -> Tensor:
        """Render affine [N, L, 3, n] to colors [N, 3, H, W], about [-1, 1], differentiably."""
        if self.chunk and torch.is_grad_enabled():
            colors = render_checkpointed(synthesis, affine, self.coordinates, chunk=self.chunk)
        else:
            colors = synthesis(affine, self.coordinates)
        return colors.unflatten(1, (self.height, self.width)).permute(0, 3, 1, 2)  # [N, 3, H, W]


def target_grid(
    config: GeneratorConfig,
    *,
    width: int,
    height: int,
    like: Tensor,
    window: Window = UNIT,
    grid: Grid | None = None,
    memory: int | None = None,
) -> TargetGrid:
    """Return the grid of an image of width x height, with coordinates in the dtype and on the device of `like`.

    `grid` defaults to the regular grid of `window`. If the activations of one pass take more than a quarter of
    `memory` bytes (None: no limit), the backward pass recomputes them in chunks. Raises ConfigError.
    """
    grid = RegularGrid(width, height, window) if grid is None else grid
    pixels = width * height
    coordinates = grid.at(torch.arange(pixels, device=like.device), dtype=like.dtype)  # [P, 3]
    max_pixels = (memory or 2**62) // MEMORY_SHARE // (SAVED_BYTES * config.channels * config.levels)
    chunk = 0 if pixels <= max_pixels else max(1024, 1 << (max_pixels // 4).bit_length() - 1)
    return TargetGrid(width, height, coordinates, chunk if chunk < pixels else 0)
