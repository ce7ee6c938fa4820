"""`polyinr heatmap`: visualize the activations of each level."""

from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import OutputText, with_groups
from polyinr_cli.rendering import ImageOptions, RunOptions, WindowOptions, fit_to_photo, split_over_ranks
from polyinr_core.errors import RequestError
from polyinr_core.rendering.metadata import format_options, renderer_metadata
from polyinr_core.rendering.writers import OutputKind

KINDS = frozenset({OutputKind.folder, OutputKind.image, OutputKind.array, OutputKind.stdout})


@with_groups
def heatmap(
    *,
    output: OutputText,
    images: ImageOptions,
    levels: Annotated[str | None, typer.Option(metavar="0-9", help="Levels to show. Default: all.")] = None,
    colors: Annotated[
        str, typer.Option(metavar="NAME", help="Colormap: inferno, viridis, plasma, cividis or gray.")
    ] = "inferno",
    overlay: Annotated[
        float | None,
        typer.Option(
            metavar="OPACITY",
            help="Blend the heat map over the image with this opacity, 0 (the image) to 1 (the heat map).",
        ),
    ] = None,
    window: WindowOptions,
    run: RunOptions,
) -> None:
    """Visualize the activations of each level: the sum of its features, weighted by their spatial means.

    An image file (.png, .jpg, .webp, .tif, - for stdout) is a grid with a row for each image: the image, then its
    levels, each normalized to its own minimum and maximum. A folder gets one PNG for each level. An array (.npy,
    [N, levels, H, W]) holds the sums before normalization.

    Example: polyinr heatmap --seeds 3 -o levels.png
    """
    viewport = window.parse()
    if overlay is not None and not 0 <= overlay <= 1:
        raise RequestError(f"--overlay {overlay:g} is out of range 0-1")
    from polyinr_core.images.grid import COLORMAPS

    if colors not in COLORMAPS:
        raise RequestError(f"--colors {colors!r} is unknown; use {', '.join(COLORMAPS)}")
    target = run.output(output, kinds=KINDS)
    images.check()

    model, renderer = run.open_for(target, viewport)
    from polyinr_core.latents.latents import parse_levels
    from polyinr_core.rendering.heatmap import HeatmapOptions, check_heatmaps, count_evaluations, write_heatmaps

    count = model.generator.config.levels
    options = HeatmapOptions(
        tuple(range(count) if levels is None else parse_levels(levels, levels=count)), colors, overlay
    )
    chosen = images.select(model)
    renderer = fit_to_photo(renderer, window, viewport, chosen)
    latents = None if images.latents is None else images.latents.name
    own = {"levels": levels, "colors": colors, "overlay": overlay}
    words = format_options([], seeds=images.seeds, latents=latents, label=images.label, psi=images.psi, **own)
    metadata = {"command": "heatmap", "words": words, **renderer_metadata(renderer, warp=viewport.warp)}
    shown = split_over_ranks(chosen.with_metadata(metadata), target, quiet=run.quiet)

    check_heatmaps(target, renderer, options, count=len(shown))
    total = count_evaluations(target, renderer, options, count=len(shown))
    with console.row_progress("rendering", total=total, quiet=run.quiet) as progress:
        for path, facts in write_heatmaps(target, renderer, shown, options, progress=progress):
            run.reporter.json(path, facts)
    if target.stream is None:
        run.reporter.say(f"{len(options.levels)} levels of {console.count(len(shown), 'image')} in {target.path}")
