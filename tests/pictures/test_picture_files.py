"""Picture files and the notes in them."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.pictures.files import encode_picture, read_note, write_picture

NOTE = {"polyinr": "1", "seed": 7, "bounds": [0.1, -0.25, 1 / 3, 1.0], "class": "né — 猫"}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_picture(path, pixels, note=NOTE)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), pixels)


def test_jpeg_is_close(tmp_path: Path):
    """Oracle: the picture itself; JPEG at quality 95 moves a smooth one by a few levels."""
    smooth = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    path = tmp_path / "x.jpg"
    write_picture(path, smooth, note=NOTE)
    assert np.abs(np.asarray(Image.open(path)).astype(int) - smooth).max() <= 6
    assert read_note(path) == {}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_note_comes_back(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_picture(path, pixels, note=NOTE)
    assert read_note(path) == NOTE


def test_tiff_holds_sixteen_bits(tmp_path: Path):
    wide = np.random.RandomState(1).randint(0, 65536, (5, 6, 3), dtype=np.uint16)
    write_picture(tmp_path / "x.tif", wide)
    assert np.array_equal(tifffile.imread(tmp_path / "x.tif"), wide)
    with pytest.raises(RequestError, match="16 bits"):
        write_picture(tmp_path / "x.webp", wide)
    assert not (tmp_path / "x.webp").exists()


def test_the_same_picture_is_the_same_bytes(pixels: np.ndarray):
    assert encode_picture(pixels, note=NOTE) == encode_picture(pixels.copy(), note=dict(reversed(NOTE.items())))


def test_other_programs_pictures_have_no_note(tmp_path: Path, pixels: np.ndarray):
    Image.fromarray(pixels).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    assert read_note(tmp_path / "x.png") == read_note(tmp_path / "x.tif") == {}


def test_unknown_suffix_and_impossible_sizes(tmp_path: Path, pixels: np.ndarray):
    with pytest.raises(RequestError, match="suffix"):
        write_picture(tmp_path / "x.bmp", pixels)
    with pytest.raises(RequestError, match="16383"):
        write_picture(tmp_path / "x.webp", np.zeros((1, 16384, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path, pixels: np.ndarray):
    path = tmp_path / "x.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match="--overwrite"):
        write_picture(path, pixels)
    assert path.read_bytes() == b"mine"
    write_picture(path, pixels, overwrite=True)
    assert Image.open(path).size == (13, 9)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_damaged_pictures_are_one_error(tmp_path: Path, pixels: np.ndarray, kind: str):
    """Cut and scrambled files either read (the note stands first) or raise FileError, nothing else."""
    whole = encode_picture(pixels, format=kind, note=NOTE)
    scramble = np.random.RandomState(3)
    cases = [whole[:cut] for cut in range(0, len(whole), 7)]
    for _ in range(100):
        data = bytearray(whole)
        for position in scramble.randint(0, min(len(data), 500), 4):
            data[position] = scramble.randint(256)
        cases.append(bytes(data))
    refused = 0
    for index, data in enumerate(cases):
        path = tmp_path / f"{index}"
        path.write_bytes(data)
        try:
            read_note(path)
        except FileError:
            refused += 1
    assert refused > 10


def test_a_note_is_read_from_a_picture_larger_than_pillow_allows(tmp_path: Path):
    """Pillow refuses to open pictures above 179 million pixels as possible bombs; a header is no bomb."""
    buffer = io.BytesIO(encode_picture(np.zeros((1, 1, 3), dtype=np.uint8), note=NOTE))
    data = bytearray(buffer.getvalue())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    assert read_note(tmp_path / "x.png") == NOTE
