"""The unfinished output of `prepare`: the images that are done, in a folder beside it, from which work resumes."""

import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout

from polyinr_core.errors import FileError, ImageError
from polyinr_core.runtime.atomic_io import check_place, make_folder, unmake_folders
from polyinr_core.runtime.strict_json import JsonError, format_json, is_whole, parse_json

LOCK_NAME = "work.lock"  # while a process works here
REQUEST_NAME = "request.sha256"
JOURNAL_NAME = "journal.jsonl"
IMAGES_NAME = "images.bin"


class WorkFolder:
    """The results so far, in the order of the request's images: PNG bytes, or why an image was skipped.

    `NAME.zip.part/` holds request.sha256 (a digest of the request; for another request the work starts again),
    images.bin (the PNG files, concatenated) and journal.jsonl (a line per image: name, size and CRC, or the reason).
    """

    def __init__(self, output: Path, *, request: str) -> None:
        """Open or create the folder. Raises FileError if it is in use, OSError."""
        self.output = output
        self.path = output.with_name(output.name + ".part")
        if os.path.exists(self.path) and not (self.path / REQUEST_NAME).is_file():
            raise FileError(self.path, "is not a work folder of polyinr; move it away")
        check_place(self.path)
        self._made = make_folder(self.path)
        self._lock = FileLock(self.path / LOCK_NAME)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise FileError(
                self.path, "another `polyinr prepare` is running here; wait until it has finished"
            ) from error
        made_for = self.path / REQUEST_NAME
        is_same = made_for.exists() and made_for.read_bytes() == request.encode()
        mode = "a+" if is_same else "w+"
        self._journal: IO[str] = (self.path / JOURNAL_NAME).open(mode, encoding="ascii", errors="replace", newline="\n")
        self._images: IO[bytes] = (self.path / IMAGES_NAME).open(mode + "b")
        if not is_same:
            made_for.write_bytes(request.encode())
        self.lines: list[dict[str, Any]] = []
        self._resume()

    @property
    def done(self) -> int:
        """The number of images that are finished or skipped."""
        return len(self.lines)

    def _resume(self) -> None:
        """Read the journal up to the first damaged line or image, and truncate the rest."""
        self._journal.seek(0)
        self._images.seek(0)
        journal_end = images_end = 0
        for text in iter(self._journal.readline, ""):
            try:
                line = parse_json(text)
            except JsonError:
                break
            if not text.isascii() or not is_line(line):
                break
            if "skipped" not in line:
                data = self._images.read(line["size"])
                if len(data) != line["size"] or zlib.crc32(data) != line["crc"]:
                    break
                images_end += len(data)
            journal_end += len(text.encode())
            self.lines.append(line)
        self._journal.truncate(journal_end)
        self._images.truncate(images_end)
        self._journal.seek(journal_end)
        self._images.seek(images_end)

    def add(self, name: str, result: bytes | ImageError) -> None:
        """Add the PNG file of the next image, or why it is skipped. Raises OSError."""
        if isinstance(result, ImageError):
            line: dict[str, Any] = {"name": name, "skipped": str(result)}
        else:
            line = {"name": name, "size": len(result), "crc": zlib.crc32(result)}
            self._images.write(result)
            self._images.flush()
        self._journal.write(format_json(line, sort_keys=False) + "\n")
        self._journal.flush()
        self.lines.append(line)

    def images(self) -> Iterator[bytes]:
        """Yield the finished PNG files in order. Raises OSError."""
        with (self.path / IMAGES_NAME).open("rb") as file:
            for line in self.lines:
                if "skipped" not in line:
                    yield file.read(line["size"])

    def remove(self) -> None:
        """Close and delete the folder."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        unmake_folders(self._made)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Close the files, and let another process work here."""
        for file in (self._images, self._journal):
            with suppress(OSError):  # a full disk has no room for what is buffered either
                file.close()
        with suppress(OSError):
            (self.path / LOCK_NAME).unlink()  # while locked, so that no other process can lock a removed file
        self._lock.release()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is not None and not self.lines:  # nothing to resume from
            self.remove()


def is_line(line: Any) -> bool:
    """Return whether a value is a line of the journal: a finished image, or why it is skipped."""
    if not isinstance(line, dict) or not isinstance(line.get("name"), str):
        return False
    if "skipped" in line:
        return isinstance(line["skipped"], str)
    return is_whole(line.get("size"), 0, 2**40) and is_whole(line.get("crc"), 0, 2**32 - 1)
