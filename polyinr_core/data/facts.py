"""What `dataset.json` says about the pictures beside it: labels, class names, provenance."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, RequestError
from ..strict_json import JsonError, parse_json, plain_json, to_unicode

MAX_CLASSES = 1_000_000


@dataclass(frozen=True)
class Facts:
    """`labels`: int64 [N] in the pictures' order, or None (`classes` 0 then); `class_names` may be empty."""

    labels: NDArray[np.int64] | None = None
    classes: int = 0
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make class names valid Unicode, whatever they come from: every model of the data carries them."""
        names = tuple(map(to_unicode, self.class_names))
        if len(set(names)) < len(set(self.class_names)):
            raise RequestError("two class names are alike once bytes that are not UTF-8 are escaped; rename one")
        object.__setattr__(self, "class_names", names)


def read_facts(path: Path, text: bytes, names: Sequence[str]) -> Facts:
    """Read the text of a `dataset.json` that describes the pictures `names` of the data set at `path`.

    Labels are class indices, or one-hot vectors, as in StyleGAN's archives. Raises ArchiveError.
    """
    facts, class_names, provenance = read_description(path, text)
    if facts.get("labels") is None:
        return Facts(provenance=provenance)
    labels, classes = read_labels(path, facts["labels"], names)
    if class_names and len(class_names) < classes:
        raise ArchiveError(path, f"its dataset.json names {len(class_names)} classes, its labels need {classes}")
    return Facts(labels, max(classes, len(class_names)), class_names, provenance)


def read_description(path: Path, text: bytes) -> tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]:
    """Return all that a `dataset.json` says, its class names, its provenance. Raises ArchiveError."""
    try:
        facts = parse_json(text, finite=False)
    except JsonError as error:
        raise ArchiveError(path, f"its dataset.json is no JSON that can be used ({error})") from error
    if not isinstance(facts, dict):
        raise ArchiveError(path, "its dataset.json holds no object with labels")
    class_names = facts.get("class_names") or []
    if not (isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)):
        raise ArchiveError(path, "class_names in its dataset.json is no list of texts")
    provenance = facts.get("provenance")
    provenance = dict(provenance) if isinstance(provenance, dict) else {}
    for key in ("source", "license", "attribution", "license_text"):  # archives of others carry these beside
        if isinstance(facts.get(key), str):
            provenance.setdefault(key, facts[key])
    try:
        provenance = plain_json(provenance)
    except JsonError as error:
        raise ArchiveError(path, f"the provenance in its dataset.json cannot be kept: {error}") from error
    return facts, tuple(class_names), provenance


def read_labels(path: Path, pairs: object, names: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """Return each name's class and the number of classes, from `[[name, label], ...]`. Raises ArchiveError."""
    if not isinstance(pairs, list):
        raise ArchiveError(path, "labels in its dataset.json is no list")
    by_name: dict[str, object] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ArchiveError(path, "labels in its dataset.json holds something else than [name, label] pairs")
        if pair[0] in by_name:
            raise ArchiveError(path, f"its dataset.json labels {pair[0]!r} twice")
        by_name[pair[0]] = pair[1]
    plain = [name.replace("\\", "/") for name in names]
    missing = [name for name in plain if name not in by_name]
    if missing:
        problem = (
            f"its dataset.json has no label for {len(missing)} of {len(names)} pictures (first {missing[0]!r})"
        )
        raise ArchiveError(path, problem)
    extra = set(by_name).difference(plain)
    if extra:
        problem = f"its dataset.json labels {len(extra)} pictures that are not there (first {min(extra)!r})"
        raise ArchiveError(path, problem)
    found = [class_of(path, name, by_name[name]) for name in plain]
    if len({width for _, width in found}) > 1:
        raise ArchiveError(path, "labels in its dataset.json are of several kinds or lengths")
    labels = np.array([index for index, _ in found], dtype=np.int64)
    return labels, found[0][1] or int(labels.max()) + 1


def class_of(path: Path, name: str, label: object) -> tuple[int, int]:
    """Return a label's class and the length of its vector (0 for a plain number). Raises ArchiveError."""
    if isinstance(label, list) and label and all(type(value) in (int, float) for value in label):
        if sorted(label)[:-1] != [0] * (len(label) - 1) or max(label) != 1:
            raise ArchiveError(
                path, f"the label of {name!r} is a vector but not one-hot; only classes can be learned"
            )
        return label.index(1), len(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if type(label) is not int:
        shown = json.dumps(label)[:40]
        raise ArchiveError(
            path, f"the label of {name!r} is {shown}; a whole number or a one-hot vector is needed"
        )
    if not 0 <= label < MAX_CLASSES:
        raise ArchiveError(path, f"the label of {name!r} is {label}, outside 0-{MAX_CLASSES - 1}")
    return label, 0
