"""`polyinr report`: a run as one page: curves, samples, figures, what its model copies, how real that looks."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console as streams
from polyinr_cli.model_lookup import load_model
from polyinr_cli.options import Device, OutputText, Overwrite, Quiet, Verbose
from polyinr_cli.runtime import choose_device
from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.atomic_io import check_place, refuse_overwrite, written_beside
from polyinr_core.runtime.strict_json import to_unicode

if TYPE_CHECKING:
    from polyinr_core.report.page import Comparison
    from polyinr_core.report.run_reader import StoredRun

COUNT = 256
MAX_DRAWN = 100_000_000  # images that are compared


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", show_default=False, help="A run folder, as train makes.")],
    output: OutputText,
    real: Annotated[
        Path | None,
        typer.Option(
            "--real",
            metavar="DATA",
            show_default=False,
            help="The real images: drawn ones are shown beside the most alike, and by how real they look.",
        ),
    ] = None,
    result: Annotated[
        list[Path] | None,
        typer.Option(
            "--result",
            metavar="FILE",
            show_default=False,
            help="A result of evaluate -o, may be repeated; those in the run folder are found.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            "-m",
            "--model",
            metavar="PATH",
            show_default=False,
            help="What draws; without it the run's best model.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", metavar="N", show_default=False, help=f"Draw seeds 0 to N-1; {COUNT} images without it."
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", metavar="DIR", show_default=False, help="Keep what is seen of the real images here."),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Gather a run into one page that needs no network; the run may be going on.

    -o report.html is the page, -o curves.png the curves alone. A folder gets both, and with --real also
    realism.png, the most and the least real of what is drawn.

    Example: polyinr report runs/cats -o cats.html --real cats.zip
    """
    target = _target(output, compared=real is not None, overwrite=overwrite)
    given = {"--real": real, "--result": result, "-m": model, "--count": count, "--cache": cache}
    _refuse(given if target.page is None else {}, f"-o {output}, the curves alone")
    if real is None:
        _refuse({name: given[name] for name in ("-m", "--count", "--cache")}, "no --real DATA")
    if count is not None and count < 1:
        raise RequestError(f"--count {count} is below 1")
    if count is not None and count > MAX_DRAWN:
        raise RequestError(f"--count {count} is above {MAX_DRAWN}")

    from polyinr_core.evaluation.results import read_result
    from polyinr_core.report import plots as charts
    from polyinr_core.report.page import Maker, page
    from polyinr_core.report.plots import panels_of
    from polyinr_core.report.run_reader import read_run

    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)  # it tells of its caches
    stored = read_run(run)
    panels = panels_of(stored.log, stored.metrics)
    if not panels:
        raise FileError(stored.folder.log, "holds no number to draw as yet; wait until the run has logged some")
    results = [read_result(file) for file in result or ()]
    compared, sheet = None, None
    if real is not None:
        compared, sheet = _compare(
            stored, real, model=model, count=count or COUNT, cache=cache, device=device, quiet=quiet
        )
    made: dict[Path, bytes] = {}
    if target.curves is not None:
        made[target.curves] = charts.png(panels, stored.log.spans, title=f"Run {stored.name}")
    if target.realism is not None and sheet is not None:
        made[target.realism] = sheet
    if target.page is not None:
        results += stored.results(but=result or ())
        maker = Maker(metadata.version("polyinr"), datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"))
        text = page(stored, panels, results=results, comparison=compared, maker=maker)
        made[target.page] = to_unicode(text).encode()
    for path, data in made.items():
        _write(path, data, overwrite=overwrite)


@dataclass(frozen=True)
class Target:
    """Where the parts of a report go, None for one that is not made; - is stdout."""

    page: Path | None = None
    curves: Path | None = None
    realism: Path | None = None


def _target(output: str, *, compared: bool, overwrite: bool) -> Target:
    """Read -o: a page, the curves, or a folder for all. Raises RequestError, FileError."""
    path = Path(output)
    if output == "-":
        streams.binary_stdout("page")
        return Target(page=path)
    if not output or "\0" in output:
        raise RequestError("-o needs a path")
    if output.endswith("/") or path.is_dir() or not path.suffix:
        if path.exists() and not path.is_dir():
            raise FileError(path, "is a file; a folder for the report needs another name, the page .html")
        target = Target(path / "report.html", path / "curves.png", path / "realism.png" if compared else None)
    elif path.suffix.lower() in (".html", ".htm"):
        target = Target(page=path)
    elif path.suffix.lower() == ".png":
        target = Target(curves=path)
    else:
        raise RequestError(f"{path}: suffix {path.suffix!r} is no report; use .html, .png for the curves, a folder")
    for place in (target.page, target.curves, target.realism):
        if place is not None:
            refuse_overwrite(place, overwrite=overwrite)
            check_place(place)
    return target


def _refuse(options: Mapping[str, object], beside: str) -> None:
    """Raise RequestError for an option that is given and has no use."""
    for name, value in options.items():
        if value:
            raise RequestError(f"{name} has no use with {beside}; leave it out")


def _compare(
    stored: "StoredRun",
    real: Path,
    *,
    model: Path | None,
    count: int,
    cache: Path | None,
    device: str,
    quiet: bool,
) -> tuple["Comparison", bytes]:
    """Return what a model draws beside the reals, and the sheet of its images by realism as PNG."""
    from polyinr_core.evaluation.generated_images import DrawnImages
    from polyinr_core.evaluation.image_sources import open_images
    from polyinr_core.evaluation.set_metrics import Settings
    from polyinr_core.images.io import encode_image
    from polyinr_core.metrics.extractors import load_network
    from polyinr_core.report.nearest_neighbors import likeness, realism_sheet
    from polyinr_core.report.page import Kept, captioned, comparison

    if model is None:
        model = stored.model
        if model is None:
            raise FileError(stored.folder.checkpoints, "holds no model as yet; leave out --real, or name one with -m")
        streams.say(f"polyinr: model {model} (the run's best or newest)", quiet=quiet, always=True)
    place = choose_device(device)
    checkpoint, file = load_model(model, quiet=quiet)
    if not checkpoint.resolution:
        raise FileError(file, "does not say its resolution, so that nothing can be drawn at it; name another with -m")
    checkpoint.generator.to(device=place)
    fakes = Kept(DrawnImages(checkpoint, name=str(file), count=count))
    reals = open_images(real, side=fakes.side)
    with streams.progress_bars(quiet=quiet) as bar:
        found = likeness(
            reals,
            fakes,
            load_network("lite2"),
            device=place,
            settings=Settings(cache=cache),
            progress=lambda what: bar(f"looking at {what}"),
        )
    same = reals.data.sha256 == stored.data.get("sha256")
    sheet = encode_image(realism_sheet(captioned(found, fakes)))
    words = f"{file.name} ({checkpoint.kimg:.4g} kimg)"
    return comparison(found, reals, fakes, model=words, same_data=same), sheet


def _write(path: Path, data: bytes, *, overwrite: bool) -> None:
    """Write a file, whole or not at all, or to stdout. Raises FileError."""
    if str(path) == "-":
        stdout = streams.binary_stdout("page")
        stdout.write(data)
        stdout.flush()
        return
    with written_beside(path, overwrite=overwrite) as draft:
        draft.write_bytes(data)
