"""The work folder beside an unfinished archive: what is done is kept there, so that work goes on after a stop."""

import fcntl
import io
import os
import shutil
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyinr_core.errors import ArchiveError, FileError, ImageError, RequestError
from polyinr_core.runtime.atomic_io import (
    PathLike,
    check_place,
    explain,
    make_folder,
    refuse_overwrite,
    unmake_folders,
    written_beside,
)
from polyinr_core.runtime.process_pool import in_order
from polyinr_core.runtime.strict_json import JsonError, format_json, is_whole, parse_json

from .containers import FACTS_NAME
from .decode import MAX_IMAGE_BYTES, WHITE, Color, Crop, Resize, decode, fit
from .import_sources import open_source
from .labels import Facts
from .listing import NOT_REGULAR, Notes, Payload, Source, merged_facts

REQUEST_NAME = "request.sha256"
JOURNAL_NAME = "journal.jsonl"
IMAGES_NAME = "images.bin"


def is_line(line: Any) -> bool:
    """Say whether a value is a line of the journal: an image that was kept, or the reason why not."""
    if not isinstance(line, dict) or not isinstance(line.get("name"), str):
        return False
    if "skipped" in line:
        return isinstance(line["skipped"], str)
    return is_whole(line.get("size"), 0, 2**40) and is_whole(line.get("crc"), 0, 2**32 - 1)


class WorkFolder:
    """Results in the order of the request's images: PNG bytes, or the reason why an image was skipped.

    `NAME.zip.part/` holds request.sha256 (a digest of the request: another request starts anew), images.bin
    (the PNG files one after the other), journal.jsonl (a line an image: name, size and CRC, or the reason).
    """

    def __init__(self, output: Path, *, request: str) -> None:
        """Open or make the folder; `done` tells how far it had come. Raises FileError, OSError."""
        self.output = output
        self.path = output.with_name(output.name + ".part")
        if os.path.exists(self.path) and not (self.path / REQUEST_NAME).is_file():
            raise FileError(self.path, "is in the way and not ours; move it away")
        check_place(self.path)
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
        self._images: IO[bytes] = (self.path / IMAGES_NAME).open(mode + "b")
        if not is_same:
            self._request.truncate(0)
            self._request.write(request)
            self._request.flush()
        self.lines: list[dict[str, Any]] = []
        self._take_up()

    @property
    def done(self) -> int:
        """The number of images dealt with, skipped ones included."""
        return len(self.lines)

    def _take_up(self) -> None:
        """Read the journal as far as it and the images are whole, and cut off the rest."""
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
        """Keep the next image's PNG file, or why there is none. Raises OSError."""
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
        """Yield the PNG files that were kept, in order. Raises OSError."""
        with (self.path / IMAGES_NAME).open("rb") as file:
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
        for file in (self._images, self._journal, self._request):
            with suppress(OSError):  # what is left in its buffer does not fit either
                file.close()
        if error is not None and not self.lines:  # nothing that another call could take up
            self.remove()


def write_archive(work: WorkFolder, facts: Facts, provenance: dict[str, Any], *, overwrite: bool) -> None:
    """Write the images that were kept, `facts` being theirs, and `dataset.json`. Raises FileError, OSError."""
    kept = sum("skipped" not in line for line in work.lines)
    names = [f"{number // 1000:05d}/img{number:08d}.png" for number in range(kept)]
    labels = None
    if facts.labels is not None:
        values: list[Any] = facts.labels.tolist()
        if not facts.class_names and facts.classes > max(values) + 1:  # else nothing would tell of the last ones
            values = [[int(label == number) for number in range(facts.classes)] for label in values]
        labels = [[name, label] for name, label in zip(names, values, strict=True)]
    description = {"labels": labels, "class_names": list(facts.class_names), "provenance": provenance}
    try:
        text = format_json(description)
    except JsonError as error:
        raise FileError(work.output, f"its {FACTS_NAME} cannot be written: {error}") from error
    with written_beside(work.output, overwrite=overwrite) as draft, zipfile.ZipFile(draft, "w") as zipped:
        for name, image in zip(names, work.images(), strict=True):
            zipped.writestr(entry(name), image)
        zipped.writestr(entry(FACTS_NAME), text)


def entry(name: str) -> zipfile.ZipInfo:
    """Return a zip entry whose header is the same on every machine and day."""
    info = zipfile.ZipInfo(name)  # dated 1980
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


Labels = Literal["auto", "none"]
Progress = Callable[[int, int], None]
MAX_RESOLUTION = 8192
LEVEL = 4  # zlib's: the usual 6 saves 1 % and takes up to 2.5 times as long (docs/speed.md)
MAX_AT_ONCE, PIXELS_AT_ONCE = 32, 2**21  # finished images that a worker hands over together, and their pixels
IMAGES_A_WORKER = 64  # fewer are done sooner than another process has started


@dataclass(frozen=True)
class Request:
    """What is done to each image."""

    resolution: int
    crop: Crop
    resize: Resize
    background: Color

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= MAX_RESOLUTION:
            raise RequestError(f"resolution {self.resolution} is outside 1-{MAX_RESOLUTION}")


@dataclass(frozen=True)
class Report:
    """What was made: images `found` in the sources, `kept`, and `skipped` as (name, reason).

    `classes` is 0 without labels; `resumed` tells how many had been dealt with before an interruption.
    `other_files` counts files of kinds that are not read, by suffix; `second_images` further images of samples
    that have one (masks). `notes` are sentences on these and on labels and classes that were lost.
    """

    output: Path
    found: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    classes: int
    class_names: tuple[str, ...]
    resumed: int
    other_files: dict[str, int] = field(default_factory=dict)
    second_images: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def prepare(
    sources: Sequence[PathLike],
    output: PathLike,
    *,
    resolution: int,
    crop: Crop = "center",
    resize: Resize = "lanczos",
    background: Color = WHITE,
    labels: Labels = "auto",
    strict: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Make the archive `output` of square RGB images from folders, zips, tars and data-set files.

    Images that cannot be used are skipped and listed; files of other kinds are counted. With `strict` both are
    an error. Labels are kept if every image that is kept has one. Finished images wait in `output` + ".part"
    until the archive is whole; the same call after an interruption takes them up. `workers` None: as many as
    there are cores and work for. A script calls this below `if __name__ == "__main__"`, as the workers import it.
    Raises RequestError, FileError, ArchiveError.
    """
    request = Request(resolution, crop, resize, background)
    paths, output = [Path(source) for source in sources], Path(output)
    check_paths(paths, output, overwrite=overwrite)
    opened = [open_source(path) for path in paths]
    passed = Notes(*opened)
    likely: tuple[Facts, str | None] = (Facts(), None)
    if labels == "auto":
        likely = merged_facts(opened, [without_broken(source, request) for source in opened])
    if strict:
        refuse_loss(opened, passed, likely[1])
    total = sum(len(source.names) for source in opened)
    try:
        with WorkFolder(output, request=digest_of(request, opened)) as work:
            resumed = work.done
            workers = workers or min(usable_cores(), -(-(total - resumed) // IMAGES_A_WORKER)) or 1
            make_images(work, opened, request=request, workers=workers, strict=strict, progress=progress)
            skipped = tuple((line["name"], line["skipped"]) for line in work.lines if "skipped" in line)
            if len(skipped) == total:
                work.remove()
                name, reason = skipped[0]
                raise ArchiveError(paths[0], f"none of its {total} images can be used (the first, {name!r}, {reason})")
            facts, note = Facts(), None
            if labels == "auto":
                facts, note = merged_facts(opened, kept_of(work, opened))
            skipped = (*left_out_of(opened), *skipped)
            made = provenance(opened, request, labels=labels, skipped=skipped, passed=passed)
            write_archive(work, facts, made, overwrite=overwrite)
            work.remove()
    except OSError as error:
        raise explain(output, error) from error
    passed.left_out.clear()  # they are listed with those that were skipped
    notes = (*passed.lines(), *lost_classes(likely[0], facts), *([] if note is None else [note]))
    found = total + sum(len(source.left_out) for source in opened)
    kept = found - len(skipped)
    others, seconds = dict(passed.others), dict(passed.seconds)
    return Report(output, found, kept, skipped, facts.classes, facts.class_names, resumed, others, seconds, notes)


def without_broken(source: Source, request: Request) -> NDArray[np.int64]:
    """Return the images of a source without those that lack a good label and cannot be used anyway.

    The first of them that can be used ends the search: its label will be refused, before any work.
    """
    doubtful = source.labels.doubtful
    broken = []
    wanted = set(doubtful.tolist())
    payloads_left = source.payloads(int(doubtful[0])) if wanted else iter(())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, payload in enumerate(payloads_left, int(doubtful[0]) if wanted else 0):
            if index in wanted:
                if not isinstance(result_of(payload, request=request), ImageError):
                    break
                broken.append(index)
                if len(broken) == len(wanted):
                    break
    return np.setdiff1d(np.arange(len(source.names)), np.array(broken, np.int64))


def kept_of(work: WorkFolder, sources: Sequence[Source]) -> list[NDArray[np.int64]]:
    """Return which images of each source were kept."""
    kept = np.array(["skipped" not in line for line in work.lines])
    ends = np.cumsum([len(source.names) for source in sources])[:-1]
    return [np.flatnonzero(part) for part in np.split(kept, ends)]


def left_out_of(sources: Sequence[Source]) -> list[tuple[str, str]]:
    """Return the names of what is named as an image and is no regular file, with the reasons."""
    return [(told_name(source, name, sources), why) for source in sources for name, why in source.left_out]


def told_name(source: Source, name: str, sources: Sequence[Source]) -> str:
    """Return how the report names an image: with its source if there are several."""
    return name if len(sources) == 1 else f"{source.path.name}/{name}"


def lost_classes(likely: Facts, facts: Facts) -> list[str]:
    """Return a sentence on each class of which no image is left."""
    if likely.labels is None or facts.labels is None:
        return []
    before = np.bincount(likely.labels, minlength=likely.classes)
    after = np.bincount(facts.labels, minlength=facts.classes)
    lost = []
    for number in np.flatnonzero(before).tolist():
        name = likely.class_names[number] if likely.class_names else None
        now = number if name is None or name not in facts.class_names else facts.class_names.index(name)
        gone = name is not None and name not in facts.class_names
        if gone or now >= len(after) or not after[now]:
            lost.append(f"lost: class {name or number!r}: none of its {before[number]} images can be used")
    return lost


def refuse_loss(sources: Sequence[Source], passed: Notes, note: str | None) -> None:
    """Raise FileError for files that are passed over and labels that are lost, as `strict` has it."""
    for source in sources:
        if source.left_out:
            name, why = source.left_out[0]
            raise FileError(source.path, f"the image {name!r} {why} (--strict: none may be skipped)")
    path = next((source.path for source in sources if source.others), sources[0].path)
    if passed.others:
        raise FileError(path, f"{passed.lines()[0]} (--strict: none may be)")
    if note is not None:
        raise FileError(path, f"{note} (--strict: none may be lost; or give --labels none)")


def check_paths(sources: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    """Raise before any work if there is nothing to read or no place to write."""
    if not sources:
        raise RequestError("no source is given; name a folder, a zip or a tar of images")
    if output.suffix.lower() != ".zip":
        raise RequestError(f"{str(output)!r} does not end in .zip, as an archive must")
    if output.is_dir():
        raise FileError(output, "is a folder; choose another name")
    refuse_overwrite(output, overwrite=overwrite)
    if output.exists() and any(source.exists() and source.samefile(output) for source in sources):
        raise RequestError(f"{str(output)!r} is a source as well; choose another output")


def make_images(
    work: WorkFolder,
    sources: Sequence[Source],
    *,
    request: Request,
    workers: int,
    strict: bool,
    progress: Progress | None,
) -> None:
    """Bring all images that `work` does not have yet to size. Raises FileError with `strict`."""
    names = [(source, name) for source in sources for name in source.names]
    if progress is not None:
        progress(work.done, len(names))
    if strict:
        for (source, _), line in zip(names, work.lines, strict=False):
            refuse_skipped(work, source, line)
    chunk = max(1, min(MAX_AT_ONCE, PIXELS_AT_ONCE // request.resolution**2))
    results = in_order(partial(result_of, request=request), payloads(sources, work.done), workers=workers, chunk=chunk)
    with warnings.catch_warnings(), closing(results):
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata: images are judged by the outcome
        for result in results:
            source, name = names[work.done]
            work.add(told_name(source, name, sources), result)
            if strict:
                refuse_skipped(work, source, work.lines[-1])
            if progress is not None:
                progress(work.done, len(names))


def refuse_skipped(work: WorkFolder, source: Source, line: dict[str, Any]) -> None:
    """Raise FileError for an image that was skipped."""
    if "skipped" in line:
        work.remove()
        raise FileError(source.path, f"the image {line['name']!r} {line['skipped']} (--strict: none may be skipped)")


def payloads(sources: Sequence[Source], start: int) -> Iterator[Payload]:
    """Yield what the sources hold, one after the other, without the first `start` images."""
    for source in sources:
        if start < len(source.names):
            yield from source.payloads(start)
        start = max(0, start - len(source.names))


def result_of(payload: Payload, *, request: Request) -> bytes | ImageError:
    """Return one finished image as a PNG file, or why there is none; this runs in the workers."""
    try:
        if isinstance(payload, ImageError):
            raise payload
        if isinstance(payload, np.ndarray):
            image = Image.fromarray(payload)
        else:
            image = decode(bytes_of(payload), background=request.background)
        image = fit(image, request.resolution, crop=request.crop, resize=request.resize, background=request.background)
    except ImageError as error:
        return error
    file = io.BytesIO()
    # compressed, unlike StyleGAN's: half the bytes, read by the same tools
    image.save(file, format="PNG", compress_level=LEVEL)
    return file.getvalue()


def bytes_of(payload: Path | bytes) -> bytes:
    """Return an image file's bytes. Raises ImageError."""
    if isinstance(payload, bytes):
        return payload
    try:
        status = payload.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(NOT_REGULAR)
        if status.st_size > MAX_IMAGE_BYTES:
            raise ImageError(f"is larger than {MAX_IMAGE_BYTES} bytes")
        return payload.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({(error.strerror or str(error)).lower()})") from error


def provenance(
    sources: Sequence[Source],
    request: Request,
    *,
    labels: Labels,
    skipped: Sequence[tuple[str, str]],
    passed: Notes,
) -> dict[str, Any]:
    """Return how the archive was made: nothing that differs between two runs on the same input."""
    found = sum(len(source.names) + len(source.left_out) for source in sources)
    return {
        "made_by": f"polyinr {version('polyinr')}, Pillow {Image.__version__}",
        "sources": [
            {"name": source.path.resolve().name, "kind": source.kind, "images": len(source.names)}
            | ({"provenance": source.labels.provenance} if source.labels.provenance else {})
            for source in sources
        ],
        "resolution": request.resolution,
        "crop": request.crop,
        "resize": request.resize,
        "background": "#{:02x}{:02x}{:02x}".format(*request.background),
        "labels": labels,
        "counts": {"found": found, "kept": found - len(skipped), "skipped": len(skipped)},
        "skipped": [list(pair) for pair in skipped],
        **({"other_files": dict(sorted(passed.others.items()))} if passed.others else {}),
        **({"second_images": dict(sorted(passed.seconds.items()))} if passed.seconds else {}),
    }


def digest_of(request: Request, sources: Sequence[Source]) -> str:
    """Return a digest of all that finished images depend on."""
    parts = (version("polyinr"), Image.__version__, request, [(source.kind, source.stamp) for source in sources])
    return sha256(repr(parts).encode()).hexdigest()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
