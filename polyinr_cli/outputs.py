"""From latents to what -o asks for: a folder of pictures, one picture, a sheet, an array, latents, stdout."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import FileError, RequestError

from . import streams
from .devices import check_memory
from .notes import Note, sheet_note
from .ranks import own_share, several

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from polyinr_core.latents.file import Latents
    from polyinr_core.model import Bounds
    from polyinr_core.model.synthesis import Synthesis
    from polyinr_core.snapshots.snapshot import Snapshot

PIXEL_BYTES = 3 + 4 + 3  # our array, Pillow's copy, the encoded file at worst


class Kind(StrEnum):
    """What an output is, by its suffix."""

    folder = "folder"
    picture = "picture"
    array = "array"
    latents = "latents"
    stdout = "stdout"


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn: by which network, how large, in which window and number format."""

    snapshot: "Snapshot"
    synthesis: "Synthesis"
    width: int
    height: int
    bounds: "Bounds"
    dtype: "torch.dtype"
    device: "torch.device"

    def bands(self, affine: "Tensor") -> Iterator["Tensor"]:
        """Draw affine maps [1, L, 3, n] as bands [rows, W, 3]."""
        import torch

        from polyinr_core.model import draw_rows

        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        grid = self.snapshot.grid(self.width, self.height, bounds=self.bounds)
        return draw_rows(self.synthesis, affine[0].to(device=self.device, dtype=wide), grid)


@dataclass(frozen=True)
class Pictures:
    """The pictures asked for: their names, and their latents and notes, made one at a time."""

    names: tuple[str, ...]
    latents: Callable[[int], "Latents"]
    note: Callable[["Latents", int], Note]

    def __len__(self) -> int:
        return len(self.names)

    def share(self, output: "Output") -> "Pictures":
        """Return this process's part of the pictures, all of them if it is alone. Raises RequestError."""
        if not several():
            return self
        if output.kind is not Kind.folder:
            raise RequestError(f"several processes draw into a folder, each its share; -o {output.path} is none")
        own = own_share(len(self))
        names = tuple(self.names[index] for index in own)
        return Pictures(names, lambda i: self.latents(own[i]), lambda latents, i: self.note(latents, own[i]))


@dataclass(frozen=True)
class Output:
    """Where it goes, and how."""

    path: Path
    kind: Kind
    overwrite: bool = False
    as_json: bool = False
    quiet: bool = False


def output_for(text: str, *, overwrite: bool, as_json: bool, quiet: bool) -> Output:
    """Read -o: its suffix, or its being a folder, says the kind. Raises RequestError, FileError."""
    from polyinr_core.files import refuse_overwrite
    from polyinr_core.pictures.files import FORMATS

    streams.refuse_two_payloads(text, as_json=as_json)
    if not text or "\0" in text:
        raise RequestError("-o needs a path")
    path = Path(text)
    suffix = path.suffix.lower()
    if text == "-":
        streams.binary_stdout()
        kind = Kind.stdout
    elif text.endswith("/") or path.is_dir() or not suffix:
        kind = Kind.folder
        if path.exists() and not path.is_dir():
            raise FileError(path, "is a file; a folder of pictures needs another name, a picture a suffix")
    elif suffix in FORMATS:
        kind = Kind.picture
    elif suffix in (".npy", ".safetensors"):
        kind = Kind.array if suffix == ".npy" else Kind.latents
    else:
        raise RequestError(
            f"{text}: suffix {suffix!r} says no kind of output; use {', '.join(FORMATS)}, .npy, .safetensors, "
            "a folder, or -"
        )
    if kind in (Kind.picture, Kind.array, Kind.latents):
        refuse_overwrite(path, overwrite=overwrite)
    return Output(path, kind, overwrite=overwrite, as_json=as_json, quiet=quiet)


def draw_to(output: Output, drawing: Drawing, pictures: Pictures) -> None:
    """Draw the pictures in the form that the output's kind asks for. Raises PolyinrError."""
    if output.kind is Kind.folder:
        _draw_folder(output, drawing, pictures)
    elif output.kind is Kind.array:
        _draw_array(output, drawing, pictures)
    else:
        _draw_sheet(output, drawing, pictures)


def write_latents_of(output: Output, pictures: Pictures) -> None:
    """Write the pictures' latents into one file, drawing nothing. Raises PolyinrError."""
    from polyinr_core.latents.file import joined, write_latents

    held: list[Latents] = []
    notes: list[Note] = []
    with streams.progress("latents", quiet=output.quiet) as move:
        for index in range(len(pictures)):
            held.append(pictures.latents(index))
            notes.append(pictures.note(held[-1], index))
            move(index + 1, len(pictures))
    write_latents(output.path, joined(held), overwrite=output.overwrite)
    _report(output, [(output.path, note) for note in notes])
    streams.say(f"{len(held)} pictures' latents in {output.path}", quiet=output.quiet)


def _draw_folder(output: Output, drawing: Drawing, pictures: Pictures) -> None:
    """Write one PNG a picture; each is whole when it appears, so an interruption loses only the last."""
    from polyinr_core.files import refuse_overwrite
    from polyinr_core.pictures.files import write_picture
    from polyinr_core.pictures.pixels import fill_rows
    from polyinr_core.pictures.sheet import blank

    paths = [output.path / f"{name}.png" for name in pictures.names]
    for path in paths:
        refuse_overwrite(path, overwrite=output.overwrite)
    check_memory(drawing.width * drawing.height * PIXEL_BYTES, purpose=_purpose(drawing))
    pixels = blank((drawing.width, drawing.height))
    with _rows_bar(output, drawing, pictures) as rows_done:
        for index, path in enumerate(paths):
            latents = pictures.latents(index)
            note = pictures.note(latents, index)
            fill_rows(pixels, drawing.bands(_affine(latents)), progress=rows_done)
            write_picture(path, pixels, note=note, overwrite=output.overwrite)
            _report(output, [(path, note)])
    _say_done(output, drawing, pictures)


def _draw_sheet(output: Output, drawing: Drawing, pictures: Pictures) -> None:
    """Write one picture, or several on a sheet, to a file or to stdout; drawn straight into its place."""
    from polyinr_core.pictures.files import check_size, encode_picture, format_of, write_picture
    from polyinr_core.pictures.pixels import fill_rows
    from polyinr_core.pictures.sheet import blank, layout

    plan = layout(len(pictures), drawing.width, drawing.height)
    width, height = plan.size
    format = "png" if output.kind is Kind.stdout else format_of(output.path)
    check_size(format, width=width, height=height)
    check_memory(width * height * PIXEL_BYTES, purpose=f"a picture of {width}x{height}")
    pixels = blank(plan.size)
    notes = []
    with _rows_bar(output, drawing, pictures) as rows_done:
        for index in range(len(pictures)):
            latents = pictures.latents(index)
            notes.append(pictures.note(latents, index))
            fill_rows(pixels[plan.place(index)], drawing.bands(_affine(latents)), progress=rows_done)
    note = notes[0] if len(notes) == 1 else sheet_note(notes)
    if output.kind is Kind.stdout:
        stdout = streams.binary_stdout()
        stdout.write(encode_picture(pixels, format=format, note=note))
        stdout.flush()
        return
    write_picture(output.path, pixels, note=note, overwrite=output.overwrite)
    _report(output, [(output.path, note) for note in notes])
    _say_done(output, drawing, pictures)


def _draw_array(output: Output, drawing: Drawing, pictures: Pictures) -> None:
    """Write .npy [N, H, W, 3], about [-1, 1], row by row as it is drawn: float64 or float32.

    Written, not mapped into memory: on a full disk a mapping ends the process without a word.
    """
    import numpy as np
    import torch

    from polyinr_core.files import written_beside
    from polyinr_core.pictures.pixels import checked

    dtype = np.dtype("<f8" if drawing.dtype == torch.float64 else "<f4")
    shape = (len(pictures), drawing.height, drawing.width, 3)
    _check_disk(output.path, len(pictures) * drawing.height * drawing.width * 3 * dtype.itemsize)
    notes = []
    with (
        _rows_bar(output, drawing, pictures) as rows_done,
        written_beside(output.path, overwrite=output.overwrite) as draft,
        draft.open("wb") as file,
    ):
        header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for index in range(len(pictures)):
            latents = pictures.latents(index)
            notes.append(pictures.note(latents, index))
            for band in checked(drawing.bands(_affine(latents))):
                file.write(band.cpu().numpy().astype(dtype, copy=False).tobytes())
                rows_done(len(band))
    _report(output, [(output.path, note) for note in notes])
    _say_done(output, drawing, pictures)


def _affine(latents: "Latents") -> "Tensor":
    assert latents.affine is not None
    return latents.affine


def _purpose(drawing: Drawing) -> str:
    return f"a picture of {drawing.width}x{drawing.height}"


def _rows_bar(
    output: Output, drawing: Drawing, pictures: Pictures
) -> AbstractContextManager[Callable[[int], None]]:
    return streams.row_progress("drawing", total=drawing.height * len(pictures), quiet=output.quiet)


def _report(output: Output, drawn: list[tuple[Path, Note]]) -> None:
    """Print one JSON line a picture, if asked."""
    if output.as_json:
        for path, note in drawn:
            streams.json_line({"file": str(path), **note})


def _say_done(output: Output, drawing: Drawing, pictures: Pictures) -> None:
    noun = "picture" if len(pictures) == 1 else "pictures"
    where = f"{len(pictures)} {noun} of {drawing.width}x{drawing.height} in {output.path}"
    streams.say(where, quiet=output.quiet)


def _check_disk(path: Path, wanted: int) -> None:
    """Raise FileError if the disk cannot hold `wanted` bytes more."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise FileError(path, f"needs {wanted / 2**30:,.1f} GiB, the disk has {free / 2**30:,.1f}; draw less")
