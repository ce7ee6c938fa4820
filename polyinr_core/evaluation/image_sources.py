"""Stored images to be judged: an archive, tar shards or a folder, whole, in part, or what a run held out."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from polyinr_core.data.dataset import ImageDataset, means_shards, open_dataset
from polyinr_core.data.decode import decode
from polyinr_core.data.import_sources import open_folder
from polyinr_core.data.listing import Ignored
from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.data.sampler import InfiniteSampler
from polyinr_core.data.tar_dataset import TarDataset
from polyinr_core.errors import FileError, ImageError, RequestError
from polyinr_core.images.io import read_note
from polyinr_core.images.quantize import quantize
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, sha256_of
from polyinr_core.runtime.rng import generator_for

READ = 32  # images that are read in one pass
THREADS = min(8, os.cpu_count() or 1)  # that decode them; Pillow lets go of Python's lock


@dataclass(frozen=True)
class HeldOut:
    """Which images of a set a training run never saw: so many, by its seed, of the data of this SHA-256."""

    run: str
    seed: int
    count: int
    data_sha256: str


class Folder:
    """A folder of image files, read as an image set is: by number, uint8 [R, R, 3].

    All must be square and of the first one's size: nothing is cut or enlarged before it is judged. Labels are
    there if they can be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        source = open_folder(path)
        self.names = source.names
        facts, _ = source.labels.resolve_for("usable", path, source.name_of)
        self.labels, self.classes, self.class_names = facts.labels, facts.classes, facts.class_names
        self.notes = Ignored(source).lines()
        self.resolution = len(self._pixels(0))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over each file's name and bytes."""
        return sha256_of_files([self.path / name for name in self.names], self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`. Raises FileError."""
        pixels = self._pixels(index)
        if len(pixels) != self.resolution:
            problem = f"is {len(pixels)} px, others of the folder {self.resolution} px; bring all to one size"
            raise FileError(self.path / self.names[index], problem)
        return pixels

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        path = self.path / self.names[index]
        try:
            pixels = np.array(decode(read_bytes(path)), dtype=np.uint8)
        except ImageError as error:
            raise FileError(path, str(error)) from error
        height, width = pixels.shape[:2]
        if height != width:
            raise FileError(path, f"is {width}x{height}; square images are judged, `polyinr prepare` cuts them")
        return pixels


class StoredImages:
    """Images of a set or a folder, at their own size or area-averaged to a smaller one.

    With `held_out`, those that a run never saw. With `count`, so many of them, chosen at random once and for all.
    Raises RequestError, FileError.
    """

    def __init__(
        self,
        data: ImageDataset | Folder,
        *,
        side: int | None = None,
        count: int | None = None,
        held_out: HeldOut | None = None,
    ) -> None:
        if side is not None and side > data.resolution:
            problem = f"holds images of {data.resolution} px, {side} px are asked for; none is enlarged"
            raise FileError(data.path, problem)
        self.data = data
        self.held_out = held_out
        self.name = str(data.path)
        self.side = side or data.resolution
        whole = list(range(len(data))) if held_out is None else numbers_of(held_out, data)
        if count is not None and not 0 < count <= len(whole):
            which = "images" if held_out is None else f"images that {held_out.run} held out"
            raise RequestError(f"{data.path} holds {len(whole)} {which}; {count} of them cannot be taken")
        chosen = torch.randperm(len(whole), generator=generator_for("reals"))[:count].sort().values
        self.order = [whole[index] for index in chosen.tolist()]

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.data, TarDataset):  # whose own digest is not over all pixels
            return sha256_of_files(self.data.files, [file.name for file in self.data.files])
        return self.data.sha256

    @cached_property
    def written_by_us(self) -> bool:
        """Whether all are image files of 8 bits that say, in their notes, that polyinr drew them."""
        if not isinstance(self.data, Folder):
            return False
        return all(is_own_checkpoint(self.data.path / self.data.names[number]) for number in self.order)

    @property
    def label_counts(self) -> tuple[int, ...] | None:
        """How many of the images are in each class of the set; None where they have no labels."""
        if self.data.labels is None:
            return None
        return tuple(np.bincount(self.data.labels[self.order], minlength=self.data.classes).tolist())

    @property
    def facts(self) -> dict[str, Any]:
        own, held_out = self.data.resolution, self.held_out
        facts: dict[str, Any] = {
            "kind": "images",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": len(self),
            "of": len(self.data),
            "stored_resolution": own,
            "reduction": "none" if own == self.side else "area average",
            "labels": "as they are",
        }
        if held_out is not None:
            facts["held_out"] = {"run": held_out.run, "seed": held_out.seed, "count": held_out.count}
        return facts

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        span = range(len(self)) if span is None else span
        weights = area_weights(self.data.resolution, self.side)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="decoding") as pool:
            for start in range(span.start, span.stop, READ):
                numbers = self.order[start : min(start + READ, span.stop)]
                stacked = torch.from_numpy(np.stack(list(pool.map(self.data.read, numbers)))).permute(0, 3, 1, 2)
                yield stacked if self.side == self.data.resolution else quantize(area_average(stacked, weights))


def open_images(
    path: PathLike, *, side: int | None = None, count: int | None = None, held_out: HeldOut | None = None
) -> StoredImages:
    """Open an archive, tar shards, or a folder of image files. Raises FileError, RequestError."""
    path = Path(path)
    data = Folder(path) if path.is_dir() and not means_shards(path) else open_dataset(path, labels="usable")
    return StoredImages(data, side=side, count=count, held_out=held_out)


def is_own_checkpoint(path: Path) -> bool:
    """Say whether an image file says in its note that polyinr drew it in 8 bits; a damaged one says nothing."""
    try:
        note = read_note(path)
    except FileError:
        return False
    return bool(note) and "bits" not in note


def numbers_of(held_out: HeldOut, data: ImageDataset | Folder) -> list[int]:
    """Return which images a run held out, ascending. Raises RequestError, FileError for other data."""
    if not held_out.count:
        raise RequestError(f"{held_out.run} held no images out; train with --held-out, or judge by other data")
    if data.sha256 != held_out.data_sha256:
        problem = (
            f"is not the data that {held_out.run} was trained on (SHA-256 {data.sha256[:12]}, not "
            f"{held_out.data_sha256[:12]}); give that, as it was"
        )
        raise FileError(data.path, problem)
    return sorted(InfiniteSampler(len(data), seed=held_out.seed, held_out=held_out.count).held_out.tolist())


def sha256_of_files(files: list[Path], names: tuple[str, ...] | list[str]) -> str:
    """Return the SHA-256 over the names and the SHA-256 of files. Raises FileError."""
    digest = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name!r} {sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
