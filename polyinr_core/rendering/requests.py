"""Requested images: by seeds or from a latents file, each made when it is needed."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from polyinr_core.errors import FileError, RequestError
from polyinr_core.latents.io import read_latents
from polyinr_core.latents.latents import (
    Latents,
    Photo,
    check_latents,
    common_photo,
    from_seeds,
    to_affine,
    with_label,
)

from .metadata import Metadata, class_metadata, model_metadata
from .model import Model


class RequestedImage(NamedTuple):
    """One image: its latents, completed to affine parameters, and its metadata."""

    latents: Latents
    metadata: Metadata


@dataclass(frozen=True)
class ImageRequests:
    """A sequence of requested images; `make` makes one of them, whose file is called by its name.

    `photo` is that whose shape all of them have, where they were inverted from photos.
    """

    names: tuple[str, ...]
    make: Callable[[int], RequestedImage]
    photo: Photo | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> RequestedImage:
        if not 0 <= index < len(self.names):
            raise IndexError(index)
        return self.make(index)

    def __iter__(self) -> Iterator[RequestedImage]:
        return map(self.make, range(len(self)))

    def select(self, indices: Sequence[int]) -> "ImageRequests":
        """Return some of the images."""
        return ImageRequests(tuple(self.names[i] for i in indices), lambda i: self.make(indices[i]), self.photo)

    def with_metadata(self, extra: Metadata) -> "ImageRequests":
        """Return the images with additional metadata."""

        def make(index: int) -> RequestedImage:
            latents, metadata = self.make(index)
            return RequestedImage(latents, metadata | extra)

        return replace(self, make=make)


def from_seed_numbers(
    model: Model, seeds: Sequence[int], *, label: int | None = None, psi: float = 1.0
) -> ImageRequests:
    """Request the images of seeds, each in the class that it draws, or all in class `label`."""

    def make(index: int) -> RequestedImage:
        latents = from_seeds(model.generator, [seeds[index]], label=label, psi=psi)
        metadata = model_metadata(model) | {"seed": seeds[index], "psi": psi}
        metadata |= class_metadata(latents, model.class_names)
        return RequestedImage(replace(latents, model_sha256=model.sha256), metadata)

    return ImageRequests(tuple(f"seed{seed:04d}" for seed in seeds), make)


def from_latents_file(
    model: Model,
    source: Path | bytes,
    *,
    label: int | None = None,
    psi: float | None = None,
    any_model: bool = False,
) -> ImageRequests:
    """Request the images of a latents file.

    Args:
        model: The model.
        source: The file, or its bytes if they were read from stdin.
        label: Another class; for latents that hold z.
        psi: Truncate again.
        any_model: Accept latents of another model.

    Raises RequestError, LabelError, FileError.
    """
    path = Path("-") if isinstance(source, bytes) else source
    stored = with_label(model.generator, read_latents(source), label)
    check_latents(model.generator, stored, source=str(path))
    belongs = stored.model_sha256 == "" or model.sha256 in (stored.model_sha256, stored.untuned_sha256)
    if stored.space != "z" and not belongs and not any_model:
        raise FileError(
            path,
            f"its {stored.space} belongs to another model ({stored.model_sha256[:12]}, not {model.sha256[:12]}); "
            "name that model with -m, or give --force",
        )
    has_seeds = len(set(stored.seeds)) == len(stored)
    names = tuple(f"seed{stored.seeds[i]:04d}" if has_seeds else f"image{i:04d}" for i in range(len(stored)))
    origin: Metadata = {"latents": path.name, "latents_sha256": stored.sha256}
    if psi is not None:
        origin["psi"] = psi

    def make(index: int) -> RequestedImage:
        latents = to_affine(model.generator, stored[index], psi=psi)
        metadata = model_metadata(model) | origin | {"index": index, "count": len(stored)}
        if latents.seeds:
            metadata["seed"] = latents.seeds[0]
        return RequestedImage(latents, metadata | class_metadata(latents, model.class_names))

    return ImageRequests(names, make, common_photo(stored.photos))


def chain(parts: Sequence[ImageRequests]) -> ImageRequests:
    """Return the images of several requests, in order; photos among them give the shape."""
    starts = [0, *accumulate(map(len, parts))]

    def make(index: int) -> RequestedImage:
        part = bisect_right(starts, index) - 1
        return parts[part].make(index - starts[part])

    photo = common_photo(part.photo for part in parts if part.photo is not None)
    return ImageRequests(tuple(name for part in parts for name in part.names), make, photo)


def every_class(model: Model, seeds: Sequence[int], *, psi: float = 1.0) -> ImageRequests:
    """Request the images of all seeds in all classes, class by class. Raises RequestError."""
    classes = model.generator.config.classes
    if not classes:
        raise RequestError("the model has no classes")
    of_class = [from_seed_numbers(model, seeds, label=index, psi=psi) for index in range(classes)]
    names = tuple(f"class{index:03d}-{name}" for index, one in enumerate(of_class) for name in one.names)
    return replace(chain(of_class), names=names)
