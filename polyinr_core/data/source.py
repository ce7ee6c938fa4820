"""A source: its pictures by name, in a fixed order, with their labels; read one after the other."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, PictureError, RequestError
from .facts import Facts, read_facts

Payload = Path | bytes | NDArray[np.uint8] | PictureError  # a file, a file's bytes, pixels [H, W, 3], or why not


@dataclass(frozen=True)
class Source:
    """`payloads(start)` yields what belongs to `names[start:]`; `stamp` changes when the files do."""

    path: Path
    kind: str
    names: tuple[str, ...]
    stamp: str
    payloads: Callable[[int], Iterator[Payload]]
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        if not self.names:
            raise ArchiveError(self.path, "holds no pictures")


def stamp_of(*paths: Path) -> str:
    """Return a digest of the names, sizes and times of files; a missing file counts as such."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = path.stat()
            found = f"{status.st_size} {status.st_mtime_ns}" if path.is_file() else "folder"
        except OSError:
            found = "missing"
        digest.update(f"{path.name!r} {path.parent.name!r} {found}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def described(path: Path, names: Sequence[str], text: bytes | None) -> Facts:
    """Return what the text of a `dataset.json` says of the pictures, or without one what their folders say."""
    if not names:
        raise ArchiveError(path, "holds no pictures")
    if text is not None:
        return read_facts(path, text, names)
    folders = class_folders(names)
    if folders is None:
        return Facts()
    class_names = sorted(set(folders))
    index = {name: number for number, name in enumerate(class_names)}
    return Facts(np.array([index[name] for name in folders]), len(class_names), tuple(class_names))


def class_folders(names: Sequence[str]) -> list[str] | None:
    """Return the folder each picture lies in, below those that all share; None if any lies in no folder.

    `set/cat/1.png`, `set/dog/2.png` lie in cat and dog; `cat/1.png`, `cat/2.png` in cat.
    """
    folders = [PurePosixPath(name.replace("\\", "/")).parts[:-1] for name in names]
    depth = 0
    while all(len(parts) > depth + 1 and parts[depth] == folders[0][depth] for parts in folders):
        depth += 1
    if not all(len(parts) > depth for parts in folders):
        return None
    return [parts[depth] for parts in folders]


def merged_facts(sources: Sequence[Source]) -> Facts:
    """Return the labels of all pictures of all sources; none if any picture lacks one or all are of one class.

    Raises RequestError if some sources name their classes and others number them.
    """
    parts = [source.facts for source in sources]
    labels = [facts.labels for facts in parts if facts.labels is not None]
    if len(labels) < len(parts):
        return Facts()
    names = parts[0].class_names
    if any(facts.class_names != names for facts in parts):
        if not all(facts.class_names for facts in parts):
            raise RequestError("some sources name their classes and others number them; give --labels none")
        names = tuple(sorted({name for facts in parts for name in facts.class_names}))
        index = {name: number for number, name in enumerate(names)}
        labels = [
            np.array([index[name] for name in facts.class_names])[own]
            for facts, own in zip(parts, labels, strict=True)
        ]
    classes = max(len(names), *(facts.classes for facts in parts))
    return Facts(np.concatenate(labels), classes, names) if classes > 1 else Facts()
