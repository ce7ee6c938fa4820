"""Image files: PNG, JPEG, WebP and TIFF in 8 or 16 bits, their JSON metadata, and many files encoded in threads."""

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import png
import tifffile
from numpy.typing import DTypeLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from polyinr_core.errors import FileError, PolyinrError, RequestError
from polyinr_core.runtime.atomic_io import (
    PathLike,
    check_place,
    draft_folder,
    explain,
    refuse_overwrite,
    refuse_special,
    written_beside,
)
from polyinr_core.runtime.strict_json import JsonError, format_json, parse_json, upgrade

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".tif": "tiff", ".tiff": "tiff"}
MAX_SIDES = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383, "tiff": 2**31 - 1}
DEEP_FORMATS = ("png", "tiff")  # the others hold 8 bits only
METADATA_KEY = "polyinr"
DESCRIPTION = 0x010E  # EXIF ImageDescription
JPEG_QUALITY = 95
STRIP_BYTES = 2**20  # of a strip of a TIFF, which is compressed at once
MAX_METADATA_BYTES = 2**25  # Pillow reads at most 64 MiB of text per file
BAND_BYTES = 2**20  # of a 16-bit PNG, that are filtered and compressed at once
SUB = 1  # filter type: each byte minus that of the pixel to its left; PNG specification, section 9.2
PIXEL_BYTES = 6
LEVEL_OF_DEFLATE = 1  # 6 takes six times as long and saves little
PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
MAX_TEXT_BYTES, MAX_UNPACKED_TEXT_BYTES = 2**26, 2**20
MAX_THREADS = 4
MAX_BYTES = 2**24  # of an image that a thread encodes; a larger one is encoded in the rendering thread

T = TypeVar("T")
Metadata = dict[str, Any]


class ImageFile(NamedTuple):
    """An image to write: file name, pixels [H, W, 3], which must not change any more, and metadata."""

    name: str
    pixels: NDArray
    metadata: Metadata | None


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names. Raises RequestError."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise RequestError(f"{path}: suffix {path.suffix!r} is no image format; use {', '.join(FORMATS)}") from None


def check_size(format: str, *, width: int, height: int) -> None:
    """Raise RequestError if the format cannot hold an image of that size."""
    if max(width, height) > MAX_SIDES[format]:
        raise RequestError(
            f"{format} holds at most {MAX_SIDES[format]} pixels a side, not {width}x{height}; use .png or .tif"
        )


def check_depth(format: str, dtype: DTypeLike) -> None:
    """Raise RequestError if the format cannot hold colors of that type (uint8, uint16)."""
    dtype = np.dtype(dtype)
    if dtype != np.uint8 and not (dtype == np.uint16 and format in DEEP_FORMATS):
        raise RequestError(f"{format} does not hold colors of {8 * dtype.itemsize} bits ({dtype}); use .png or .tif")


def format_metadata(metadata: Metadata | None) -> str:
    """Return metadata as JSON in ASCII, empty for None. Raises RequestError if they could not be read again."""
    if metadata is None:
        return ""
    try:
        text = format_json(metadata)
    except JsonError as error:
        raise RequestError(f"the metadata of an image cannot be written: {error}") from error
    if len(text) > MAX_METADATA_BYTES:
        raise RequestError(f"the metadata of an image would have {len(text):,} bytes, more than {MAX_METADATA_BYTES:,}")
    return text


def write_image(path: PathLike, pixels: NDArray, *, metadata: Metadata | None = None, overwrite: bool = False) -> None:
    """Write pixels [H, W, 3] (uint8; PNG and TIFF also uint16) in the format of the suffix.

    Raises FileError, RequestError.
    """
    path = Path(path)
    format = format_of(path)
    with written_beside(path, overwrite=overwrite) as draft, draft.open("wb") as file:
        write_pixels(file, pixels, format=format, metadata=metadata)


def encode_image(pixels: NDArray, *, format: str = "png", metadata: Metadata | None = None) -> bytes:
    """Return the bytes of an image file. Raises RequestError."""
    buffer = io.BytesIO()
    write_pixels(buffer, pixels, format=format, metadata=metadata)
    return buffer.getvalue()


def write_pixels(file: BinaryIO, pixels: NDArray, *, format: str, metadata: Metadata | None = None) -> None:
    """Encode pixels [H, W, 3] to an open file. Only PNG and TIFF hold metadata. Raises RequestError."""
    height, width, _ = pixels.shape
    check_size(format, width=width, height=height)
    check_depth(format, pixels.dtype)
    text = format_metadata(metadata)
    if format == "tiff":
        rows = max(1, STRIP_BYTES // (width * 3 * pixels.itemsize))
        options = {"compression": "zlib", "rowsperstrip": rows, "metadata": None, "software": False}
        tifffile.imwrite(file, pixels, photometric="rgb", description=text, **options)
        return
    if pixels.dtype == np.uint16:
        write_deep_png(file, pixels, text)
        return
    image = Image.fromarray(pixels)
    if format == "png":
        info = PngInfo()
        if text:
            info.add_text(METADATA_KEY, text)
        image.save(file, "PNG", pnginfo=info)
    elif format == "jpeg":
        buffer = io.BytesIO()  # Pillow does not report a full disk when it writes a JPEG to a file
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
        file.write(buffer.getbuffer())
    else:
        image.save(file, "WEBP", lossless=True)


def detect_format(head: bytes) -> str | None:
    """Return the format of a file by its first bytes, or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"GIF8":
        return "gif"
    if head[4:8] == b"ftyp":
        return "mp4"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


def read_metadata(path: PathLike) -> Metadata:
    """Read the metadata of a PNG, TIFF, GIF or WebP, empty if there are none. Raises FileError.

    Pixels are not decoded, as an image may be larger than memory, but the checksums of a PNG are checked.
    """
    path = Path(path)
    refuse_special(path)
    try:
        with path.open("rb") as file:
            format = detect_format(file.read(16))
            file.seek(0)
            if format == "png":
                text = _png_text(file)
            elif format == "tiff":
                text = _tiff_description(path, file)
            elif format in ("gif", "webp"):
                with Image.open(file) as image:
                    text = str(image.getexif().get(DESCRIPTION, ""))
                    text = image.info.get("comment", b"").decode(errors="replace") or text
            elif format == "jpeg":
                return {}
            else:
                raise FileError(path, "not a PNG, TIFF, JPEG, WebP or GIF image")
    except OSError as error:
        if error.errno is None:  # Pillow raises it for a damaged file
            raise FileError(path, f"a damaged image ({error})") from error
        raise explain(path, error) from error
    except PolyinrError:
        raise
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise FileError(path, f"a damaged image ({error})") from error
    return parse_metadata(text)


def _png_text(file: BinaryIO) -> str:
    """Return the text of the metadata in a PNG. Raises ValueError for a damaged file."""
    text = ""
    file.seek(8)
    chunk_type = b""
    while chunk_type != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends early")
        length, chunk_type = struct.unpack(">I4s", head)
        if not chunk_type.isalpha():
            raise ValueError(f"a chunk has the type {chunk_type!r}")
        is_text = chunk_type in PNG_TEXTS and length <= MAX_TEXT_BYTES
        if chunk_type[0] & 32 and not is_text:  # ancillary and not text
            file.seek(length + 4, io.SEEK_CUR)
            continue
        body, total = [], zlib.crc32(chunk_type)
        while length:
            part = file.read(min(length, 2**20))
            if not part:
                raise ValueError("it ends early")
            total = zlib.crc32(part, total)
            length -= len(part)
            if is_text:
                body.append(part)
        is_right = file.read(4) == struct.pack(">I", total)
        found = _text_of(chunk_type, b"".join(body)) if is_text else None
        if not is_right and (found is not None or not is_text):
            raise ValueError(f"a wrong checksum in its {chunk_type.decode('ascii')}")
        text = text or found or ""
    return text


def _text_of(chunk_type: bytes, chunk: bytes) -> str | None:
    """Return the metadata in a text chunk of a PNG, None if its keyword is another. Raises ValueError."""
    keyword, _, value = chunk.partition(b"\0")
    if keyword != METADATA_KEY.encode("ascii"):
        return None
    is_packed = chunk_type == b"zTXt" or (chunk_type == b"iTXt" and value[:1] == b"\1")
    if chunk_type == b"zTXt":
        value = value[1:]
    elif chunk_type == b"iTXt":
        value = value[2:].partition(b"\0")[2].partition(b"\0")[2]  # after the language and the translated keyword
    if is_packed:
        try:
            value = zlib.decompressobj().decompress(value, MAX_UNPACKED_TEXT_BYTES)
        except zlib.error as error:
            raise ValueError(f"a text that cannot be decompressed ({error})") from error
    return value.decode("latin-1" if chunk_type != b"iTXt" else "utf-8", "replace")


def _tiff_description(path: Path, file: BinaryIO) -> str:
    """Return the text of a TIFF's first ImageDescription. Raises FileError."""
    try:
        with tifffile.TiffFile(file) as tiff:
            return str(tiff.pages.first.description)
    except Exception as error:  # tifffile raises nearly anything for a damaged file
        raise FileError(path, f"a damaged image ({error})") from error


def parse_metadata(text: str) -> Metadata:
    """Parse metadata, upgraded from format 1; empty if the text is of another program."""
    try:
        metadata = upgrade(parse_json(text)) if text.startswith("{") else {}
    except JsonError:
        return {}
    return metadata if isinstance(metadata, dict) and METADATA_KEY in metadata else {}


def write_deep_png(file: BinaryIO, pixels: NDArray[np.uint16], text: str) -> None:
    """Write pixels [H, W, 3] (uint16), which Pillow cannot, to an open file, with the metadata as ASCII."""
    height, width, _ = pixels.shape
    png.Writer(width, height, greyscale=False, bitdepth=16).write_preamble(file)
    if text:
        png.write_chunk(file, b"tEXt", METADATA_KEY.encode("ascii") + b"\0" + text.encode("ascii"))
    packer = zlib.compressobj(LEVEL_OF_DEFLATE)
    for band in _filtered(pixels):
        packed = packer.compress(band)
        if packed:
            png.write_chunk(file, b"IDAT", packed)
    png.write_chunk(file, b"IDAT", packer.flush())
    png.write_chunk(file, b"IEND")


def _filtered(pixels: NDArray[np.uint16]) -> Iterator[bytes]:
    """Yield rows as PNG stores them: big-endian, filtered, each preceded by the filter type."""
    height, width, _ = pixels.shape
    rows = max(1, BAND_BYTES // (width * PIXEL_BYTES))
    for top in range(0, height, rows):
        band = np.ascontiguousarray(pixels[top : top + rows], dtype=">u2")
        data = band.reshape(len(band), -1).view(np.uint8)  # [rows, W * 6]
        lines = np.empty((len(band), 1 + data.shape[1]), dtype=np.uint8)
        lines[:, 0] = SUB
        lines[:, 1 : 1 + PIXEL_BYTES] = data[:, :PIXEL_BYTES]
        np.subtract(data[:, PIXEL_BYTES:], data[:, :-PIXEL_BYTES], out=lines[:, 1 + PIXEL_BYTES :])
        yield lines.tobytes()


def write_images(
    folder: Path, images: Iterable[ImageFile], *, image_bytes: int, overwrite: bool = False
) -> Generator[Path, None, None]:
    """Write images into a folder in the format of their suffixes; yield the path of each in order once it is complete.

    Threads encode while the next images are rendered. Images are renamed without a flush to the disk: a crash of the
    machine may lose the last ones, but two flushes per image would take longer than rendering it. When the generator is
    closed or fails, the images that were yielded stay. `image_bytes` is the size of one image in memory. Raises
    FileError, RequestError.
    """

    def encode(image: ImageFile, drafts: Path) -> str:
        try:
            with (drafts / image.name).open("wb") as file:
                write_pixels(file, image.pixels, format=format_of(Path(image.name)), metadata=image.metadata)
        except OSError as error:
            raise explain(folder / image.name, error) from error
        return image.name

    if not os.path.exists(folder):
        check_place(folder)
    try:
        with draft_folder(folder, "images") as drafts:
            jobs = (partial(encode, image, drafts) for image in images)
            for name in in_threads(jobs, threads=threads_for(image_bytes)):
                refuse_overwrite(folder / name, overwrite=overwrite)
                try:
                    os.replace(drafts / name, folder / name)
                except OSError as error:
                    raise explain(folder / name, error) from error
                yield folder / name
    except OSError as error:
        raise explain(folder, error) from error


def threads_for(image_bytes: int) -> int:
    """Return the number of encoding threads for images of that size; 0: encode in the calling thread."""
    return min(MAX_THREADS, os.cpu_count() or 1) if image_bytes <= MAX_BYTES else 0


def in_threads(jobs: Iterable[Callable[[], T]], *, threads: int) -> Generator[T, None, None]:
    """Run jobs in threads and yield their results in order; at most one more job than threads is requested ahead.

    0 threads: run them in the calling thread. An exception of a job is raised in its turn, one of `jobs` after the
    results before it. When the generator is closed, running jobs finish and waiting ones are dropped.
    """
    if not threads:
        yield from (job() for job in jobs)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="encoding") as pool:
        pending: deque[Future[T]] = deque()
        failure: Exception | None = None
        try:
            remaining = iter(jobs)
            while failure is None:
                try:
                    pending.append(pool.submit(next(remaining)))
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in pending:
                future.cancel()
