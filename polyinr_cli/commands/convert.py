"""`polyinr convert`: convert a released checkpoint, round a model to bfloat16, or attach a model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.options import Json, Overwrite, Quiet, output_option

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint


def convert(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A released checkpoint (.pkl), its tensors (.safetensors), or a polyinr checkpoint."
        ),
    ],
    output: Annotated[Path, output_option("FILE.safetensors", "The checkpoint to write. - is stdout.")],
    half: Annotated[
        bool, typer.Option("--half", help="Round the weights to bfloat16, for half the file size.")
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="Model card to store in the checkpoint: a JSON object with data, license, metrics.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a released Poly-INR checkpoint, exactly; or round a checkpoint to bfloat16.

    The pickle is read as data: none of its code is executed, and a file that is not a released checkpoint is
    refused.

    Example: polyinr convert best_model.pkl -o model.safetensors
    """
    from dataclasses import replace

    from polyinr_core.checkpoints.checkpoint import describe_checkpoint, save_checkpoint
    from polyinr_core.errors import RequestError
    from polyinr_core.runtime.atomic_io import refuse_overwrite, sha256_of

    streams.refuse_two_payloads(output, as_json=as_json)
    if str(output) == "-":
        return _convert_to_stdout(file, half=half, card=card)
    if output.suffix != ".safetensors":
        raise RequestError(f"-o {output}: a checkpoint is a .safetensors file; name it {output.stem}.safetensors")
    refuse_overwrite(output, overwrite=overwrite)
    checkpoint = _read(file, half=half, card=card)
    save_checkpoint(output, checkpoint, overwrite=overwrite)
    note = describe_checkpoint(replace(checkpoint, sha256=sha256_of(output)))
    if as_json:
        streams.json_line({"file": str(file), "output": str(output), **note})
    classes = f"{note['classes']} classes" if note["classes"] else "unconditional"
    streams.say(
        f"{output}: {note['levels']} levels of {note['channels']} channels, {classes}, "
        f"trained at {note['resolution']} px for {note['kimg']:g} kimg",
        quiet=quiet,
    )


def _read(file: Path, *, half: bool, card: Path | None) -> "Checkpoint":
    import torch

    from polyinr_core.checkpoints.checkpoint import add_card, read_card, round_weights
    from polyinr_core.checkpoints.hub import local_file
    from polyinr_core.checkpoints.official import load_any_checkpoint, load_official_checkpoint

    file = local_file(file)
    facts = read_card(card) if card is not None else None
    checkpoint = load_any_checkpoint(file) if half or facts is not None else load_official_checkpoint(file)
    if half:
        checkpoint = round_weights(checkpoint, torch.bfloat16)
    return checkpoint if facts is None else add_card(checkpoint, facts)


def _convert_to_stdout(file: Path, *, half: bool, card: Path | None) -> None:
    import shutil
    from tempfile import TemporaryDirectory

    from polyinr_core.checkpoints.checkpoint import save_checkpoint

    stdout = streams.binary_stdout("model")
    checkpoint = _read(file, half=half, card=card)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "model.safetensors"
        save_checkpoint(draft, checkpoint)
        with draft.open("rb") as written:
            shutil.copyfileobj(written, stdout)
    stdout.flush()
