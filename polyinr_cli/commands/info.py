"""`polyinr info`: describe a file, and print the command that renders an image again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, OptionalOutput, Overwrite, Quiet, Verbose
from polyinr_core.errors import FileError, RequestError

if TYPE_CHECKING:
    from polyinr_core.data.dataset import ImageDataset
    from polyinr_core.data.labels import LabelInfo

Facts = dict[str, Any]
GRID_IMAGES = 64
MAX_LISTED = 12  # items on a line


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", show_default=False, help="A checkpoint, delta, dataset, image, latents or directions file."
        ),
    ],
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Describe a file: a checkpoint, delta, dataset (-o writes a grid of its images), image, latents, directions.

    For an image with polyinr's metadata, print the command that renders it again.

    Example: polyinr info cats.zip -o cats.png
    """
    streams.refuse_two_payloads(output, as_json=as_json)
    facts = _facts_of(file, output, overwrite=overwrite, quiet=quiet)
    if as_json:
        streams.json_line({"file": str(file), **facts})
    elif output is None or str(output) != "-":
        _print(facts)


def _facts_of(path: Path, output: Path | None, *, overwrite: bool, quiet: bool) -> Facts:
    """Return the facts of a file, whose kind its first bytes tell. Raises PolyinrError."""
    kind = _kind_of(path)
    if kind == "data":
        return _data_facts(path, output, overwrite=overwrite, quiet=quiet)
    if kind == "folder":
        return _folder_facts(path, output, quiet=quiet)
    if output is not None:
        raise RequestError(f"-o writes a grid of a dataset's images (.zip, .tar shards); {path} is not a dataset")
    return _image_facts(path) if kind == "image" else _tensor_facts(path)


def _kind_of(path: Path) -> str:
    from polyinr_core.data.dataset import means_shards
    from polyinr_core.images.io import detect_format
    from polyinr_core.runtime.atomic_io import explain, refuse_special

    if means_shards(path):
        return "data"
    if path.is_dir():
        return "folder"
    refuse_special(path)
    if path.suffix.lower() == ".dzi" and path.is_file():
        return "image"
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise explain(path, error) from error
    if not head:
        raise FileError(path, "is empty")
    if detect_format(head) is not None:
        return "image"
    if head.startswith(b"PK"):
        return "data"
    if head[8:9] == b"{":  # before pickles, as a header's length may begin like one
        return "tensors"
    if head.startswith(b"\x80"):
        raise FileError(path, "a pickle, which `polyinr info` does not open; `polyinr convert` reads released models")
    raise FileError(path, "not a checkpoint, dataset, image or latents file")


def _tensor_facts(path: Path) -> Facts:
    """Return the facts of a checkpoint, a delta, latents or directions."""
    from polyinr_core.checkpoints.delta import is_delta, load_delta
    from polyinr_core.latents.directions import is_directions_file
    from polyinr_core.latents.io import is_latents_file, read_latents

    if is_directions_file(path):
        return _directions_facts(path)
    if is_delta(path):
        delta = load_delta(path)
        own = {"model": delta.model_sha256, "rank": delta.rank, "sha256": delta.sha256}
        return {"kind": "delta", **delta.origin, **own}
    if not is_latents_file(path):
        from polyinr_core.checkpoints.checkpoint import describe_checkpoint, load_checkpoint

        return describe_checkpoint(load_checkpoint(path))
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
    """Return how directions were found, and the share of the variance that each explains."""
    from polyinr_core.latents.directions import read_directions

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


def _image_facts(path: Path) -> Facts:
    """Return an image's metadata, with the command that renders it again."""
    from polyinr_core.rendering.metadata import command_of, read_metadata

    metadata = read_metadata(path)
    if not metadata:
        return {
            "kind": "image",
            "metadata": "none; JPEG and WebP files have none, nor have other programs' images",
        }
    again = f"{path.stem}-again"
    single_of_many = "folder" in metadata or (metadata.get("count", 1) != 1 and "index" in metadata)
    try:
        command = command_of(metadata, output=f"{again}/" if single_of_many else f"{again}{path.suffix}")
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise FileError(path, "its metadata is damaged, so it does not say how to render it again") from error
    shown = {key: value for key, value in metadata.items() if key not in ("command", "words")}
    return {"kind": "image", **shown, "command": command}


def _data_facts(path: Path, output: Path | None, *, overwrite: bool, quiet: bool) -> Facts:
    """Return a dataset's facts; write a grid of its images to `output`."""
    from polyinr_core.data.dataset import open_dataset

    with streams.progress("reading", quiet=quiet) as progress:
        data = open_dataset(path, progress=progress)
    streams.say_notes(path, data.notes, quiet=quiet)
    with data:
        facts: Facts = {
            "kind": "data set",
            "count": len(data),
            "shards": None if data.shard_of is None else int(data.shard_of[-1]) + 1,
            "resolution": data.resolution,
            "classes": data.classes,
            "class_names": list(data.class_names),
            "images_of_class": _class_counts(data),
            "provenance": data.provenance,
            "sha256": data.sha256,
        }
        if output is not None:
            _write_grid(data, output, overwrite=overwrite, quiet=quiet)
    return facts


def _folder_facts(path: Path, output: Path | None, *, quiet: bool) -> Facts:
    """Return the facts of a folder of images as `prepare` takes them. Raises PolyinrError."""
    from polyinr_core.data.import_sources import list_folder, without_broken_strays

    listing = list_folder(path)
    if not listing.names:
        raise FileError(path, "is a folder without images; name a file, or a folder of images or .tar shards")
    if output is not None:
        raise RequestError(f"-o writes a grid of a dataset's images (.zip, .tar shards); {path} is a folder")
    kept = without_broken_strays(path, listing)
    labels, note = listing.labels.resolve_for("auto", path, lambda index: repr(listing.names[index]), kept)
    notes = listing.ignored
    broken = sorted(set(range(len(listing.names))).difference(kept.tolist()))
    notes.left_out += [(listing.names[index], "cannot be decoded") for index in broken]
    streams.say_notes(path, [*notes.lines(), *([] if note is None else [note])], quiet=quiet)
    return {
        "kind": "folder of images",
        "count": len(kept),
        "classes": labels.classes,
        "class_names": list(labels.class_names),
        "images_of_class": _class_counts(labels),
        "provenance": labels.provenance,
    }


def _class_counts(data: "ImageDataset | LabelInfo") -> dict[str, int]:
    """Count the images of each class, by its name where it has one."""
    import numpy as np

    if data.labels is None:
        return {}
    counts = np.bincount(data.labels, minlength=data.classes).tolist()
    names = data.class_names
    return {names[i] if i < len(names) else str(i): count for i, count in enumerate(counts)}


def _write_grid(data: "ImageDataset", output: Path, *, overwrite: bool, quiet: bool) -> None:
    """Write a grid of images, evenly spread over the dataset."""
    import numpy as np

    from polyinr_core.images.grid import make_grid
    from polyinr_core.images.io import encode_image, format_of, write_image
    from polyinr_core.runtime.atomic_io import refuse_overwrite

    to_stdout = str(output) == "-"
    if to_stdout:
        streams.binary_stdout()
    else:
        format_of(output)
        refuse_overwrite(output, overwrite=overwrite)
    count = min(GRID_IMAGES, len(data))
    chosen = np.linspace(0, len(data) - 1, count).round().astype(int).tolist()
    pixels = make_grid(np.stack([data.read(index) for index in chosen]))
    if to_stdout:
        stdout = streams.binary_stdout()
        stdout.write(encode_image(pixels))
        stdout.flush()
        return
    write_image(output, pixels, overwrite=overwrite)
    streams.say(f"{count} of {len(data)} images in {output}", quiet=quiet)


def _print(facts: Facts) -> None:
    """Print facts, one per line, with the names in a column; empty ones are left out."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    width = max(map(len, shown))
    for name, value in shown.items():
        streams.line(f"{name.replace('_', ' '):{width}}  {_text_of(value)}")


def _text_of(value: object) -> str:
    """Return a fact as one line of text, shortened where it is long."""
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
    more = f", and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return ", ".join(items[:MAX_LISTED]) + more
