"""A photo, and the size at which it is matched."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.decoding import MAX_PICTURE_BYTES, decode, frame_count
from ..errors import FileError, PictureError
from ..pictures.sheet import Pixels

SHORTER_SIDE = 256  # of the matched picture, unless the model was trained on larger ones


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
        """Return colours [1, 3, H, W] that drawing rounds to these very pixels, in the dtype of `like`.

        Drawing drops the fraction, so a pixel's aim is the middle of its step: (u + 1/2) / 127.5 - 1.
        """
        colours = (torch.from_numpy(self.pixels.astype(np.float64)) + 0.5) / 127.5 - 1
        return colours.permute(2, 0, 1).unsqueeze(0).to(like)


def read_photo(
    data: bytes,
    *,
    name: str,
    size: tuple[int, int] | None = None,
    shorter: int | None = None,
    resolution: int = 0,
) -> Photo:
    """Decode a picture file's bytes and bring it to `size` (width, height), or to `matching_size` of it.

    The first frame of an animation is taken. Reduced with antialiasing, enlarged bicubically. Raises FileError.
    """
    if len(data) > MAX_PICTURE_BYTES:
        raise FileError(name, f"holds more than {MAX_PICTURE_BYTES // 2**20} MiB; give a smaller file")
    try:
        image = decode(data)
    except PictureError as error:
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
