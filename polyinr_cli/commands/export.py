"""`polyinr export`: write a model as ONNX, or as a program of torch.export."""

from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Json, Overwrite, Quiet, Verbose
from polyinr_cli.rendering import load_model
from polyinr_core.errors import RequestError


def export(
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint, run folder, MODEL+DELTA, hf:OWNER/NAME or bundled. Default: as for -m."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A .onnx file, or a .pt2 file for torch.export.load.")
    ] = Path("model.onnx"),
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a model for other programs, as ONNX or by torch.export: z, coordinates, psi and label to colors.

    Batch and number of pixels are free, so the exported network renders at any size too; see docs/export.md. ONNX needs
    the extra onnx.

    Example: polyinr export runs/cats -o cats.onnx
    """
    from polyinr_core.checkpoints.export import check_extra, export_format, export_model
    from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite

    if str(output) == "-":
        raise RequestError("-o - is not supported; name a .onnx or .pt2 file")
    check_extra(export_format(output))
    refuse_overwrite(output, overwrite=overwrite)
    check_place(output)
    checkpoint, _ = load_model(model, quiet=quiet)
    facts = export_model(output, checkpoint, overwrite=overwrite)
    if as_json:
        console.json_line({"file": str(output), **facts})
    console.say(f"{output}: {', '.join(facts['inputs'])} to colors", quiet=quiet)
