"""Where each picture lies in a set of tar shards, and its label: found by one scan, kept for the next start."""

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ..errors import ArchiveError, FileError
from ..files import explain, written_beside
from ..tensor_files import METADATA, TensorFileError, read_header, read_tensors
from .decoding import MAX_PICTURE_BYTES, PICTURE_SUFFIXES
from .facts import class_of
from .source import stamp_of
from .tars import Member, tar_members
from .zips import is_picture

FORMAT = "1"
SCANNERS = 8  # threads: on most disks it is waiting, not work
MAX_LABEL_BYTES = 2**20  # a .json may hold much more than the label
NO_LABEL = -1

Place = tuple[str, int, int]  # a picture's name, offset and size in its shard
Rows = NDArray[np.int64]  # [n, 3]: offset, size, label of each picture of a shard


@dataclass(frozen=True)
class ShardIndex:
    """Of each picture: `shard` int32 [N], `offset` and `size` in bytes int64 [N], `labels` int64 [N] or None."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    sha256: str


def index_of(
    path: Path, files: list[Path], *, folder: Path | None, progress: Callable[[int, int], None] | None
) -> ShardIndex:
    """Return the index of the shards of the set at `path`, from `folder` if it was kept there for these files.

    A kept index is for shards of the same names, sizes and times only. Raises ArchiveError, FileError.
    """
    stamp = stamp_of(*files)
    kept = None
    if folder is not None:
        name = hashlib.sha256(
            "\n".join(str(file.resolve()) for file in files).encode("utf-8", "surrogateescape")
        ).hexdigest()[:16]
        kept = folder / f"shards-{name}.safetensors"
        if (found := read_index(kept, stamp)) is not None:
            return found
    index = scan(path, files, progress=progress)
    if kept is not None:
        write_index(kept, index, stamp)
    return index


def scan(path: Path, files: list[Path], *, progress: Callable[[int, int], None] | None) -> ShardIndex:
    """Read the tables of contents of all shards. Raises ArchiveError, FileError."""
    parts: list[Rows] = []
    digest = hashlib.sha256()
    with ThreadPoolExecutor(SCANNERS) as pool:
        try:
            for rows, shard_digest in pool.map(scan_shard, files):
                parts.append(rows)
                digest.update(shard_digest)
                if progress:
                    progress(len(parts), len(files))
        finally:
            pool.shutdown(cancel_futures=True)
    rows = np.concatenate(parts)
    labelled = rows[:, 2] != NO_LABEL
    shard = np.repeat(np.arange(len(parts), dtype=np.int32), [len(part) for part in parts])
    if labelled.any() and not labelled.all():
        first = int(shard[np.flatnonzero(~labelled)[0]])
        raise ArchiveError(
            path,
            f"{int((~labelled).sum())} of {len(rows)} pictures have no label (first in {files[first].name}); "
            "give each a .cls or .json, or none",
        )
    return ShardIndex(
        shard=shard,
        offset=rows[:, 0].copy(),
        size=rows[:, 1].copy(),
        labels=rows[:, 2].copy() if labelled.any() else None,
        sha256=digest.hexdigest(),
    )


def scan_shard(file: Path) -> tuple[Rows, bytes]:
    """Return a shard's table, and a digest of its name, table and first picture. Raises ArchiveError."""
    # here, as the library takes its time to load and a process that only reads pictures has no need of it
    from webdataset.tariterators import group_by_keys

    if is_empty(file):
        raise ArchiveError(file, "is empty")
    rows, lines = [], [file.name]
    try:
        for sample in group_by_keys(sample_files(file)):
            key = sample["__key__"]
            pictures = [value for value in sample.values() if isinstance(value, tuple)]
            if not pictures:
                continue
            if len(pictures) > 1:
                raise ArchiveError(file, f"the sample {key!r} holds {len(pictures)} pictures; keep one of them")
            ((name, offset, size),) = pictures
            label = label_of(file, key, sample)
            rows.append((offset, size, label))
            lines.append(f"{name} {offset} {size} {label}")
    except ValueError as error:  # the library's word for a name that comes twice
        raise ArchiveError(file, "holds one name twice; write the shard anew") from error
    if not rows:
        raise ArchiveError(file, "holds no pictures (a sample is KEY.png or KEY.jpg, beside it KEY.cls)")
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
    digest.update(read_stretch(file, *rows[0][:2]))
    return np.array(rows, dtype=np.int64), digest.digest()


def sample_files(file: Path) -> Iterator[dict[str, Any]]:
    """Yield a shard's files as the library groups them: pictures as their places, labels as their bytes."""
    for member in tar_members(file, compressed=False):
        suffix = member.name.rpartition("/")[2].partition(".")[2].lower()
        content: Place | bytes | None = None
        if f".{suffix}" in PICTURE_SUFFIXES and is_picture(member.name):
            content = place_of(member)
        elif suffix in ("cls", "json"):
            if member.size > MAX_LABEL_BYTES:
                raise ArchiveError(file, f"{member.name!r} is too large for a label; refused")
            content = member.read()
        if content is not None:
            yield {"fname": member.name, "data": content, "__url__": str(file)}


def place_of(member: Member) -> Place:
    """Return where a picture lies. Raises ArchiveError."""
    if member.info.issparse():
        raise ArchiveError(member.path, f"{member.name!r} is stored with holes; write the shard without --sparse")
    if member.size > MAX_PICTURE_BYTES:
        raise ArchiveError(member.path, f"{member.name!r} declares {member.size} bytes; refused")
    return member.name, member.info.offset_data, member.size


def label_of(file: Path, key: str, sample: dict[str, Any]) -> int:
    """Return a sample's class, from its .cls or else its .json; NO_LABEL if neither has one."""
    label: object = None
    if "cls" in sample:
        text = sample["cls"].decode("utf-8", "replace").strip()
        label = int(text) if text.isdecimal() and len(text) < 10 else text
    elif "json" in sample:
        try:
            facts = json.loads(sample["json"])
        except (ValueError, RecursionError) as error:
            raise ArchiveError(file, f"{key + '.json'!r} is no JSON") from error
        label = facts.get("label") if isinstance(facts, dict) else None
    if label is None:
        return NO_LABEL
    return class_of(file, key, label)[0]


def is_empty(file: Path) -> bool:
    """Say whether a file has no bytes. Raises FileError."""
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
        index = ShardIndex(**{"labels": None, **arrays}, sha256=facts["sha256"])
    except (FileError, TensorFileError, TypeError, KeyError):  # missing or damaged: the scan makes it anew
        return None
    columns: list[NDArray[Any]] = [
        index.shard,
        index.offset,
        index.size,
        *([] if index.labels is None else [index.labels]),
    ]
    kinds = ["int32", "int64", "int64", "int64"]
    fits = all(
        column.shape == (len(index.shard),) and column.dtype == kind
        for column, kind in zip(columns, kinds, strict=False)
    )
    return index if fits and len(index.shard) and all(int(column.min()) >= 0 for column in columns) else None


def write_index(kept: Path, index: ShardIndex, stamp: str) -> None:
    """Keep an index. Raises FileError."""
    arrays: dict[str, NDArray[Any]] = {"shard": index.shard, "offset": index.offset, "size": index.size}
    if index.labels is not None:
        arrays["labels"] = index.labels
    facts = {"format": FORMAT, "stamp": stamp, "sha256": index.sha256}
    with written_beside(kept, overwrite=True) as draft:
        save_file(arrays, draft, metadata=facts)
