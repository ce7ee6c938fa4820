"""Where pictures come from: a folder, a zip, a tar, a single file, CIFAR-10's and MNIST's own files."""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import ArchiveError, FileError, PictureError
from ..files import PathLike, explain, read_bytes
from .archive import read_member
from .cifar import BATCH_NAME, open_cifar
from .decoding import MAX_PICTURE_BYTES
from .facts import Facts, class_of
from .idx import IDX_MAGIC, open_idx
from .source import Payload, Source, described, stamp_of
from .tars import tar_members
from .zips import FACTS_NAME, is_picture, open_zip

OTHER_TARS = (b"BZh", b"\xfd7zXZ")
MAX_LABEL_BYTES = 32


def open_source(path: PathLike) -> Source:
    """Look at what lies at `path` and list its pictures and labels. Raises FileError, ArchiveError."""
    path = Path(path)
    if path.is_dir():
        return open_folder(path)
    head = first_bytes(path)
    if not head:
        raise FileError(path, "is empty")
    if head[:2] == b"PK":
        return open_zip_source(path)
    if head[:4] == IDX_MAGIC:
        return open_idx(path)
    if head[257:262] == b"ustar" or head.startswith(OTHER_TARS):
        return open_tar(path)
    if is_picture(path.name):
        return Source(path, "picture", (path.name,), stamp_of(path), lambda start: iter([path][start:]))
    raise FileError(path, "is no folder, zip, tar, CIFAR-10 archive, MNIST images file or picture")


def first_bytes(path: Path) -> bytes:
    """Return the first 512 bytes of a file, or of what is inside if it is gzipped. Raises FileError."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unzipped:
                return unzipped.read(512)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(path, "is a broken gzip file") from error
    except OSError as error:
        raise explain(path, error) from error
    return head


def open_folder(path: Path) -> Source:
    """List a folder and all below it; `dataset.json` or else class sub-folders give the labels."""

    def fail(error: OSError) -> None:
        raise explain(Path(error.filename or path), error)

    names: list[str] = []
    for folder, below, files in os.walk(path, onerror=fail):
        below[:] = [name for name in below if not name.startswith(".")]
        inside = Path(folder).relative_to(path)
        names += [(inside / name).as_posix() for name in files if is_picture(name)]
    names.sort()
    facts_file = path / FACTS_NAME
    facts = described(path, names, read_bytes(facts_file) if facts_file.is_file() else None)
    stamp = stamp_of(path, facts_file, *(path / name for name in names))

    def payloads(start: int) -> Iterator[Payload]:
        return (path / name for name in names[start:])

    return Source(path, "folder", tuple(names), stamp, payloads, facts)


def open_zip_source(path: Path) -> Source:
    """List a zip of pictures: an archive with its labels, or any other, with class folders."""
    with open_zip(path) as zipped:
        names = sorted(name for name in zipped.namelist() if is_picture(name))
        has_facts = FACTS_NAME in zipped.namelist()
        facts = described(path, names, read_member(path, zipped, FACTS_NAME) if has_facts else None)

    def payloads(start: int) -> Iterator[Payload]:
        with open_zip(path) as zipped:
            for name in names[start:]:
                try:
                    yield read_member(path, zipped, name)
                except ArchiveError:
                    yield PictureError("cannot be read, the zip is damaged there")

    return Source(path, "zip", tuple(names), stamp_of(path), payloads, facts)


def open_tar(path: Path) -> Source:
    """List a tar, compressed or not, in its own order; class folders or `.cls` files beside give the labels."""
    names: list[str] = []
    classes: dict[str, int] = {}
    for member in tar_members(path):
        if BATCH_NAME.search(member.name):
            return open_cifar(path)
        if is_picture(member.name):
            names.append(member.name)
        elif member.name.endswith(".cls") and member.size <= MAX_LABEL_BYTES:
            text = member.read().decode("ascii", "replace").strip()
            label = int(text) if text.isdecimal() else text
            classes[member.name.removesuffix(".cls")], _ = class_of(path, member.name, label)
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    if names and all(stem in classes for stem in stems):
        labels = np.array([classes[stem] for stem in stems])
        facts = Facts(labels, int(labels.max()) + 1)
    else:
        facts = described(path, names, None)

    def payloads(start: int) -> Iterator[Payload]:
        pictures = (member for member in tar_members(path) if is_picture(member.name))
        for index, member in enumerate(pictures):
            if index >= start:
                fits = member.size <= MAX_PICTURE_BYTES
                yield member.read() if fits else PictureError("declares too many bytes")

    return Source(path, "tar", tuple(names), stamp_of(path), payloads, facts)
