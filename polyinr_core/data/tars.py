"""Tar files, compressed or not, read from front to back and never unpacked to the disk."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import ArchiveError
from ..files import explain
from .zips import check_name


class Member(NamedTuple):
    """A file inside a tar; read it before asking for the next one."""

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
        """Say whether it is a plain file, as links and pipes are not."""
        return self.info.isreg()

    def read(self) -> bytes:
        """Return the file's bytes. Raises ArchiveError, FileError."""
        with tar_errors(self.path):
            file = self.tar.extractfile(self.info)
            return file.read() if file is not None else b""


def tar_members(path: Path, *, compressed: bool = True, special: bool = False) -> Iterator[Member]:
    """Yield the plain files of a tar in its order; with `special` links and pipes too.

    Unless `compressed` ones are welcome, the mark at the tar's end is looked for too: it is what a tar that was
    cut between two files lacks. Raises ArchiveError, FileError.
    """
    with tar_errors(path):
        try:
            tar = tarfile.open(path, "r:*" if compressed else "r:")  # noqa: SIM115 closed below
        except tarfile.ReadError:
            if not compressed and tarfile.is_tarfile(path):
                raise ArchiveError(path, "is a compressed tar; shards are read in place: decompress it") from None
            raise
    with tar:
        while True:
            with tar_errors(path):
                info = tar.next()
            if info is None:
                if not compressed:
                    check_end(path, tar)
                return
            tar.members.clear()  # type: ignore[attr-defined]  # or a million of them would stay in memory
            check_name(path, info.name)
            if info.isreg() or (special and not info.isdir()):
                yield Member(path, tar, info)


def check_end(path: Path, tar: tarfile.TarFile) -> None:
    """Raise ArchiveError if no block of zeros follows the last file."""
    assert tar.fileobj is not None
    with tar_errors(path):
        tar.fileobj.seek(tar.offset)
        block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise ArchiveError(path, "is not a whole tar file (cut off or damaged behind its last readable file)")


@contextmanager
def tar_errors(path: Path) -> Iterator[None]:
    """Turn what a broken tar raises into one clear line."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise ArchiveError(path, "is not a whole tar file (truncated, damaged, or of another kind)") from error
    except OSError as error:
        if error.errno is None:  # gzip's and bzip2's own complaints
            raise ArchiveError(path, "is not a whole tar file (its compression is damaged)") from error
        raise explain(path, error) from error
