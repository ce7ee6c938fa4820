"""polyinr report: a training run as one HTML page with curves, samples, metrics, nearest reals and realism."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Device, Overwrite, Quiet, Verbose, output_option, refuse_options
from polyinr_cli.rendering import find_model
from polyinr_cli.runtime import choose_device
from polyinr_core.errors import FileError, RequestError
from polyinr_core.report import CURVES, PAGE, REALISM
from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite, written_beside

DEFAULT_COUNT = 256
MAX_COUNT = 100_000_000


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of polyinr train.")],
    output: Annotated[
        str,
        output_option("PATH", "The page (.html), the curves alone (.png), or a folder for both. - prints the page."),
    ],
    real: Annotated[
        Path | None,
        typer.Option(
            metavar="DATA",
            help="The training data: generated images are shown beside their nearest reals, and ranked by realism.",
        ),
    ] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A result of polyinr evaluate -o. Can be repeated. Results in the run folder are always included.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            metavar="PATH",
            help="The model to compare with --real. Default: the run's best checkpoint, else its newest.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Compare the images of seeds 0 to N-1 with --real. Default: {DEFAULT_COUNT}."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Cache the features of the real images in DIR.")
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a report about a training run, finished or not, as one self-contained page.

    With --real a folder also gets realism.png, the generated images of the highest and lowest realism.

    Example: polyinr report runs/cats -o cats.html --real cats.zip
    """
    files = _files_of(output, compared=real is not None, overwrite=overwrite)
    compared = {"-m": model, "--count": count, "--cache": cache}
    if PAGE not in files:
        refuse_options(
            {"--real": real, "--result": result, **compared}, beside=f"-o {output}, which has the curves only"
        )
    if real is None:
        refuse_options(compared, beside="a report without --real DATA")
    if count is not None and not 1 <= count <= MAX_COUNT:
        raise RequestError(f"--count {count} is {'below 1' if count < 1 else f'above {MAX_COUNT}'}")
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # its messages about caches

    from polyinr_core.report.page import build_report

    with console.progress_bars(quiet=quiet) as bar:
        built = build_report(
            run,
            files,
            results=result or (),
            real=real,
            model=None if model is None else find_model(model, quiet=quiet),
            count=count or DEFAULT_COUNT,
            cache=cache,
            device="cpu" if real is None else choose_device(device),
            progress=bar,
            inform=lambda text: console.say(f"polyinr: {text}", quiet=quiet, always=True),
        )
    for name, data in built.items():
        if str(files[name]) == "-":
            console.write_stdout(data, "page")
            continue
        with written_beside(files[name], overwrite=overwrite) as draft:
            draft.write_bytes(data)


def _files_of(output: str, *, compared: bool, overwrite: bool) -> dict[str, Path]:
    """Return where the parts of a report go by -o: a page, the curves, or a folder. Raises RequestError, FileError."""
    path = Path(output)
    if output == "-":
        console.binary_stdout("page")
        return {PAGE: path}
    if not output or "\0" in output:
        raise RequestError("-o needs a path")
    if output.endswith("/") or path.is_dir() or not path.suffix:
        if path.exists() and not path.is_dir():
            raise FileError(path, "is a file; name a folder, or a page .html")
        files = {name: path / name for name in (PAGE, CURVES, *([REALISM] if compared else []))}
    elif path.suffix.lower() in (".html", ".htm"):
        files = {PAGE: path}
    elif path.suffix.lower() == ".png":
        files = {CURVES: path}
    else:
        raise RequestError(f"{path}: suffix {path.suffix!r} is not supported; use .html, .png for the curves, a folder")
    for file in files.values():
        refuse_overwrite(file, overwrite=overwrite)
        check_place(file)
    return files
