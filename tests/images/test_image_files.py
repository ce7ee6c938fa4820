"""Image files and the notes in them."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.images.io import encode_image, read_metadata, write_image

NOTE = {"polyinr": "1", "seed": 7, "window": [0.1, -0.25, 1 / 3, 1.0], "class": "né — 猫"}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels, metadata=NOTE)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), pixels)


def test_jpeg_is_close(tmp_path: Path):
    """Oracle: the image itself; JPEG at quality 95 moves a smooth one by a few levels."""
    smooth = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    path = tmp_path / "x.jpg"
    write_image(path, smooth, metadata=NOTE)
    assert np.abs(np.asarray(Image.open(path)).astype(int) - smooth).max() <= 6
    assert read_metadata(path) == {}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_note_comes_back(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels, metadata=NOTE)
    assert read_metadata(path) == NOTE


def test_tiff_holds_sixteen_bits(tmp_path: Path):
    wide = np.random.RandomState(1).randint(0, 65536, (5, 6, 3), dtype=np.uint16)
    write_image(tmp_path / "x.tif", wide)
    assert np.array_equal(tifffile.imread(tmp_path / "x.tif"), wide)
    with pytest.raises(RequestError, match="16 bits"):
        write_image(tmp_path / "x.webp", wide)
    assert not (tmp_path / "x.webp").exists()


def test_the_same_image_is_the_same_bytes(pixels: np.ndarray):
    assert encode_image(pixels, metadata=NOTE) == encode_image(pixels.copy(), metadata=dict(reversed(NOTE.items())))


def test_other_programs_images_have_no_note(tmp_path: Path, pixels: np.ndarray):
    Image.fromarray(pixels).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    assert read_metadata(tmp_path / "x.png") == read_metadata(tmp_path / "x.tif") == {}


def test_unknown_suffix_and_impossible_sizes(tmp_path: Path, pixels: np.ndarray):
    with pytest.raises(RequestError, match="suffix"):
        write_image(tmp_path / "x.bmp", pixels)
    with pytest.raises(RequestError, match="16383"):
        write_image(tmp_path / "x.webp", np.zeros((1, 16384, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_unasked(tmp_path: Path, pixels: np.ndarray):
    path = tmp_path / "x.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match="--overwrite"):
        write_image(path, pixels)
    assert path.read_bytes() == b"mine"
    write_image(path, pixels, overwrite=True)
    assert Image.open(path).size == (13, 9)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_damaged_images_are_one_error(tmp_path: Path, pixels: np.ndarray, kind: str):
    """Cut and scrambled files either read (the note stands first) or raise FileError, nothing else."""
    whole = encode_image(pixels, format=kind, metadata=NOTE)
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
            read_metadata(path)
        except FileError:
            refused += 1
    assert refused > 10


def test_a_note_is_read_from_a_image_larger_than_pillow_allows(tmp_path: Path):
    """Pillow refuses to open images above 179 million pixels as possible bombs; a header is no bomb."""
    buffer = io.BytesIO(encode_image(np.zeros((1, 1, 3), dtype=np.uint8), metadata=NOTE))
    data = bytearray(buffer.getvalue())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    assert read_metadata(tmp_path / "x.png") == NOTE


def chunk(kind: bytes, data: bytes, *, wrong_sum: bool = False) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong_sum)


def test_a_note_is_read_whatever_else_a_png_carries(tmp_path: Path, pixels: np.ndarray):
    whole, path = encode_image(pixels, metadata=NOTE), tmp_path / "x.png"
    odd = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26))) + chunk(b"eXIf", b"hello", wrong_sum=True)
    odd += chunk(b"pHYs", b"\0") + chunk(b"tEXt", b"Other\0text", wrong_sum=True) + chunk(b"tEXt", b"no key")
    for at in (33, whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4):
        path.write_bytes(whole[:at] + odd + whole[at:])
        assert read_metadata(path) == NOTE


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iTXt packed"])
def test_a_note_that_another_program_packed(tmp_path: Path, pixels: np.ndarray, kind: bytes):
    text, path = json.dumps(NOTE).encode(), tmp_path / "x.png"
    before = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\0\0en\0key\0", b"iTXt packed": b"\1\0\0\0"}[kind]
    body = zlib.compress(text) if kind in (b"zTXt", b"iTXt packed") else text
    plain = encode_image(pixels)
    for wrong_sum in (False, True):
        noted = chunk(kind[:4], b"polyinr\0" + before + body, wrong_sum=wrong_sum)
        path.write_bytes(plain[:33] + noted + plain[33:])
        if not wrong_sum:
            assert read_metadata(path) == NOTE
            continue
        with pytest.raises(FileError, match="damaged"):
            read_metadata(path)
