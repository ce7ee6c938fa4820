"""`polyinr info`: describe a file, and print the command that renders an image again."""

from pathlib import Path
from typing import Annotated, Any

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, Overwrite, Quiet, Verbose, output_option
from polyinr_core.errors import FileError, RequestError

Facts = dict[str, Any]


def info(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint, delta, dataset, image, latents or directions file, or a run folder; bundled or "
            "hf:OWNER/NAME for a model.",
        ),
    ],
    output: Annotated[
        Path | None, output_option("IMAGE", "Write a grid of a dataset's images, such as a .png. - is stdout.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Describe a file or a run folder.

    For an image with polyinr's metadata, print the command that renders it again.

    Example: polyinr info cats.zip -o cats.png
    """
    streams.refuse_two_payloads(output, as_json=as_json)
    facts = _facts_of(file, output, overwrite=overwrite, quiet=quiet)
    if as_json:
        streams.json_line({"file": str(file), **facts})
    elif output is None or str(output) != "-":
        streams.print_columns(facts)


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
    from polyinr_core.latents.direction_files import is_directions_file, read_directions
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
            streams.write_stdout(encode_image(dataset_grid(data)))
        elif output is not None:
            format_of(output)
            refuse_overwrite(output, overwrite=overwrite)
            write_image(output, dataset_grid(data), overwrite=overwrite)
            streams.say(f"{min(64, len(data))} of {len(data)} images in {output}", quiet=quiet)
        return describe_dataset(data)
