"""`polyinr sample`: render images by seed or from latents, at any size and in any window."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from polyinr_cli.options import OptionalBits, OutputText, Precision, StdoutFormat, Tolerance, with_groups
from polyinr_cli.parsing import ViewportOptions
from polyinr_cli.rendering import ImageOptions, RunOptions, WindowOptions, fit_to_photo
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import StoredSettings, format_options, read_settings, renderer_metadata
from polyinr_core.rendering.writers import GridSpec, OutputKind


@with_groups
def sample(
    *,
    output: OutputText,
    images: ImageOptions,
    window: WindowOptions,
    tolerance: Tolerance = None,
    bits: OptionalBits = None,
    format: StdoutFormat = None,
    class_grid: Annotated[
        bool, typer.Option("--class-grid", help="Render every seed in every class, one row per class.")
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Reuse the settings stored in IMAGE; options given here override them. --res sets the longer side.",
        ),
    ] = None,
    run: RunOptions,
) -> None:
    """Render images by seed, or from a latents file, at any size and in any window.

    The suffix of -o gives the form: a folder gets one PNG per image; .png, .jpg, .webp or .tif one image, or a
    grid of several; .npy the unclamped colors; .safetensors the latents; - a PNG or another --format on stdout. A
    single .tif or .dzi (DeepZoom) is written tile by tile with downscaled copies, at any size. Run the same command
    again to resume an interrupted one: the images that a folder has already are kept.

    Example: polyinr sample --seeds 0-7 --res 256 -o out/
    """
    viewport = window.parse()
    target = run.output(output, stdout_format=format)
    if target.kind is OutputKind.latents:
        viewport.check_unused()
        if like is not None or tolerance is not None:
            raise RequestError("latents are not rendered; leave --like and --tolerance out")
    is_selected = images.seeds is not None or images.latents is not None
    settings = None if like is None else read_settings(like, viewport_only=is_selected)
    if settings is not None:
        if not is_selected:
            images = _complete_images(images, settings)
        viewport = _complete_viewport(viewport, settings, res=window.res)
        bits = bits or settings.bits
        tolerance = settings.tolerance if tolerance is None else tolerance
        if run.precision is Precision.auto:
            run = replace(run, precision=Precision(settings.precision))
    images.check()
    if class_grid and (images.latents is not None or images.label is not None):
        raise RequestError("--class-grid needs --seeds and shows all classes; leave --latents and --label out")

    model, renderer = run.open_for(target, viewport, bits=bits or 8, tolerance=tolerance or 0.0)
    if settings is not None and not images.force:
        settings.check_model(model.sha256)
    grid = None
    if class_grid:
        from polyinr_core.latents.latents import parse_seeds
        from polyinr_core.rendering.requests import every_class

        seeds = parse_seeds(images.seeds or "")
        shown = every_class(model, seeds, psi=1.0 if images.psi is None else images.psi)
        grid = GridSpec(columns=len(seeds), row_names=model.class_titles)
        if target.kind is not OutputKind.folder:
            words = format_options([], class_grid=True, seeds=images.seeds, psi=images.psi)
            shown = shown.with_metadata({"words": words})
    else:
        shown = images.select(model)
        if settings is not None and not is_selected and settings.index is not None and settings.index < len(shown):
            shown = shown.select([settings.index])
        if settings is None:
            renderer = fit_to_photo(renderer, window, viewport, shown)
    run.write(target, renderer, shown.with_metadata(renderer_metadata(renderer, warp=viewport.warp)), grid=grid)


def _complete_images(given: ImageOptions, stored: StoredSettings) -> ImageOptions:
    """Return the image of --like, with the class and the psi that are given. Raises FileError."""
    return replace(
        given,
        seeds=stored.options.get("seeds"),
        latents=stored.latents,
        label=stored.options.get("label") if given.label is None else given.label,
        psi=stored.psi if given.psi is None else given.psi,
    )


def _complete_viewport(given: ViewportOptions, stored: StoredSettings, *, res: int | None) -> ViewportOptions:
    """Complete a viewport by that of --like; `res` is its new longer side. Raises RequestError."""
    from polyinr_core.rendering.viewport import Viewport, scaled_size

    options = {name: stored.options[name] for name in ("size", "grid", "transform", "warp") if name in stored.options}
    parsed = WindowOptions(**options, supersample=int(stored.options.get("supersample", 1))).parse()  # type: ignore[arg-type]
    assert parsed.size is not None
    is_default = parsed.window == Viewport(*parsed.size).window
    own = replace(parsed, window=None) if is_default else parsed  # it follows the shape of another size
    size = given.size or parsed.size
    if res is not None:
        size = scaled_size(parsed.size, res)
    has_window = replace(given, size=None, supersample=1) != ViewportOptions()
    supersample = max(given.supersample, own.supersample)
    return replace(given if has_window else own, size=size, supersample=supersample)
