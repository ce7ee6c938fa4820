"""`polyinr push`: upload a model to the Hugging Face hub, with a model card."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Json, Overwrite, Quiet, Verbose
from polyinr_cli.rendering import load_model
from polyinr_core.errors import RequestError


def push(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Checkpoint, run folder, MODEL+DELTA or bundled.")],
    name: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub; created if missing.")],
    results: Annotated[
        list[Path] | None,
        typer.Option("--result", metavar="FILE.json", help="Evaluation result of this model. Can be repeated."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="License on the hub, such as mit or cc-by-4.0."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Visibility of a new repository. Default: the owner's.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FOLDER", help="Write the files there instead of uploading them."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Upload a model to the Hugging Face hub, with a model card of its facts, samples and evaluation results.

    Log in first with `hf auth login`, or set HF_TOKEN. A model or card that the repository holds is replaced only
    with --overwrite. Then -m hf:OWNER/NAME names the model in every command.

    Example: polyinr push runs/cats alice/cats --result result.json --license cc-by-4.0
    """
    from polyinr_core.checkpoints.hub import parse_hub_name
    from polyinr_core.evaluation.results import read_results
    from polyinr_core.rendering.model import Model
    from polyinr_core.rendering.model_card import push_model, write_repository
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    hub_name = parse_hub_name(name)
    if output is not None:
        if private is not None:
            raise RequestError("--private and --public apply to an upload; leave them out with -o")
        refuse_overwrite(output, overwrite=overwrite)
        check_place(output)
    read = {result.name: {"metrics": result.metrics, "card": result.card} for result in read_results(results or [])}
    checkpoint, path = load_model(model, quiet=quiet)
    opened = Model(checkpoint, path=path)
    facts = {"model": opened.sha256, "repository": hub_name.repository}
    if output is not None:
        write_repository(opened, name, output, results=read, license=license, overwrite=overwrite)
        console.say(f"{output}: the files of {hub_name}", quiet=quiet)
        facts["file"] = str(output)
    else:
        pushed = push_model(
            opened,
            name,
            results=read,
            license=license,
            private=private,
            overwrite=overwrite,
            progress=console.is_terminal(sys.stderr) and not quiet,
        )
        console.say(f"polyinr: {pushed} (sample it with `polyinr sample -m {hub_name} ...`)", quiet=quiet)
        facts["name"] = str(pushed)
    if as_json:
        console.json_line(facts)
