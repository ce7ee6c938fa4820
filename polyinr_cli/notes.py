"""The note that a drawn image carries, and the command that the note spells out."""

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

Note = dict[str, Any]


@cache
def version() -> str:
    """Return the installed version, "unknown" in a bare source tree."""
    from importlib import metadata

    try:
        return metadata.version("polyinr")
    except metadata.PackageNotFoundError:
        return "unknown"


def sheet_note(notes: list[Note]) -> Note:
    """Gather the notes of a sheet's images into the sheet's own."""
    first = notes[0]
    own = ("seed", "label", "class", "index")
    if "words" in first:  # of the command that draws all of them again
        return {key: value for key, value in first.items() if all(note.get(key) == value for note in notes)}
    note = {key: value for key, value in first.items() if key not in own}
    if "latents" not in first:
        note["seeds"] = [n["seed"] for n in notes]
    if "label" in first:
        note["labels"] = [n["label"] for n in notes]
    return note


def note_of(image: Path) -> Note:
    """Return the note that an image carries, empty if there is none. Raises FileError."""
    from polyinr_core.images.animation import read_mp4_note
    from polyinr_core.images.io import read_note
    from polyinr_core.images.tiled import SUFFIX, read_deep_zoom_note

    suffix = image.suffix.lower()
    if suffix == ".mp4":
        return read_mp4_note(image)
    return read_deep_zoom_note(image) if suffix == SUFFIX else read_note(image)


def options_of(note: Note) -> dict[str, str]:
    """Return the options, by name without dashes, that draw a note's image again with its own model.

    A damaged note is a KeyError, TypeError or ValueError.
    """
    from polyinr_core.images.sizes import window_text
    from polyinr_core.latents.naming import seeds_text

    options = {}
    if "words" in note:  # it names its images by these
        pass
    elif "latents" in note:
        options["latents"] = str(note["latents"])
    else:
        options["seeds"] = seeds_text(note["seeds"] if "seeds" in note else [note["seed"]])
        labels = set(note["labels"] if "labels" in note else [note["label"]] if "label" in note else [])
        if len(labels) == 1:
            options["label"] = str(labels.pop())
    if "psi" in note and "words" not in note:
        options["psi"] = repr(float(note["psi"]))
    if "size" in note or "words" not in note:  # a command of other words may look at no window
        width, height = note["size"]
        options["size"] = f"{width}x{height}"
        options["grid"] = window_text(tuple(note["window"]))
    if "transform" in note:
        options["transform"] = ",".join(repr(float(number)) for number in note["transform"])
    if "warp" in note:
        options["warp"] = str(note["warp"])
    if "supersample" in note:
        options["supersample"] = str(int(note["supersample"]))
    if "tolerance" in note:
        tolerance = float(note["tolerance"])
        if not 0 <= tolerance <= 255:
            raise ValueError(tolerance)
        options["tolerance"] = repr(tolerance)
    if "bits" in note:
        options["bits"] = str(int(note["bits"]))
    return options


def again(words: Sequence[str], **options: object) -> list[str]:
    """Return a command's words with its options: those that are None or False are left out, True is a flag."""
    spelled = list(words)
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            spelled.append(option)
        elif isinstance(value, list | tuple):
            spelled += [part for one in value for part in (option, str(one))]
        elif value is not None and value is not False:
            spelled += [option, str(value)]
    return spelled


def command_of(note: Note, *, output: str) -> str:
    """Return the command line that draws a note's image again. A damaged note is a KeyError or TypeError."""
    from polyinr_core.checkpoints.locate import is_bundled

    words = ["polyinr", str(note.get("command", "sample")), *map(str, note.get("words", ()))]
    for name, value in options_of(note).items():
        words += [f"--{name}", value]
    words += ["--precision", str(note["precision"]), "--device", str(note["device"])]
    if not is_bundled(note.get("model", "")):
        words += ["-m", str(note["model_file"])]
    return shlex.join([*words, "-o", output])
