"""List a dataset: which files of a folder, zip or tar are its images, and which labels they have."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, ImageError

from .decode import IMAGE_SUFFIXES
from .labels import (
    FACTS_NAME,
    LABEL_FIELDS,
    MAX_FACTS_BYTES,
    MAX_REASONS,
    NO_LABEL,
    UNUSABLE,
    Description,
    Label,
    LabelInfo,
    UnresolvedLabels,
    concatenate_labels,
    known_labels,
    parse_label,
    parts_of,
    plain_name,
    shared_folder,
    sidecar_label,
)

Payload = Path | bytes | NDArray[np.uint8] | ImageError  # a file, a file's bytes, pixels [H, W, 3], or why not
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


@dataclass
class Ignored:
    """The files of one or more datasets that are not read.

    Attributes:
        others: Number of files of types that are not read, by suffix.
        seconds: Number of further images of samples, by what follows the key.
        left_out: What is named as an image but is no regular file, with the reason.
    """

    others: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: "Ignored") -> None:
        """Add the files of another dataset."""
        self.others.update(other.others)
        self.seconds.update(other.seconds)
        self.left_out += other.left_out

    def lines(self) -> tuple[str, ...]:
        """Return a sentence about each sort."""
        lines = []
        if self.others:
            many = counted(self.others.total(), "file")
            lines.append(f"ignored: {many} of other types ({by_suffix(self.others)})")
        if self.seconds:
            many = counted(self.seconds.total(), "further image")
            lines.append(f"ignored: {many} of samples that have one ({by_suffix(self.seconds)})")
        if self.left_out:
            more = f" (and {len(self.left_out) - 1} more)" if len(self.left_out) > 1 else ""
            lines.append(f"skipped: {self.left_out[0][0]!r} {self.left_out[0][1]}{more}")
        return tuple(lines)


@dataclass(frozen=True)
class Listing:
    """The images of a dataset: `names` as in the container, and their `labels`.

    `chosen` are their indices among all images that were found.
    """

    names: tuple[str, ...]
    labels: UnresolvedLabels
    chosen: tuple[int, ...]
    ignored: Ignored = field(default_factory=Ignored)


@dataclass(frozen=True)
class Source:
    """A source of images for `prepare`.

    `payloads(start)` yields the images `names[start:]`; `fingerprint` changes when the files do.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    fingerprint: str
    payloads: Callable[[int], Iterator[Payload]]
    labels: UnresolvedLabels
    ignored: Ignored = field(default_factory=Ignored)

    def __post_init__(self) -> None:
        if not self.names:
            found = "({!r} {})".format(*self.ignored.left_out[0]) if self.ignored.left_out else ""
            raise DatasetError(self.path, f"holds no images {found}".rstrip())

    def name_of(self, index: int) -> str:
        """Return how a message names image `index`."""
        return repr(self.names[index])


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
        self._skipped: set[str] = set()
        self._ignored = Ignored()

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
                self._descriptions[folder] = Description.read(read())
        elif field_of in LABEL_FIELDS and (self.samples or key in self._keys):
            if field_of == "cls" or key not in self._sidecars:
                self._sidecars[key] = sidecar_label(plain, field_of, size, read)
        elif not is_companion(base):
            self._skipped.add(plain)
            self._ignored.others[suffix_of(base)] += 1
        return False

    def leave_out(self, name: str, why: str) -> None:
        """Note an entry that is named as an image but cannot be read."""
        self._skipped.add(plain_name(name))
        self._ignored.left_out.append((name, why))

    def listing(self) -> Listing:
        """Return the listing. Raises DatasetError."""
        chosen = self._choose()
        names = tuple(self.names[index] for index in chosen)
        return Listing(names, self._labels(chosen), tuple(chosen), self._ignored)

    def _choose(self) -> list[int]:
        """Return the index of each sample's image; count the other images as ignored. Raises DatasetError."""
        labeled = {key for key, label in self._sidecars.items() if label is not None}
        listed = any(description.labels is not None for description in self._descriptions.values())
        is_grouped = bool(labeled) or (self.samples and not listed)
        if not is_grouped or len(self._keys) == len(self.plain):
            return list(range(len(self.plain)))
        by_key: dict[str, dict[int, str]] = {}
        for index, name in enumerate(self.plain):
            key, rest = key_and_field(name)
            by_key.setdefault(key, {})[index] = rest
        chosen: list[int] = []
        for key, fields in by_key.items():
            plain = [index for index, rest in fields.items() if "." not in rest]
            main = [index for index, rest in fields.items() if rest.partition(".")[0] in MAIN_FIELDS]
            images = plain or (main if len(main) == 1 else list(fields))
            if len(images) > 1 and (key in labeled or (self.samples and plain)):
                raise DatasetError(self.path, f"the sample {key!r} holds {len(images)} images; keep one of them")
            chosen += images
            self._ignored.seconds.update("." + rest for index, rest in fields.items() if index not in images)
        return sorted(chosen)

    def _labels(self, chosen: Sequence[int]) -> UnresolvedLabels:
        """Return the labels of the chosen images, each from the nearest `dataset.json` above it."""
        plain = [self.plain[index] for index in chosen]
        groups: dict[str | None, list[int]] = {root: [] for root in self._descriptions}
        above = {folder: self._above(folder) for folder in {name.rpartition("/")[0] for name in plain}}
        for index, name in enumerate(plain):
            groups.setdefault(above[name.rpartition("/")[0]], []).append(index)
        parts = [self._labels_below(root, [plain[index] for index in members]) for root, members in groups.items()]
        members = np.array([index for group in groups.values() for index in group], np.int64)
        if not parts:
            return known_labels(LabelInfo(), 0)
        return concatenate_labels(parts, of="dataset.json files").take(members.argsort())

    def _labels_below(self, root: str | None, plain: list[str]) -> UnresolvedLabels:
        """Return the labels of the images whose nearest `dataset.json` is that in folder `root`.

        `root` None: the one beside the container, if it exists and does not describe other files.
        """
        description = self.beside if root is None else self._descriptions[root]
        problem = None if description is None else description.problem
        found: Sequence[object] = [self._sidecars.get(key_and_field(name)[0]) for name in plain]
        if description is not None and description.labels is not None:
            listed, problem = self._listed(root, plain, description.labels)
            if root is None and not any(listed):
                description = None
            else:
                found = listed
        values = np.full(len(plain), NO_LABEL, np.int64)
        widths = np.zeros(len(plain), np.int32)
        folder = np.zeros(len(plain), np.int32)
        reasons: dict[int, str] = {}
        numbered: dict[str, bool] = {}  # by folder
        position: dict[str, int] = {}
        for index, (name, label) in enumerate(zip(plain, found, strict=True)):
            inside, _, base = name.rpartition("/")
            folder[index] = position.setdefault(inside, len(position))
            numbered[inside] = numbered.get(inside, True) and is_numbered(inside, base)
            if isinstance(label, tuple):
                values[index], widths[index] = label
            elif isinstance(label, str):
                values[index] = UNUSABLE
                if len(reasons) < MAX_REASONS:
                    reasons[index] = label
        if not plain:
            description = None  # there is nothing that it describes
        has_table = description is not None and description.labels is not None
        return UnresolvedLabels(
            values,
            widths,
            folder,
            tuple(numbered),
            tuple(numbered.values()),
            reasons=reasons,
            class_names=() if description is None else description.class_names,
            described=description is not None,
            table=FACTS_NAME if has_table else "",
            problem=problem,
            provenance={} if description is None else description.provenance,
        )

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
                folders = [name.rpartition("/")[0] for name in labels]
                for depth in range(1, shared_folder(folders) + 1):
                    shorter = {"/".join(name.split("/")[depth:]): label for name, label in labels.items()}
                    if any(name in shorter for name in names):
                        labels = shorter
                        break
        found: list[object] = [parse_label(name, labels[name]) if name in labels else None for name in names]
        extra = set(labels) - {name.removeprefix(inside) for name in (*self._known, *self._skipped)}
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


def fingerprint_of(*paths: Path | None) -> str:
    """Return a digest of the names, sizes and times of files; a missing file counts as such, None as nothing."""
    digest = hashlib.sha256()
    for path in filter(None, paths):
        try:
            status = path.stat()
            found = f"{status.st_size} {status.st_mtime_ns}" if path.is_file() else "folder"
        except OSError:
            found = "missing"
        digest.update(f"{path.name!r} {path.parent.name!r} {found}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_name(path: Path, name: str) -> None:
    """Raise DatasetError if `name`, inside the dataset at `path`, is absolute or leads upwards."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in plain.split("/"):
        raise DatasetError(path, f"holds the name {name!r}, which leads out of the archive; refused")


def is_hidden(name: str) -> bool:
    """Return whether a normalized name is that of a hidden file or of macOS's side files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name; hidden files are none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(plain_name(name))
