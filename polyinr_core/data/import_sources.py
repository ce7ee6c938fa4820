"""The sources of `prepare`: folders, zip files, tar files and shards, single images, and Python datasets."""

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyinr_core.errors import DatasetError, FileError, ImageError, RequestError
from polyinr_core.runtime.atomic_io import PathLike, explain, read_bytes, refuse_special

from .decode import MAX_IMAGE_BYTES, decode
from .import_tables import (
    ARRAY_SUFFIXES,
    METADATA_NAMES,
    PARQUET_SUFFIX,
    folder_table,
    list_arrays,
    list_parquet,
    read_label_table,
    table_labels,
    to_rgb,
)
from .labels import FACTS_NAME, LabelInfo, concatenate_labels, describe_classes, known_labels, merge_class_names
from .listing import NOT_REGULAR, Ignored, Listing, ListingBuilder, Payload, Source, fingerprint_of, is_hidden, is_image
from .tar_dataset import (
    find_beside,
    image_beside,
    is_pattern,
    list_tar,
    means_shards,
    read_beside,
    read_range,
    scan,
    shard_files,
    tar_members,
)
from .zip_dataset import list_zip, open_zip, read_member

OTHER_TARS = (b"BZh", b"\xfd7zXZ")
FINGERPRINT_IMAGES = 64  # of a Python dataset, evenly spaced


class MapDataset(Protocol):
    """A dataset of (image, label) pairs or of images, as those of torchvision are.

    An image is a Pillow image, or an array or tensor, uint8 [H, W], [H, W, C] or [C, H, W] with C of 1 or 3; a label is
    an integer. `targets`, if it is there, lists all labels, and `classes` the class names.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def open_source(source: PathLike | MapDataset) -> Source:
    """List the images and labels of a path or dataset. Raises FileError, DatasetError."""
    if not isinstance(source, str | os.PathLike):
        return list_dataset(source)
    path = Path(source)
    if path.is_dir():
        if not means_shards(path):
            tables = sorted(path.rglob(f"*{PARQUET_SUFFIX}"))
            return list_parquet(path, tables) if tables and not image_beside(path) else open_folder(path)
        if (beside := image_beside(path)) is not None:
            problem = f"holds .tar files and images ({beside!r}); name the tars, {path / '*.tar'}, or move them away"
            raise DatasetError(path, problem)
        return open_shards(path)
    if is_pattern(path):
        return list_parquet(path, shard_files(path)) if path.suffix == PARQUET_SUFFIX else open_shards(path)
    head = first_bytes(path)
    if not head:
        raise FileError(path, "is empty")
    if path.suffix in ARRAY_SUFFIXES:
        return list_arrays(path)
    if path.suffix == PARQUET_SUFFIX:
        return list_parquet(path, [path])
    if head[:2] == b"PK":
        return open_zip_source(path)
    if head[257:262] == b"ustar" or head.startswith(OTHER_TARS):
        return open_tar(path)
    if is_image(path.name):
        payloads = [path]
        labels = known_labels(LabelInfo(), 1)
        return Source(path, "image", (path.name,), fingerprint_of(path), lambda start: iter(payloads[start:]), labels)
    raise FileError(path, "is not a folder, zip, tar, parquet, .npy, .npz or image file")


def first_bytes(path: Path) -> bytes:
    """Return the first 512 bytes of a file, decompressed if it is gzipped. Raises FileError."""
    refuse_special(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unzipped:
                return unzipped.read(512)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(path, "is a damaged gzip file") from error
    except OSError as error:
        raise explain(path, error) from error
    return head


def open_folder(path: Path) -> Source:
    """List a folder and all below it, following links to folders."""
    listing = list_folder(path)
    descriptions = [path / FACTS_NAME]
    fingerprint = fingerprint_of(path, *descriptions, *(path / name for name in listing.names))

    def payloads(start: int) -> Iterator[Payload]:
        return (path / name for name in listing.names[start:])

    return Source(path, "folder", listing.names, fingerprint, payloads, listing.labels, listing.ignored)


def list_folder(path: Path) -> Listing:
    """List the images of a folder and of all below it, sorted by name. Raises FileError, DatasetError.

    Links to folders are followed once each, unless they lead to a folder that is read anyway.
    """
    files, loops = walk(path)
    lister = ListingBuilder(path, samples=False)
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
    listing = lister.listing()
    tables = sorted(name for name in files if name.rpartition("/")[2] in METADATA_NAMES)
    if not tables or listing.labels.are_per_image or listing.labels.described or not listing.names:
        return listing
    labels = folder_table(path, tables)
    return replace(listing, labels=table_labels(path / tables[0], labels, listing.names)) if labels else listing


def without_broken_strays(path: Path, listing: Listing) -> NDArray[np.int64]:
    """Return the indices of a folder's images, without images outside its class folders that cannot be decoded.

    The first one that can be decoded ends the search, because it leaves the dataset without labels anyway.
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
    """Return the names of all files below a folder, and of the folders that are not followed."""

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
            waiting += [inside / name for name in links]  # after what is in the folder itself
            again = [name for name in below if name not in links and os.path.realpath(inside / name) in seen]
            loops += [(inside / name).relative_to(path).as_posix() for name in again]
            below[:] = [name for name in below if name not in (*links, *again)]
            files += [(inside / name).relative_to(path).as_posix() for name in names if not is_hidden(name)]
    return files, loops


def open_zip_source(path: Path) -> Source:
    """List a zip file of images, with a dataset.json or class folders."""
    with open_zip(path) as zipped:
        listing = list_zip(path, zipped)

    def payloads(start: int) -> Iterator[Payload]:
        with open_zip(path) as zipped:
            for name in listing.names[start:]:
                try:
                    yield read_member(path, zipped, name)
                except DatasetError:
                    yield ImageError("cannot be read, the zip is damaged there")

    return Source(path, "zip", listing.names, fingerprint_of(path), payloads, listing.labels, listing.ignored)


def open_tar(path: Path) -> Source:
    """List a tar in its order: a compressed one, which is read from the start, or a shard."""
    if read_range(path, 257, 5) == b"ustar":
        return open_shards(path)
    beside = find_beside(path, [path])
    listing = list_tar(path, read_beside(beside), compressed=True)
    wanted = set(listing.names)

    def payloads(start: int) -> Iterator[Payload]:
        images = (member for member in tar_members(path) if member[0].name in wanted)
        for info, read in islice(images, start, None):
            yield read() if info.size <= MAX_IMAGE_BYTES else ImageError("declares too many bytes")

    return Source(path, "tar", listing.names, fingerprint_of(path, beside), payloads, listing.labels, listing.ignored)


def open_shards(path: Path) -> Source:
    """List one tar, or those of a folder or pattern, as training reads them. Raises FileError, DatasetError."""
    files = shard_files(path)
    beside = find_beside(path, files)
    scans = list(scan(files, read_beside(beside)))
    ignored = Ignored()
    for found in scans:
        ignored.add(found.listing.ignored)
    shard = [number for number, found in enumerate(scans) for _ in found.listing.names]
    places = np.concatenate([found.places for found in scans]).tolist()
    names = tuple(name for found in scans for name in found.listing.names)
    if len(files) > 1:
        names = tuple(f"{files[number].name}/{name}" for number, name in zip(shard, names, strict=True))

    def payloads(start: int) -> Iterator[Payload]:
        for number, (offset, size) in zip(shard[start:], places[start:], strict=True):
            yield read_range(files[number], offset, size)

    return Source(
        path,
        "tar" if len(files) == 1 else "shards",
        names,
        fingerprint_of(*files, beside),
        payloads,
        concatenate_labels([found.listing.labels for found in scans]),
        ignored,
    )


def label_by_table(sources: Sequence[Source], path: Path) -> list[Source]:
    """Return the sources with the labels that a .csv, .tsv or .jsonl file lists. Raises DatasetError, FileError."""
    table = read_label_table(path)
    if not table:
        raise DatasetError(path, "has no columns of file names and labels; name them file_name and label")
    return [replace(source, labels=table_labels(path, table, source.names)) for source in sources]


def merge_labels(sources: Sequence[Source], kept: Sequence[NDArray[np.int64]]) -> tuple[LabelInfo, str | None]:
    """Return the labels of the images `kept` from all sources, and why there are none although some have labels.

    There are none if any image lacks one or all have the same class. Raises DatasetError for labels that cannot be
    used, RequestError if some sources name their classes and others number them.
    """
    used = [(source, chosen) for source, chosen in zip(sources, kept, strict=True) if len(chosen)]
    parts = []
    bare: list[Source] = []
    for source, chosen in used:
        facts, note = source.labels.resolve(source.path, source.name_of, chosen)
        if note is not None:
            return LabelInfo(), note if len(sources) == 1 else f"{source.path}: {note}"
        parts.append(facts)
        bare += [source] if facts.labels is None else []
    if bare:
        is_lost = len(bare) < len(parts) and any(facts.classes > 0 for facts in parts)
        return LabelInfo(), f"no labels: {bare[0].path} has none" if is_lost else None
    labels = [facts.labels for facts in parts if facts.labels is not None]
    if not labels:
        return LabelInfo(), None
    try:
        names, numbers = merge_class_names([facts.class_names for facts in parts])
    except ValueError as error:
        raise RequestError("some sources name their classes and others number them; give --labels none") from error
    merged = [chosen if new is None else new[chosen] for chosen, new in zip(labels, numbers, strict=True)]
    classes = max(len(names), *(facts.classes for facts in parts))
    return (LabelInfo(np.concatenate(merged), classes, names), None) if classes > 1 else (LabelInfo(), None)


def list_dataset(dataset: MapDataset) -> Source:
    """List a dataset that Python holds, such as `torchvision.datasets.CIFAR10(root, download=True)`.

    Raises DatasetError for labels that are no classes.
    """
    path = Path(type(dataset).__name__)
    count = len(dataset)
    info = dataset_labels(dataset, path)

    def payloads(start: int) -> Iterator[Payload]:
        return (pixels_of(dataset[index]) for index in range(start, count))

    digest = hashlib.sha256(f"{path} {count} {info.class_names}".encode())
    digest.update(b"" if info.labels is None else info.labels.tobytes())
    for index in np.linspace(0, count - 1, min(count, FINGERPRINT_IMAGES)).astype(int).tolist():
        pixels = pixels_of(dataset[index])
        digest.update(str(pixels).encode() if isinstance(pixels, ImageError) else pixels.tobytes())
    names = tuple(f"{index:08d}" for index in range(count))
    return Source(path, "dataset", names, digest.hexdigest(), payloads, known_labels(info, count))


def dataset_labels(dataset: MapDataset, path: Path) -> LabelInfo:
    """Return the labels of a Python dataset; it has none where its items are images alone. Raises DatasetError.

    They are taken from its attribute `targets`; without it, every item is read once.
    """
    values: Any = getattr(dataset, "targets", None)
    if values is None:
        items = (dataset[index] for index in range(len(dataset)))
        values = [item[1] if isinstance(item, tuple | list) and len(item) > 1 else None for item in items]
        if all(value is None for value in values):
            return LabelInfo()
    try:
        labels = np.asarray(values)
    except ValueError:  # of several shapes
        labels = np.empty(0)
    is_whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != (len(dataset),) or not is_whole or labels.min(initial=0) < 0:
        raise DatasetError(path, "does not have one integer label, 0 or more, for each image; give a list of images")
    names = getattr(dataset, "classes", ())
    classes = max(int(labels.max(initial=-1)) + 1, len(names))
    is_named = len(names) == classes and all(isinstance(name, str) for name in names)
    return LabelInfo(labels.astype(np.int64), classes, tuple(names) if is_named else ())


def pixels_of(item: Any) -> NDArray[np.uint8] | ImageError:
    """Return the pixels [H, W, 3] of a Python dataset's item, or why it is no image."""
    image = item[0] if isinstance(item, tuple | list) else item
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    pixels = np.asarray(image)
    is_tensor = hasattr(image, "permute")
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and (is_tensor or pixels.shape[2] not in (1, 3)):
        pixels = pixels.transpose(1, 2, 0)  # channels first
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        return ImageError(f"is no image but {pixels.dtype} of shape {list(pixels.shape)}; give uint8 or Pillow images")
    return to_rgb(pixels)


def describe_folder(path: PathLike) -> tuple[dict[str, Any], list[str]]:
    """Return the facts of a folder of images as `prepare` takes it, and notes on what it leaves out.

    Raises FileError.
    """
    path = Path(path)
    listing = list_folder(path)
    if not listing.names:
        raise FileError(path, "is a folder without images; name a file, or a folder of images or .tar shards")
    kept = without_broken_strays(path, listing)
    labels, note = listing.labels.resolve_for("auto", path, lambda index: repr(listing.names[index]), kept)
    ignored = listing.ignored
    broken = sorted(set(range(len(listing.names))).difference(kept.tolist()))
    ignored.left_out += [(listing.names[index], "cannot be decoded") for index in broken]
    facts = {
        "kind": "folder of images",
        "count": len(kept),
        **describe_classes(labels.labels, labels.classes, labels.class_names),
    }
    facts["provenance"] = labels.provenance
    return facts, [*ignored.lines(), *([] if note is None else [note])]
