"""Zip files from anywhere, opened with suspicion: names, sizes and flags are checked before anything is read."""

import zipfile
from pathlib import Path

from ..errors import ArchiveError
from ..files import explain, refuse_special
from .decoding import MAX_PICTURE_BYTES, PICTURE_SUFFIXES

FACTS_NAME = "dataset.json"
MAX_FACTS_BYTES = 2**29  # ImageNet's 1.28 million labels need a tenth of it


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip for reading after checking its names and declared sizes. Raises ArchiveError, FileError."""
    try:
        if path.is_dir():
            raise ArchiveError(path, "is a folder; make an archive of it with `polyinr prepare`")
        refuse_special(path)
        size = path.stat().st_size
        if size == 0:
            raise ArchiveError(path, "is empty")
        zipped = zipfile.ZipFile(path)
    except OSError as error:
        raise explain(path, error) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError, ArithmeticError, EOFError) as error:
        raise ArchiveError(path, "is not a whole zip file (truncated, or of another kind)") from error
    try:
        check_members(path, zipped.infolist(), size)
    except ArchiveError:
        zipped.close()
        raise
    return zipped


def check_members(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ArchiveError for names that lead out, double names, encryption, and sizes that cannot be true."""
    seen: set[str] = set()
    for member in members:
        check_name(path, member.filename)
        if member.filename in seen:
            raise ArchiveError(path, f"holds {member.filename!r} twice; make the archive anew")
        seen.add(member.filename)
        is_facts = plain_name(member.filename).rpartition("/")[2] == FACTS_NAME
        if not (is_picture(member.filename) or is_facts):
            continue
        if member.flag_bits & 0x1:
            raise ArchiveError(path, f"{member.filename!r} is encrypted; store it without a password")
        limit = MAX_FACTS_BYTES if is_facts else MAX_PICTURE_BYTES
        if member.file_size > limit:
            problem = f"{member.filename!r} declares {member.file_size} bytes, more than {limit}; refused"
            raise ArchiveError(path, problem)
    if sum(member.compress_size for member in members) > size:
        raise ArchiveError(path, "its entries overlap or claim more bytes than the file has; refused")


def check_name(path: Path, name: str) -> None:
    """Raise ArchiveError if `name`, inside the archive at `path`, is absolute or leads upwards."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":" or ".." in plain.split("/"):
        raise ArchiveError(path, f"holds the name {name!r}, which leads out of the archive; refused")


def plain_name(name: str) -> str:
    """Return a name inside a container with slashes alone, and without `./`."""
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def is_hidden(name: str) -> bool:
    """Tell whether a plain name is that of a hidden file, or of one that macOS puts beside others."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def is_picture(name: str) -> bool:
    """Tell by its name whether a file is a picture; hidden files and macOS's side files are none."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not is_hidden(plain_name(name))
