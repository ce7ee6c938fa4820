"""Where each picture lies in a set of tar shards, and its label: found by one scan, kept for the next start."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..errors import ArchiveError, FileError
from ..files import explain, read_bytes, refuse_special, written_beside
from ..strict_json import JsonError, parse_json
from ..tensor_files import METADATA, TensorFileError, read_header, read_tensors
from .decoding import MAX_PICTURE_BYTES
from .facts import Labels, concatenated
from .label_files import Description
from .listing import NOT_REGULAR, Lister, Listing, Notes, may_matter
from .source import stamp_of
from .tars import Member, tar_members
from .zips import is_picture

FORMAT = "2"
SCANNERS = 8  # threads: on most disks it is waiting, not work
ARRAYS = ("shard", "offset", "size")
LABEL_ARRAYS = ("values", "widths", "folder")


@dataclass(frozen=True)
class Scan:
    """What one tar holds: `places` int64 [n, 2] are offset and size of each image of the listing."""

    listing: Listing
    places: NDArray[np.int64]
    digest: bytes


@dataclass(frozen=True)
class ShardIndex:
    """Of each picture: `shard` int32 [N], `offset` and `size` in bytes int64 [N], `labels`.

    `notes` tells what was passed over.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    labels: Labels
    sha256: str
    notes: tuple[str, ...] = ()


def index_of(
    path: Path,
    files: list[Path],
    *,
    folder: Path | None,
    progress: Callable[[int, int], None] | None,
    beside: Path | None = None,
) -> ShardIndex:
    """Return the index of the shards of the set at `path`, from `folder` if it was kept there for these files.

    A kept index is for shards of the same names, sizes and times only. `beside` is a `dataset.json` about them
    all. Raises ArchiveError, FileError.
    """
    stamp = stamp_of(*files, *([] if beside is None else [beside]))
    kept = None
    if folder is not None:
        name = hashlib.sha256(
            "\n".join(str(file.resolve()) for file in files).encode("utf-8", "surrogateescape")
        ).hexdigest()[:16]
        kept = folder / f"shards-{name}.safetensors"
        if (found := read_index(kept, stamp)) is not None:
            return found
    index = joined(scan(files, described_by(path, beside), progress=progress))
    if kept is not None:
        write_index(kept, index, stamp)
    return index


def described_by(path: Path, beside: Path | None) -> Description | None:
    """Return what a `dataset.json` beside shards says. Raises FileError."""
    return None if beside is None else Description.read(path, read_bytes(beside))


def scan(
    files: list[Path], beside: Description | None, *, progress: Callable[[int, int], None] | None = None
) -> Iterator[Scan]:
    """Yield what each shard's table of contents says. Raises ArchiveError, FileError."""
    with ThreadPoolExecutor(SCANNERS) as pool:
        try:
            for done, found in enumerate(pool.map(partial(scan_shard, beside=beside), files), 1):
                yield found
                if progress:
                    progress(done, len(files))
        finally:
            pool.shutdown(cancel_futures=True)


def joined(scans: Iterable[Scan]) -> ShardIndex:
    """Return the index of shards; the names of the images, which would fill memory, are not kept."""
    places, labels, notes = [], [], Notes()
    digest = hashlib.sha256()
    for found in scans:
        places.append(found.places)
        labels.append(found.listing.labels)
        notes.add(found.listing)
        digest.update(found.digest)
    rows = np.concatenate(places)
    return ShardIndex(
        shard=np.repeat(np.arange(len(places), dtype=np.int32), [len(part) for part in places]),
        offset=rows[:, 0].copy(),
        size=rows[:, 1].copy(),
        labels=concatenated(labels),
        sha256=digest.hexdigest(),
        notes=notes.lines(),
    )


def scan_shard(file: Path, beside: Description | None = None) -> Scan:
    """Return what a shard holds, and a digest of its name, table and first picture. Raises ArchiveError."""
    if is_empty(file):
        raise ArchiveError(file, "is empty")
    found: list[tuple[int, int]] = []
    listing = list_tar(file, beside, compressed=False, found=found)
    if not listing.names:
        first = f" ({listing.left_out[0][0]!r} {listing.left_out[0][1]})" if listing.left_out else ""
        problem = f"holds no pictures{first} (a sample is KEY.png or KEY.jpg, beside it KEY.cls)"
        raise ArchiveError(file, problem)
    places = np.array([found[number] for number in listing.chosen], dtype=np.int64)  # [n, 2]
    lines = [file.name]
    for name, (offset, size), label in zip(listing.names, places.tolist(), listing.labels.values, strict=True):
        lines.append(f"{name} {offset} {size} {label}")
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
    digest.update(read_stretch(file, *places[0].tolist()))
    return Scan(listing, places, digest.digest())


def list_tar(
    file: Path, beside: Description | None, *, compressed: bool, found: list[tuple[int, int]] | None = None
) -> Listing:
    """List the images of a tar in its own order; their places are added to `found`. Raises ArchiveError."""
    lister = Lister(file, samples=True, beside=beside)
    for member in tar_members(file, compressed=compressed, special=True):
        if not member.is_file:
            if is_picture(member.name) or (member.info.issym() and may_matter(member.name)):
                lister.leave_out(member.name, NOT_REGULAR)
        elif lister.add(member.name, member.size, member.read) and found is not None:
            found.append(place_of(member))
    return lister.listing()


def place_of(member: Member) -> tuple[int, int]:
    """Return where a picture lies: its offset and size. Raises ArchiveError."""
    if member.info.issparse():
        raise ArchiveError(member.path, f"{member.name!r} is stored with holes; write the shard without --sparse")
    if member.size > MAX_PICTURE_BYTES:
        raise ArchiveError(member.path, f"{member.name!r} declares {member.size} bytes; refused")
    return member.info.offset_data, member.size


def is_empty(file: Path) -> bool:
    """Say whether a file has no bytes. Raises FileError."""
    refuse_special(file)
    try:
        return file.stat().st_size == 0
    except OSError as error:
        raise explain(file, error) from error


def read_stretch(file: Path, offset: int, size: int) -> bytes:
    """Return `size` bytes of a shard, or fewer where it ends. Raises FileError."""
    try:
        with file.open("rb", buffering=0) as shard:
            shard.seek(offset)
            return shard.read(size)
    except OSError as error:
        raise explain(file, error) from error


def read_index(kept: Path, stamp: str) -> ShardIndex | None:
    """Return a kept index if it is whole and of files with this stamp."""
    try:
        facts = read_header(kept)[METADATA]
        if (facts.get("format"), facts.get("stamp")) != (FORMAT, stamp):
            return None
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in read_tensors(kept).items()}
        said = parse_json(facts["labels"])
        labels = Labels(
            **{name: arrays.pop(name) for name in LABEL_ARRAYS},
            folder_names=tuple(said.pop("folder_names")),
            numbered=tuple(said.pop("numbered")),
            reasons={int(number): reason for number, reason in said.pop("reasons").items()},
            class_names=tuple(said.pop("class_names")),
            **said,
        )
        index = ShardIndex(
            **arrays, labels=labels, sha256=facts["sha256"], notes=tuple(parse_json(facts["notes"]))
        )
    except (FileError, TensorFileError, JsonError, TypeError, KeyError, ValueError, AttributeError):
        # missing or damaged: the scan makes it anew
        return None
    columns: list[NDArray[Any]] = [index.shard, index.offset, index.size]
    kinds = ["int32", "int64", "int64"]
    fits = all(
        column.shape == (len(index.shard),) and column.dtype == kind
        for column, kind in zip(columns, kinds, strict=True)
    )
    return index if fits and len(index.shard) and all(int(column.min()) >= 0 for column in columns) else None


def write_index(kept: Path, index: ShardIndex, stamp: str) -> None:
    """Keep an index. Raises FileError."""
    arrays = {name: getattr(index, name) for name in ARRAYS}
    arrays |= {name: getattr(index.labels, name) for name in LABEL_ARRAYS}
    said = {f.name: getattr(index.labels, f.name) for f in fields(index.labels) if f.name not in LABEL_ARRAYS}
    facts = {"format": FORMAT, "stamp": stamp, "sha256": index.sha256}
    facts |= {"labels": json.dumps(said), "notes": json.dumps(index.notes)}
    with written_beside(kept, overwrite=True) as draft:
        save_file(arrays, draft, metadata=facts)
