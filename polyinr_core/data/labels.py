"""Labels: read from `dataset.json`, label files and class folders, and resolved once the images are known."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, RequestError
from polyinr_core.runtime.strict_json import JsonError, are_texts, parse_json, plain_json, to_unicode

LabelUse = Literal["auto", "usable", "none"]  # refuse labels that cannot be used; ignore those; ignore all
MAX_CLASSES = 1_000_000
NO_LABEL, UNUSABLE = -1, -2
MAX_REASONS = 100  # that are kept of why labels cannot be used
MAX_LABEL_BYTES = 2**20  # a .json may hold much more than the label
LABEL_FIELDS = ("cls", "json")
LABEL_KEYS = ("label", "cls")  # in a .json
FACTS_NAME = "dataset.json"
MAX_FACTS_BYTES = 2**29  # ImageNet's 1.28 million labels need a tenth of it
WAY_OUT = "(`prepare --labels none` and `train --no-cond` leave the labels out)"

Label = tuple[int, int]  # the class, and the length of a one-hot vector or 0


@dataclass(frozen=True)
class LabelInfo:
    """The labels of a dataset: int64 [N] or None (then `classes` is 0); `class_names` may be empty."""

    labels: NDArray[np.int64] | None = None
    classes: int = 0
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make class names valid Unicode, because every checkpoint trained on the data stores them."""
        names = tuple(map(to_unicode, self.class_names))
        if len(set(names)) < len(set(self.class_names)):
            raise RequestError("two class names are alike once bytes that are not UTF-8 are escaped; rename one")
        object.__setattr__(self, "class_names", names)


@dataclass(frozen=True)
class UnresolvedLabels:
    """The labels of a dataset as they were found; nothing is refused yet, because images may be dropped.

    Attributes:
        values: int64 [N], a class, NO_LABEL, or UNUSABLE.
        widths: int32 [N], the length of a one-hot label, or 0.
        folder: int32 [N], index of each image's folder in `folder_names`.
        numbered: for each folder, whether its files are numbered, so that it is no class.
        reasons: why labels are UNUSABLE, by image, for the first ones.
        described: there is a dataset.json, so folders are no classes.
        table: the name of the file that lists the labels, "" if none does.
        problem: why none of the labels can be used.
    """

    values: NDArray[np.int64]
    widths: NDArray[np.int32]
    folder: NDArray[np.int32]
    folder_names: tuple[str, ...]
    numbered: tuple[bool, ...]
    reasons: dict[int, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    described: bool = False
    table: str = ""
    problem: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def are_per_image(self) -> bool:
        """Whether labels are given for images, rather than by class folders."""
        return bool(self.table) or bool((self.values != NO_LABEL).any())

    @property
    def doubtful(self) -> NDArray[np.int64]:
        """The images whose labels would make the dataset unusable: missing, unusable or of another form."""
        usable = self.values >= 0
        if not self.are_per_image:
            return np.zeros(0, np.int64)
        odd = self.widths != np.argmax(np.bincount(self.widths[usable], minlength=1))
        if self.class_names:
            odd |= self.values >= len(self.class_names)
        return np.flatnonzero(~usable | odd)

    def take(self, rows: NDArray[np.int64]) -> Self:
        """Return the labels of the images `rows`, in this order."""
        position = {int(row): index for index, row in enumerate(rows) if int(row) in self.reasons}
        return replace(
            self,
            values=self.values[rows],
            widths=self.widths[rows],
            folder=self.folder[rows],
            reasons={position[row]: reason for row, reason in self.reasons.items() if row in position},
        )

    def resolve(
        self, path: Path, name_of: Callable[[int], str], kept: NDArray[np.int64] | None = None
    ) -> tuple[LabelInfo, str | None]:
        """Return the labels of the images `kept` (None: all), and why there are none although there are class folders.

        `name_of` returns the name of an image for messages. Raises DatasetError for labels that cannot be used.
        """
        if self.problem is not None:
            raise DatasetError(path, f"{self.problem} {WAY_OUT}")
        kept = np.arange(len(self)) if kept is None else kept
        if self.are_per_image:
            return self._per_image(path, name_of, kept), None
        if self.described or not len(kept):
            return LabelInfo(provenance=self.provenance), None
        return self._by_folder(name_of, kept)

    def _per_image(self, path: Path, name_of: Callable[[int], str], kept: NDArray[np.int64]) -> LabelInfo:
        """Return the labels that are given for the images. Raises DatasetError."""
        values, widths = self.values[kept], self.widths[kept]
        if len(bad := kept[values == UNUSABLE]):
            first = int(bad[0])
            reason = self.reasons.get(first, f"the label of {name_of(first)} is no class")
            raise DatasetError(path, f"{reason} {WAY_OUT}")
        if len(missing := kept[values == NO_LABEL]):
            count, first_name = f"{len(missing)} of {len(kept)} images", name_of(int(missing[0]))
            if self.table:
                problem = f"its {self.table} has no label for {count} (first {first_name})"
            else:
                problem = f"{count} have no label (first {first_name}); give each a .cls or .json, or none"
            raise DatasetError(path, f"{problem} {WAY_OUT}")
        lengths = np.unique(widths)
        if len(lengths) > 1:
            where = f"labels in its {self.table}" if self.table else "its labels"
            raise DatasetError(path, f"{where} are of several forms or lengths {WAY_OUT}")
        needed = 0 if not len(kept) else int(lengths[0]) or int(values.max()) + 1
        if 0 < len(self.class_names) < needed:
            problem = f"its dataset.json names {len(self.class_names)} classes, its labels need {needed}"
            raise DatasetError(path, f"{problem} {WAY_OUT}")
        return LabelInfo(values, max(needed, len(self.class_names)), self.class_names, self.provenance)

    def _by_folder(self, name_of: Callable[[int], str], kept: NDArray[np.int64]) -> tuple[LabelInfo, str | None]:
        """Return labels by class folders, or none and the reason if some images are in no class folder."""
        used, inverse = np.unique(self.folder[kept], return_inverse=True)
        names = [self.folder_names[number] for number in used]
        if all(self.numbered[number] for number in used):
            return LabelInfo(), None
        classes = class_folders(names)
        if classes is None:
            if len(names) == 1:
                return LabelInfo(), None
            strays = self.strays(kept)
            lie = "lies" if len(strays) == 1 else f"and {len(strays) - 1} more lie"
            return LabelInfo(), (
                f"no labels: {name_of(int(strays[0]))} {lie} in no class folder, and {len(kept) - len(strays)} "
                "images do; move or remove it to keep the labels"
            )
        class_names = sorted(set(classes))
        number = {name: index for index, name in enumerate(class_names)}
        values = np.array([number[name] for name in classes], dtype=np.int64)[inverse]
        return LabelInfo(values, len(class_names), tuple(class_names)), None

    def strays(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the images outside the class folders, if there are class folders."""
        used = np.unique(self.folder[kept])
        names = [self.folder_names[number] for number in used]
        if self.described or self.are_per_image or len(names) < 2 or class_folders(names) is not None:
            return np.zeros(0, np.int64)
        shared = shared_folder(names)
        outside = [number for number in used if len(parts_of(self.folder_names[number])) == shared]
        return kept[np.isin(self.folder[kept], outside)]

    def resolve_for(
        self, use: LabelUse, path: Path, name_of: Callable[[int], str], kept: NDArray[np.int64] | None = None
    ) -> tuple[LabelInfo, str | None]:
        """Return the labels of the images `kept` (None: all) according to `use`, and a note about lost labels.

        A single class folder is no class. Raises DatasetError.
        """
        bare = LabelInfo(provenance=self.provenance)
        if use == "none":
            return bare, None
        try:
            facts, note = self.resolve(path, name_of, kept)
        except DatasetError:
            if use == "auto":
                raise
            return bare, None
        return (facts if self.are_per_image or facts.classes > 1 else bare), note


def parts_of(folder: str) -> list[str]:
    """Return the components of a folder name; the root has none."""
    return folder.split("/") if folder else []


def shared_folder(folders: Sequence[str]) -> int:
    """Return how many leading components all folder names share, 0 for none."""
    if not folders:
        return 0
    split = [parts_of(folder) for folder in folders]
    first, last = min(split), max(split)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def class_folders(folders: Sequence[str]) -> list[str] | None:
    """Return the class name of each folder; None if one of them is no class folder.

    It is the first component below those that all share: `set/cat` and `set/dog/deep` are cat and dog, `set/cat` alone
    is cat, and beside `set/cat` and `set/dog`, `set` is no class folder.
    """
    shared = shared_folder(folders)
    if len(set(folders)) == 1:
        shared = max(0, shared - 1)
    split = [parts_of(folder) for folder in folders]
    return [parts[shared] for parts in split] if all(len(parts) > shared for parts in split) else None


def merge_class_names(names: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], list[NDArray[np.int64] | None]]:
    """Merge class names of several parts; return them and the new class indices of each part (None: unchanged).

    Raises ValueError if some name their classes and others number them.
    """
    if all(part == names[0] for part in names):
        return (names[0] if names else ()), [None] * len(names)
    if not all(names):
        raise ValueError("some name their classes and others number them")
    merged = tuple(sorted({name for part in names for name in part}))
    number = {name: index for index, name in enumerate(merged)}
    return merged, [np.array([number[name] for name in part], dtype=np.int64) for part in names]


def renumber(values: NDArray[np.int64], number: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return classes by their new indices; other values unchanged. Raises ValueError for a class without a name."""
    if number is None or not len(values):
        return values
    if values.max() >= len(number):
        raise ValueError("some name fewer classes than their labels need")
    return np.where(values >= 0, number[np.maximum(values, 0)], values)


def concatenate_labels(parts: Sequence[UnresolvedLabels], *, of: str = "files") -> UnresolvedLabels:
    """Concatenate the labels of several parts of one dataset, which a message calls `of`."""
    problem = next((part.problem for part in parts if part.problem is not None), None)
    values = [part.values for part in parts]
    class_names: tuple[str, ...] = ()
    named = [i for i, part in enumerate(parts) if part.class_names or (part.values >= 0).any()]
    try:
        class_names, numbers = merge_class_names([parts[i].class_names for i in named])
        for i, number in zip(named, numbers, strict=True):
            values[i] = renumber(values[i], number)
    except ValueError as error:
        problem = problem or f"of its {of} {error}"
    numbered: dict[str, bool] = {}
    for part in parts:
        for name, counted in zip(part.folder_names, part.numbered, strict=True):
            numbered[name] = numbered.get(name, True) and counted
    position = {name: index for index, name in enumerate(numbered)}
    folders = [np.array([position[name] for name in part.folder_names], np.int32)[part.folder] for part in parts]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    reasons = {
        start + index: reason
        for start, part in zip(starts, parts, strict=False)
        for index, reason in part.reasons.items()
    }
    return UnresolvedLabels(
        np.concatenate(values),
        np.concatenate([part.widths for part in parts]),
        np.concatenate(folders),
        tuple(numbered),
        tuple(numbered.values()),
        reasons=dict(list(reasons.items())[:MAX_REASONS]),
        class_names=class_names,
        described=any(part.described for part in parts),
        table=next((part.table for part in parts if part.table), ""),
        problem=problem,
        provenance=next((part.provenance for part in parts if part.provenance), {}),
    )


def known_labels(facts: LabelInfo, count: int) -> UnresolvedLabels:
    """Return the labels of `count` images of a source that lists them completely."""
    values = np.full(count, NO_LABEL, np.int64) if facts.labels is None else facts.labels
    zeros = np.zeros(count, np.int32)
    return UnresolvedLabels(values, zeros, zeros, ("",), (False,), class_names=facts.class_names, described=True)


def class_of(label: object) -> tuple[int, int]:
    """Return the class of a label and the length of its one-hot vector (0: an integer). Raises ValueError."""
    if isinstance(label, list) and label and all(type(value) in (int, float) for value in label):
        if sorted(label)[:-1] != [0] * (len(label) - 1) or max(label) != 1:
            raise ValueError("is a vector but not one-hot; only classes can be learned")
        return label.index(1), len(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if type(label) is not int:
        raise ValueError(f"is {json.dumps(label)[:40]}; a whole number or a one-hot vector is needed")
    if not 0 <= label < MAX_CLASSES:
        raise ValueError(f"is {str(label)[:40]}, outside 0-{MAX_CLASSES - 1}")
    return label, 0


@dataclass(frozen=True)
class Description:
    """The content of a `dataset.json`: labels by name, or None; `problem`: why it cannot be used."""

    labels: dict[str, object] | None = None
    class_names: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @classmethod
    def read(cls, text: bytes) -> "Description":
        """Parse the text of a `dataset.json`."""
        try:
            facts = parse_json(text, finite=False)
        except JsonError as error:
            return cls(problem=f"its dataset.json is no JSON that can be used ({error})")
        if not isinstance(facts, dict):
            return cls(problem="its dataset.json holds no object with labels")
        if not are_texts(class_names := facts.get("class_names") or []):
            return cls(problem="class_names in its dataset.json is no list of texts")
        found = facts.get("provenance")
        provenance = dict(found) if isinstance(found, dict) else {}
        for key in ("source", "license", "attribution", "license_text"):  # other datasets have these at the top level
            if isinstance(facts.get(key), str):
                provenance.setdefault(key, facts[key])
        try:
            provenance = plain_json(provenance)
        except JsonError as error:
            return cls(problem=f"the provenance in its dataset.json cannot be kept: {error}")
        labels, problem = labels_by_name(facts.get("labels"))
        return cls(labels, tuple(class_names), provenance, problem)


def plain_name(name: str) -> str:
    """Normalize a name inside a container: forward slashes, no `./`."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def labels_by_name(pairs: object) -> tuple[dict[str, object] | None, str | None]:
    """Return the labels of [[name, label], ...] by name, None for null, and why they cannot be used."""
    if pairs is None:
        return None, None
    if not isinstance(pairs, list):
        return None, "labels in its dataset.json is no list"
    by_name: dict[str, object] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            return None, "labels in its dataset.json holds something else than [name, label] pairs"
        if (name := plain_name(pair[0])) in by_name:
            return None, f"its dataset.json labels {name!r} twice"
        by_name[name] = pair[1]
    return by_name, None


def sidecar_label(name: str, suffix: str, size: int, read: Callable[[], bytes]) -> Label | str | None:
    """Return the label in a .cls or .json file beside an image, None if it has none, or why it is no class."""
    if size > MAX_LABEL_BYTES:
        return f"{name!r} is too large for a label"
    text = read()
    if suffix == "cls":
        return parse_label(name, cls_value(text.decode("utf-8", "replace").strip()))
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        return f"{name!r} is no JSON"
    facts = facts if isinstance(facts, dict) else {}
    label = next((facts[key] for key in LABEL_KEYS if facts.get(key) is not None), None)
    return None if label is None else parse_label(name, label)


def cls_value(text: str) -> object:
    """Parse the text of a .cls file: an integer, a list, or the text itself."""
    if text.isdecimal() and len(text) < 20:
        return int(text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_label(name: str, label: object) -> Label | str:
    """Return the class of a label, or why it is no class."""
    try:
        return class_of(label)
    except ValueError as error:
        return f"the label of {name!r} {error}"


def describe_classes(labels: NDArray[np.int64] | None, classes: int, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the number of classes, their names, and the number of images of each, by name where it has one."""
    names = list(class_names)
    counts = [] if labels is None else np.bincount(labels, minlength=classes).tolist()
    of_class = {names[index] if index < len(names) else str(index): count for index, count in enumerate(counts)}
    return {"classes": classes, "class_names": names, "images_of_class": of_class}
