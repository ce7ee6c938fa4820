"""`polyinr gallery`: a page of a model's images, in a folder that needs nothing else."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyinr_cli import console as streams
from polyinr_cli.notes import version
from polyinr_cli.options import Device, Json, Label, Model, Overwrite, Precision, PrecisionOption, Quiet, Res, Verbose
from polyinr_cli.runtime import several
from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.atomic_io import check_place, explain, written_beside
from polyinr_core.runtime.memory import check_disk
from polyinr_core.runtime.strict_json import JsonError, are_texts, format_json, parse_json, to_unicode

if TYPE_CHECKING:
    from polyinr_cli.hall import Hall

PAGE, FACTS = "index.html", "gallery.json"
BYTES_A_POINT = 3  # of PNG at worst


def gallery(
    output: Annotated[str, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to make.")],
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="0-7,12", help="Which images; the first of them in every part.")
    ] = "0-15",
    label: Label = None,
    psi: Annotated[
        str, typer.Option("--psi", metavar="NUMBERS", help="Truncations to choose from: 1 is none, 0 the mean.")
    ] = "0,0.2,0.4,0.6,0.8,1,1.2",
    res: Res = None,
    frames: Annotated[int, typer.Option("--frames", metavar="N", help="Frames of the walk.")] = 48,
    model: Model = None,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a page to look at: seeds, classes, psi, mixing, a walk, heat maps, beyond the border, sizes.

    -o is a folder, which gets index.html and the images it shows: open it in a browser, or put it on a web
    server. It needs no network. Each part shows the command that draws it, and so does each image when it is
    opened. Without --res images have the model's resolution, at least 128 and at most 256 pixels.

    Example: polyinr gallery -o site/
    """
    path = _folder(output, overwrite=overwrite)
    from polyinr_cli.drawing import load_painter
    from polyinr_cli.exhibits import exhibits_of
    from polyinr_cli.hall import Hall
    from polyinr_cli.named import class_index
    from polyinr_core.checkpoints.locate import is_bundled
    from polyinr_core.gallery.page import Maker, page
    from polyinr_core.gallery.plan import plan_for

    side = _side(res)
    painter = load_painter(model, precision=precision, device=device, eight_bits=True, quiet=quiet)
    checkpoint = painter.checkpoint
    plan = plan_for(
        checkpoint.generator.config,
        checkpoint.resolution,
        seeds=seeds,
        psis=psi,
        side=side,
        frames=frames,
        label=class_index(label, checkpoint),
    )
    bundled = is_bundled(painter.checkpoint.sha256)
    hall = Hall(painter, plan, model=None if bundled else painter.model_file.name)
    exhibits = exhibits_of(hall)
    check_disk(path, BYTES_A_POINT * hall.points)
    _say_plan(hall, quiet=quiet)
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    maker = Maker(version(), when, painter.model_file.name, bundled)
    text = page(checkpoint, plan, exhibits, network=hall.network(), maker=maker)
    with written_beside(path, overwrite=overwrite) as draft:
        draft.mkdir()
        with streams.row_progress("drawing", total=hall.points, quiet=quiet) as done:
            hall.draw(draft, done)
        (draft / PAGE).write_text(to_unicode(text), encoding="utf-8")
        facts = _facts(hall, draft)
        (draft / FACTS).write_text(format_json(facts, indent=1, sort_keys=False) + "\n", encoding="utf-8")
    if as_json:
        streams.json_line({"file": str(path / PAGE), **facts})
    streams.say(f"{len(facts['files']) - 2} images; open {path / PAGE} in a browser", quiet=quiet)


def _folder(output: str, *, overwrite: bool) -> Path:
    """Return the folder that -o names. Raises RequestError, FileError."""
    if several():
        raise RequestError("a gallery is drawn by one process; start it without torchrun")
    if not output or "\0" in output or output == "-":
        raise RequestError("-o needs the path of a folder; a gallery is a page and its images")
    path = Path(output)
    if path.suffix.lower() in (".html", ".htm"):
        raise RequestError(f"{path}: a gallery is a folder, the page in it {PAGE}; name the folder")
    path = path if path.name not in ("", "..") else path.resolve()
    if path.exists():
        if not path.is_dir():
            raise FileError(path, "is a file; a gallery needs a folder of its own")
        if not overwrite:
            raise FileError(path, "exists already; choose another name or give --overwrite")
        if path.resolve() in (Path.cwd(), *Path.cwd().parents):
            raise FileError(path, "is the folder that you are in; it cannot be replaced, name one inside it")
        _refuse_others(path)
    check_place(path)
    return path


def _refuse_others(path: Path) -> None:
    """Raise FileError if a folder holds anything but a gallery: replacing it would lose that."""
    try:
        there = {file.relative_to(path).as_posix() for file in path.rglob("*") if not file.is_dir()}
        facts = parse_json((path / FACTS).read_bytes()) if FACTS in there else {}
        files = facts.get("files") if isinstance(facts, dict) else None
        known = set(files) if isinstance(files, list) and are_texts(files) else set()
    except OSError as error:
        raise explain(path, error) from error
    except JsonError:
        known = set()
    if others := sorted(there - known):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise FileError(path, f"holds files that are no gallery's ({others[0]}{more}); name another folder")


def _side(res: int | None) -> int | None:
    """Return what --res says. Raises RequestError."""
    from polyinr_cli.window import parse_sides

    sides = parse_sides(res, None)
    return None if sides is None else sides[0]


def _say_plan(hall: "Hall", *, quiet: bool) -> None:
    """Say how much is drawn."""
    from polyinr_core.models.generator import flops_per_pixel

    work = hall.points * flops_per_pixel(hall.painter.checkpoint.generator.config) / 1e12
    words = f"{hall.points / 1e6:.1f} million points to draw, {work:.3g} teraflop, on {hall.painter.device}"
    streams.say(f"polyinr: {words}", quiet=quiet)


def _facts(hall: "Hall", folder: Path) -> dict[str, Any]:
    """Return what a gallery is, and all its files."""
    images = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))
    plan = hall.plan
    return {
        "kind": "gallery",
        **hall.painter.note,
        "seeds": list(plan.seeds),
        "psi": list(plan.psis),
        "label": plan.label,
        "classes": list(plan.classes),
        "size": plan.side,
        "frames": plan.frames,
        "points": hall.points,
        "files": [PAGE, FACTS, *images],
    }
