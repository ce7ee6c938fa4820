"""Which images a command renders: --seeds, --latents, or words such as 3, 0-7, FILE and -."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polyinr_core.errors import RequestError

from . import console
from .runtime import job, rank_range, several, warn_if_alone

if TYPE_CHECKING:
    from polyinr_core.checkpoints.checkpoint import Checkpoint
    from polyinr_core.rendering.model import Model
    from polyinr_core.rendering.requests import ImageRequests
    from polyinr_core.rendering.writers import Output


def select_images(
    model: "Model",
    seeds: str | None,
    latents: Path | None,
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> "ImageRequests":
    """Return the images of --seeds or --latents, whichever is given. Raises RequestError, LabelError, FileError."""
    from polyinr_core.latents.latents import parse_seeds
    from polyinr_core.rendering.requests import from_latents_file, from_seed_numbers

    check_selection(seeds, latents)
    index = model.class_index(label)
    if seeds is not None:
        return from_seed_numbers(model, parse_seeds(seeds), label=index, psi=1.0 if psi is None else psi)
    assert latents is not None
    source = console.binary_stdin() if str(latents) == "-" else latents
    return from_latents_file(model, source, label=index, psi=psi, any_model=force)


def class_index(label: str | None, checkpoint: "Checkpoint") -> int | None:
    """Return the class of --label, None without it. Raises LabelError."""
    from polyinr_core.latents.latents import parse_label

    if label is None:
        return None
    return parse_label(label, classes=checkpoint.generator.config.classes, class_names=checkpoint.class_names)


def check_selection(seeds: str | None, latents: Path | None) -> None:
    """Raise RequestError unless exactly one of --seeds and --latents is given."""
    if (seeds is None) == (latents is None):
        raise RequestError("select the images by either --seeds 0-7 or --latents FILE")


def select_by_words(
    model: "Model",
    words: Sequence[str],
    *,
    label: str | None = None,
    psi: float | None = None,
    force: bool = False,
) -> "ImageRequests":
    """Return the images of several words, in order: seeds, latents files, - for stdin.

    Raises RequestError, LabelError, FileError.
    """
    from polyinr_core.rendering.requests import chain

    check_stdin_once(*words)
    parts = []
    for word in words:
        is_file = word == "-" or Path(word).suffix or Path(word).exists()
        seeds, latents = (None, Path(word)) if is_file else (word, None)
        parts.append(select_images(model, seeds, latents, label=label, psi=psi, force=force))
    return chain(parts)


def check_stdin_once(*words: str) -> None:
    """Raise RequestError if - is among the words more than once."""
    if words.count("-") > 1:
        raise RequestError("- is given twice; stdin can be read only once")


def split_over_ranks(images: "ImageRequests", output: "Output", *, quiet: bool) -> "ImageRequests":
    """Return the images of this process, all of them if it is alone. Raises RequestError."""
    from polyinr_core.rendering.writers import OutputKind

    if not several():
        if output.kind is OutputKind.folder:
            warn_if_alone()
        return images
    if output.kind is not OutputKind.folder:
        raise RequestError(f"several processes write into a folder, each its images; -o {output.path} is not one")
    mine, me = rank_range(len(images)), job()
    message = f"polyinr: rank {me.rank} of {me.world_size}: rendering {len(mine)} of {len(images)} images"
    console.say(message, quiet=quiet, always=True)
    return images.select(mine)
