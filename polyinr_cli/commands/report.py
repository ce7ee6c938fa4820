"""polyinr report: a training run as one HTML page with curves, samples, metrics, nearest reals and realism."""

import logging
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Device, OutputText, Overwrite, Quiet, Verbose, refuse_options
from polyinr_cli.rendering import load_model
from polyinr_cli.runtime import choose_device
from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite, written_beside
from polyinr_core.runtime.strict_json import to_unicode

if TYPE_CHECKING:
    from polyinr_core.images.grid import Pixels
    from polyinr_core.report.page import RealsComparison
    from polyinr_core.report.run_reader import StoredRun

DEFAULT_COUNT = 256
MAX_COUNT = 100_000_000


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of polyinr train.")],
    output: OutputText,
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
            help="A result of polyinr evaluate -o; repeatable. Results in the run folder are always included.",
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

    -o report.html is the page, -o curves.png the curves alone. A folder gets both, and with --real also
    realism.png, the generated images of the highest and lowest realism.

    Example: polyinr report runs/cats -o cats.html --real cats.zip
    """
    target = _target(output, compared=real is not None, overwrite=overwrite)
    given = {"--real": real, "--result": result, "-m": model, "--count": count, "--cache": cache}
    if target.page is None:
        refuse_options(given, beside=f"-o {output}, which has the curves only")
    if real is None:
        refuse_options({"-m": model, "--count": count, "--cache": cache}, beside="a report without --real DATA")
    if count is not None and not 1 <= count <= MAX_COUNT:
        raise RequestError(f"--count {count} is {'below 1' if count < 1 else f'above {MAX_COUNT}'}")

    from polyinr_core.evaluation.results import read_result
    from polyinr_core.images.io import encode_image
    from polyinr_core.report.page import render_page
    from polyinr_core.report.plots import panels_of, panels_png
    from polyinr_core.report.run_reader import read_run

    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # its messages about caches
    stored = read_run(run)
    panels = panels_of(stored.log, stored.metrics)
    if not panels:
        raise FileError(stored.folder.log, "has no numbers to plot yet; wait until the run has logged some")
    results = [read_result(file) for file in result or ()]
    compared, realism = None, None
    if real is not None:
        compared, realism = _compare(
            stored, real, model=model, count=count or DEFAULT_COUNT, cache=cache, device=device, quiet=quiet
        )
    contents: dict[Path, bytes] = {}
    if target.curves is not None:
        contents[target.curves] = panels_png(panels, stored.log.spans, title=f"Run {stored.name}")
    if target.realism is not None and realism is not None:
        contents[target.realism] = encode_image(realism)
    if target.page is not None:
        results += stored.results(exclude=result or ())
        page = render_page(
            stored,
            panels,
            results=results,
            comparison=compared,
            version=metadata.version("polyinr"),
            date=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        )
        contents[target.page] = to_unicode(page).encode()
    for path, data in contents.items():
        _write(path, data, overwrite=overwrite)


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report, None for one that is not made; - is stdout."""

    page: Path | None = None
    curves: Path | None = None
    realism: Path | None = None


def _target(output: str, *, compared: bool, overwrite: bool) -> ReportFiles:
    """Return the files that -o asks for: a page, the curves, or a folder of all. Raises RequestError, FileError."""
    path = Path(output)
    if output == "-":
        console.binary_stdout("page")
        return ReportFiles(page=path)
    if not output or "\0" in output:
        raise RequestError("-o needs a path")
    if output.endswith("/") or path.is_dir() or not path.suffix:
        if path.exists() and not path.is_dir():
            raise FileError(path, "is a file; name a folder, or a page .html")
        target = ReportFiles(path / "report.html", path / "curves.png", path / "realism.png" if compared else None)
    elif path.suffix.lower() in (".html", ".htm"):
        target = ReportFiles(page=path)
    elif path.suffix.lower() == ".png":
        target = ReportFiles(curves=path)
    else:
        raise RequestError(f"{path}: suffix {path.suffix!r} is not supported; use .html, .png for the curves, a folder")
    for file in (target.page, target.curves, target.realism):
        if file is not None:
            refuse_overwrite(file, overwrite=overwrite)
            check_place(file)
    return target


def _compare(
    stored: "StoredRun", real: Path, *, model: Path | None, count: int, cache: Path | None, device: str, quiet: bool
) -> "tuple[RealsComparison, Pixels]":
    """Return the comparison of a model's images with the reals, and the realism grid."""
    from polyinr_core.report.page import compare_model

    if model is None:
        model = stored.model
        if model is None:
            raise FileError(stored.folder.checkpoints, "has no model yet; leave out --real, or name one with -m")
        console.say(f"polyinr: model {model} (the run's best or newest)", quiet=quiet, always=True)
    own = choose_device(device)
    checkpoint, file = load_model(model, quiet=quiet)
    checkpoint.generator.to(device=own)
    with console.progress_bars(quiet=quiet) as bar:
        return compare_model(
            stored, checkpoint, real, name=str(file), count=count, cache=cache, device=own, progress=bar
        )


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file atomically, or write to stdout. Raises FileError."""
    if str(path) == "-":
        stdout = console.binary_stdout("page")
        stdout.write(data)
        stdout.flush()
        return
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)
