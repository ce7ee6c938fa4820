"""`polyinr info`: describe a file, and print the command that renders an image again."""

import json
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, OptionalOutput, Overwrite, Quiet, Verbose
from polyinr_core.errors import FileError, RequestError

Facts = dict[str, Any]
MAX_LISTED = 12  # items of a list or of nested facts on a line
WIDTH, MIN_WIDTH = 110, 40  # columns of a line, and of its text
MAX_LINES = 4  # after the first one of a long text
MAX_INDENT = 4  # columns: facts that are nested deeper are only named


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint, delta, dataset, image, latents or directions file, or a run folder; bundled or "
            "hf:OWNER/NAME for a model.",
        ),
    ],
    output: OptionalOutput = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Describe a file or a run folder; -o writes a grid of a dataset's images.

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
    from polyinr_core.checkpoints.hub import local_file
    from polyinr_core.checkpoints.locate import BUNDLED, bundled_model

    is_bundled = str(path) == BUNDLED and not path.exists()
    path = bundled_model() if is_bundled else local_file(path)
    kind = _kind_of(path)
    if kind == "data":
        return _data_facts(path, output, overwrite=overwrite, quiet=quiet)
    if output is not None:
        raise RequestError(f"-o writes a grid of a dataset's images (.zip, .tar shards); {path} is not a dataset")
    if kind == "run":
        from polyinr_core.report.run_reader import describe_run

        return describe_run(path)
    if kind == "folder":
        from polyinr_core.data.import_sources import describe_folder

        facts, notes = describe_folder(path)
        streams.say_notes(path, notes, quiet=quiet)
        return facts
    if kind == "image":
        from polyinr_core.rendering.metadata import describe_image

        return describe_image(path)
    from polyinr_core.checkpoints.checkpoint import describe_checkpoint, load_checkpoint
    from polyinr_core.checkpoints.delta import describe_delta, is_delta, load_delta
    from polyinr_core.inversion.encoder import describe_encoder, is_encoder, load_encoder
    from polyinr_core.latents.directions import is_directions_file, read_directions
    from polyinr_core.latents.io import describe_latents, is_latents_file, read_latents

    if is_directions_file(path):
        return read_directions(path).describe()
    if is_encoder(path):
        return describe_encoder(load_encoder(path))
    if is_delta(path):
        return describe_delta(load_delta(path))
    return describe_latents(read_latents(path)) if is_latents_file(path) else describe_checkpoint(load_checkpoint(path))


def _kind_of(path: Path) -> str:
    from polyinr_core.data.tar_dataset import means_shards
    from polyinr_core.images.io import detect_format
    from polyinr_core.runtime.atomic_io import explain, refuse_special

    if means_shards(path):
        return "data"
    if path.is_dir():
        return "run" if (path / "config.json").is_file() and (path / "log.jsonl").is_file() else "folder"
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


def _data_facts(path: Path, output: Path | None, *, overwrite: bool, quiet: bool) -> Facts:
    """Return a dataset's facts; write a grid of its images to `output`."""
    from polyinr_core.data.dataset import dataset_grid, describe_dataset, open_dataset
    from polyinr_core.images.io import encode_image, format_of, write_image
    from polyinr_core.runtime.atomic_io import refuse_overwrite

    with streams.progress("reading", quiet=quiet) as progress:
        data = open_dataset(path, progress=progress)
    streams.say_notes(path, data.notes, quiet=quiet)
    with data:
        if output is not None and str(output) == "-":
            stdout = streams.binary_stdout()
            stdout.write(encode_image(dataset_grid(data)))
            stdout.flush()
        elif output is not None:
            format_of(output)
            refuse_overwrite(output, overwrite=overwrite)
            write_image(output, dataset_grid(data), overwrite=overwrite)
            streams.say(f"{min(64, len(data))} of {len(data)} images in {output}", quiet=quiet)
        return describe_dataset(data)


def _print(facts: Facts, *, indent: int = 0) -> None:
    """Print facts, one per line, with the names in a column; empty ones are left out, nested ones indented."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {}, ())}
    column = indent + max(map(len, shown), default=0) + 2
    for name, value in shown.items():
        title = f"{' ' * indent}{str(name).replace('_', ' ')}"
        text = _text_of(value)
        if isinstance(value, dict) and (len(text) > WIDTH - column or any(isinstance(v, dict) for v in value.values())):
            if indent < MAX_INDENT:
                streams.line(title)
                _print(value, indent=indent + 2)
                continue
            text = f"{', '.join(map(str, value))} (with --json)"
        if name == "command":  # to be copied
            first, *others = [text]
        else:
            first, *others = wrap(text, max(WIDTH - column, MIN_WIDTH), break_on_hyphens=False) or [""]
        streams.line(f"{title:{column}}{first}")
        for line in others[:MAX_LINES]:
            streams.line(f"{'':{column}}{line}")
        if len(others) > MAX_LINES:
            streams.line(f"{'':{column}}... (all of it with --json)")


def _text_of(value: object) -> str:
    """Return a fact as text on one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, dict):
        items = [f"{key} {item if isinstance(item, list) else _text_of(item)}" for key, item in value.items()]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    else:
        return json.dumps(value)
    more = f", and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    between = " " if all(item.endswith(".") for item in items) else ", "  # whole sentences
    return between.join(items[:MAX_LISTED]) + more
