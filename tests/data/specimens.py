"""Small pictures and archives made for the tests of the data room."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def noise(side: int = 8, seed: int = 0) -> np.ndarray:
    """Random pixels, uint8 [side, side, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format=kind, **options)
    return file.getvalue()


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """A tar with these files."""
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def stylegan_names(count: int) -> list[str]:
    """The names that StyleGAN's tool gives."""
    return [f"00000/img{index:08d}.png" for index in range(count)]


def write_archive(
    path: Path, *, count: int = 6, side: int = 8, labels: object = "cycle", **facts: object
) -> Path:
    """An archive as StyleGAN's tool makes it, of noise; by default with the labels 0, 1, 2, 0, ..."""
    names = stylegan_names(count)
    if labels == "cycle":
        labels = [[name, index % 3] for index, name in enumerate(names)]
    files = {name: encoded(noise(side, index), compress_level=0) for index, name in enumerate(names)}
    files["dataset.json"] = json.dumps({"labels": labels, **facts}).encode()
    return write_zip(path, files)


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
