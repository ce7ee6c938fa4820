"""`polyinr directions`: find a model's principal directions or those of labels, show them, move images along them."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from polyinr_cli import console
from polyinr_cli.options import OutputText, check_paths, refuse_options, with_groups
from polyinr_cli.rendering import ImageOptions, RunOptions, WindowOptions, check_stdin_once, fit_to_photo
from polyinr_core.errors import FileError, RequestError
from polyinr_core.rendering.metadata import format_options, model_metadata, renderer_metadata
from polyinr_core.rendering.writers import IMAGE_KINDS, SQUARE, Output, OutputKind, write_stream

if TYPE_CHECKING:
    from polyinr_core.latents.directions import Directions
    from polyinr_core.rendering import model as models

AMOUNTS = "-3,-2,-1,0,1,2,3"
COUNT = 10
SAMPLES, MAX_SAMPLES = 2000, 100_000


@with_groups
def directions(
    *,
    output: OutputText,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[DIRECTIONS]", show_default=False, help="A directions file. Without it directions are found."
        ),
    ] = None,
    space: Annotated[
        Literal["w", "affine"] | None, typer.Option(help="Latent space to find directions in. Default: w.")
    ] = None,
    examples: Annotated[
        list[str] | None,
        typer.Option(
            "--images",
            metavar="IMAGES",
            help="Learn directions from labeled images: a folder, a zip or the like, with class folders, labels of its "
            "own or --labels. Given twice: one direction, from the first images to the second.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A .csv, .tsv or .jsonl file with the labels of --images, by file name."),
    ] = None,
    column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of --labels to learn. Default: label, or the like.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Encoder of the model, from `polyinr encoder`, for --images. Default: the bundled model's.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", help=f"Number of seeds to analyze. Default: {SAMPLES}.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(metavar="N", help=f"Directions to find or to show. Default: {COUNT}.")
    ] = None,
    take: Annotated[
        str | None,
        typer.Option(
            metavar="D:A,...",
            help="Move along direction D, a number or a name, by A standard deviations, such as 2:1.5,0:-1.",
        ),
    ] = None,
    amounts: Annotated[
        str | None,
        typer.Option(metavar="A,...", help=f"Columns of the grid, in standard deviations. Default: {AMOUNTS}."),
    ] = None,
    levels: Annotated[
        str | None, typer.Option(metavar="4-7", help="Levels to move, such as 4-7. Default: all.")
    ] = None,
    images: ImageOptions,
    window: WindowOptions,
    run: RunOptions,
) -> None:
    """Find a model's directions, show them, or move images along them.

    Without a file, principal directions are found, of one class or of all, or with --images those of labels, and
    written to a .safetensors file. With a file
    and images, a grid shows what each direction does: a row per direction, a column per amount. With --take the
    images are moved: .safetensors and - get their latents, other suffixes images as in `polyinr sample`.

    Example: polyinr directions dirs.safetensors --seeds 3 -o grid.png
    """
    viewport = window.parse()
    given = {"--take": take, "--amounts": amounts, "--levels": levels}
    of_labels = {"--labels": labels, "--column": column, "--encoder": encoder}
    if file is None:
        refuse_options(given | {"--seeds": images.seeds, "--latents": images.latents}, beside="a search for directions")
        target = run.output(output, kinds={OutputKind.latents, OutputKind.stdout}, payload="directions")
        viewport.check_unused()
        if examples:
            unused = {"--samples": samples, "--count": count, "--label": images.label, "--psi": images.psi}
            refuse_options(unused, beside="--images")
            _learn(target, run, examples, labels=labels, column=column, encoder=encoder, space=space or "w")
            return
        refuse_options(of_labels, beside="a search without --images")
        _find(target, images, run, space=space or "w", samples=samples, count=count)
        return
    refuse_options(
        {"--space": space, "--samples": samples, "--images": examples, **of_labels}, beside="a directions file"
    )
    is_move = take is not None
    if is_move:
        refuse_options({"--amounts": amounts, "--count": count}, beside="--take")
    kinds = IMAGE_KINDS if is_move else IMAGE_KINDS - {OutputKind.zoomable}
    target = run.output(output, kinds=kinds, payload="latents" if is_move else "image")
    if is_move and target.kind is OutputKind.stdout:
        target = replace(target, kind=OutputKind.latents)
    if target.kind is OutputKind.latents:
        viewport.check_unused()
    images.check()
    check_stdin_once(file, str(images.latents))

    model, renderer = run.open_for(target, viewport)
    from polyinr_core.latents.directions import parse_amounts, parse_moves
    from polyinr_core.latents.latents import parse_levels
    from polyinr_core.rendering.edits import direction_grid, moved_requests

    found = _read(file, model, force=images.force)
    moved = None if levels is None else parse_levels(levels, levels=model.generator.config.levels)
    shown, grid = images.select(model), SQUARE
    renderer = fit_to_photo(renderer, window, viewport, shown)
    if take is not None:
        shown = moved_requests(model, shown, found, parse_moves(take, names=found.names), levels=moved)
    else:
        shown, grid = direction_grid(
            model,
            shown,
            found,
            count=min(COUNT, len(found)) if count is None else count,
            amounts=parse_amounts((amounts or AMOUNTS).split(",")),
            levels=moved,
        )
    own = {"take": take, "amounts": amounts, "count": count, "levels": levels}
    words = format_options(
        [file], **own, **{name: getattr(images, name) for name in ("seeds", "latents", "label", "psi")}
    )
    metadata = {"command": "directions", "words": words, **renderer_metadata(renderer, warp=viewport.warp)}
    run.write(target, renderer, shown.with_metadata(metadata), grid=grid)


def _find(
    target: Output,
    images: ImageOptions,
    run: RunOptions,
    *,
    space: Literal["w", "affine"],
    samples: int | None,
    count: int | None,
) -> None:
    """Find directions and write them to a file or to stdout. Raises PolyinrError."""
    samples, count = SAMPLES if samples is None else samples, COUNT if count is None else count
    if not 2 <= samples <= MAX_SAMPLES:
        raise RequestError(f"--samples {samples} is outside 2-{MAX_SAMPLES}")
    from polyinr_core.latents.directions import find_directions

    model = run.open(is_8_bit=False)
    label, psi = model.class_index(images.label), 1.0 if images.psi is None else images.psi
    with console.row_progress("samples", total=samples, quiet=run.quiet) as done:
        found = find_directions(model, space=space, samples=samples, count=count, label=label, psi=psi, progress=done)
    share = float(found.shares.sum())
    _write(target, run, model, found, f"{count} directions with {share:.0%} of the variance of {samples} samples")


def _learn(
    target: Output,
    run: RunOptions,
    examples: list[str],
    *,
    labels: Path | None,
    column: str | None,
    encoder: Path | None,
    space: Literal["w", "affine"],
) -> None:
    """Learn directions from labeled images and write them to a file or to stdout. Raises PolyinrError."""
    if len(examples) > 2 or (len(examples) == 2 and (labels or column)):
        raise RequestError("give --images once, with labels, or twice without --labels and --column")
    if column is not None and labels is None:
        raise RequestError(f"--column {column} names a column of --labels FILE; give that file")
    check_paths(run.model, encoder, labels, *map(Path, examples))
    from polyinr_core.inversion.encoder import default_encoder, directions_of_images, load_encoder

    model = run.open(is_8_bit=False)
    chosen = default_encoder(model) if encoder is None else load_encoder(encoder)
    if chosen is None:
        raise RequestError("--images needs --encoder FILE; `polyinr encoder MODEL -o FILE` makes one")
    with console.progress("images", quiet=run.quiet) as progress:
        found = directions_of_images(
            model, chosen, examples, labels=labels, column=column, space=space, progress=progress
        )
    _write(target, run, model, found, f"{', '.join(found.names)}: directions from {found.samples} images")


def _write(target: Output, run: RunOptions, model: "models.Model", found: "Directions", message: str) -> None:
    """Write directions to a file, and report them, or to stdout."""
    from polyinr_core.latents.direction_files import encode_directions, write_directions

    if target.stream is not None:
        write_stream(target.stream, encode_directions(found))
        return
    write_directions(target.path, found, overwrite=target.overwrite)
    names = {"names": list(found.names)} if found.names else {}
    facts = {"space": found.space, "samples": found.samples, "shares": found.shares.tolist(), **names}
    run.reporter.json(target.path, model_metadata(model) | facts)
    run.reporter.say(f"{message} in {target.path}")


def _read(file: str, model: "models.Model", *, force: bool) -> "Directions":
    """Read directions that fit the model; `force` accepts another model's. Raises FileError, RequestError."""
    from polyinr_core.latents.direction_files import check_directions, read_directions

    found = read_directions(console.binary_stdin("directions") if file == "-" else Path(file))
    check_directions(found, model.generator.config, source=Path(file))
    if found.model_sha256 != model.sha256 and not force:
        raise FileError(
            file,
            f"its directions belong to another model ({found.model_sha256[:12]}, not {model.sha256[:12]}); "
            "name that model with -m, or give --force",
        )
    return found
