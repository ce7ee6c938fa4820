"""`polyinr sample`: render images by seed or from latents, at any size and in any window."""

from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli.image_selection import check_selection, select_images, split_over_ranks
from polyinr_cli.like import read_settings
from polyinr_cli.model_lookup import open_model, renderer_for
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
from polyinr_cli.outputs import Reporter, parse_output, write
from polyinr_cli.parsing import TRAINED_WINDOW, parse_viewport_options
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import renderer_metadata
from polyinr_core.rendering.writers import GridSpec, OutputKind


def sample(
    output: OutputText,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = TRAINED_WINDOW,
    center: Center = None,
    zoom: Zoom = None,
    rotate: Rotate = 0.0,
    shear: Shear = None,
    transform: Transform = None,
    warp: Warp = None,
    supersample: Supersample = 1,
    tolerance: Tolerance = None,
    bits: OptionalBits = None,
    class_grid: Annotated[
        bool, typer.Option("--class-grid", help="Render every seed in every class, one row per class.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            "--like",
            metavar="IMAGE",
            show_default=False,
            help="Reuse the settings stored in IMAGE; options given here override them. --res sets the longer side.",
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
    """Render images by seed, or from a latents file, at any size and in any window.

    The suffix of -o gives the form: a folder gets one PNG per image; .png, .jpg, .webp or .tif one image, or a
    grid of several; .npy the unclamped colors; .safetensors the latents; - a PNG on stdout. A single .tif or
    .dzi (DeepZoom) is written tile by tile with downscaled copies, at any size.

    Example: polyinr sample --seeds 0-7 --res 256 -o out/
    """
    viewport = parse_viewport_options(
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
    target = parse_output(output, overwrite=overwrite, as_json=as_json)
    is_latents = target.kind is OutputKind.latents
    if is_latents:
        viewport.check_unused()
        if like is not None or tolerance is not None:
            raise RequestError("latents are not rendered; leave --like and --tolerance out")
    is_selected = seeds is not None or latents is not None
    settings = None if like is None else read_settings(like, viewport_only=is_selected)
    if settings is not None:
        if not is_selected:
            seeds, latents = settings.options.get("seeds"), settings.latents
            label = settings.options.get("label") if label is None else label
            psi = settings.psi if psi is None else psi
        bits = bits or settings.bits
        tolerance = settings.tolerance if tolerance is None else tolerance
        precision = settings.precision if precision is Precision.auto else precision
    check_selection(seeds, latents)
    if class_grid and (latents is not None or label is not None):
        raise RequestError("--class-grid needs --seeds and shows all classes; leave --latents and --label out")

    is_8_bit = bits in (None, 8) and not is_latents and target.kind is not OutputKind.array
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    if settings is not None:
        if not force:
            settings.check_model(opened)
        viewport = settings.complete(viewport, res=res)
    renderer = renderer_for(opened, viewport, bits=bits or 8, is_sized=not is_latents, tolerance=tolerance or 0.0)
    layout = None
    if class_grid:
        from polyinr_core.latents.latents import parse_seeds
        from polyinr_core.rendering.requests import every_class

        assert seeds is not None
        images = every_class(opened, parse_seeds(seeds), psi=1.0 if psi is None else psi)
        layout = GridSpec(columns=len(parse_seeds(seeds)), row_names=opened.class_titles)
        if target.kind is not OutputKind.folder:
            words = ["--class-grid", "--seeds", seeds, *(["--psi", repr(psi)] if psi is not None else [])]
            images = images.with_metadata({"words": words})
    else:
        images = select_images(opened, seeds, latents, label=label, psi=psi, force=force)
        if settings is not None and not is_selected:
            images = settings.select(images)
    images = images.with_metadata(renderer_metadata(renderer, warp=viewport.warp))
    images = split_over_ranks(images, target, quiet=quiet)
    write(target, renderer, images, Reporter(as_json, quiet), grid=layout)
