"""Zip datasets: square RGB images of one size with labels, as `prepare` and StyleGAN's tools write them."""

import os
import zipfile
import zlib
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, FileError
from polyinr_core.runtime.atomic_io import PathLike, explain, sha256_of

from .containers import is_image, open_zip
from .decode import decoded
from .labels import LabelInfo, LabelUse
from .listing import Ignored, Listing, ListingBuilder


class ZipDataset:
    """A dataset in a zip file, ordered by name. Reading is safe in threads and forked processes.

    `labels` is int64 [N] or None, `classes` their number (0: unlabeled), `class_names` may be empty.
    """

    def __init__(
        self, path: Path, *, zipped: zipfile.ZipFile, names: list[str], facts: LabelInfo, notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.names = names
        self.notes = notes
        self.labels = facts.labels
        self.classes = facts.classes
        self.class_names = facts.class_names
        self.provenance: dict[str, Any] = facts.provenance
        self.shard_of: NDArray[np.int32] | None = None  # there is one file only
        self._zipped: zipfile.ZipFile | None = zipped
        self._process = os.getpid()
        self.resolution: int = self._decoded(0, side=None).shape[0]

    @classmethod
    def open(cls, path: PathLike, *, labels: LabelUse = "auto") -> Self:
        """Open a zip file and check its table of contents, its labels and its first image.

        The other images are checked when read. Labels that cannot be used are refused, left out with "usable";
        "none" leaves out all. Raises DatasetError, FileError.
        """
        path = Path(path)
        zipped = open_zip(path)
        try:
            listing = list_zip(path, zipped)
            if not listing.names:
                raise DatasetError(path, "holds no images")
            facts, note = listing.labels.resolve_for(labels, path, lambda index: repr(listing.names[index]))
            notes = (*Ignored(listing).lines(), *([] if note is None else [note]))
            return cls(path, zipped=zipped, names=list(listing.names), facts=facts, notes=notes)
        except FileError:
            zipped.close()
            raise

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file in hexadecimal digits."""
        return sha256_of(self.path)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [H, W, 3], H = W = `resolution`. Raises DatasetError."""
        return self._decoded(index, side=self.resolution)

    def _decoded(self, index: int, *, side: int | None) -> NDArray[np.uint8]:
        """Read and decode image `index`; `side` None: of any size."""
        name = self.names[index]
        return decoded(self.path, name, read_member(self.path, self._handle(), name), side=side)

    def _handle(self) -> zipfile.ZipFile:
        """Return the zip, reopened after a fork, because processes would share one file position."""
        if self._zipped is None or self._process != os.getpid():
            self._zipped, self._process = open_zip(self.path), os.getpid()
        return self._zipped

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._zipped is not None:
            self._zipped.close()
            self._zipped = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_zipped": None}


def list_zip(path: Path, zipped: zipfile.ZipFile) -> Listing:
    """List the images of a zip, sorted by name. Raises DatasetError, FileError."""
    lister = ListingBuilder(path, samples=False)
    members = [member for member in zipped.infolist() if not member.is_dir()]
    for member in sorted(members, key=lambda member: (not is_image(member.filename), member.filename)):
        name = member.filename
        lister.add(name, member.file_size, partial(read_member, path, zipped, name))
    return lister.listing()


def read_member(path: Path, zipped: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of one file in a zip. Raises DatasetError, FileError."""
    try:
        return zipped.read(name)
    except OSError as error:
        raise explain(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DatasetError(path, f"{name!r} cannot be read; the file is damaged") from error
