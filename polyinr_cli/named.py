"""Images as a person names them: by seeds, by a latents file, by - for one that is piped in."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

from . import console as streams
from .drawing import Painter
from .notes import Note
from .runtime import job, own_share, say_if_alone, several
from .targets import Kind, Target

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.latents.latents import Latents


@dataclass(frozen=True)
class Images:
    """Images: their names, and their latents (completed to affine maps) and notes, made one at a time."""

    names: tuple[str, ...]
    latents: Callable[[int], "Latents"]
    note: Callable[["Latents", int], Note]

    def __len__(self) -> int:
        return len(self.names)

    def share(self, target: Target) -> "Images":
        """Return this process's part of the images, all of them if it is alone. Raises RequestError."""
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
        return Images(names, lambda i: self.latents(own[i]), lambda latents, i: self.note(latents, own[i]))

    def with_note(self, more: Note) -> "Images":
        """Return the images with something added to their notes."""
        return replace(self, note=lambda latents, index: {**self.note(latents, index), **more})


def images_named(
    seeds: str | None,
    latents: Path | None,
    painter: Painter,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Images:
    """Return the images of --seeds or --latents, whichever is given. Raises RequestError, FileError."""
    check_names(seeds, latents)
    if seeds is not None:
        return by_seed(seeds, painter, label=class_index(label, painter.checkpoint), psi=psi)
    assert latents is not None
    index = class_index(label, painter.checkpoint)
    return from_file(latents, painter, label=index, psi=psi, force=force)


def check_names(seeds: str | None, latents: Path | None) -> None:
    """Raise RequestError unless exactly one of --seeds and --latents is given."""
    if (seeds is None) == (latents is None):
        raise RequestError("name the images by --seeds 0-7 or by --latents FILE, one of the two")


def from_word(
    word: str, painter: Painter, *, label: str | None = None, psi: float | None = None, force: bool = False
) -> Images:
    """Return the images of one word: seeds such as 3 or 0-7, a latents file, or - for stdin.

    Raises RequestError, FileError.
    """
    if word == "-" or Path(word).suffix or Path(word).exists():
        return images_named(None, Path(word), painter, label=label, psi=psi, force=force)
    return images_named(word, None, painter, label=label, psi=psi)


def images_of(
    words: Sequence[str],
    painter: Painter,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Images:
    """Return the images of several words, in their order. Raises RequestError, FileError."""
    refuse_second_stdin(*words)
    parts = [from_word(word, painter, label=label, psi=psi, force=force) for word in words]
    starts = [0, *accumulate(map(len, parts))]

    def place(index: int) -> tuple[Images, int]:
        part = bisect_right(starts, index) - 1
        return parts[part], index - starts[part]

    def latents_of(index: int) -> "Latents":
        part, own = place(index)
        return part.latents(own)

    def note_of(latents: "Latents", index: int) -> Note:
        part, own = place(index)
        return part.note(latents, own)

    return Images(tuple(name for part in parts for name in part.names), latents_of, note_of)


def refuse_second_stdin(*words: str) -> None:
    """Raise RequestError if - is among the words more than once."""
    if words.count("-") > 1:
        raise RequestError("- is given twice; what is piped in can be read only once")


def class_index(label: str | None, checkpoint: "Checkpoint") -> int | None:
    """Return the class that --label names, None if it is not given. Raises LabelError."""
    from polyinr_core.latents.naming import parse_label

    if label is None:
        return None
    classes = checkpoint.generator.config.classes
    return parse_label(label, classes=classes, class_names=checkpoint.class_names)


def by_seed(text: str, painter: Painter, *, label: int | None = None, psi: float | None = None) -> Images:
    """Return the images of seeds. Raises RequestError."""
    from polyinr_core.latents.latents import from_seeds
    from polyinr_core.latents.naming import parse_seeds

    seeds = parse_seeds(text)
    checkpoint = painter.checkpoint
    psi = 1.0 if psi is None else psi

    def latents_of(index: int) -> "Latents":
        latents = from_seeds(checkpoint.generator, [seeds[index]], label=label, psi=psi)
        return replace(latents, model_sha256=checkpoint.sha256)

    def note_of(latents: "Latents", index: int) -> Note:
        class_note = class_note_of(latents, checkpoint.class_names)
        return {**painter.note, "seed": seeds[index], "psi": psi, **class_note}

    return Images(tuple(f"seed{seed:04d}" for seed in seeds), latents_of, note_of)


def from_file(
    path: Path,
    painter: Painter,
    *,
    label: int | None = None,
    psi: float | None = None,
    force: bool = False,
) -> Images:
    """Return the images of a latents file, - for stdin; `force` takes another model's.

    Raises RequestError, FileError.
    """
    from polyinr_core.latents.io import read_latents
    from polyinr_core.latents.latents import check_latents, to_affine, with_label

    checkpoint = painter.checkpoint
    generator = checkpoint.generator
    kept = read_latents(streams.binary_stdin() if str(path) == "-" else path)
    kept = with_label(generator, kept, label)
    check_latents(generator, kept, source=str(path))
    foreign = kept.space != "z" and kept.model_sha256 not in ("", checkpoint.sha256)
    if foreign and not force:
        raise FileError(
            path,
            f"its {kept.space} is of another model ({kept.model_sha256[:12]}, not {checkpoint.sha256[:12]}) and "
            "may mean nothing here; name that model with -m, or give --force",
        )
    named_by_seed = len(set(kept.seeds)) == len(kept)
    names = tuple(
        f"seed{kept.seeds[index]:04d}" if named_by_seed else f"image{index:04d}" for index in range(len(kept))
    )
    source: Note = {"latents": path.name, "latents_sha256": kept.sha256}
    if psi is not None:
        source["psi"] = psi

    def latents_of(index: int) -> "Latents":
        return to_affine(generator, kept[index], psi=psi)

    def note_of(latents: "Latents", index: int) -> Note:
        seed = {"seed": latents.seeds[0]} if latents.seeds else {}
        own = class_note_of(latents, checkpoint.class_names)
        return {**painter.note, **source, "index": index, "count": len(kept), **seed, **own}

    return Images(names, latents_of, note_of)


def class_note_of(latents: "Latents", class_names: Sequence[str]) -> Note:
    """Return what a note says of an image's class."""
    if latents.label is None:
        return {}
    index = int(latents.label[0])
    return {"label": index, "class": class_names[index]} if index < len(class_names) else {"label": index}
