"""A source: its pictures by name, in a fixed order, with their labels; read one after the other."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, PictureError, RequestError
from .facts import Facts, Labels, unified
from .listing import Listing

Payload = Path | bytes | NDArray[np.uint8] | PictureError  # a file, a file's bytes, pixels [H, W, 3], or why not


@dataclass(frozen=True)
class Source:
    """`payloads(start)` yields what belongs to `names[start:]`; `stamp` changes when the files do.

    `left_out`, `others` and `seconds` tell what was passed over, as in a `Listing`.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    stamp: str
    payloads: Callable[[int], Iterator[Payload]]
    labels: Labels
    left_out: tuple[tuple[str, str], ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            refuse_none(self.path, self.left_out)

    @classmethod
    def listed(
        cls, path: Path, kind: str, listing: Listing, stamp: str, payloads: Callable[[int], Iterator[Payload]]
    ) -> "Source":
        """Return the source of what a listing found. Raises ArchiveError if that is nothing."""
        passed = (listing.left_out, listing.others, listing.seconds)
        return cls(path, kind, listing.names, stamp, payloads, listing.labels, *passed)

    @property
    def facts(self) -> Facts:
        """The labels of all pictures. Raises ArchiveError for labels that cannot be used."""
        return self.labels.settled(self.path, self.name_of)[0]

    def name_of(self, index: int) -> str:
        """Return how a message names picture `index`."""
        return repr(self.names[index])


def refuse_none(path: Path, left_out: Sequence[tuple[str, str]]) -> None:
    """Raise ArchiveError for a data set without pictures."""
    found = f" ({left_out[0][0]!r} {left_out[0][1]})" if left_out else ""
    raise ArchiveError(path, f"holds no pictures{found}")


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


def merged_facts(sources: Sequence[Source], kept: Sequence[NDArray[np.int64]]) -> tuple[Facts, str | None]:
    """Return the labels of the pictures `kept` of all sources, and why there are none if some have labels.

    There are none if any picture lacks one or all are of one class. Raises ArchiveError for labels that cannot be
    used, RequestError if some sources name their classes and others number them.
    """
    used = [(source, own) for source, own in zip(sources, kept, strict=True) if len(own)]
    parts = []
    bare: list[Source] = []
    for source, own in used:
        facts, note = source.labels.settled(source.path, source.name_of, own)
        if note is not None:
            return Facts(), note if len(sources) == 1 else f"{source.path}: {note}"
        parts.append(facts)
        bare += [source] if facts.labels is None else []
    if bare:
        is_lost = len(bare) < len(parts) and any(facts.classes > 0 for facts in parts)
        return Facts(), f"no labels: {bare[0].path} has none" if is_lost else None
    labels = [facts.labels for facts in parts if facts.labels is not None]
    if not labels:
        return Facts(), None
    try:
        names, numbers = unified([facts.class_names for facts in parts])
    except ValueError as error:
        raise RequestError(
            "some sources name their classes and others number them; give --labels none"
        ) from error
    merged = [own if new is None else new[own] for own, new in zip(labels, numbers, strict=True)]
    classes = max(len(names), *(facts.classes for facts in parts))
    return (Facts(np.concatenate(merged), classes, names), None) if classes > 1 else (Facts(), None)
