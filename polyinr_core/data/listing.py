"""List a dataset: which files of a folder, zip or tar are its images, and which labels they have."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, ImageError, RequestError

from .containers import FACTS_NAME, MAX_FACTS_BYTES, is_hidden, plain_name
from .decode import IMAGE_SUFFIXES
from .labels import (
    LABEL_FIELDS,
    MAX_REASONS,
    NO_LABEL,
    UNUSABLE,
    Description,
    Label,
    LabelInfo,
    UnresolvedLabels,
    label_listed,
    parts_of,
    renumbered,
    shared_depth,
    sidecar_label,
    unified,
)

NOT_REGULAR = "is not a regular file"
MAIN_FIELDS = ("image", "img", "rgb", "input")  # KEY.image.png is the image of a sample without KEY.png
# files that usually accompany images: captions, tables, notes, checksums, databases of file managers
COMPANIONS = frozenset(
    (
        *("cls", "txt", "text", "caption", "json", "jsonl", "csv", "tsv", "xml", "yaml", "yml", "toml", "ini"),
        *("log", "md", "rst", "html", "htm", "pdf", "db", "sqlite", "py", "sh"),
        *("sha1", "sha256", "sha512", "md5", "sum", "lock"),
    )
)
COMPANION_NAMES = frozenset(
    ("readme", "licence", "license", "copying", "notice", "authors", "attribution", "md5sums", "sha256sums")
)


@dataclass(frozen=True)
class Listing:
    """The images of a dataset: `names` as in the container, and their `labels`.

    `chosen` are their indices among all images that were found. `others` counts files of types that are not read, by
    suffix; `seconds` further images of samples, by what follows the key; `left_out` lists what is named as an image but
    is no regular file, with the reason.
    """

    names: tuple[str, ...]
    labels: UnresolvedLabels
    chosen: tuple[int, ...]
    others: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()


class HasIgnored(Protocol):
    """A listing or source, which counts the files that it ignored."""

    @property
    def others(self) -> Mapping[str, int]: ...
    @property
    def seconds(self) -> Mapping[str, int]: ...
    @property
    def left_out(self) -> Sequence[tuple[str, str]]: ...


class Ignored:
    """Collects the files that were ignored in one or more datasets."""

    def __init__(self, *listings: HasIgnored) -> None:
        self.others: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.left_out: list[tuple[str, str]] = []
        for listing in listings:
            self.add(listing)

    def add(self, listing: HasIgnored) -> None:
        """Add the ignored files of a listing."""
        self.others.update(listing.others)
        self.seconds.update(listing.seconds)
        self.left_out += listing.left_out

    def lines(self) -> tuple[str, ...]:
        """Return a sentence about each sort."""
        notes = []
        if self.others:
            many = counted(sum(self.others.values()), "file")
            notes.append(f"ignored: {many} of other types ({by_suffix(self.others)})")
        if self.seconds:
            many = counted(sum(self.seconds.values()), "further image")
            notes.append(f"ignored: {many} of samples that have one ({by_suffix(self.seconds)})")
        if self.left_out:
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            notes.append(f"skipped: {self.left_out[0][0]!r} {self.left_out[0][1]}{more}")
        return tuple(notes)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun in singular or plural."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def by_suffix(counts: Mapping[str, int]) -> str:
    """Return suffixes and their counts, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", and {len(ordered) - 12} more types" if len(ordered) > 12 else ""
    return ", ".join(f"{count} {suffix}" for suffix, count in ordered[:12]) + more


class ListingBuilder:
    """Builds a listing from the files of a container, added one by one.

    `samples`: the container is a tar, where names are grouped as in the webdataset library: the first dot of a name
    ends the key, and a sample has one image. In other containers names are grouped if any image has a label file beside
    it; there, images must be added before other files. `beside` is a `dataset.json` outside the container.
    """

    def __init__(self, path: Path, *, samples: bool, beside: Description | None = None) -> None:
        self.path = path
        self.samples = samples
        self.beside = beside
        self.names: list[str] = []  # as the container has them
        self.plain: list[str] = []
        self._known: set[str] = set()
        self._keys: set[str] = set()
        self._descriptions: dict[str, Description] = {}
        self._sidecars: dict[str, Label | str | None] = {}  # by key: a label, or why it is none
        self._passed: set[str] = set()
        self._others: Counter[str] = Counter()
        self._left_out: list[tuple[str, str]] = []

    def add(self, name: str, size: int, read: Callable[[], bytes]) -> bool:
        """Add a file; return whether it is an image. `read` is called at once or never. Raises DatasetError."""
        plain = plain_name(name)
        if not plain or is_hidden(plain):
            return False
        folder, _, base = plain.rpartition("/")
        key, field_of = key_and_field(plain)
        if base.lower().endswith(IMAGE_SUFFIXES):
            if plain in self._known:
                raise DatasetError(self.path, f"holds one name twice ({plain!r}); write it again")
            self._known.add(plain)
            self._keys.add(key)
            self.names.append(name)
            self.plain.append(plain)
            return True
        if base == FACTS_NAME:
            if size > MAX_FACTS_BYTES:
                self._descriptions[folder] = Description(problem="its dataset.json is too large; refused")
            else:
                self._descriptions[folder] = Description.read(self.path, read())
        elif field_of in LABEL_FIELDS and (self.samples or key in self._keys):
            if field_of == "cls" or key not in self._sidecars:
                self._sidecars[key] = sidecar_label(plain, field_of, size, read)
        elif not is_companion(base):
            self._passed.add(plain)
            self._others[suffix_of(base)] += 1
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Note an entry that is named as an image but cannot be read."""
        self._passed.add(plain_name(name))
        self._left_out.append((name, why))

    def listing(self) -> Listing:
        """Return the listing. Raises DatasetError."""
        chosen, seconds = self._chosen()
        return Listing(
            tuple(self.names[index] for index in chosen),
            self._labels(chosen),
            tuple(chosen),
            dict(self._others),
            dict(seconds),
            tuple(self._left_out),
        )

    def _chosen(self) -> tuple[list[int], Counter[str]]:
        """Choose the image of each sample; return the indices, and a count of the other images."""
        everything = list(range(len(self.plain)))
        seconds: Counter[str] = Counter()
        labeled = {key for key, label in self._sidecars.items() if label is not None}
        listed = any(description.labels is not None for description in self._descriptions.values())
        is_grouped = bool(labeled) or (self.samples and not listed)
        if not is_grouped or len(self._keys) == len(everything):
            return everything, seconds
        by_key: dict[str, list[int]] = {}
        for index, name in enumerate(self.plain):
            by_key.setdefault(key_and_field(name)[0], []).append(index)
        chosen: list[int] = []
        for key, members in by_key.items():
            fields = {index: key_and_field(self.plain[index])[1] for index in members}
            plain = [index for index in members if "." not in fields[index]]
            main = [index for index in members if fields[index].partition(".")[0] in MAIN_FIELDS]
            whole = plain or (main if len(main) == 1 else members)
            if len(whole) > 1 and (key in labeled or (self.samples and plain)):
                problem = f"the sample {key!r} holds {len(whole)} images; keep one of them"
                raise DatasetError(self.path, problem)
            chosen += whole
            seconds.update("." + fields[index] for index in members if index not in whole)
        return sorted(chosen), seconds

    def _labels(self, chosen: Sequence[int]) -> UnresolvedLabels:
        """Return the labels of the chosen images, each from the nearest `dataset.json` above it."""
        plain = [self.plain[index] for index in chosen]
        values = np.full(len(plain), NO_LABEL, np.int64)
        widths = np.zeros(len(plain), np.int32)
        reasons: dict[int, str] = {}
        numbered: dict[str, bool] = {}  # by folder
        groups: dict[str | None, list[int]] = {root: [] for root in self._descriptions}
        above: dict[str, str | None] = {}
        for index, name in enumerate(plain):
            folder, _, base = name.rpartition("/")
            if folder not in above:
                above[folder] = self._above(folder)
            numbered[folder] = numbered.get(folder, True) and is_numbered(folder, base)
            groups.setdefault(above[folder], []).append(index)
        problems: list[str | None] = []
        named: list[tuple[list[int], tuple[str, ...]]] = []
        used: list[Description] = []
        for root, members in groups.items():
            description, found, problem = self._said(root, [plain[index] for index in members])
            problems.append(problem)
            used += [description] if members and description is not None else []
            for index, label in zip(members, found, strict=True):
                if isinstance(label, tuple):
                    values[index], widths[index] = label
                elif isinstance(label, str):
                    values[index] = UNUSABLE
                    if len(reasons) < MAX_REASONS:
                        reasons[index] = label
            names = () if description is None else description.class_names
            if members and (names or (values[members] >= 0).any()):
                named.append((members, names))
        class_names: tuple[str, ...] = ()
        try:
            class_names, numbers = unified([names for _, names in named])
            for (members, _), number in zip(named, numbers, strict=True):
                values[members] = renumbered(values[members], number)
        except ValueError as error:
            problems.append(f"of its dataset.json files {error}")
        place = {folder: number for number, folder in enumerate(numbered)}
        return UnresolvedLabels(
            values,
            widths,
            np.array([place[name.rpartition("/")[0]] for name in plain], np.int32),
            tuple(numbered),
            tuple(numbered.values()),
            reasons=reasons,
            class_names=class_names,
            described=bool(used),
            listed=any(description.labels is not None for description in used),
            problem=next((problem for problem in problems if problem is not None), None),
            provenance=next((one.provenance for one in used if one.provenance), {}),
        )

    def _said(self, root: str | None, plain: list[str]) -> tuple[Description | None, Sequence[object], str | None]:
        """Return the `dataset.json` in folder `root`, the labels of images below it, and what is wrong with them.

        `root` None: the one beside the container, if it exists and does not describe other files.
        """
        description = self.beside if root is None else self._descriptions[root]
        found = [self._sidecars.get(key_and_field(name)[0]) for name in plain]
        if description is None or description.labels is None:
            return description, found, None if description is None else description.problem
        listed, problem = self._listed(root, plain, description.labels)
        if root is None and not any(listed):
            return None, found, None
        return description, listed, problem

    def _above(self, folder: str) -> str | None:
        """Return the nearest folder, this or one above it, with a `dataset.json`; None if there is none."""
        parts = parts_of(folder)
        above = ("/".join(parts[:depth]) for depth in range(len(parts), -1, -1))
        return next((name for name in above if name in self._descriptions), None)

    def _listed(self, root: str | None, plain: list[str], labels: dict[str, object]) -> tuple[list[object], str | None]:
        """Return the labels that the `dataset.json` in folder `root` lists for images, and what is wrong with it.

        Its names are relative to its own folder, to the top of the container, or to a folder further up.
        """
        inside = f"{root}/" if root else ""
        names = [name.removeprefix(inside) for name in plain]
        if not any(name in labels for name in names):
            if any(name in labels for name in plain):
                names, inside = plain, ""
            else:  # the container may have been made inside a folder that the names begin with
                for depth in range(1, shared_depth(labels) + 1):
                    shorter = {"/".join(name.split("/")[depth:]): label for name, label in labels.items()}
                    if any(name in shorter for name in names):
                        labels = shorter
                        break
        found: list[object] = [label_listed(name, labels[name]) if name in labels else None for name in names]
        extra = set(labels) - {name.removeprefix(inside) for name in (*self._known, *self._passed)}
        if not extra or root is None:  # beside shards: it describes other shards too
            return found, None
        problem = f"its dataset.json labels {len(extra)} images that are not there (first {min(extra)!r})"
        return found, problem


def key_and_field(plain: str) -> tuple[str, str]:
    """Return the key of a sample with its folder, and what follows the first dot of the file name."""
    folder, slash, base = plain.rpartition("/")
    stem, _, rest = base.partition(".")
    return folder + slash + stem, rest.lower()


def may_matter(name: str) -> bool:
    """Return whether a name may be that of an image or a folder of images: neither hidden nor a companion."""
    plain = plain_name(name)
    return not is_hidden(plain) and not is_companion(plain.rpartition("/")[2])


def is_companion(base: str) -> bool:
    """Return whether a file name is that of a text, table or note that usually accompanies images."""
    stem, _, suffix = base.lower().rpartition(".")
    return suffix in COMPANIONS if stem else suffix in COMPANION_NAMES


def suffix_of(base: str) -> str:
    """Return the last suffix of a name in lower case, by which ignored files are counted."""
    stem, _, suffix = base.lower().rpartition(".")
    return f".{suffix}" if stem and suffix.isalnum() and len(suffix) < 16 else "without a suffix"


def is_numbered(folder: str, base: str) -> bool:
    """Return whether a file is numbered as by StyleGAN's tools (00001/img00001234.png) or FFHQ (01000/01234.png)."""
    inside, stem = folder.rpartition("/")[2], base.partition(".")[0]
    if not (len(inside) == 5 and inside.isdecimal()):
        return False
    if stem.startswith("img") and len(stem) == 11 and stem[3:].isdecimal():
        return True
    return len(stem) == 5 and stem.isdecimal() and int(inside) in (int(stem) // 1000, int(stem) // 1000 * 1000)


Payload = Path | bytes | NDArray[np.uint8] | ImageError  # a file, a file's bytes, pixels [H, W, 3], or why not


@dataclass(frozen=True)
class Source:
    """A source of images for `prepare`.

    `payloads(start)` yields the images `names[start:]`; `fingerprint` changes when the files do; `left_out`, `others`
    and `seconds` are as in a `Listing`.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    fingerprint: str
    payloads: Callable[[int], Iterator[Payload]]
    labels: UnresolvedLabels
    left_out: tuple[tuple[str, str], ...] = ()
    others: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            refuse_none(self.path, self.left_out)

    @classmethod
    def listed(
        cls, path: Path, kind: str, listing: Listing, fingerprint: str, payloads: Callable[[int], Iterator[Payload]]
    ) -> "Source":
        """Return the source of a listing. Raises DatasetError if it has no images."""
        passed = (listing.left_out, listing.others, listing.seconds)
        return cls(path, kind, listing.names, fingerprint, payloads, listing.labels, *passed)

    @property
    def facts(self) -> LabelInfo:
        """The labels of all images. Raises DatasetError if they cannot be used."""
        return self.labels.resolve(self.path, self.name_of)[0]

    def name_of(self, index: int) -> str:
        """Return how a message names image `index`."""
        return repr(self.names[index])


def refuse_none(path: Path, left_out: Sequence[tuple[str, str]]) -> None:
    """Raise DatasetError for a dataset without images."""
    found = f" ({left_out[0][0]!r} {left_out[0][1]})" if left_out else ""
    raise DatasetError(path, f"holds no images{found}")


def fingerprint_of(*paths: Path) -> str:
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


def merge_labels(sources: Sequence[Source], kept: Sequence[NDArray[np.int64]]) -> tuple[LabelInfo, str | None]:
    """Return the labels of the images `kept` from all sources, and why there are none although some have labels.

    There are none if any image lacks one or all have the same class. Raises DatasetError for labels that cannot be
    used, RequestError if some sources name their classes and others number them.
    """
    used = [(source, own) for source, own in zip(sources, kept, strict=True) if len(own)]
    parts = []
    bare: list[Source] = []
    for source, own in used:
        facts, note = source.labels.resolve(source.path, source.name_of, own)
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
        names, numbers = unified([facts.class_names for facts in parts])
    except ValueError as error:
        raise RequestError("some sources name their classes and others number them; give --labels none") from error
    merged = [own if new is None else new[own] for own, new in zip(labels, numbers, strict=True)]
    classes = max(len(names), *(facts.classes for facts in parts))
    return (LabelInfo(np.concatenate(merged), classes, names), None) if classes > 1 else (LabelInfo(), None)
