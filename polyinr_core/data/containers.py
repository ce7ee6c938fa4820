"""Zip and tar files from untrusted sources: names, sizes and flags are checked before anything is read."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from polyinr_core.errors import DatasetError
from polyinr_core.runtime.atomic_io import explain, refuse_special

from .decode import IMAGE_SUFFIXES, MAX_IMAGE_BYTES

FACTS_NAME = "dataset.json"
MAX_FACTS_BYTES = 2**29  # ImageNet's 1.28 million labels need a tenth of it


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


def check_name(path: Path, name: str) -> None:
    """Raise DatasetError if `name`, inside the archive at `path`, is absolute or leads upwards."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in plain.split("/"):
        raise DatasetError(path, f"holds the name {name!r}, which leads out of the archive; refused")


def plain_name(name: str) -> str:
    """Normalize a name inside a container: forward slashes, no `./`."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def is_hidden(name: str) -> bool:
    """Return whether a normalized name is that of a hidden file or of macOS's side files."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_image(name: str) -> bool:
    """Return whether a file is an image by its name; hidden files are none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(plain_name(name))


class Member(NamedTuple):
    """A file inside a tar; it can be read until the next one is requested."""

    path: Path
    tar: tarfile.TarFile
    info: tarfile.TarInfo

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def size(self) -> int:
        return self.info.size

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, not a link or pipe."""
        return self.info.isreg()

    def read(self) -> bytes:
        """Return the file's bytes. Raises DatasetError, FileError."""
        with tar_errors(self.path):
            file = self.tar.extractfile(self.info)
            return file.read() if file is not None else b""


def tar_members(path: Path, *, compressed: bool = True, special: bool = False) -> Iterator[Member]:
    """Yield the regular files of a tar in order; with `special` also links and pipes.

    Unless `compressed` tars are allowed, the end-of-archive block is checked too, which a tar that was cut between two
    files lacks. Raises DatasetError, FileError.
    """
    with tar_errors(path):
        try:
            tar = tarfile.open(path, "r:*" if compressed else "r:")  # noqa: SIM115 closed below
        except tarfile.ReadError:
            if not compressed and tarfile.is_tarfile(path):
                raise DatasetError(path, "is a compressed tar; shards are read in place: decompress it") from None
            raise
    with tar:
        while True:
            with tar_errors(path):
                info = tar.next()
            if info is None:
                if not compressed:
                    check_end(path, tar)
                return
            tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill memory
            check_name(path, info.name)
            if info.isreg() or (special and not info.isdir()):
                yield Member(path, tar, info)


def check_end(path: Path, tar: tarfile.TarFile) -> None:
    """Raise DatasetError unless a block of zeros follows the last file."""
    assert tar.fileobj is not None
    with tar_errors(path):
        tar.fileobj.seek(tar.offset)
        block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DatasetError(path, "is not a whole tar file (cut off or damaged behind its last readable file)")


@contextmanager
def tar_errors(path: Path) -> Iterator[None]:
    """Raise DatasetError or FileError for what tarfile raises of a damaged tar."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DatasetError(path, "is not a whole tar file (truncated, damaged, or of another type)") from error
    except OSError as error:
        if error.errno is None:  # gzip's and bzip2's own complaints
            raise DatasetError(path, "is not a whole tar file (its compression is damaged)") from error
        raise explain(path, error) from error
