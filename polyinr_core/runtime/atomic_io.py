"""Files that are either whole or absent: written beside, then renamed."""

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from polyinr_core.errors import FileError

PathLike = str | os.PathLike[str]  # what every public reader and writer takes
DRAFT = re.compile(r"\..*\.(?P<host>[0-9a-f]{8})\.(?P<process>[0-9]+)\.[0-9a-f]{8}\.part")
NAME_BYTES = 100  # of the file's own name in its draft's, which is the longer one and has to fit
_drafts: set[Path] = set()  # of this process, for `remove_drafts`
_cleared: set[Path] = set()  # folders in which stale drafts were looked for


def refuse_overwrite(path: Path, *, overwrite: bool) -> None:
    """Raise FileError if `path` exists and `overwrite` is false."""
    if os.path.exists(path) and not overwrite:
        raise FileError(path, "exists already; choose another name or give --overwrite")


def check_place(path: Path) -> None:
    """Raise FileError if nothing can be written at `path`, so that work which takes long need not find out."""
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
        for name in missing:  # the system looks at the length of a name only where its folder is there
            with suppress(FileNotFoundError):
                os.lstat(folder / name)
        with suppress(FileNotFoundError):
            os.lstat(path)
    except OSError as error:
        raise explain(path, error) from error


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
def written_beside(path: Path, *, overwrite: bool = False, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` on success, remove it otherwise.

    The block writes to the temporary path (a file, or a folder that it makes). Unless `durable` is false, the
    data reaches the disk before the rename, so a crash of the machine leaves either the old file or the new one.
    Missing folders above `path` are made, and taken away again on failure. Raises FileError.
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

    `parent` is made if it is missing, and taken away again if nothing has come into it. Drafts that dead
    processes have left in it are removed. Raises OSError.
    """
    short = os.fsencode(name)[:NAME_BYTES].decode(errors="ignore")
    beside = parent / f".{short}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.part"
    made: list[Path] = []
    _drafts.add(beside)  # before it is there: a signal may come right after
    try:
        made = make_folder(parent)
        remove_stale_drafts(parent)
        beside.mkdir(mode=0o700)
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        unmake_folders(made)
        _drafts.discard(beside)


def remove_drafts() -> None:
    """Remove the drafts of this process that an interruption at an unlucky moment has left."""
    for beside in list(_drafts):
        shutil.rmtree(beside, ignore_errors=True)
        _drafts.discard(beside)


def remove_stale_drafts(folder: Path) -> None:
    """Remove the drafts in a folder whose process is dead: one of this machine that runs no longer.

    Looks at a folder once in the life of a process, as it may hold a million files.
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
    """Return eight digits for the machine, or the container, in which process numbers mean the same."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:8]


def _is_dead(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another person's, or no process number at all
        return False
    return False


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


def refuse_special(path: Path) -> None:
    """Raise FileError for a named pipe, socket or device, which reading may wait at for ever.

    A pipe that the shell has opened for us, `<(command)`, comes to its end by itself.
    """
    try:
        mode = path.stat().st_mode
        is_open = stat.S_ISFIFO(mode) and os.path.realpath(path).startswith(("/proc/", "/dev/fd/"))
    except (OSError, ValueError):
        return  # whoever reads it says why it cannot be
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or is_open or os.path.realpath(path) == os.devnull):
        raise FileError(path, "is not a regular file (a named pipe, socket or device); give a file")


def read_bytes(path: Path) -> bytes:
    """Return the file's bytes. Raises FileError."""
    refuse_special(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise explain(path, error) from error


def sha256_of(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits. Raises FileError."""
    refuse_special(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise explain(path, error) from error
