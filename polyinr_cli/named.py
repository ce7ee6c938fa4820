"""Pictures as a person names them: by seeds, by a latents file, by - for one that is piped in."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

from . import streams
from .drawing import Painter
from .notes import Note
from .ranks import job, own_share, say_if_alone, several
from .targets import Kind, Target

if TYPE_CHECKING:
    from polyinr_core.latents.file import Latents
    from polyinr_core.snapshots.snapshot import Snapshot


@dataclass(frozen=True)
class Pictures:
    """Pictures: their names, and their latents (completed to affine maps) and notes, made one at a time."""

    names: tuple[str, ...]
    latents: Callable[[int], "Latents"]
    note: Callable[["Latents", int], Note]

    def __len__(self) -> int:
        return len(self.names)

    def share(self, target: Target) -> "Pictures":
        """Return this process's part of the pictures, all of them if it is alone. Raises RequestError."""
        if not several():
            if target.kind is Kind.folder:
                say_if_alone()
            return self
        if target.kind is not Kind.folder:
            raise RequestError(f"several processes draw into a folder, each its share; -o {target.path} is none")
        own, me = own_share(len(self)), job()
        message = f"polyinr: rank {me.rank} of {me.world_size}: rendering {len(own)} of {len(self)} images"
        streams.say(message, quiet=target.quiet, always=True)
        names = tuple(self.names[index] for index in own)
        return Pictures(names, lambda i: self.latents(own[i]), lambda latents, i: self.note(latents, own[i]))

    def with_note(self, more: Note) -> "Pictures":
        """Return the pictures with something added to their notes."""
        return replace(self, note=lambda latents, index: {**self.note(latents, index), **more})


def pictures_named(
    seeds: str | None,
    latents: Path | None,
    painter: Painter,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Pictures:
    """Return the pictures of --seeds or --latents, whichever is given. Raises RequestError, FileError."""
    check_names(seeds, latents)
    if seeds is not None:
        return by_seed(seeds, painter, label=class_index(label, painter.snapshot), psi=psi)
    assert latents is not None
    index = class_index(label, painter.snapshot)
    return from_file(latents, painter, label=index, psi=psi, force=force)


def check_names(seeds: str | None, latents: Path | None) -> None:
    """Raise RequestError unless exactly one of --seeds and --latents is given."""
    if (seeds is None) == (latents is None):
        raise RequestError("name the pictures by --seeds 0-7 or by --latents FILE, one of the two")


def from_word(
    word: str, painter: Painter, *, label: str | None = None, psi: float | None = None, force: bool = False
) -> Pictures:
    """Return the pictures of one word: seeds such as 3 or 0-7, a latents file, or - for stdin.

    Raises RequestError, FileError.
    """
    if word == "-" or Path(word).suffix or Path(word).exists():
        return pictures_named(None, Path(word), painter, label=label, psi=psi, force=force)
    return pictures_named(word, None, painter, label=label, psi=psi)


def pictures_of(
    words: Sequence[str],
    painter: Painter,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Pictures:
    """Return the pictures of several words, in their order. Raises RequestError, FileError."""
    refuse_second_stdin(*words)
    parts = [from_word(word, painter, label=label, psi=psi, force=force) for word in words]
    starts = [0, *accumulate(map(len, parts))]

    def place(index: int) -> tuple[Pictures, int]:
        part = bisect_right(starts, index) - 1
        return parts[part], index - starts[part]

    def latents_of(index: int) -> "Latents":
        part, own = place(index)
        return part.latents(own)

    def note_of(latents: "Latents", index: int) -> Note:
        part, own = place(index)
        return part.note(latents, own)

    return Pictures(tuple(name for part in parts for name in part.names), latents_of, note_of)


def refuse_second_stdin(*words: str) -> None:
    """Raise RequestError if - is among the words more than once."""
    if words.count("-") > 1:
        raise RequestError("- is given twice; what is piped in can be read only once")


def class_index(label: str | None, snapshot: "Snapshot") -> int | None:
    """Return the class that --label names, None if it is not given. Raises LabelError."""
    from polyinr_core.latents.naming import parse_label

    if label is None:
        return None
    classes = snapshot.generator.config.classes
    return parse_label(label, classes=classes, class_names=snapshot.class_names)


def by_seed(text: str, painter: Painter, *, label: int | None = None, psi: float | None = None) -> Pictures:
    """Return the pictures of seeds. Raises RequestError."""
    from polyinr_core.latents.naming import parse_seeds
    from polyinr_core.latents.spaces import from_seed

    seeds = parse_seeds(text)
    snapshot = painter.snapshot
    psi = 1.0 if psi is None else psi

    def latents_of(index: int) -> "Latents":
        latents = from_seed(snapshot.generator, seeds[index], label=label, psi=psi)
        return replace(latents, model_sha256=snapshot.sha256)

    def note_of(latents: "Latents", index: int) -> Note:
        class_note = class_note_of(latents, snapshot.class_names)
        return {**painter.note, "seed": seeds[index], "psi": psi, **class_note}

    return Pictures(tuple(f"seed{seed:04d}" for seed in seeds), latents_of, note_of)


def from_file(
    path: Path,
    painter: Painter,
    *,
    label: int | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Pictures:
    """Return the pictures of a latents file, - for stdin; `force` takes another model's.

    Raises RequestError, FileError.
    """
    from polyinr_core.latents.file import read_latents
    from polyinr_core.latents.spaces import check_latents, to_affine, with_label

    snapshot = painter.snapshot
    generator = snapshot.generator
    kept = read_latents(streams.binary_stdin() if str(path) == "-" else path)
    kept = with_label(generator, kept, label)
    check_latents(generator, kept, source=str(path))
    foreign = kept.space != "z" and kept.model_sha256 not in ("", snapshot.sha256)
    if foreign and not force:
        raise FileError(
            path,
            f"its {kept.space} is of another model ({kept.model_sha256[:12]}, not {snapshot.sha256[:12]}) and "
            "may mean nothing here; name that model with -m, or give --force",
        )
    named_by_seed = len(set(kept.seeds)) == len(kept)
    names = tuple(
        f"seed{kept.seeds[index]:04d}" if named_by_seed else f"picture{index:04d}" for index in range(len(kept))
    )
    source: Note = {"latents": path.name, "latents_sha256": kept.sha256}
    if psi is not None:
        source["psi"] = psi

    def latents_of(index: int) -> "Latents":
        return to_affine(generator, kept.picture(index), psi=psi)

    def note_of(latents: "Latents", index: int) -> Note:
        seed = {"seed": latents.seeds[0]} if latents.seeds else {}
        own = class_note_of(latents, snapshot.class_names)
        return {**painter.note, **source, "index": index, "count": len(kept), **seed, **own}

    return Pictures(names, latents_of, note_of)


def class_note_of(latents: "Latents", class_names: Sequence[str]) -> Note:
    """Return what a note says of a picture's class."""
    if latents.label is None:
        return {}
    index = int(latents.label[0])
    return {"label": index, "class": class_names[index]} if index < len(class_names) else {"label": index}
