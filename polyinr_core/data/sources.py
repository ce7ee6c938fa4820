"""Where pictures come from: a folder, a zip, tars, a single file, CIFAR-10's and MNIST's own files."""

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, FileError, PictureError
from ..files import PathLike, explain, read_bytes, refuse_special
from .archive import list_zip, read_member
from .cifar import BATCH_NAME, open_cifar
from .decoding import MAX_PICTURE_BYTES, decode
from .facts import Facts, certain, concatenated
from .idx import IDX_MAGIC, open_idx
from .listing import NOT_REGULAR, Lister, Listing, Notes
from .shard_index import described_by, list_tar, read_stretch, scan
from .shards import description_of, is_pattern, means_shards, picture_beside, shard_files
from .source import Payload, Source, stamp_of
from .tars import tar_members
from .zips import FACTS_NAME, is_hidden, is_picture, open_zip

CIFAR_MEMBERS = 32  # its archive holds nine
OTHER_TARS = (b"BZh", b"\xfd7zXZ")


def open_source(path: PathLike) -> Source:
    """Look at what lies at `path` and list its pictures and labels. Raises FileError, ArchiveError."""
    path = Path(path)
    if path.is_dir():
        if not means_shards(path):
            return open_folder(path)
        if (beside := picture_beside(path)) is not None:
            problem = (
                f"holds .tar files and pictures ({beside!r}); name the tars, {path / '*.tar'}, or move them away"
            )
            raise ArchiveError(path, problem)
        return open_shards(path)
    if is_pattern(path):
        return open_shards(path)
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
        payloads = [path]
        labels = certain(Facts(), 1)
        return Source(path, "picture", (path.name,), stamp_of(path), lambda start: iter(payloads[start:]), labels)
    raise FileError(path, "is no folder, zip, tar, CIFAR-10 archive, MNIST images file or picture")


def first_bytes(path: Path) -> bytes:
    """Return the first 512 bytes of a file, or of what is inside if it is gzipped. Raises FileError."""
    refuse_special(path)
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
    """List a folder and all below it, links to folders as well."""
    listing = list_folder(path)
    descriptions = [path / FACTS_NAME]
    stamp = stamp_of(path, *descriptions, *(path / name for name in listing.names))

    def payloads(start: int) -> Iterator[Payload]:
        return (path / name for name in listing.names[start:])

    return Source.listed(path, "folder", listing, stamp, payloads)


def list_folder(path: Path) -> Listing:
    """List the images of a folder and of all below it, sorted by name. Raises FileError, ArchiveError.

    Links to folders are followed, once each, unless they lead back to what is read anyway.
    """
    files, loops = walk(path)
    lister = Lister(path, samples=False)
    for name in sorted(files, key=lambda name: (not is_picture(name), name)):
        file = path / name
        try:
            status = file.stat()
        except OSError as error:
            if is_picture(name) or file.is_symlink():
                lister.leave_out(name, f"cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        if stat.S_ISREG(status.st_mode):
            lister.add(name, status.st_size, lambda file=file: read_bytes(file))  # type: ignore[misc]
        elif is_picture(name):
            lister.leave_out(name, NOT_REGULAR)
    for name in loops:
        lister.leave_out(name, "is a folder that is read already, or a link to one that it lies in")
    return lister.listing()


def without_broken_strays(path: Path, listing: Listing) -> NDArray[np.int64]:
    """Return the images of a folder without those beside its class folders that cannot be decoded.

    The first one that can be ends the search: it leaves the set without labels anyway.
    """
    broken = []
    everything = np.arange(len(listing.names))
    for index in listing.labels.strays(everything).tolist():
        try:
            decode(read_bytes(path / listing.names[index]))
            break
        except (PictureError, FileError):
            broken.append(index)
    return np.setdiff1d(everything, np.array(broken, np.int64))


def walk(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of all files below a folder, and of the links to folders that are not followed."""

    def fail(error: OSError) -> None:
        raise explain(Path(error.filename or path), error)

    files: list[str] = []
    loops: list[str] = []
    seen: set[str] = {*(str(parent) for parent in path.resolve().parents)}
    waiting: list[Path] = [path]
    while waiting:
        waiting.sort(reverse=True)
        start = waiting.pop()
        if os.path.realpath(start) in seen:
            loops.append(start.relative_to(path).as_posix())
            continue
        for folder, below, names in os.walk(start, onerror=fail):
            seen.add(os.path.realpath(folder))
            inside = Path(folder)
            below[:] = sorted(name for name in below if not is_hidden(name))
            links = [name for name in below if (inside / name).is_symlink()]
            waiting += [inside / name for name in links]  # after all that lies here itself
            again = [name for name in below if name not in links and os.path.realpath(inside / name) in seen]
            loops += [(inside / name).relative_to(path).as_posix() for name in again]
            below[:] = [name for name in below if name not in (*links, *again)]
            files += [(inside / name).relative_to(path).as_posix() for name in names if not is_hidden(name)]
    return files, loops


def open_zip_source(path: Path) -> Source:
    """List a zip of pictures: an archive with its labels, or any other, with class folders."""
    with open_zip(path) as zipped:
        listing = list_zip(path, zipped)

    def payloads(start: int) -> Iterator[Payload]:
        with open_zip(path) as zipped:
            for name in listing.names[start:]:
                try:
                    yield read_member(path, zipped, name)
                except ArchiveError:
                    yield PictureError("cannot be read, the zip is damaged there")

    return Source.listed(path, "zip", listing, stamp_of(path), payloads)


def open_tar(path: Path) -> Source:
    """List a tar in its own order: CIFAR-10's, a compressed one that is read from the front, or a shard."""
    if any(BATCH_NAME.search(member.name) for member in islice(tar_members(path), CIFAR_MEMBERS)):
        return open_cifar(path)
    if not is_compressed(path):
        return open_shards(path)
    beside = description_of(path, [path])
    listing = list_tar(path, described_by(path, beside), compressed=True)
    wanted = set(listing.names)

    def payloads(start: int) -> Iterator[Payload]:
        pictures = (member for member in tar_members(path) if member.name in wanted)
        for index, member in enumerate(pictures):
            if index >= start:
                fits = member.size <= MAX_PICTURE_BYTES
                yield member.read() if fits else PictureError("declares too many bytes")

    return Source.listed(path, "tar", listing, stamp_of(path, *([] if beside is None else [beside])), payloads)


def open_shards(path: Path) -> Source:
    """List a tar, or those of a folder or pattern, as training reads them. Raises FileError, ArchiveError."""
    files = shard_files(path)
    beside = description_of(path, files)
    scans = list(scan(files, described_by(path, beside)))
    notes = Notes(*(found.listing for found in scans))
    shard = [number for number, found in enumerate(scans) for _ in found.listing.names]
    places = np.concatenate([found.places for found in scans]).tolist()
    names = tuple(name for found in scans for name in found.listing.names)
    if len(files) > 1:
        names = tuple(f"{files[number].name}/{name}" for number, name in zip(shard, names, strict=True))

    def payloads(start: int) -> Iterator[Payload]:
        for number, (offset, size) in zip(shard[start:], places[start:], strict=True):
            yield read_stretch(files[number], offset, size)

    return Source(
        path,
        "tar" if len(files) == 1 else "shards",
        names,
        stamp_of(*files, *([] if beside is None else [beside])),
        payloads,
        concatenated([found.listing.labels for found in scans]),
        tuple(notes.left_out),
        notes.others,
        notes.seconds,
    )


def is_compressed(path: Path) -> bool:
    """Say whether a tar is compressed. Raises FileError."""
    try:
        with path.open("rb") as file:
            return file.read(262)[257:] != b"ustar"
    except OSError as error:
        raise explain(path, error) from error
