"""MNIST's idx files: a header, then plain bytes; gzipped or not."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError
from ..files import explain
from .facts import Facts, certain
from .source import Payload, Source, stamp_of

IDX_MAGIC = b"\x00\x00\x08\x03"  # unsigned bytes in three dimensions: pictures
LABEL_MAGIC = b"\x00\x00\x08\x01"
MAX_BYTES = 2**31


def open_idx(path: Path) -> Source:
    """List an idx file of pictures; the labels are found beside it by name. Raises ArchiveError, FileError."""
    pictures = read_idx(path, IDX_MAGIC)  # [N, H, W]
    labels_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    facts = Facts()
    if labels_path != path and labels_path.is_file():
        labels = read_idx(labels_path, LABEL_MAGIC).astype(np.int64)
        if len(labels) != len(pictures):
            raise ArchiveError(labels_path, f"holds {len(labels)} labels for {len(pictures)} pictures")
        classes = int(labels.max()) + 1
        facts = Facts(labels, classes, tuple(map(str, range(classes))))

    def payloads(start: int) -> Iterator[Payload]:
        for grey in pictures[start:]:
            yield np.repeat(grey[:, :, None], 3, axis=2)

    names = tuple(f"{index:05d}" for index in range(len(pictures)))
    return Source(path, "idx", names, stamp_of(path, labels_path), payloads, certain(facts, len(names)))


def read_idx(path: Path, magic: bytes) -> NDArray[np.uint8]:
    """Return the array of an idx file that starts with `magic`. Raises ArchiveError, FileError."""
    dimensions = magic[3]
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != magic or len(header) < 4 + 4 * dimensions:
                raise ArchiveError(path, "is no idx file of the expected kind")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4", offset=4))
            count = int(np.prod(shape, dtype=object))
            if not 0 < count <= MAX_BYTES:
                raise ArchiveError(path, f"declares the shape {shape}; between 1 and {MAX_BYTES} bytes are read")
            body = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(path, "is a truncated or damaged gzip file") from error
    except OSError as error:
        raise explain(path, error) from error
    if len(body) != count:
        problem = "more" if len(body) > count else f"only {len(body)}"
        raise ArchiveError(path, f"declares {count} bytes and holds {problem}; it is damaged")
    return np.frombuffer(body, np.uint8).reshape(shape)
