"""The archive: square RGB pictures of one size in a zip, with their labels, as StyleGAN's tools make them too."""

import os
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError, FileError, PictureError
from ..files import explain, sha256_of
from .decoding import decode
from .facts import Facts, read_facts
from .zips import FACTS_NAME, is_picture, open_zip


class Archive:
    """An open archive. Its pictures are in the order of their names; reading is safe from threads and processes.

    `labels` is int64 [N] or None, `classes` their number (0: unlabelled), `class_names` may be empty.
    """

    def __init__(self, path: Path, *, zipped: zipfile.ZipFile, names: list[str], facts: Facts) -> None:
        self.path = path
        self.names = names
        self.labels = facts.labels
        self.classes = facts.classes
        self.class_names = facts.class_names
        self.provenance: dict[str, Any] = facts.provenance
        self._zipped: zipfile.ZipFile | None = zipped
        self._process = os.getpid()
        first = self._decoded(0)
        self.resolution = first.shape[0]
        self._check(0, first)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an archive and check its table of contents, its labels and its first picture.

        The other pictures are checked when read. Raises ArchiveError, FileError.
        """
        path = Path(path)
        zipped = open_zip(path)
        try:
            names = sorted(name for name in zipped.namelist() if is_picture(name))
            if not names:
                raise ArchiveError(path, "holds no pictures")
            facts = Facts()
            if FACTS_NAME in zipped.namelist():
                facts = read_facts(path, read_member(path, zipped, FACTS_NAME), names)
            return cls(path, zipped=zipped, names=names, facts=facts)
        except FileError:
            zipped.close()
            raise

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the whole file, as hexadecimal digits."""
        return sha256_of(self.path)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return picture `index`, uint8 [H, W, 3], H = W = `resolution`. Raises ArchiveError."""
        return self._check(index, self._decoded(index))

    def _decoded(self, index: int) -> NDArray[np.uint8]:
        """Read and decode picture `index` without looking at its size."""
        name = self.names[index]
        try:
            return np.array(decode(read_member(self.path, self._handle(), name)))  # a copy, writable
        except PictureError as error:
            raise ArchiveError(self.path, f"the picture {name!r} {error}") from error

    def _check(self, index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return `pixels` if they are of the archive's size. Raises ArchiveError."""
        height, width = pixels.shape[:2]
        if not height == width == self.resolution:
            expected = "square" if index == 0 else f"{self.resolution}x{self.resolution} as the first"
            problem = (
                f"the picture {self.names[index]!r} is {width}x{height}, not {expected}; use `polyinr prepare`"
            )
            raise ArchiveError(self.path, problem)
        return pixels

    def _handle(self) -> zipfile.ZipFile:
        """Return the zip, opened anew after a fork, as processes would move each other's place in one file."""
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


def read_member(path: Path, zipped: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of one file in a zip. Raises ArchiveError, FileError."""
    try:
        return zipped.read(name)
    except OSError as error:
        raise explain(path, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(path, f"{name!r} cannot be read; the file is damaged") from error
