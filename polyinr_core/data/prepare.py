"""From any pictures to an archive: all cores, taken up again after a stop, the same bytes for the same input."""

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..errors import ArchiveError, FileError, PictureError, RequestError
from ..files import PathLike, explain, refuse_overwrite
from .decoding import MAX_PICTURE_BYTES, WHITE, Colour, Crop, Resize, decode, fit
from .facts import Facts
from .pool import in_order
from .source import Payload, Source, merged_facts
from .sources import open_source
from .work_folder import WorkFolder
from .writing import write_archive

Labels = Literal["auto", "none"]
Progress = Callable[[int, int], None]
MAX_RESOLUTION = 8192
LEVEL = 4  # zlib's: the usual 6 saves 1 % and takes up to 2.5 times as long (docs/speed.md)
MOST_AT_ONCE, PIXELS_AT_ONCE = 32, 2**21  # finished pictures that a worker hands over together, and their pixels
PICTURES_A_WORKER = 64  # fewer are done sooner than another process has started


@dataclass(frozen=True)
class Request:
    """What is done to each picture."""

    resolution: int
    crop: Crop
    resize: Resize
    background: Colour

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= MAX_RESOLUTION:
            raise RequestError(f"resolution {self.resolution} is outside 1-{MAX_RESOLUTION}")


@dataclass(frozen=True)
class Report:
    """What was made: pictures `found` in the sources, `kept`, and `skipped` as (name, reason).

    `classes` is 0 without labels; `resumed` tells how many had been dealt with before an interruption.
    """

    output: Path
    found: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    classes: int
    class_names: tuple[str, ...]
    resumed: int


def prepare(
    sources: Sequence[PathLike],
    output: PathLike,
    *,
    resolution: int,
    crop: Crop = "center",
    resize: Resize = "lanczos",
    background: Colour = WHITE,
    labels: Labels = "auto",
    strict: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Make the archive `output` of square RGB pictures from folders, zips, tars and data-set files.

    Pictures that cannot be used are skipped and listed, or with `strict` are an error. Labels are kept if every
    picture has one. Finished pictures wait in `output` + ".part" until the archive is whole; the same call after
    an interruption takes them up. `workers` None: as many as there are cores and work for. A script calls this
    below `if __name__ == "__main__"`, as the workers import it. Raises RequestError, FileError, ArchiveError.
    """
    request = Request(resolution, crop, resize, background)
    paths, output = [Path(source) for source in sources], Path(output)
    check_paths(paths, output, overwrite=overwrite)
    opened = [open_source(path) for path in paths]
    facts = merged_facts(opened) if labels == "auto" else Facts()
    total = sum(len(source.names) for source in opened)
    try:
        with WorkFolder(output, request=digest_of(request, opened)) as work:
            resumed = work.done
            workers = workers or min(usable_cores(), -(-(total - resumed) // PICTURES_A_WORKER)) or 1
            make_pictures(work, opened, request=request, workers=workers, strict=strict, progress=progress)
            skipped = tuple((line["name"], line["skipped"]) for line in work.lines if "skipped" in line)
            if len(skipped) == total:
                work.remove()
                name, reason = skipped[0]
                raise ArchiveError(
                    paths[0], f"none of its {total} pictures can be used (the first, {name!r}, {reason})"
                )
            made = provenance(opened, request, labels=labels, skipped=skipped)
            write_archive(work, facts, made, overwrite=overwrite)
            work.remove()
    except OSError as error:
        raise explain(output, error) from error
    return Report(output, total, total - len(skipped), skipped, facts.classes, facts.class_names, resumed)


def check_paths(sources: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    """Raise before any work if there is nothing to read or no place to write."""
    if not sources:
        raise RequestError("no source is given; name a folder, a zip or a tar of pictures")
    if output.suffix.lower() != ".zip":
        raise RequestError(f"{str(output)!r} does not end in .zip, as an archive must")
    if output.is_dir():
        raise FileError(output, "is a folder; choose another name")
    refuse_overwrite(output, overwrite=overwrite)
    if output.exists() and any(source.exists() and source.samefile(output) for source in sources):
        raise RequestError(f"{str(output)!r} is a source as well; choose another output")


def make_pictures(
    work: WorkFolder,
    sources: Sequence[Source],
    *,
    request: Request,
    workers: int,
    strict: bool,
    progress: Progress | None,
) -> None:
    """Bring all pictures that `work` does not have yet to size. Raises FileError with `strict`."""
    names = [(source, name) for source in sources for name in source.names]
    if progress is not None:
        progress(work.done, len(names))
    if strict:
        for (source, _), line in zip(names, work.lines, strict=False):
            refuse_skipped(work, source, line)
    chunk = max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // request.resolution**2))
    results = in_order(
        partial(result_of, request=request), payloads(sources, work.done), workers=workers, chunk=chunk
    )
    with warnings.catch_warnings(), closing(results):
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata: pictures are judged by the outcome
        for result in results:
            source, name = names[work.done]
            work.add(name if len(sources) == 1 else f"{source.path.name}/{name}", result)
            if strict:
                refuse_skipped(work, source, work.lines[-1])
            if progress is not None:
                progress(work.done, len(names))


def refuse_skipped(work: WorkFolder, source: Source, line: dict[str, Any]) -> None:
    """Raise FileError for a picture that was skipped."""
    if "skipped" in line:
        work.remove()
        raise FileError(
            source.path, f"the picture {line['name']!r} {line['skipped']} (--strict: none may be skipped)"
        )


def payloads(sources: Sequence[Source], start: int) -> Iterator[Payload]:
    """Yield what the sources hold, one after the other, without the first `start` pictures."""
    for source in sources:
        if start < len(source.names):
            yield from source.payloads(start)
        start = max(0, start - len(source.names))


def result_of(payload: Payload, *, request: Request) -> bytes | PictureError:
    """Return one finished picture as a PNG file, or why there is none; this runs in the workers."""
    try:
        if isinstance(payload, PictureError):
            raise payload
        if isinstance(payload, np.ndarray):
            image = Image.fromarray(payload)
        else:
            image = decode(bytes_of(payload), background=request.background)
        image = fit(
            image, request.resolution, crop=request.crop, resize=request.resize, background=request.background
        )
    except PictureError as error:
        return error
    file = io.BytesIO()
    # compressed, unlike StyleGAN's: half the bytes, read by the same tools
    image.save(file, format="PNG", compress_level=LEVEL)
    return file.getvalue()


def bytes_of(payload: Path | bytes) -> bytes:
    """Return a picture file's bytes. Raises PictureError."""
    if isinstance(payload, bytes):
        return payload
    try:
        if payload.stat().st_size > MAX_PICTURE_BYTES:
            raise PictureError(f"is larger than {MAX_PICTURE_BYTES} bytes")
        return payload.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read ({(error.strerror or str(error)).lower()})") from error


def provenance(
    sources: Sequence[Source], request: Request, *, labels: Labels, skipped: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Return how the archive was made: nothing that differs between two runs on the same input."""
    found = sum(len(source.names) for source in sources)
    return {
        "made_by": f"polyinr {version('polyinr')}, Pillow {Image.__version__}",
        "sources": [
            {"name": source.path.resolve().name, "kind": source.kind, "pictures": len(source.names)}
            | ({"provenance": source.facts.provenance} if source.facts.provenance else {})
            for source in sources
        ],
        "resolution": request.resolution,
        "crop": request.crop,
        "resize": request.resize,
        "background": "#{:02x}{:02x}{:02x}".format(*request.background),
        "labels": labels,
        "counts": {"found": found, "kept": found - len(skipped), "skipped": len(skipped)},
        "skipped": [list(pair) for pair in skipped],
    }


def digest_of(request: Request, sources: Sequence[Source]) -> str:
    """Return a digest of all that finished pictures depend on."""
    parts = (version("polyinr"), Image.__version__, request, [(source.kind, source.stamp) for source in sources])
    return sha256(repr(parts).encode()).hexdigest()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
