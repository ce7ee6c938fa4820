"""Edits: images moved along a model's principal directions, and those directions found and read."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyinr_core.errors import FileError, RequestError
from polyinr_core.runtime.memory import check_memory

from . import console as streams
from .drawing import Painter
from .named import Images, class_index
from .notes import Note
from .outputs import Arrangement
from .targets import Kind, Target, write_bytes

if TYPE_CHECKING:
    from polyinr_core.latents.directions import Directions
    from polyinr_core.latents.latents import Latents

MAX_SAMPLES = 100_000


def find_and_write(
    target: Target, painter: Painter, *, space: str, samples: int, count: int, label: str | None, psi: float
) -> None:
    """Find a model's directions and write them to a file or to stdout. Raises PolyinrError."""
    from polyinr_core.latents.directions import encode_directions, find_directions, write_directions

    checkpoint = painter.checkpoint
    if not 2 <= samples <= MAX_SAMPLES:
        raise RequestError(f"--samples {samples} is outside 2-{MAX_SAMPLES}")
    config = checkpoint.generator.config
    width = config.levels * (config.w_dim if space == "w" else 3 * config.channels)
    smaller = min(width, samples)
    check_memory(
        4 * samples * width + 3 * 8 * smaller * smaller,
        purpose=f"finding directions in {samples} images",
        advice="take fewer --samples",
    )
    where: Any = space
    with streams.row_progress("images", total=samples, quiet=target.quiet) as done:
        found = find_directions(
            checkpoint,
            space=where,
            samples=samples,
            count=count,
            label=class_index(label, checkpoint),
            psi=psi,
            progress=done,
        )
    if target.kind is Kind.stdout:
        write_bytes(encode_directions(found), payload="directions")
        return
    write_directions(target.path, found, overwrite=target.overwrite)
    note = painter.note | {"space": space, "samples": samples, "shares": found.shares.tolist()}
    target.report([(target.path, note)])
    share = float(found.shares.sum())
    target.say(f"{count} directions with {share:.0%} of the variance of {samples} images in {target.path}")


def read_fitting(file: str, painter: Painter, *, force: bool) -> "Directions":
    """Read directions that fit the model; `force` takes another model's. Raises FileError, RequestError."""
    from polyinr_core.latents.directions import check_directions, read_directions

    checkpoint = painter.checkpoint
    held = read_directions(streams.binary_stdin("directions") if file == "-" else Path(file))
    check_directions(held, checkpoint.generator.config, source=Path(file))
    if held.model_sha256 != checkpoint.sha256 and not force:
        raise FileError(
            file,
            f"its directions are of another model ({held.model_sha256[:12]}, not {checkpoint.sha256[:12]}) and "
            "may mean nothing here; name that model with -m, or give --force",
        )
    return held


def edited(images: Images, held: "Directions", painter: Painter, *, take: str, levels: Sequence[int] | None) -> Images:
    """Return the images, moved. Raises RequestError."""
    from polyinr_core.latents.directions import move, parse_moves
    from polyinr_core.latents.latents import to_affine

    takes = parse_moves(take)
    check_numbers(takes, held)

    def latents_of(index: int) -> "Latents":
        generator = painter.checkpoint.generator
        latents = images.latents(index).to(generator.mapping.w_avg)
        latents = to_affine(generator, move(latents, held, takes, levels=levels))
        return replace(latents, model_sha256=painter.checkpoint.sha256)

    return Images(images.names, latents_of, _unseeded(images, painter))


def walk_sheet(
    images: Images,
    held: "Directions",
    painter: Painter,
    *,
    count: int,
    amounts: str,
    levels: Sequence[int] | None,
) -> tuple[Images, Arrangement]:
    """Return each image moved along each of the first directions, a row each. Raises RequestError."""
    from polyinr_core.latents.directions import move, parse_amounts
    from polyinr_core.latents.latents import to_affine

    if not 1 <= count <= len(held):
        raise RequestError(f"--count {count} is outside 1-{len(held)}, the directions that are held")
    far = parse_amounts(amounts.split(","))
    rows = [(image, direction) for image in range(len(images)) for direction in range(count)]
    many = len(images) > 1

    def place(index: int) -> tuple[int, int, float]:
        row, column = divmod(index, len(far))
        return *rows[row], far[column]

    def latents_of(index: int) -> "Latents":
        image, direction, amount = place(index)
        generator = painter.checkpoint.generator
        latents = images.latents(image).to(generator.mapping.w_avg)
        latents = to_affine(generator, move(latents, held, {direction: amount}, levels=levels))
        return replace(latents, model_sha256=painter.checkpoint.sha256)

    base = _unseeded(images, painter)

    def note_of(latents: "Latents", index: int) -> Note:
        image, direction, amount = place(index)
        own = {"direction": direction, "amount": amount, "index": index, "count": len(names)}
        return base(latents, image) | own

    titles = [f"{images.names[p]}-direction{d:03d}" for p, d in rows]
    names = tuple(f"{title}-{column:02d}" for title in titles for column in range(len(far)))
    row_names = tuple(f"{images.names[p]}: {d}" if many else f"direction {d}" for p, d in rows)
    column_names = tuple(f"{amount:+g}" if amount else "0" for amount in far)
    return Images(names, latents_of, note_of), Arrangement(len(far), row_names, column_names)


def check_numbers(takes: dict[int, float], held: "Directions") -> None:
    """Raise RequestError for a direction that is not held."""
    if beyond := [number for number in takes if number >= len(held)]:
        raise RequestError(f"direction {beyond[0]} is outside 0-{len(held) - 1} (the file holds {len(held)})")


def _unseeded(images: Images, painter: Painter) -> Any:
    """Return how the notes of moved images begin: with the image's name, but no seed to draw it from."""

    def note_of(latents: "Latents", index: int) -> Note:
        place = {"index": index, "count": len(images)}
        return {**painter.note, "image": images.names[index], **place}

    return note_of
