"""Label files: what a `dataset.json`, and a .cls or .json beside an image, say of classes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ArchiveError
from .facts import class_of, read_description
from .zips import plain_name

MAX_LABEL_BYTES = 2**20  # a .json may hold much more than the label
LABEL_FIELDS = ("cls", "json")
LABEL_KEYS = ("label", "cls")  # in a .json

Label = tuple[int, int]  # the class, and the length of a one-hot vector or 0


@dataclass(frozen=True)
class Description:
    """What a `dataset.json` says: labels by plain name, or None; `problem`: why it cannot be used."""

    labels: dict[str, object] | None = None
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @classmethod
    def read(cls, path: Path, text: bytes) -> "Description":
        """Read the text of a `dataset.json` of the data set at `path`."""
        names: tuple[str, ...] = ()
        provenance: dict[str, Any] = {}
        try:
            facts, names, provenance = read_description(path, text)
            return cls(labels_by_name(path, facts.get("labels")), names, provenance)
        except ArchiveError as error:
            return cls(None, names, provenance, error.problem)


def labels_by_name(path: Path, pairs: object) -> dict[str, object] | None:
    """Return the labels of `[[name, label], ...]` by plain name, None for null. Raises ArchiveError."""
    if pairs is None:
        return None
    if not isinstance(pairs, list):
        raise ArchiveError(path, "labels in its dataset.json is no list")
    by_name: dict[str, object] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ArchiveError(path, "labels in its dataset.json holds something else than [name, label] pairs")
        name = plain_name(pair[0])
        if name in by_name:
            raise ArchiveError(path, f"its dataset.json labels {name!r} twice")
        by_name[name] = pair[1]
    return by_name


def sidecar_label(name: str, kind: str, size: int, read: Callable[[], bytes]) -> Label | str | None:
    """Return the label that a .cls or .json file beside an image gives, None for none, or why it is no class."""
    if size > MAX_LABEL_BYTES:
        return f"{name!r} is too large for a label"
    text = read()
    if kind == "cls":
        return label_listed(name, cls_value(text.decode("utf-8", "replace").strip()))
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return f"{name!r} is no JSON"
    facts = facts if isinstance(facts, dict) else {}
    label = next((facts[key] for key in LABEL_KEYS if facts.get(key) is not None), None)
    return None if label is None else label_listed(name, label)


def cls_value(text: str) -> object:
    """Return what the text of a .cls file means: a number, a list, or itself."""
    if text.isdecimal() and len(text) < 20:
        return int(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def label_listed(name: str, label: object) -> Label | str:
    """Return a label as a class, or why it is none."""
    try:
        return class_of(label)
    except ValueError as error:
        return f"the label of {name!r} {error}"


def shared_depth(names: Mapping[str, object]) -> int:
    """Return how many folders all names have in common."""
    if not names:
        return 0
    first, last = min(names).split("/"), max(names).split("/")
    depth = 0
    while depth < min(len(first), len(last)) - 1 and first[depth] == last[depth]:
        depth += 1
    return depth
