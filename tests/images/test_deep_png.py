"""PNG of 16 bits: read back by pypng, bit for bit."""

import io
import resource
from pathlib import Path

import numpy as np
import png
import pytest
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.images import io as deep_png
from polyinr_core.images.io import check_depth, encode_image, read_metadata, write_image

NOTE = {"polyinr": "1", "seed": 7, "class": "né — 猫"}


def pixels(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 65536, (height, width, 3)).astype(np.uint16)


def decoded(data: bytes) -> np.ndarray:
    width, height, rows, facts = png.Reader(bytes=data).read()
    assert (facts["bitdepth"], facts["planes"], facts["alpha"]) == (16, 3, False)
    return np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, 3)


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (1, 7), (40, 1)])
def test_every_bit_comes_back(size: tuple[int, int]):
    wide = pixels(*size)
    assert np.array_equal(decoded(encode_image(wide, metadata=NOTE)), wide)


def test_bands_join_without_a_seam(monkeypatch: pytest.MonkeyPatch):
    wide = pixels(31, 16)
    whole = encode_image(wide)
    monkeypatch.setattr(deep_png, "BAND_BYTES", 500)
    assert np.array_equal(decoded(encode_image(wide)), wide)
    assert encode_image(wide[::2, ::-1]) != whole  # a view that is not contiguous
    assert np.array_equal(decoded(encode_image(wide[::2, ::-1])), wide[::2, ::-1])


def test_the_note_comes_back_and_stands_before_the_pixels(tmp_path: Path):
    path = tmp_path / "x.png"
    write_image(path, pixels(5, 6), metadata=NOTE)
    assert read_metadata(path) == NOTE
    kinds = [kind for kind, _ in png.Reader(filename=path).chunks()]
    assert kinds[:2] == [b"IHDR", b"tEXt"]
    assert kinds[-1] == b"IEND"


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for size in (0, 40, 5000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            with pytest.raises(FileError, match="file too large"):
                write_image(tmp_path / "x.png", pixels(40, 40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_without_a_note_there_is_none(tmp_path: Path):
    write_image(tmp_path / "x.png", pixels(5, 6))
    assert read_metadata(tmp_path / "x.png") == {}


def test_pillow_sees_the_upper_eight_bits():
    wide = pixels(12, 11)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_image(wide)))), wide >> 8)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_formats_of_eight_bits_refuse_sixteen(format: str):
    with pytest.raises(RequestError, match=rf"{format} does not hold colors of 16 bits \(uint16\); use \.png or \.tif"):
        encode_image(pixels(2, 2), format=format)
    check_depth(format, np.uint8)
    check_depth("tiff", np.uint16)
