"""`polyinr info`: what a file is (a model, delta, data set, picture, latents, directions), and its command."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_core.errors import FileError, RequestError

from . import streams
from .notes import command_of, note_of
from .options import Json, OptionalOutput, Overwrite, Quiet, Verbose

if TYPE_CHECKING:
    from polyinr_core.data.facts import Facts as Labelled
    from polyinr_core.data.picture_set import PictureSet

Facts = dict[str, Any]
SHEET_PICTURES = 64
LISTED = 12  # names on a line before the rest is counted


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", show_default=False, help="A model, delta, data set, picture, latents, directions."
        ),
    ],
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Say what a file is: a model, a data set (-o draws a contact sheet), a picture, latents, or directions.

    A picture drawn by polyinr carries a note; the command that draws it again is printed.

    Example: polyinr info cats.zip -o cats.png
    """
    streams.refuse_two_payloads(output, as_json=as_json)
    facts = _facts_of(file, output, overwrite=overwrite, quiet=quiet)
    if as_json:
        streams.json_line({"file": str(file), **facts})
    elif output is None or str(output) != "-":
        _print(facts)


def _facts_of(path: Path, output: Path | None, *, overwrite: bool, quiet: bool) -> Facts:
    """Return the facts of a file, by its first bytes. Raises PolyinrError."""
    kind = _kind_of(path)
    if kind == "data":
        return _data_facts(path, output, overwrite=overwrite, quiet=quiet)
    if kind == "folder":
        return _folder_facts(path, output, quiet=quiet)
    if output is not None:
        raise RequestError(f"-o draws the contact sheet of a data set (.zip, .tar shards); {path} is none")
    return _picture_facts(path) if kind == "picture" else _tensor_facts(path)


def _kind_of(path: Path) -> str:
    from polyinr_core.data.picture_set import means_shards
    from polyinr_core.files import explain, refuse_special
    from polyinr_core.pictures.files import picture_kind

    if means_shards(path):
        return "data"
    if path.is_dir():
        return "folder"
    refuse_special(path)
    if path.suffix.lower() == ".dzi" and path.is_file():
        return "picture"
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise explain(path, error) from error
    if not head:
        raise FileError(path, "is empty")
    if picture_kind(head) is not None:
        return "picture"
    if head.startswith(b"PK"):
        return "data"
    if head[8:9] == b"{":  # first, as a header's length may begin as a pickle does
        return "tensors"
    if head.startswith(b"\x80"):
        raise FileError(path, "a pickle, which is not opened here; `polyinr convert` reads released models")
    raise FileError(path, "not a model, data set, picture or latents file")


def _tensor_facts(path: Path) -> Facts:
    """Return the facts of a model, of its delta, of latents or of directions."""
    from polyinr_core.latents.directions_file import is_directions_file
    from polyinr_core.latents.file import is_latents_file, read_latents
    from polyinr_core.snapshots.delta import is_delta, read_delta

    if is_directions_file(path):
        return _directions_facts(path)
    if is_delta(path):
        delta = read_delta(path)
        own = {"model": delta.model_sha256, "rank": delta.rank, "sha256": delta.sha256}
        return {"kind": "delta", **delta.origin, **own}
    if not is_latents_file(path):
        from polyinr_core.snapshots.snapshot import load_snapshot, model_note

        return model_note(load_snapshot(path))
    latents = read_latents(path)
    held = {name: getattr(latents, name) for name in ("z", "w", "affine", "label")}
    facts: Facts = {
        "kind": "latents",
        "count": len(latents),
        "tensors": {name: list(tensor.shape) for name, tensor in held.items() if tensor is not None},
        "seeds": list(latents.seeds),
        "psi": latents.psi,
        "model": latents.model_sha256,
        "sha256": latents.sha256,
    }
    if latents.label is not None:
        facts["labels"] = latents.label.tolist()
    return facts


def _directions_facts(path: Path) -> Facts:
    """Return what directions were found in, and how much of its variance each explains."""
    from polyinr_core.latents.directions_file import read_directions

    held = read_directions(path)
    return {
        "kind": "directions",
        "count": len(held),
        "space": held.space,
        "shape": list(held.mean.shape),
        "samples": held.samples,
        "psi": held.psi,
        "label": held.label,
        "shares": [round(share, 4) for share in held.shares.tolist()],
        "deviations": [round(deviation, 4) for deviation in held.deviations.tolist()],
        "model": held.model_sha256,
    }


def _picture_facts(path: Path) -> Facts:
    """Return a picture's note, with the command that draws it again."""
    note = note_of(path)
    if not note:
        return {
            "kind": "picture",
            "note": "none; JPEG and WebP keep no note, nor do other programs' pictures",
        }
    again = f"{path.stem}-again"
    single_of_many = "folder" in note or (note.get("count", 1) != 1 and "index" in note)
    try:
        command = command_of(note, output=f"{again}/" if single_of_many else f"{again}{path.suffix}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(path, "its note is damaged, so it does not say how to draw it again") from error
    told = {key: value for key, value in note.items() if key not in ("command", "words")}
    return {"kind": "picture", **told, "command": command}


def _data_facts(path: Path, output: Path | None, *, overwrite: bool, quiet: bool) -> Facts:
    """Return a data set's facts; draw its contact sheet where `output` says."""
    from polyinr_core.data.picture_set import open_data

    with streams.progress("reading", quiet=quiet) as progress:
        data = open_data(path, progress=progress)
    streams.say_notes(path, data.notes, quiet=quiet)
    with data:
        facts: Facts = {
            "kind": "data set",
            "count": len(data),
            "shards": None if data.shard_of is None else int(data.shard_of[-1]) + 1,
            "resolution": data.resolution,
            "classes": data.classes,
            "class_names": list(data.class_names),
            "pictures_of_class": _class_counts(data),
            "provenance": data.provenance,
            "sha256": data.sha256,
        }
        if output is not None:
            _draw_contact_sheet(data, output, overwrite=overwrite, quiet=quiet)
    return facts


def _folder_facts(path: Path, output: Path | None, *, quiet: bool) -> Facts:
    """Return the facts of a folder of pictures as `prepare` takes them. Raises PolyinrError."""
    from polyinr_core.data.listing import Notes
    from polyinr_core.data.sources import list_folder, without_broken_strays

    listing = list_folder(path)
    if not listing.names:
        raise FileError(
            path, "is a folder without pictures; a file is needed, or a folder of pictures or .tar shards"
        )
    if output is not None:
        raise RequestError(f"-o draws the contact sheet of a data set (.zip, .tar shards); {path} is a folder")
    kept = without_broken_strays(path, listing)
    labels, note = listing.labels.facts_for("auto", path, lambda index: repr(listing.names[index]), kept)
    notes = Notes(listing)
    broken = sorted(set(range(len(listing.names))).difference(kept.tolist()))
    notes.left_out += [(listing.names[index], "cannot be decoded") for index in broken]
    streams.say_notes(path, [*notes.lines(), *([] if note is None else [note])], quiet=quiet)
    return {
        "kind": "folder of pictures",
        "count": len(kept),
        "classes": labels.classes,
        "class_names": list(labels.class_names),
        "pictures_of_class": _class_counts(labels),
        "provenance": labels.provenance,
    }


def _class_counts(data: "PictureSet | Labelled") -> dict[str, int]:
    """Count the pictures of each class, by its name where it has one."""
    import numpy as np

    if data.labels is None:
        return {}
    counts = np.bincount(data.labels, minlength=data.classes).tolist()
    names = data.class_names
    return {names[i] if i < len(names) else str(i): count for i, count in enumerate(counts)}


def _draw_contact_sheet(data: "PictureSet", output: Path, *, overwrite: bool, quiet: bool) -> None:
    """Draw pictures from the whole data set, evenly spread, on one sheet."""
    import numpy as np

    from polyinr_core.files import refuse_overwrite
    from polyinr_core.pictures.files import encode_picture, format_of, write_picture
    from polyinr_core.pictures.sheet import sheet

    to_stdout = str(output) == "-"
    if to_stdout:
        streams.binary_stdout()
    else:
        format_of(output)
        refuse_overwrite(output, overwrite=overwrite)
    count = min(SHEET_PICTURES, len(data))
    chosen = np.linspace(0, len(data) - 1, count).round().astype(int).tolist()
    pixels = sheet(np.stack([data.read(index) for index in chosen]))
    if to_stdout:
        stdout = streams.binary_stdout()
        stdout.write(encode_picture(pixels))
        stdout.flush()
        return
    write_picture(output, pixels, overwrite=overwrite)
    streams.say(f"{count} of {len(data)} pictures in {output}", quiet=quiet)


def _print(facts: Facts) -> None:
    """Print facts, one a line, names in one column; what is empty is left out."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    width = max(map(len, shown))
    for name, value in shown.items():
        streams.line(f"{name.replace('_', ' '):{width}}  {_text_of(value)}")


def _text_of(value: object) -> str:
    """Return a fact as a person reads it on one line; what is long is cut short."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        first, *others = value.strip().splitlines() or [""]
        return first if not others else f"{first} ..."
    if isinstance(value, dict):
        items = [f"{key} {item if isinstance(item, list) else _text_of(item)}" for key, item in value.items()]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    else:
        return json.dumps(value)
    more = f", and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more
