"""Test images: the bundled ones enlarged, with the noise of a photograph."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.zip_dataset import ZipDataset

GRAIN = 3.0  # standard deviation, of 255


def images(side: int, count: int, kind: str) -> Iterator[bytes]:
    """Yield image files of that side."""
    rng = np.random.default_rng(0)
    with ZipDataset.open(bundled_dataset()) as bundled:
        for index in range(count):
            image = Image.fromarray(bundled.read(index % len(bundled))).resize((side, side), Image.Resampling.BICUBIC)
            noisy = np.asarray(image) + rng.normal(0, GRAIN, (side, side, 1))
            file = io.BytesIO()
            image = Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))
            image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
            yield file.getvalue()


def write_archive(path: Path, side: int, count: int) -> Path:
    """Write them as an archive of PNGs."""
    with zipfile.ZipFile(path, "w") as zipped:
        for index, data in enumerate(images(side, count, "PNG")):
            zipped.writestr(f"{index:06d}.png", data)
    return path
