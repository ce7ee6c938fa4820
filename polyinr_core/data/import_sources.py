"""CIFAR-10's python archive: its batches of images, their labels and class names."""

import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import ArchiveError, FileError, ImageError
from polyinr_core.runtime.atomic_io import PathLike, explain, read_bytes, refuse_special
from polyinr_core.runtime.safe_unpickler import Made, PickleProblem, bytes_of, read_pickle, text_of

from .containers import FACTS_NAME, is_hidden, is_image, open_zip, tar_members
from .decode import MAX_IMAGE_BYTES, decode
from .labels import Facts, certain, concatenated
from .listing import NOT_REGULAR, Lister, Listing, Notes, Payload, Source, stamp_of
from .tar_dataset import (
    described_by,
    description_of,
    image_beside,
    is_pattern,
    list_tar,
    means_shards,
    read_stretch,
    scan,
    shard_files,
)
from .zip_dataset import list_zip, read_member

BATCH_NAME = re.compile(r"(^|/)data_batch_\d+$")
META_NAME = re.compile(r"(^|/)batches\.meta$")
SIDE = 32
MAX_CIFAR_BYTES = 2**30  # of all batches; the published ones take 155 MB
ARRAY_NAMES = frozenset(  # what the pickle of a numpy array mentions
    {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"}
    | {"_codecs.encode"}
)

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, 32, 32, 3], labels [N]


def open_cifar(path: Path) -> Source:
    """List CIFAR-10's training images in the order of their batches. Raises ArchiveError, FileError."""
    batches: dict[str, Batch] = {}
    class_names: tuple[str, ...] = ()
    size = 0
    for member in tar_members(path):
        is_meta = META_NAME.search(member.name)
        if not (is_meta or BATCH_NAME.search(member.name)):
            continue
        size += member.size
        if size > MAX_CIFAR_BYTES:
            raise ArchiveError(path, f"{member.name!r} is too large for a CIFAR-10 batch; refused")
        try:
            facts = read_dictionary(member.read())
            if is_meta:
                class_names = class_names_of(facts)
            else:
                batches[member.name] = batch_of(facts)
        except PickleProblem as problem:
            raise ArchiveError(path, f"{member.name!r} is no CIFAR-10 batch ({problem}); refused") from problem
    ordered = sorted(batches.items())
    labels = np.concatenate([labels for _, (_, labels) in ordered])
    classes = max(int(labels.max()) + 1, len(class_names))
    if len(class_names) < classes:
        class_names = ()

    def payloads(start: int) -> Iterator[Payload]:
        return islice((image for _, (images, _) in ordered for image in images), start, None)

    names = tuple(f"{name.split('/')[-1]}/{index:05d}" for name, (_, part) in ordered for index in range(len(part)))
    return Source(
        path,
        "cifar-10",
        names,
        stamp_of(path),
        payloads,
        certain(Facts(labels, classes, class_names), len(names)),
    )


def read_dictionary(data: bytes) -> dict[str, Any]:
    """Return the dictionary that a pickle describes. Raises PickleProblem."""
    facts, _ = read_pickle(memoryview(data), known=lambda module, name: f"{module}.{name}" in ARRAY_NAMES)
    if not isinstance(facts, dict):
        raise PickleProblem("it holds no dictionary")
    return facts


def class_names_of(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names, none if there is no list of them. Raises PickleProblem."""
    names = facts.get("label_names")
    return tuple(map(text_of, names)) if isinstance(names, list) else ()


def batch_of(facts: dict[str, Any]) -> Batch:
    """Return a batch's images and labels. Raises PickleProblem."""
    match facts.get("data"):
        case Made(state=(_, (int(count), int(width)), Made(arguments=(kind, *_)), False, raw)) if (
            width == 3 * SIDE** 2 and text_of(kind) in ("u1", "|u1")
        ):
            pixels = np.frombuffer(bytes_of(raw, most=2 * count * width), np.uint8)
        case _:
            raise PickleProblem(f"it holds no images of {SIDE}x{SIDE}")
    if not 0 < count * width == len(pixels):
        raise PickleProblem("it holds more or fewer images than it announces")
    labels = facts.get("labels")
    if not isinstance(labels, list) or len(labels) != count:
        raise PickleProblem("it does not hold one label for each image")
    if not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise PickleProblem("its labels are no classes")
    return pixels.reshape(count, 3, SIDE, SIDE).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64)


IDX_MAGIC = b"\x00\x00\x08\x03"  # unsigned bytes in three dimensions: images
LABEL_MAGIC = b"\x00\x00\x08\x01"
MAX_IDX_BYTES = 2**31


def open_idx(path: Path) -> Source:
    """List an idx file of images; the labels are found beside it by name. Raises ArchiveError, FileError."""
    images = read_idx(path, IDX_MAGIC)  # [N, H, W]
    labels_path = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    facts = Facts()
    if labels_path != path and labels_path.is_file():
        labels = read_idx(labels_path, LABEL_MAGIC).astype(np.int64)
        if len(labels) != len(images):
            raise ArchiveError(labels_path, f"holds {len(labels)} labels for {len(images)} images")
        classes = int(labels.max()) + 1
        facts = Facts(labels, classes, tuple(map(str, range(classes))))

    def payloads(start: int) -> Iterator[Payload]:
        for gray in images[start:]:
            yield np.repeat(gray[:, :, None], 3, axis=2)

    names = tuple(f"{index:05d}" for index in range(len(images)))
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
            if not 0 < count <= MAX_IDX_BYTES:
                raise ArchiveError(path, f"declares the shape {shape}; between 1 and {MAX_IDX_BYTES} bytes are read")
            body = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(path, "is a truncated or damaged gzip file") from error
    except OSError as error:
        raise explain(path, error) from error
    if len(body) != count:
        problem = "more" if len(body) > count else f"only {len(body)}"
        raise ArchiveError(path, f"declares {count} bytes and holds {problem}; it is damaged")
    return np.frombuffer(body, np.uint8).reshape(shape)


CIFAR_MEMBERS = 32  # its archive holds nine
OTHER_TARS = (b"BZh", b"\xfd7zXZ")


def open_source(path: PathLike) -> Source:
    """Look at what lies at `path` and list its images and labels. Raises FileError, ArchiveError."""
    path = Path(path)
    if path.is_dir():
        if not means_shards(path):
            return open_folder(path)
        if (beside := image_beside(path)) is not None:
            problem = f"holds .tar files and images ({beside!r}); name the tars, {path / '*.tar'}, or move them away"
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
    if is_image(path.name):
        payloads = [path]
        labels = certain(Facts(), 1)
        return Source(path, "image", (path.name,), stamp_of(path), lambda start: iter(payloads[start:]), labels)
    raise FileError(path, "is no folder, zip, tar, CIFAR-10 archive, MNIST images file or image")


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
    for name in sorted(files, key=lambda name: (not is_image(name), name)):
        file = path / name
        try:
            status = file.stat()
        except OSError as error:
            if is_image(name) or file.is_symlink():
                lister.leave_out(name, f"cannot be read ({(error.strerror or str(error)).lower()})")
            continue
        if stat.S_ISREG(status.st_mode):
            lister.add(name, status.st_size, lambda file=file: read_bytes(file))  # type: ignore[misc]
        elif is_image(name):
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
        except (ImageError, FileError):
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
    """List a zip of images: an archive with its labels, or any other, with class folders."""
    with open_zip(path) as zipped:
        listing = list_zip(path, zipped)

    def payloads(start: int) -> Iterator[Payload]:
        with open_zip(path) as zipped:
            for name in listing.names[start:]:
                try:
                    yield read_member(path, zipped, name)
                except ArchiveError:
                    yield ImageError("cannot be read, the zip is damaged there")

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
        images = (member for member in tar_members(path) if member.name in wanted)
        for index, member in enumerate(images):
            if index >= start:
                fits = member.size <= MAX_IMAGE_BYTES
                yield member.read() if fits else ImageError("declares too many bytes")

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
