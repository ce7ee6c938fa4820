"""`polyinr gallery`: build an HTML gallery of a model, a folder that needs nothing else."""

from typing import Annotated

import typer

from polyinr_cli import console
from polyinr_cli.options import Label, Res, with_groups
from polyinr_cli.parsing import parse_res_or_size
from polyinr_cli.rendering import RunOptions
from polyinr_cli.runtime import several
from polyinr_core.errors import RequestError


@with_groups
def gallery(
    *,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FOLDER", help="Folder to make; index.html in it is the page.")
    ],
    seeds: Annotated[
        str, typer.Option(metavar="0-7,12", help="Seeds to show, 1-128 of them; each section shows the first.")
    ] = "0-15",
    label: Label = None,
    psi: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Truncations of the slider, at most 24 (1: none, 0: the mean image).")
    ] = "0,0.2,0.4,0.6,0.8,1,1.2",
    res: Res = None,
    frames: Annotated[int, typer.Option(metavar="N", help="Number of frames of the interpolation, 2-480.")] = 48,
    run: RunOptions,
) -> None:
    """Build an HTML gallery: seeds, classes, psi, mixing, interpolation, heat maps, extrapolation, sizes.

    The folder of -o gets index.html and its images. Open the page in a browser, or put the folder on a web server; it
    needs no network. The page shows the command that renders each section and each image. Without --res images have
    the training resolution, at least 128 and at most 256 pixels. --overwrite replaces a gallery or an empty folder.

    Example: polyinr gallery -o site/
    """
    if several():
        raise RequestError("a gallery is built by one process; start it without torchrun")
    if not output or "\0" in output or output == "-":
        raise RequestError("-o requires the path of a folder for the page and its images")
    from polyinr_core.gallery.builder import PAGE, GalleryBuilder, check_gallery_folder
    from polyinr_core.gallery.plan import parse_psi_values, plan_gallery
    from polyinr_core.latents.latents import parse_seeds

    path = check_gallery_folder(output, overwrite=run.overwrite)
    size = parse_res_or_size(res, None)
    opened = run.open()
    plan = plan_gallery(
        opened.generator.config,
        opened.resolution,
        seeds=parse_seeds(seeds),
        psi_values=parse_psi_values(psi),
        resolution=None if size is None else size[0],
        frames=frames,
        label=opened.class_index(label),
    )
    builder = GalleryBuilder(opened, plan)
    console.say(
        f"polyinr: rendering {builder.pixels / 1e6:.1f} million pixels, {builder.teraflops:.3g} teraflop, on "
        f"{opened.device}",
        quiet=run.quiet,
    )
    with console.row_progress("rendering", total=builder.pixels, quiet=run.quiet) as progress:
        facts = builder.write(path, overwrite=run.overwrite, progress=progress)
    if run.as_json:
        console.json_line({"file": str(path / PAGE), **facts})
    console.say(f"{len(facts['files']) - 2} images; open {path / PAGE} in a browser", quiet=run.quiet)
