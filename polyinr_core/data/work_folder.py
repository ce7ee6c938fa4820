"""The work folder beside an unfinished archive: what is done is kept there, so that work goes on after a stop."""

import fcntl
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from ..errors import FileError, PictureError
from ..files import make_folder, unmake_folders
from ..strict_json import JsonError, format_json, is_whole, parse_json

REQUEST_NAME = "request.sha256"
JOURNAL_NAME = "journal.jsonl"
PICTURES_NAME = "pictures.bin"


def is_line(line: Any) -> bool:
    """Say whether a value is a line of the journal: a picture that was kept, or the reason why not."""
    if not isinstance(line, dict) or not isinstance(line.get("name"), str):
        return False
    if "skipped" in line:
        return isinstance(line["skipped"], str)
    return is_whole(line.get("size"), 0, 2**40) and is_whole(line.get("crc"), 0, 2**32 - 1)


class WorkFolder:
    """Results in the order of the request's pictures: PNG bytes, or the reason why a picture was skipped.

    `NAME.zip.part/` holds request.sha256 (a digest of the request: another request starts anew), pictures.bin
    (the PNG files one after the other), journal.jsonl (a line a picture: name, size and CRC, or the reason).
    """

    def __init__(self, output: Path, *, request: str) -> None:
        """Open or make the folder; `done` tells how far it had come. Raises FileError (in use), OSError."""
        self.output = output
        self.path = output.with_name(output.name + ".part")
        if self.path.exists() and not (self.path / REQUEST_NAME).is_file():
            raise FileError(self.path, "is in the way and not ours; move it away")
        self._made = make_folder(self.path)
        self._request = (self.path / REQUEST_NAME).open("a+")
        try:
            fcntl.flock(self._request, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._request.close()
            raise FileError(self.path, "another `polyinr prepare` is at work here; wait for it") from error
        self._request.seek(0)
        is_same = self._request.read() == request
        mode = "a+" if is_same else "w+"
        self._journal: IO[str] = (self.path / JOURNAL_NAME).open(mode, encoding="ascii", errors="replace")
        self._pictures: IO[bytes] = (self.path / PICTURES_NAME).open(mode + "b")
        if not is_same:
            self._request.truncate(0)
            self._request.write(request)
            self._request.flush()
        self.lines: list[dict[str, Any]] = []
        self._take_up()

    @property
    def done(self) -> int:
        """The number of pictures dealt with, skipped ones included."""
        return len(self.lines)

    def _take_up(self) -> None:
        """Read the journal as far as it and the pictures are whole, and cut off the rest."""
        self._journal.seek(0)
        self._pictures.seek(0)
        journal_end = pictures_end = 0
        for text in iter(self._journal.readline, ""):
            try:
                line = parse_json(text)
            except JsonError:
                break
            if not text.isascii() or not is_line(line):
                break
            if "skipped" not in line:
                data = self._pictures.read(line["size"])
                if len(data) != line["size"] or zlib.crc32(data) != line["crc"]:
                    break
                pictures_end += len(data)
            journal_end += len(text.encode())
            self.lines.append(line)
        self._journal.truncate(journal_end)
        self._pictures.truncate(pictures_end)
        self._journal.seek(journal_end)
        self._pictures.seek(pictures_end)

    def add(self, name: str, result: bytes | PictureError) -> None:
        """Keep the next picture's PNG file, or why there is none. Raises OSError."""
        if isinstance(result, PictureError):
            line: dict[str, Any] = {"name": name, "skipped": str(result)}
        else:
            line = {"name": name, "size": len(result), "crc": zlib.crc32(result)}
            self._pictures.write(result)
            self._pictures.flush()
        self._journal.write(format_json(line, sort_keys=False) + "\n")
        self._journal.flush()
        self.lines.append(line)

    def pictures(self) -> Iterator[bytes]:
        """Yield the PNG files that were kept, in order. Raises OSError."""
        with (self.path / PICTURES_NAME).open("rb") as file:
            for line in self.lines:
                if "skipped" not in line:
                    yield file.read(line["size"])

    def remove(self) -> None:
        """Delete the folder: it is not needed any more."""
        shutil.rmtree(self.path, ignore_errors=True)
        unmake_folders(self._made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._pictures, self._journal, self._request):
            with suppress(OSError):  # what is left in its buffer does not fit either
                file.close()
        if error is not None and not self.lines:  # nothing that another call could take up
            self.remove()
