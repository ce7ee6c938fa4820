"""Zip datasets: square RGB images of one size with labels, as `prepare` and StyleGAN's tools write them.

A zip may come from anywhere: its names, sizes and flags are checked before anything is read.
"""

import os
import zipfile
import zlib
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, FileError
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_special, sha256_of, written_beside
from polyinr_core.runtime.strict_json import JsonError, format_json

from .decode import MAX_IMAGE_BYTES, decode_square
from .labels import FACTS_NAME, MAX_FACTS_BYTES, LabelInfo, LabelUse, plain_name
from .listing import Listing, ListingBuilder, check_name, is_image


class ZipDataset:
    """A dataset in a zip file, ordered by name. Reading is safe in threads and forked processes.

    `labels` is int64 [N] or None, `classes` their number (0: unlabeled), `class_names` may be empty.
    """

    def __init__(
        self, path: Path, *, zipped: zipfile.ZipFile, names: list[str], info: LabelInfo, notes: tuple[str, ...] = ()
    ) -> None:
        self.path = path
        self.names = names
        self.notes = notes
        self.labels = info.labels
        self.classes = info.classes
        self.class_names = info.class_names
        self.provenance: dict[str, Any] = info.provenance
        self.shard_of: NDArray[np.int32] | None = None  # there is one file only
        self._zipped: zipfile.ZipFile | None = zipped
        self._process = os.getpid()
        self.resolution: int = self._decode(0, side=None).shape[0]

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
            info, note = listing.labels.resolve_for(labels, path, lambda index: repr(listing.names[index]))
            notes = (*listing.ignored.lines(), *([] if note is None else [note]))
            return cls(path, zipped=zipped, names=list(listing.names), info=info, notes=notes)
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
        return self._decode(index, side=self.resolution)

    def _decode(self, index: int, *, side: int | None) -> NDArray[np.uint8]:
        """Read and decode image `index`; `side` None: of any size."""
        name = self.names[index]
        return decode_square(self.path, name, read_member(self.path, self._handle(), name), side=side)

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

    def __exit__(self, *exc: object) -> None:
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


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip for reading after checking its names and declared sizes. Raises DatasetError, FileError."""
    try:
        if path.is_dir():
            raise DatasetError(path, "is a folder; make a dataset of it with `polyinr prepare`")
        refuse_special(path)
        size = path.stat().st_size
        if size == 0:
            raise DatasetError(path, "is empty")
        zipped = zipfile.ZipFile(path)
    except OSError as error:
        raise explain(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, ArithmeticError, EOFError) as error:
        raise DatasetError(path, "is not a whole zip file (truncated, or of another type)") from error
    try:
        check_members(path, zipped.infolist(), size)
    except DatasetError:
        zipped.close()
        raise
    return zipped


def check_members(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise DatasetError for names that lead out of the zip, duplicates, encryption and impossible sizes."""
    seen: set[str] = set()
    for member in members:
        check_name(path, member.filename)
        if member.filename in seen:
            raise DatasetError(path, f"holds {member.filename!r} twice; make the zip again")
        seen.add(member.filename)
        is_facts = plain_name(member.filename).rpartition("/")[2] == FACTS_NAME
        if not (is_image(member.filename) or is_facts):
            continue
        if member.flag_bits & 0x1:
            raise DatasetError(path, f"{member.filename!r} is encrypted; store it without a password")
        limit = MAX_FACTS_BYTES if is_facts else MAX_IMAGE_BYTES
        if member.file_size > limit:
            problem = f"{member.filename!r} declares {member.file_size} bytes, more than {limit}; refused"
            raise DatasetError(path, problem)
    if sum(member.compress_size for member in members) > size:
        raise DatasetError(path, "its entries overlap or claim more bytes than the file has; refused")


def write_zip_dataset(
    path: Path, images: Iterable[bytes], info: LabelInfo, provenance: dict[str, Any], *, overwrite: bool
) -> None:
    """Write PNG files and a `dataset.json` as a zip file. Raises FileError, OSError."""
    labels = None
    if info.labels is not None:
        values: list[Any] = info.labels.tolist()
        if not info.class_names and info.classes > max(values) + 1:  # one-hot, or the last classes would be lost
            values = [[int(label == number) for number in range(info.classes)] for label in values]
        labels = [[image_name(number), label] for number, label in enumerate(values)]
    try:
        text = format_json({"labels": labels, "class_names": list(info.class_names), "provenance": provenance})
    except JsonError as error:
        raise FileError(path, f"its {FACTS_NAME} cannot be written: {error}") from error
    with written_beside(path, overwrite=overwrite) as draft, zipfile.ZipFile(draft, "w") as zipped:
        for number, image in enumerate(images):
            zipped.writestr(entry(image_name(number)), image)
        zipped.writestr(entry(FACTS_NAME), text)


def image_name(number: int) -> str:
    """Return the name that StyleGAN's tools give image `number` in a zip."""
    return f"{number // 1000:05d}/img{number:08d}.png"


def entry(name: str) -> zipfile.ZipInfo:
    """Return a zip entry whose header does not depend on machine and time."""
    info = zipfile.ZipInfo(name)  # dated 1980
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info
