"""`polyinr directions`: find a model's principal directions, show them, and move images along them."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyinr_cli import console
from polyinr_cli.image_selection import check_selection, check_stdin_once, select_images, split_over_ranks
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
    OutputText,
    Overwrite,
    Precision,
    PrecisionOption,
    Psi,
    Quiet,
    Res,
    Seeds,
    Size,
    Supersample,
    Verbose,
    Zoom,
)
from polyinr_cli.outputs import Reporter, as_latents, parse_output, write
from polyinr_cli.parsing import TRAINED_WINDOW, parse_viewport_options
from polyinr_core.errors import FileError, RequestError
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, SQUARE, Output, OutputKind, write_stream
from polyinr_core.runtime.resources import check_memory

if TYPE_CHECKING:
    from polyinr_core.latents.directions import Directions
    from polyinr_core.rendering import model as models

AMOUNTS = "-3,-2,-1,0,1,2,3"
COUNT = 10
SAMPLES, MAX_SAMPLES = 2000, 100_000


class DirectionSpace(StrEnum):
    """The space of the directions."""

    w = "w"
    affine = "affine"


def directions(
    output: OutputText,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIRECTIONS]", show_default=False, help="A directions file. Without it directions are found."
        ),
    ] = None,
    space: Annotated[
        DirectionSpace | None,
        typer.Option("--space", show_default=False, help="Latent space to find directions in. Default: w."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", metavar="N", show_default=False, help=f"Number of seeds to analyze. Default: {SAMPLES}."
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            show_default=False,
            help=f"Directions to find or to show. Default: {COUNT}.",
        ),
    ] = None,
    take: Annotated[
        str | None,
        typer.Option(
            "--take",
            metavar="D:A,...",
            show_default=False,
            help="Move along direction D by A standard deviations, such as 2:1.5,0:-1.",
        ),
    ] = None,
    amounts: Annotated[
        str | None,
        typer.Option(
            "--amounts",
            metavar="A,...",
            show_default=False,
            help=f"Columns of the grid, in standard deviations. Default: {AMOUNTS}.",
        ),
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option("--levels", metavar="4-7", show_default=False, help="Levels to move, such as 4-7. Default: all."),
    ] = None,
    seeds: Seeds = None,
    latents: LatentsFile = None,
    label: Label = None,
    psi: Psi = None,
    res: Res = None,
    size: Size = None,
    grid: Grid = TRAINED_WINDOW,
    center: Center = None,
    zoom: Zoom = None,
    supersample: Supersample = 1,
    model: Model = None,
    force: Force = False,
    precision: PrecisionOption = Precision.auto,
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find a model's principal directions, show them, or move images along them.

    Without a file, directions are found, of one class or of all, and written to a .safetensors file. With a file
    and images, a grid shows what each direction does: a row per direction, a column per amount. With --take the
    images are moved: .safetensors and - get their latents, other suffixes images as in `polyinr sample`.

    Example: polyinr directions dirs.safetensors --seeds 3 -o grid.png
    """
    viewport = parse_viewport_options(res=res, size=size, grid=grid, center=center, zoom=zoom, supersample=supersample)
    is_search, is_move = file is None, take is not None
    kinds = {OutputKind.latents, OutputKind.stdout} if is_search else set(IMAGE_KINDS)
    if not is_move:
        kinds.discard(OutputKind.zoomable)
    payload = "directions" if is_search else "latents" if is_move else "image"
    target = parse_output(output, overwrite=overwrite, as_json=as_json, kinds=kinds, payload=payload)
    _refuse({"--space": space, "--samples": samples} if not is_search else {}, beside="a directions file")
    _refuse({"--amounts": amounts, "--count": count} if is_move else {}, beside="--take")
    of_images = {"--take": take, "--amounts": amounts, "--levels": levels, "--seeds": seeds, "--latents": latents}
    _refuse(of_images if is_search else {}, beside="a search for directions")
    if is_move and target.kind is OutputKind.stdout:
        target = as_latents(target)
    is_latents = target.kind is OutputKind.latents
    if is_search or is_latents:
        viewport.check_unused()

    is_8_bit = not is_search and not is_latents and target.kind is not OutputKind.array
    opened = open_model(model, precision=precision, device=device, is_8_bit=is_8_bit, quiet=quiet)
    reporter = Reporter(as_json, quiet)
    if file is None:
        _find(
            target,
            opened,
            reporter,
            space=space or DirectionSpace.w,
            samples=SAMPLES if samples is None else samples,
            count=COUNT if count is None else count,
            label=label,
            psi=1.0 if psi is None else psi,
        )
        return

    from polyinr_core.latents.directions import parse_amounts, parse_moves
    from polyinr_core.latents.latents import parse_levels
    from polyinr_core.rendering.edits import direction_grid, moved_requests

    check_selection(seeds, latents)
    check_stdin_once(file, str(latents))
    found = _read(file, opened, force=force)
    moved_levels = None if levels is None else parse_levels(levels, levels=opened.generator.config.levels)
    renderer = renderer_for(opened, viewport, is_sized=not is_latents)
    images = select_images(opened, seeds, latents, label=label, psi=psi, force=force)
    layout = SQUARE
    if take is not None:
        images = moved_requests(opened, images, found, parse_moves(take), levels=moved_levels)
    else:
        images, layout = direction_grid(
            opened,
            images,
            found,
            count=min(COUNT, len(found)) if count is None else count,
            amounts=parse_amounts((amounts or AMOUNTS).split(",")),
            levels=moved_levels,
        )
    given = {"take": take, "amounts": amounts, "count": count, "levels": levels, "seeds": seeds, "latents": latents}
    words = format_options([file], **given, label=label, psi=psi)
    images = images.with_metadata({"command": "directions", "words": words, **renderer_metadata(renderer)})
    write(
        target,
        renderer,
        images if is_latents else split_over_ranks(images, target, quiet=quiet),
        reporter,
        grid=layout,
    )


def _find(
    target: Output,
    model: "models.Model",
    reporter: Reporter,
    *,
    space: DirectionSpace,
    samples: int,
    count: int,
    label: str | None,
    psi: float,
) -> None:
    """Find directions and write them to a file or to stdout. Raises PolyinrError."""
    from polyinr_core.latents.directions import encode_directions, find_directions, write_directions

    if not 2 <= samples <= MAX_SAMPLES:
        raise RequestError(f"--samples {samples} is outside 2-{MAX_SAMPLES}")
    config = model.generator.config
    dim = config.levels * (config.w_dim if space is DirectionSpace.w else 3 * config.channels)
    needed = 4 * samples * dim + 3 * 8 * min(dim, samples) ** 2  # latents, Gram matrix, eigenvectors
    check_memory(needed, purpose=f"finding directions in {samples} samples", advice="use fewer --samples")
    index = model.class_index(label)
    with console.row_progress("samples", total=samples, quiet=reporter.quiet) as done:
        found = find_directions(
            model, space=space.value, samples=samples, count=count, label=index, psi=psi, progress=done
        )
    if target.stream is not None:
        write_stream(target.stream, encode_directions(found))
        return
    write_directions(target.path, found, overwrite=target.overwrite)
    facts = {"space": space.value, "samples": samples, "shares": found.shares.tolist()}
    reporter.json(target.path, model_metadata(model) | facts)
    share = float(found.shares.sum())
    reporter.say(f"{count} directions with {share:.0%} of the variance of {samples} samples in {target.path}")


def _read(file: str, model: "models.Model", *, force: bool) -> "Directions":
    """Read directions that fit the model; `force` accepts another model's. Raises FileError, RequestError."""
    from polyinr_core.latents.directions import check_directions, read_directions

    found = read_directions(console.binary_stdin("directions") if file == "-" else Path(file))
    check_directions(found, model.generator.config, source=Path(file))
    if found.model_sha256 != model.sha256 and not force:
        raise FileError(
            file,
            f"its directions belong to another model ({found.model_sha256[:12]}, not {model.sha256[:12]}); "
            "name that model with -m, or give --force",
        )
    return found


def _refuse(options: Mapping[str, object], *, beside: str) -> None:
    """Raise RequestError for an option that is given and does not apply."""
    for name, value in options.items():
        if value is not None:
            raise RequestError(f"{name} does not apply to {beside}; leave it out")
