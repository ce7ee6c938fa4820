"""`polyinr sample`: images by seed or from latents, at any size and in any window."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli.drawing import Painter, drawing_at, load_painter
from polyinr_cli.like import likeness_of
from polyinr_cli.named import Images, by_seed, check_names, images_named
from polyinr_cli.options import (
    Center,
    Device,
    Force,
    Grid,
    Json,
    Label,
    LatentsFile,
    Model,
    OptionalBits,
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
    Tolerance,
    Transform,
    Verbose,
    Warp,
    Zoom,
)
from polyinr_cli.outputs import SQUARE, Arrangement, check_target, draw_to
from polyinr_cli.targets import Kind, target_for
from polyinr_cli.window import WHOLE, parse_window_options
from polyinr_core.errors import RequestError

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.latents.latents import Latents


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
    tolerance: Tolerance = None,
    bits: OptionalBits = None,
    class_sheet: Annotated[
        bool, typer.Option("--class-sheet", help="Every seed in every class, a row for each class.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="IMAGE",
            show_default=False,
            help="As that image was drawn, save what is given; --res is its longer side.",
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
    """Draw images by seed, or from a latents file, at any size and in any window.

    A folder gets one PNG an image; .png, .jpg, .webp, .tif an image, or a sheet of several;
    .npy the unclamped colors; .safetensors the latents instead of images; - a PNG on stdout.
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
    if target.kind is Kind.latents:
        window.check_unused()
        if like is not None:
            raise RequestError("latents have no size and no window: leave --like out")
        if tolerance is not None:
            raise RequestError("latents are not drawn: leave --tolerance out")
    is_named = seeds is not None or latents is not None
    kept = None if like is None else likeness_of(like, for_others=is_named)
    is_same_image = kept is not None and not is_named
    if kept is not None:
        if is_same_image:
            seeds, latents = kept.options.get("seeds"), kept.latents
            label = kept.options.get("label") if label is None else label
            psi = kept.psi if psi is None else psi
        bits = bits or kept.bits
        tolerance = kept.tolerance if tolerance is None else tolerance
        precision = kept.precision if precision is Precision.auto else precision
    bits = bits or 8
    check_names(seeds, latents)
    if class_sheet and (latents is not None or label is not None):
        raise RequestError("--class-sheet takes --seeds, and every class: leave --latents and --label out")

    eight_bits = bits == 8 and target.kind not in (Kind.array, Kind.latents)
    painter = load_painter(model, precision=precision, device=device, eight_bits=eight_bits, quiet=quiet)
    if kept is not None:
        if not force:
            kept.check_model(painter)
        window = kept.window(window, res=res)
    is_sized = target.kind is not Kind.latents
    drawing = drawing_at(painter, window, bits=bits, sized=is_sized, tolerance=tolerance or 0.0)
    arrangement = SQUARE
    if class_sheet:
        assert seeds is not None
        images, arrangement = _every_class(seeds, painter, psi=psi)
        if target.kind is not Kind.folder:
            words = ["--class-sheet", "--seeds", seeds, *(["--psi", repr(psi)] if psi is not None else [])]
            images = images.with_note({"words": words})
    else:
        images = images_named(seeds, latents, painter, label=label, psi=psi, force=force)
        if kept is not None and is_same_image:
            images = kept.only(images)
    images = images.with_note(drawing.note(window)).share(target)
    check_target(target, drawing, count=len(images), arrangement=arrangement)
    draw_to(target, drawing, images, arrangement=arrangement)


def _every_class(seeds: str, painter: Painter, *, psi: float | None) -> tuple[Images, Arrangement]:
    """Return the images of all seeds in all classes, class by class. Raises RequestError."""
    checkpoint: Checkpoint = painter.checkpoint
    classes = checkpoint.generator.config.classes
    if not classes:
        raise RequestError("the model has no classes: leave --class-sheet out")
    of_class = [by_seed(seeds, painter, label=index, psi=psi) for index in range(classes)]
    each = len(of_class[0])
    titles = (*checkpoint.class_names, *map(str, range(len(checkpoint.class_names), classes)))
    names = tuple(f"class{index:03d}-{name}" for index, one in enumerate(of_class) for name in one.names)

    def latents_of(index: int) -> "Latents":
        return of_class[index // each].latents(index % each)

    images = Images(names, latents_of, lambda latents, i: of_class[i // each].note(latents, i % each))
    return images, Arrangement(columns=each, row_names=titles)
