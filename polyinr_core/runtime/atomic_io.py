"""Atomic file output: a file is written under a temporary name and renamed, so it is whole or absent."""

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyinr_core.errors import FileError

PathLike = str | os.PathLike[str]
WINDOWS = sys.platform == "win32"
DRAFT = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})\.(?P<process>[0-9]+)\.[0-9a-f]{8}\.part")
NAME_BYTES = 100  # of the file name that the longer name of its draft holds, as that has to fit too
_drafts: set[Path] = set()  # of this process, for `remove_drafts`
_cleared: set[Path] = set()  # folders in which stale drafts were removed


def refuse_overwrite(path: Path, *, overwrite: bool) -> None:
    """Raise FileError if `path` exists and `overwrite` is false."""
    if os.path.exists(path) and not overwrite:
        raise FileError(path, "exists already; choose another name or give --overwrite")


def check_place(path: Path) -> None:
    """Raise FileError if `path` cannot be written: to be called before work that takes long."""
    folder = path.absolute().parent
    missing = [path.name]
    while not os.path.exists(folder):
        missing.append(folder.name)
        folder = folder.parent
    if not folder.is_dir():
        raise explain(path, NotADirectoryError(errno.ENOTDIR, ""))
    if not os.access(folder, os.W_OK):
        raise explain(path, PermissionError(errno.EACCES, ""))
    try:
        for name in missing:  # the system checks the length of a name only where its folder exists
            with suppress(FileNotFoundError):
                os.lstat(folder / name)
        with suppress(FileNotFoundError):
            os.lstat(path)
    except OSError as error:
        raise explain(path, error) from error


def explain(path: Path, error: OSError) -> FileError:
    """Convert an OSError at `path` to a FileError with one clear line."""
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
        errno.EEXIST: "a part of this path is a file, not a folder",  # as a folder is to be made
        errno.ENAMETOOLONG: "the name is too long",
    }
    return FileError(path, known.get(error.errno or 0, (error.strerror or str(error)).lower()))


@contextmanager
def written_beside(path: Path, *, overwrite: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it otherwise.

    The block writes a file or creates a folder at the temporary path. If `durable`, the data are flushed to the disk
    before the rename, so a crash of the machine leaves either the old file or the new one. Missing parent folders are
    created, and removed again on failure. Raises FileError.
    """
    refuse_overwrite(path, overwrite=overwrite)
    check_place(path)
    try:
        with draft_folder(path.parent, path.name) as beside:
            draft = beside / path.name
            yield draft
            if durable:
                for file in [draft] if draft.is_file() else sorted(draft.rglob("*")):
                    if file.is_file():
                        flush_to_disk(file)
            _replace(path, draft, aside=beside / "old")
            if durable:
                flush_to_disk(path.parent)
    except OSError as error:
        raise explain(path, error) from error


@contextmanager
def draft_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new hidden folder in `parent`, named after `name` and this process; remove it at the end.

    `parent` is created if it is missing, and removed again if it stays empty. Drafts of dead processes in it are
    removed. Raises OSError.
    """
    short = os.fsencode(name)[:NAME_BYTES].decode(errors="ignore")
    beside = parent / f".{short}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    made: list[Path] = []
    _drafts.add(beside)  # before it exists: a signal may come right after
    try:
        made = make_folder(parent)
        remove_stale_drafts(parent)
        beside.mkdir(mode=0o700)
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        unmake_folders(made)
        _drafts.discard(beside)


def has_drafts() -> bool:
    """Return whether this process is writing a file."""
    return bool(_drafts)


def remove_drafts() -> None:
    """Remove the drafts of this process that an interruption has left."""
    for beside in list(_drafts):
        shutil.rmtree(beside, ignore_errors=True)
        _drafts.discard(beside)


def remove_stale_drafts(folder: Path) -> None:
    """Remove the drafts in a folder whose process, on this machine, is dead.

    A process scans each folder once, as it may hold a million files.
    """
    if folder in _cleared:
        return
    _cleared.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            draft = DRAFT.fullmatch(entry.name)
            if draft and draft["host"] == _host() and _is_dead(int(draft["process"])):
                shutil.rmtree(entry.path, ignore_errors=True)


def _host() -> str:
    """Return eight digits that identify the machine or container, within which process ids are unique."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _is_dead(process: int) -> bool:
    if WINDOWS:  # there os.kill would end the process, or send it Ctrl-C; a draft stays until somebody deletes it
        return False
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # the process of another user, or no process id
        return False
    return False


def _replace(path: Path, draft: Path, *, aside: Path) -> None:
    """Rename `draft` to `path`; an old folder, which cannot be replaced by renaming, is moved aside first."""
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
    """Create a folder and its parents; return those that were missing, the deepest first. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    return missing


def unmake_folders(folders: list[Path]) -> None:
    """Remove the folders that `make_folder` created, as far as they are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def flush_to_disk(path: Path) -> None:
    """Flush a file or folder to the disk (fsync); on Windows a file alone, and only one opened for writing."""
    if WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_special(path: Path) -> None:
    """Raise FileError for a named pipe, socket or device, from which reading may never return.

    A pipe that the shell has opened, `<(command)`, is allowed.
    """
    try:
        mode = path.stat().st_mode
        is_open = stat.S_ISFIFO(mode) and os.path.realpath(path).startswith(("/proc/", "/dev/fd/"))
    except (OSError, ValueError):
        return  # the reader reports why it cannot be read
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_open or os.path.realpath(path) == os.devnull):
        raise FileError(path, "is not a regular file (a named pipe, socket or device); give a file")


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises FileError."""
    refuse_special(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise explain(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises FileError."""
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise explain(path, error) from error
