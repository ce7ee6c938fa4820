"""Pictures as a page holds them: reduced to what is shown, and inside the page as data: URIs."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.averaging import area_average, area_weights
from ..evaluation.inputs import Pictures
from ..pictures.files import encode_picture
from ..pictures.pixels import quantise
from ..pictures.sheet import Pixels

TILE = 128  # pixels: larger pictures are reduced to it
SHEET = 1100  # pixels of a sheet's longer side
SMALL = 128  # pixels: a tile up to here is enlarged by repeating pixels
BYTES_A_PIXEL = 1.5  # of PNG; what needs more, as photos do, is shown as JPEG


@dataclass(frozen=True)
class Shown:
    """A picture inside the page: its source, and its width and height in pixels."""

    source: str
    width: int
    height: int

    @property
    def small(self) -> bool:
        """Say whether its pixels are to be seen one by one."""
        return max(self.width, self.height) <= SMALL


def shown(pixels: Pixels) -> Shown:
    """Return pixels [H, W, 3] as a page holds them: PNG, exact, but for pictures that it would make large."""
    height, width, _ = pixels.shape
    data, kind = encode_picture(pixels), "png"
    if len(data) > BYTES_A_PIXEL * width * height + 2**12:
        data, kind = encode_picture(pixels, format="jpeg"), "jpeg"
    return Shown(data_uri(data, f"image/{kind}"), width, height)


def data_uri(data: bytes, kind: str) -> str:
    """Return bytes of a media type as a URI that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def read_sheet(path: Path) -> Pixels | None:
    """Return a sheet of pictures [H, W, 3], at most SHEET pixels long; None where it is damaged or has gone."""
    try:
        with Image.open(path) as image:
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    longest = max(whole.size)
    if longest > SHEET:
        size = (max(1, whole.width * SHEET // longest), max(1, whole.height * SHEET // longest))
        whole = whole.resize(size, Image.Resampling.BOX)
    return np.asarray(whole)


def tiles(pixels: Tensor) -> Pixels:
    """Return pictures uint8 [N, 3, R, R] as [N, r, r, 3], area-averaged to TILE pixels where they are larger."""
    side = pixels.shape[-1]
    if side > TILE:
        pixels = quantise(area_average(pixels.cpu(), area_weights(side, TILE)))
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def tiles_at(pictures: Pictures, numbers: Sequence[int]) -> dict[int, Pixels]:
    """Return the pictures of those numbers as tiles [r, r, 3]."""
    wanted = sorted(set(numbers))
    return {number: tiles(torch.cat(list(pictures.passes(range(number, number + 1)))))[0] for number in wanted}


class Kept:
    """Pictures whose tiles, in `tiles`, are kept as the pictures pass: they are made once."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        self.name = pictures.name
        self.side = pictures.side
        self.tiles: list[Pixels] = []

    @property
    def sha256(self) -> str:
        return self.pictures.sha256

    @property
    def facts(self) -> dict[str, Any]:
        return self.pictures.facts

    def __len__(self) -> int:
        return len(self.pictures)

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        for part in self.pictures.passes(span):
            self.tiles += list(tiles(part))
            yield part
