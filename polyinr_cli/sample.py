"""`polyinr sample`: pictures by seed or from latents, at any size and in any window."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_core.errors import FileError, RequestError

from .drawing import Drawing, Painter, default_side, load_painter
from .named import Pictures, by_seed, check_names, pictures_named
from .notes import note_of, options_of
from .options import (
    Bits,
    Center,
    Device,
    Force,
    Grid,
    Json,
    Label,
    LatentsFile,
    Model,
    OutputText,
    Overwrite,
    Precision,
    PrecisionOption,
    Psi,
    Quiet,
    Res,
    Rotate,
    Seeds,
    Shear,
    Size,
    Supersample,
    Transform,
    Verbose,
    Warp,
    Zoom,
)
from .outputs import SQUARE, Arrangement, check_target, draw_to
from .targets import Kind, target_for
from .window import WHOLE, Window, parse_window_options

if TYPE_CHECKING:
    from polyinr_core.latents.file import Latents
    from polyinr_core.snapshots.snapshot import Snapshot


def sample(
    output: OutputText,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = WHOLE,
    center: Center = None,
    zoom: Zoom = None,
    rotate: Rotate = 0.0,
    shear: Shear = None,
    transform: Transform = None,
    warp: Warp = None,
    supersample: Supersample = 1,
    bits: Bits = 8,
    class_sheet: Annotated[
        bool, typer.Option("--class-sheet", help="Every seed in every class, a row for each class.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="PICTURE",
            show_default=False,
            help="As that picture was drawn, save what is given.",
        ),
    ] = None,
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw pictures by seed, or from a latents file, at any size and in any window.

    A folder gets one PNG a picture; .png, .jpg, .webp, .tif a picture, or a sheet of several;
    .npy the unclamped colours; .safetensors the latents instead of pictures; - a PNG on stdout.
    A single .tif, or .dzi (DeepZoom), is drawn tile by tile, with smaller ones of itself, at any size.

    Example: polyinr sample --seeds 0-7 --res 256 -o out/
    """
    window = parse_window_options(
        res=res,
        size=size,
        grid=grid,
        center=center,
        zoom=zoom,
        rotate=rotate,
        shear=shear,
        transform=transform,
        warp=warp,
        supersample=supersample,
    )
    target = target_for(output, overwrite=overwrite, as_json=as_json, quiet=quiet)
    if target.kind is Kind.latents and not (window.is_default and like is None):
        raise RequestError("latents have no size and no window: leave what says them out")
    if bits not in (8, 16):
        raise RequestError(f"--bits {bits} is neither 8 nor 16")
    drawn_with, kept = ("", {}) if like is None else _noted(like)
    if seeds is None and latents is None and like is not None:
        seeds = kept.get("seeds")
        latents = _beside(like, kept["latents"]) if "latents" in kept else None
        label = kept.get("label") if label is None else label
        psi = float(kept["psi"]) if psi is None and "psi" in kept else psi
    check_names(seeds, latents)
    if class_sheet and (latents is not None or label is not None):
        raise RequestError("--class-sheet takes --seeds, and every class: leave --latents and --label out")

    eight_bits = bits == 8 and target.kind not in (Kind.array, Kind.latents)
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    if like is not None:
        if drawn_with != painter.snapshot.sha256 and not force:
            raise FileError(like, "was drawn with another model; name that one with -m, or give --force")
        window = _window_like(window, kept)
    sized = window.sides is not None or window.places is not None or target.kind is Kind.latents
    side = painter.snapshot.resolution or 1 if sized else default_side(painter)
    drawing = Drawing(painter, window.view(side), bits=bits)
    arrangement = SQUARE
    if class_sheet:
        assert seeds is not None
        pictures, arrangement = _every_class(seeds, painter, psi=psi)
    else:
        pictures = pictures_named(seeds, latents, painter, label=label, psi=psi, force=force)
    note = window.note(drawing.view) | ({"bits": bits} if bits != 8 else {})
    pictures = pictures.with_note(note).share(target)
    check_target(target, drawing, count=len(pictures), arrangement=arrangement)
    draw_to(target, drawing, pictures, arrangement=arrangement)


def _every_class(seeds: str, painter: Painter, *, psi: float | None) -> tuple[Pictures, Arrangement]:
    """Return the pictures of all seeds in all classes, class by class. Raises RequestError."""
    snapshot: Snapshot = painter.snapshot
    classes = snapshot.generator.config.classes
    if not classes:
        raise RequestError("the model has no classes: leave --class-sheet out")
    of_class = [by_seed(seeds, painter, label=index, psi=psi) for index in range(classes)]
    each = len(of_class[0])
    titles = (*snapshot.class_names, *map(str, range(len(snapshot.class_names), classes)))
    names = tuple(f"class{index:03d}-{name}" for index, one in enumerate(of_class) for name in one.names)

    def latents_of(index: int) -> "Latents":
        return of_class[index // each].latents(index % each)

    pictures = Pictures(names, latents_of, lambda latents, i: of_class[i // each].note(latents, i % each))
    return pictures, Arrangement(columns=each, row_names=titles)


def _noted(picture: Path) -> tuple[str, dict[str, str]]:
    """Return the model's hash and the options that a picture's note spells out. Raises FileError."""
    note = note_of(picture)
    if not note:
        raise FileError(picture, "carries no note of how it was drawn; JPEG and WebP keep none")
    try:
        return str(note["model"]), options_of(note)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(picture, "its note is damaged, so it does not say how to draw it again") from error


def _beside(picture: Path, latents: str) -> Path:
    """Return the latents file that a note names: beside the picture, or as it is named. Raises FileError."""
    found = picture.parent / latents
    if found.is_file() or Path(latents).is_file():
        return found if found.is_file() else Path(latents)
    raise FileError(picture, f"was drawn from {latents}, which is not beside it; name it with --latents")


def _window_like(window: Window, kept: dict[str, str]) -> Window:
    """Complete what was asked for by what a note spells out. Raises RequestError."""
    noted = {name: kept[name] for name in ("size", "grid", "transform", "warp") if name in kept}
    as_drawn = parse_window_options(**noted, supersample=int(kept.get("supersample", 1)))  # type: ignore[arg-type]
    plain = Window()
    if replace(window, sides=None, fineness=1, places=None) == plain:  # no other window is asked for
        window = replace(as_drawn, sides=window.sides, fineness=max(window.fineness, as_drawn.fineness))
    return replace(window, sides=window.sides or as_drawn.sides)
