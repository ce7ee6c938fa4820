"""What -o asks for: a folder of images, one image, an array, latents, a zoomable image, stdout."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

from . import console as streams
from .notes import Note

if TYPE_CHECKING:
    from polyinr_core.images.quantize import Pixels
    from polyinr_core.latents.latents import Latents


class Kind(StrEnum):
    """What an output is, by its suffix."""

    folder = "folder"
    image = "image"
    zoomable = "zoomable"
    animation = "animation"
    array = "array"
    latents = "latents"
    stdout = "stdout"


SUFFIXES = {
    ".npy": Kind.array,
    ".safetensors": Kind.latents,
    ".dzi": Kind.zoomable,
    ".gif": Kind.animation,
    ".mp4": Kind.animation,
}
IMAGES = frozenset({Kind.folder, Kind.image, Kind.zoomable, Kind.array, Kind.latents, Kind.stdout})


@dataclass(frozen=True)
class Target:
    """Where the result goes, and how."""

    path: Path
    kind: Kind
    overwrite: bool = False
    as_json: bool = False
    quiet: bool = False

    def report(self, made: Iterable[tuple[Path, Note]]) -> None:
        """Print one JSON line for each thing made, if asked."""
        if self.as_json:
            for path, note in made:
                streams.json_line({"file": str(path), **note})

    def say(self, message: str) -> None:
        """Say a line on a terminal."""
        streams.say(message, quiet=self.quiet)


def target_for(
    text: str,
    *,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    kinds: Collection[Kind] = IMAGES,
    payload: str = "image",
) -> Target:
    """Read -o: its suffix, or its being a folder, says the kind, one of `kinds`.

    `payload` is what stdout would carry. Raises RequestError, FileError.
    """
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    streams.refuse_two_payloads(text, as_json=as_json)
    if not text or "\0" in text:
        raise RequestError("-o needs a path")
    path = Path(text)
    kind = _kind_of(text, path)
    if kind is None:
        raise RequestError(f"{text}: suffix {path.suffix.lower()!r} says no kind of output; use {_choices(kinds)}")
    if kind not in kinds:
        raise RequestError(f"{text}: no {kind.value} is made here; use {_choices(kinds)}")
    if kind is Kind.stdout:
        streams.binary_stdout(payload)
    elif kind is Kind.folder:
        if os.path.exists(path) and not path.is_dir():
            raise FileError(path, "is a file; a folder of images needs another name, an image a suffix")
        if not os.path.exists(path):
            check_place(path)
    else:
        refuse_overwrite(path, overwrite=overwrite)
        check_place(path)
    return Target(path, kind, overwrite=overwrite, as_json=as_json, quiet=quiet)


def _kind_of(text: str, path: Path) -> Kind | None:
    """Return the kind that -o says, None for a suffix that is not known."""
    from polyinr_core.images.io import FORMATS

    suffix = path.suffix.lower()
    if text == "-":
        return Kind.stdout
    if text.endswith("/") or os.path.isdir(path) or not suffix:
        return Kind.folder
    if suffix in FORMATS:
        return Kind.image
    return SUFFIXES.get(suffix)


def _choices(kinds: Collection[Kind]) -> str:
    from polyinr_core.images.io import FORMATS

    suffixes = [
        *(FORMATS if Kind.image in kinds else ()),
        *(s for s, kind in SUFFIXES.items() if kind in kinds),
    ]
    return ", ".join([*suffixes, *(["a folder"] if Kind.folder in kinds else []), "or -"])


def write_pixels_to(target: Target, pixels: "Pixels", note: Note) -> None:
    """Write a finished image to a file or to stdout. Raises PolyinrError."""
    from polyinr_core.images.io import encode_image, write_image

    if target.kind is Kind.stdout:
        write_bytes(encode_image(pixels, note=note))
    else:
        write_image(target.path, pixels, note=note, overwrite=target.overwrite)


def write_latents_to(target: Target, latents: "Latents") -> None:
    """Write latents to a file or to stdout. Raises PolyinrError."""
    from polyinr_core.latents.io import encode_latents, write_latents

    if target.kind is Kind.stdout:
        write_bytes(encode_latents(latents), payload="latents")
    else:
        write_latents(target.path, latents, overwrite=target.overwrite)


def write_bytes(data: bytes, *, payload: str = "image") -> None:
    """Send bytes to stdout."""
    stdout = streams.binary_stdout(payload)
    stdout.write(data)
    stdout.flush()
