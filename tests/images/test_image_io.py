"""Image files: pixels and metadata are read as they were written, in 8 and 16 bits; many at once; damaged ones."""

import io
import json
import resource
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
from PIL import Image

from polyinr_core.errors import FileError, RequestError
from polyinr_core.images import io as image_io
from polyinr_core.images.io import (
    ImageFile,
    check_depth,
    encode_image,
    in_threads,
    read_metadata,
    threads_for,
    write_image,
    write_images,
)

METADATA = {"polyinr": "1", "seed": 7, "window": [0.1, -0.25, 1 / 3, 1.0], "class": "né — 猫"}


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (9, 13, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".webp", ".PNG"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels, metadata=METADATA)
    assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), pixels)


def test_jpeg_is_close(tmp_path: Path):
    """Oracle: the image itself; JPEG at quality 95 moves a smooth one by a few levels."""
    smooth = np.repeat(np.linspace(0, 255, 48).astype(np.uint8)[None, :, None], 32, axis=0).repeat(3, axis=2)
    path = tmp_path / "x.jpg"
    write_image(path, smooth, metadata=METADATA)
    assert np.abs(np.asarray(Image.open(path)).astype(int) - smooth).max() <= 6
    assert read_metadata(path) == {}


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_metadata_comes_back(tmp_path: Path, pixels: np.ndarray, suffix: str):
    path = tmp_path / f"x{suffix}"
    write_image(path, pixels, metadata=METADATA)
    assert read_metadata(path) == METADATA


def test_tiff_holds_sixteen_bits(tmp_path: Path):
    wide = np.random.RandomState(1).randint(0, 65536, (5, 6, 3), dtype=np.uint16)
    write_image(tmp_path / "x.tif", wide)
    assert np.array_equal(tifffile.imread(tmp_path / "x.tif"), wide)
    with pytest.raises(RequestError, match="16 bits"):
        write_image(tmp_path / "x.webp", wide)
    assert not (tmp_path / "x.webp").exists()


def test_the_same_image_is_the_same_bytes(pixels: np.ndarray):
    assert encode_image(pixels, metadata=METADATA) == encode_image(
        pixels.copy(), metadata=dict(reversed(METADATA.items()))
    )


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
    whole = encode_image(pixels, format=kind, metadata=METADATA)
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


def test_metadata_is_read_from_a_image_larger_than_pillow_allows(tmp_path: Path):
    """Pillow refuses to open images above 179 million pixels as possible bombs; a header is no bomb."""
    buffer = io.BytesIO(encode_image(np.zeros((1, 1, 3), dtype=np.uint8), metadata=METADATA))
    data = bytearray(buffer.getvalue())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(data)
    assert read_metadata(tmp_path / "x.png") == METADATA


def chunk(kind: bytes, data: bytes, *, wrong_sum: bool = False) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong_sum)


def test_metadata_is_read_whatever_else_a_png_carries(tmp_path: Path, pixels: np.ndarray):
    whole, path = encode_image(pixels, metadata=METADATA), tmp_path / "x.png"
    odd = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26))) + chunk(b"eXIf", b"hello", wrong_sum=True)
    odd += chunk(b"pHYs", b"\0") + chunk(b"tEXt", b"Other\0text", wrong_sum=True) + chunk(b"tEXt", b"no key")
    for at in (33, whole.index(b"IDAT") - 4, whole.index(b"IEND") - 4):
        path.write_bytes(whole[:at] + odd + whole[at:])
        assert read_metadata(path) == METADATA


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iTXt packed"])
def test_metadata_that_another_program_packed(tmp_path: Path, pixels: np.ndarray, kind: bytes):
    text, path = json.dumps(METADATA).encode(), tmp_path / "x.png"
    before = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\0\0en\0key\0", b"iTXt packed": b"\1\0\0\0"}[kind]
    body = zlib.compress(text) if kind in (b"zTXt", b"iTXt packed") else text
    plain = encode_image(pixels)
    for wrong_sum in (False, True):
        noted = chunk(kind[:4], b"polyinr\0" + before + body, wrong_sum=wrong_sum)
        path.write_bytes(plain[:33] + noted + plain[33:])
        if not wrong_sum:
            assert read_metadata(path) == METADATA
            continue
        with pytest.raises(FileError, match="damaged"):
            read_metadata(path)


def deep_pixels(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 65536, (height, width, 3)).astype(np.uint16)


def decoded(data: bytes) -> np.ndarray:
    width, height, rows, facts = png.Reader(bytes=data).read()
    assert (facts["bitdepth"], facts["planes"], facts["alpha"]) == (16, 3, False)
    return np.vstack([np.asarray(row, dtype=np.uint16) for row in rows]).reshape(height, width, 3)


@pytest.mark.parametrize("size", [(9, 13), (1, 1), (1, 7), (40, 1)])
def test_every_bit_comes_back(size: tuple[int, int]):
    wide = deep_pixels(*size)
    assert np.array_equal(decoded(encode_image(wide, metadata=METADATA)), wide)


def test_bands_join_without_a_seam(monkeypatch: pytest.MonkeyPatch):
    wide = deep_pixels(31, 16)
    whole = encode_image(wide)
    monkeypatch.setattr(image_io, "BAND_BYTES", 500)
    assert np.array_equal(decoded(encode_image(wide)), wide)
    assert encode_image(wide[::2, ::-1]) != whole  # a view that is not contiguous
    assert np.array_equal(decoded(encode_image(wide[::2, ::-1])), wide[::2, ::-1])


def test_metadata_of_16_bits_comes_back_and_stands_before_the_pixels(tmp_path: Path):
    path = tmp_path / "x.png"
    write_image(path, deep_pixels(5, 6), metadata=METADATA)
    assert read_metadata(path) == METADATA
    chunks = [name for name, _ in png.Reader(filename=path).chunks()]
    assert chunks[:2] == [b"IHDR", b"tEXt"]
    assert chunks[-1] == b"IEND"


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for size in (0, 40, 5000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            with pytest.raises(FileError, match="file too large"):
                write_image(tmp_path / "x.png", deep_pixels(40, 40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_without_metadata_there_is_none(tmp_path: Path):
    write_image(tmp_path / "x.png", deep_pixels(5, 6))
    assert read_metadata(tmp_path / "x.png") == {}


def test_pillow_sees_the_upper_eight_bits():
    wide = deep_pixels(12, 11)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_image(wide)))), wide >> 8)


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_formats_of_eight_bits_refuse_sixteen(format: str):
    with pytest.raises(RequestError, match=rf"{format} does not hold colors of 16 bits \(uint16\); use \.png or \.tif"):
        encode_image(deep_pixels(2, 2), format=format)
    check_depth(format, np.uint8)
    check_depth("tiff", np.uint16)


SIZE = 16 * 16 * 3


def images(count: int = 9) -> Iterator[ImageFile]:
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        yield ImageFile(f"{index}.png", pixels, {"polyinr": "x", "seed": index})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("image_bytes", [SIZE, image_io.MAX_BYTES + 1])
def test_files_are_those_written_one_by_one(tmp_path: Path, image_bytes: int) -> None:
    written = list(write_images(tmp_path / "new/out", images(), image_bytes=image_bytes))
    assert written == [tmp_path / f"new/out/{index}.png" for index in range(9)]
    for image in images():
        write_image(tmp_path / image.name, image.pixels, metadata=image.metadata)
        assert (tmp_path / "new/out" / image.name).read_bytes() == (tmp_path / image.name).read_bytes()
    assert names(tmp_path / "new/out") == [f"{index}.png" for index in range(9)]


def test_large_images_are_encoded_alone() -> None:
    assert threads_for(image_io.MAX_BYTES) >= 1
    assert threads_for(image_io.MAX_BYTES + 1) == 0


def test_jobs_end_in_order_and_few_are_under_way() -> None:
    taken = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal taken
        for index in range(20):
            taken += 1
            yield partial(int, index)

    for count, found in enumerate(in_threads(jobs(), threads=3)):
        assert found == count
        assert taken <= count + 4


def test_what_was_drawn_before_a_failure_is_kept(tmp_path: Path) -> None:
    def failing() -> Iterator[ImageFile]:
        yield from images(5)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        list(write_images(tmp_path / "out", failing(), image_bytes=SIZE))
    assert names(tmp_path / "out") == [f"{index}.png" for index in range(5)]


def test_what_stops_early_leaves_whole_images_alone(tmp_path: Path) -> None:
    with closing(write_images(tmp_path / "out", images(), image_bytes=SIZE)) as written:
        next(written)
        next(written)
    assert names(tmp_path / "out") == ["0.png", "1.png"]
    assert not [t for t in threading.enumerate() if "encoding" in t.name]


def test_an_image_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that fails is named; those before it are in place, nothing else is."""
    write = image_io.write_pixels

    def full(file: object, pixels: object, *, format: str, metadata: dict) -> None:
        if metadata["seed"] >= 3:
            raise OSError(28, "No space left on device")
        write(file, pixels, format=format, metadata=metadata)

    monkeypatch.setattr(image_io, "write_pixels", full)
    with pytest.raises(FileError, match=r"3\.png: no space left on the disk"):
        list(write_images(tmp_path / "out", images(), image_bytes=SIZE))
    assert names(tmp_path / "out") == ["0.png", "1.png", "2.png"]
    with pytest.raises(FileError, match="no space left"):
        list(write_images(tmp_path / "new/out", (i for i in images() if i.metadata["seed"] > 2), image_bytes=SIZE))
    assert not (tmp_path / "new").exists()


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "2.png").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        list(write_images(tmp_path, images(), image_bytes=SIZE))
    assert (tmp_path / "2.png").read_text() == "mine"
    assert len(list(write_images(tmp_path, images(), image_bytes=SIZE, overwrite=True))) == 9
    assert (tmp_path / "2.png").read_bytes()[:4] == b"\x89PNG"
