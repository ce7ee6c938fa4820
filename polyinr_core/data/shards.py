"""Shards: a data set in many tar files, as the webdataset library lays them out, read where they lie."""

import os
from collections.abc import Callable
from dataclasses import replace
from glob import glob
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError
from ..files import PathLike
from .checked import decoded
from .facts import LabelUse
from .shard_index import ShardIndex, index_of, read_stretch
from .tars import tar_members
from .zips import FACTS_NAME, is_picture

GLOB = "*?["
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Shards:
    """Open shards. Their pictures are in the order of the shards' names, then in the order of each tar.

    A sample is the files KEY.png (or any other picture) and KEY.cls (a class index as text) or KEY.json (an
    object with `label`), in one tar; a name's first dot ends the key. Else a `dataset.json` inside or class
    folders give the labels. A `dataset.json` beside the shards may hold labels, `class_names` and `provenance`. A
    picture is read by one seek, with no file kept open: it is safe from threads and processes.
    """

    def __init__(self, path: Path, *, files: list[Path], index: ShardIndex, use: LabelUse = "auto") -> None:
        self.path = path
        self.files = files
        self.index = index
        self.shard_of: NDArray[np.int32] | None = index.shard
        facts, note = index.labels.facts_for(use, path, lambda number: f"in {files[index.shard[number]].name}")
        self.labels: NDArray[np.int64] | None = facts.labels
        self.classes = facts.classes
        self.class_names = facts.class_names
        self.provenance: dict[str, Any] = facts.provenance
        self.notes: tuple[str, ...] = (*index.notes, *([] if note is None else [note]))
        self.resolution: int = self._decoded(0, side=None).shape[0]

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        index: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        labels: LabelUse = "auto",
    ) -> Self:
        """Open a .tar, a folder of them, or a pattern, and check all names and labels and the first picture.

        The other pictures are checked when read. `index` is a folder where what the scan finds is kept for the
        next time; `progress` is told (shards scanned, shards in all). Labels that cannot be used are refused,
        left out with "usable"; "none" leaves out all. Raises ArchiveError, FileError.
        """
        path = Path(path)
        files = shard_files(path)
        found = index_of(path, files, folder=index, progress=progress, beside=description_of(path, files))
        if (beside := picture_beside(path)) is not None:
            found = replace(
                found, notes=(*found.notes, f"passed over: pictures beside the .tar files ({beside!r})")
            )
        return cls(path, files=files, index=found, use=labels)

    def __len__(self) -> int:
        return len(self.index.shard)

    @property
    def sha256(self) -> str:
        """SHA-256 over each shard's name, table with labels, and first picture: not over all pixels."""
        return self.index.sha256

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return picture `index`, uint8 [R, R, 3], R = `resolution`. Raises ArchiveError, FileError."""
        return self._decoded(index, side=self.resolution)

    def _decoded(self, index: int, *, side: int | None) -> NDArray[np.uint8]:
        """Read and decode picture `index`, of any side if None is given."""
        file = self.files[self.index.shard[index]]
        offset, size = int(self.index.offset[index]), int(self.index.size[index])
        data = read_stretch(file, offset, size)
        if len(data) < size:
            raise ArchiveError(file, "has become shorter since it was scanned; is it being written?")
        try:
            return decoded(file, "", data, side=side)
        except ArchiveError:  # the name is looked up only now: a million of them would fill memory
            return decoded(file, name_at(file, offset), data, side=side)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def is_pattern(path: Path) -> bool:
    """Say whether a path is a pattern that stands for several files, as `data-{000..099}.tar` or `a/*.tar`."""
    return any(mark in str(path) for mark in "{" + GLOB) and not os.path.exists(path)


def shard_files(path: Path) -> list[Path]:
    """Return the shards that a path or pattern means, in the order of their names. Raises ArchiveError."""
    if not is_pattern(path):
        files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not files:
            raise ArchiveError(path, "is a folder without .tar files")
        return files
    from braceexpand import braceexpand  # here, as few have patterns to read

    try:
        patterns = [Path(text) for text in braceexpand(str(path))]
    except ValueError as error:
        raise ArchiveError(path, "is no pattern; write it as data-{000..099}.tar or data-*.tar") from error
    files = []
    for pattern in patterns:
        if any(mark in str(pattern) for mark in GLOB):
            files += [Path(found) for found in glob(str(pattern))]
        else:
            files.append(pattern)  # each must be there: a gap in a range is a mistake
    if not files:
        raise ArchiveError(path, "no file has such a name")
    return sorted(set(files))


def description_of(path: Path, files: list[Path]) -> Path | None:
    """Return the `dataset.json` beside shards, None if there is none."""
    description = (path if path.is_dir() else files[0].parent) / FACTS_NAME
    return description if description.is_file() else None


def picture_beside(path: Path) -> str | None:
    """Return the name of a picture that lies in a folder of shards or below it, None if there is none."""
    folders = os.walk(path) if path.is_dir() else ()
    beside = (Path(folder, name) for folder, _, names in folders for name in sorted(names))
    inside = (file.relative_to(path).as_posix() for file in beside)
    return next((name for name in inside if is_picture(name)), None)


def means_shards(path: Path) -> bool:
    """Say whether a path means tar shards, by its name or what the folder holds."""
    is_tar = path.name.lower().endswith(TAR_SUFFIXES)
    return is_tar or is_pattern(path) or (os.path.isdir(path) and any(path.glob("*.tar")))


def name_at(file: Path, offset: int) -> str:
    """Return the name of what lies at an offset in a shard."""
    members = tar_members(file, compressed=False)
    return next((member.name for member in members if member.info.offset_data == offset), f"byte {offset}")
