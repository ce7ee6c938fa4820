"""Files that are either whole or absent: written beside, then renamed."""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FileError

PathLike = str | os.PathLike[str]  # what every public reader and writer takes


def refuse_overwrite(path: Path, *, overwrite: bool) -> None:
    """Raise FileError if `path` exists and `overwrite` is false."""
    if path.exists() and not overwrite:
        raise FileError(path, "exists already; choose another name or give --overwrite")


def check_place(path: Path) -> None:
    """Raise FileError if nothing can be written at `path`, so that work which takes long need not find out."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise explain(path, NotADirectoryError(errno.ENOTDIR, ""))
    if not os.access(folder, os.W_OK):
        raise explain(path, PermissionError(errno.EACCES, ""))


def explain(path: Path, error: OSError) -> FileError:
    """Turn an operating-system error at `path` into one clear line."""
    known = {
        errno.ENOSPC: "no space left on the disk; free some and run again",
        errno.EDQUOT: "the disk quota is used up; free some space and run again",
        errno.EFBIG: "file too large for the file system, or for this process (ulimit -f); choose another place",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.EACCES: "permission denied; choose another place or change its permissions",
        errno.EPERM: "permission denied; choose another place or change its permissions",
        errno.ENOENT: "no such file or folder",
        errno.EISDIR: "is a folder, a file is needed",
        errno.ENOTDIR: "a part of this path is a file, not a folder",
        errno.EEXIST: "a part of this path is a file, not a folder",  # where a folder was to be made
        errno.ENAMETOOLONG: "the name is too long",
    }
    return FileError(path, known.get(error.errno or 0, (error.strerror or str(error)).lower()))


@contextmanager
def written_beside(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it otherwise.

    The block writes to the temporary path (a file, or a folder that it makes). The data reaches the disk
    before the rename, so a crash leaves either the old file or the new one. Missing folders above `path` are
    made, and taken away again on failure. Raises FileError.
    """
    refuse_overwrite(path, overwrite=overwrite)
    beside = None
    made: list[Path] = []
    try:
        made = make_folder(path.parent)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent))
        draft = beside / path.name
        yield draft
        for file in [draft] if draft.is_file() else sorted(draft.rglob("*")):
            if file.is_file():
                flush_to_disk(file)
        _replace(path, draft, aside=beside / "old")
        flush_to_disk(path.parent)
    except OSError as error:
        raise explain(path, error) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)
        if not path.exists():
            unmake_folders(made)


def _replace(path: Path, draft: Path, *, aside: Path) -> None:
    """Rename `draft` to `path`; an old folder, which a rename cannot replace, goes aside first."""
    if not (draft.is_dir() and path.is_dir()):
        os.replace(draft, path)
        return
    os.replace(path, aside)
    try:
        os.replace(draft, path)
    except BaseException:
        os.replace(aside, path)
        raise


def make_folder(path: Path) -> list[Path]:
    """Make a folder and those above it; return the ones that were missing, the deepest first. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def unmake_folders(folders: list[Path]) -> None:
    """Take away the folders that `make_folder` made, as far as nothing else has come into them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def flush_to_disk(path: Path) -> None:
    """Ask the operating system to write a file's or a folder's buffers to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes. Raises FileError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise explain(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits. Raises FileError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise explain(path, error) from error
