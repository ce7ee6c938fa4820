"""Prepare a dataset: square RGB images of one size in a zip file, from any images."""

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from polyinr_core.errors import DatasetError, FileError, ImageError, RequestError
from polyinr_core.runtime.atomic_io import PathLike, explain, refuse_overwrite
from polyinr_core.runtime.resources import in_order

from .decode import MAX_IMAGE_BYTES, WHITE, Color, Crop, Resize, decode, fit, parse_color
from .import_sources import MapDataset, label_by_table, merge_labels, open_source
from .import_tables import LABEL_TABLE_SUFFIXES
from .labels import LabelInfo
from .listing import NOT_REGULAR, Ignored, Payload, Source
from .prepare_journal import WorkFolder
from .zip_dataset import write_zip_dataset

Progress = Callable[[int, int], None]
MAX_RESOLUTION = 8192
LEVEL = 4  # zlib's: the usual 6 saves 1 % and takes up to 2.5 times as long (docs/speed.md)
MAX_AT_ONCE, PIXELS_AT_ONCE = 32, 2**21  # images that a worker returns at once, and their pixels
IMAGES_A_WORKER = 64  # a process for fewer is not worth its start


@dataclass(frozen=True)
class Request:
    """How each image is processed."""

    resolution: int
    crop: Crop
    resize: Resize
    background: Color

    def __post_init__(self) -> None:
        if not 1 <= self.resolution <= MAX_RESOLUTION:
            raise RequestError(f"resolution {self.resolution} is outside 1-{MAX_RESOLUTION}")


@dataclass(frozen=True)
class Report:
    """What `prepare` wrote: images `found` in the sources, `kept`, and `skipped` as (name, reason).

    `classes` is 0 without labels; `resumed` counts the images that an interrupted call had finished. `other_files`
    counts files of types that are not read, by suffix; `second_images` further images of samples that have one (masks).
    `notes` are sentences about these, and about labels and classes that were lost.
    """

    output: Path
    found: int
    kept: int
    resumed: int
    classes: int
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    other_files: dict[str, int] = field(default_factory=dict)
    second_images: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON has it."""
        skipped = [{"name": name, "reason": reason} for name, reason in self.skipped]
        return asdict(self) | {"output": str(self.output), "skipped": skipped}


def prepare(
    sources: PathLike | MapDataset | Sequence[PathLike | MapDataset],
    output: PathLike,
    *,
    resolution: int,
    crop: Crop = "center",
    resize: Resize = "lanczos",
    background: Color | str = WHITE,
    labels: PathLike = "auto",
    strict: bool = False,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Write a dataset of square RGB images, a zip file, from any images.

    Images that cannot be used are skipped and listed; files of other types are counted. Labels are kept if every image
    that is kept has one. Finished images wait in `output` + ".part" until the zip is whole; after an interruption
    the same call resumes from them. A script calls this below `if __name__ == "__main__"`: the workers import it.

    Args:
        sources: one or more folders, zip files, tar files, patterns of tar shards, parquet files, .npy or .npz stacks,
            images, or Python datasets of (image, label) pairs such as `torchvision.datasets.CIFAR10`.
        output: the zip file to write.
        resolution: width and height of the images, 1-8192 pixels. No image is enlarged.
        crop: "center" keeps the middle square, "pad" adds borders, "none" stretches.
        resize: the filter.
        background: RGB or a color name, behind transparent pixels and borders.
        labels: "auto" takes the source's labels, else its class folders; "none" writes no labels; the path of a .csv,
            .tsv or .jsonl file takes the label of each image from there, by its name.
        strict: raise instead of skipping an image, a file of another type or a label.
        workers: processes; None: as many as there are cores and work for.
        overwrite: replace `output`.
        progress: called with (images done, images in all).

    Returns:
        What was kept and what was skipped, and why.

    Raises: RequestError, FileError, DatasetError.
    """
    color = parse_color(background) if isinstance(background, str) else background
    request, output = Request(resolution, crop, resize, color), Path(output)
    listed = list(sources) if isinstance(sources, list | tuple) else [sources]
    check_paths([Path(one) for one in listed if isinstance(one, str | os.PathLike)], output, overwrite=overwrite)
    if not listed:
        raise RequestError("no source is given; name a folder, a zip or a tar of images")
    labels = os.fspath(labels)
    if labels not in ("auto", "none") and Path(labels).suffix not in LABEL_TABLE_SUFFIXES:
        raise RequestError(f"--labels {labels!r} is not auto, none or a {', '.join(LABEL_TABLE_SUFFIXES)} file")
    opened = [open_source(one) for one in listed]
    if labels not in ("auto", "none"):
        opened = label_by_table(opened, Path(labels))
    ignored = Ignored()
    for source in opened:
        ignored.add(source.ignored)
    likely: tuple[LabelInfo, str | None] = (LabelInfo(), None)
    if labels != "none":
        likely = merge_labels(opened, [without_broken(source, request) for source in opened])
    if strict:
        refuse_loss(opened, ignored, likely[1])
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
                raise DatasetError(
                    opened[0].path, f"none of its {total} images can be used (the first, {name!r}, {reason})"
                )
            info, note = LabelInfo(), None
            if labels != "none":
                is_kept = np.array(["skipped" not in line for line in work.lines])
                ends = np.cumsum([len(source.names) for source in opened])[:-1]
                info, note = merge_labels(opened, [np.flatnonzero(part) for part in np.split(is_kept, ends)])
            left_out = [(display_name(one, name, opened), why) for one in opened for name, why in one.ignored.left_out]
            skipped = (*left_out, *skipped)
            made = provenance(opened, request, labels=labels, skipped=skipped, ignored=ignored)
            write_zip_dataset(output, work.images(), info, made, overwrite=overwrite)
            work.remove()
    except OSError as error:
        raise explain(output, error) from error
    ignored.left_out.clear()  # they are listed with those that were skipped
    notes = (*ignored.lines(), *lost_classes(likely[0], info), *([] if note is None else [note]))
    found = total + len(left_out)
    return Report(
        output=output,
        found=found,
        kept=found - len(skipped),
        resumed=resumed,
        classes=info.classes,
        class_names=info.class_names,
        skipped=skipped,
        other_files=dict(ignored.others),
        second_images=dict(ignored.seconds),
        notes=notes,
    )


def without_broken(source: Source, request: Request) -> NDArray[np.int64]:
    """Return the indices of a source's images without those that lack a usable label and cannot be decoded anyway.

    The first of them that can be used ends the search: its label will be refused before any work is done.
    """
    everything, doubtful = np.arange(len(source.names)), source.labels.doubtful
    if not len(doubtful):
        return everything
    wanted, first, broken = set(doubtful.tolist()), int(doubtful[0]), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, payload in enumerate(source.payloads(first), first):
            if index in wanted:
                if not isinstance(make_image(payload, request=request), ImageError):
                    break
                broken += 1
                if broken == len(wanted):
                    break
    return np.setdiff1d(everything, doubtful[:broken])


def display_name(source: Source, name: str, sources: Sequence[Source]) -> str:
    """Return the name of an image in the report: with its source if there are several."""
    return name if len(sources) == 1 else f"{source.path.name}/{name}"


def lost_classes(likely: LabelInfo, info: LabelInfo) -> list[str]:
    """Return a sentence about each class of which no image is left."""
    if likely.labels is None or info.labels is None:
        return []
    before = np.bincount(likely.labels, minlength=likely.classes)
    after = np.bincount(info.labels, minlength=info.classes)
    lost = []
    for number in np.flatnonzero(before).tolist():
        name = likely.class_names[number] if likely.class_names else None
        now = number if name is None or name not in info.class_names else info.class_names.index(name)
        gone = name is not None and name not in info.class_names
        if gone or now >= len(after) or not after[now]:
            lost.append(f"lost: class {name or number!r}: none of its {before[number]} images can be used")
    return lost


def refuse_loss(sources: Sequence[Source], ignored: Ignored, note: str | None) -> None:
    """Raise FileError for ignored files and lost labels, for `strict`."""
    for source in sources:
        if source.ignored.left_out:
            name, why = source.ignored.left_out[0]
            raise FileError(source.path, f"the image {name!r} {why} (--strict: none may be skipped)")
    path = next((source.path for source in sources if source.ignored.others), sources[0].path)
    if ignored.others:
        raise FileError(path, f"{ignored.lines()[0]} (--strict: none may be)")
    if note is not None:
        raise FileError(path, f"{note} (--strict: none may be lost; or give --labels none)")


def check_paths(sources: Sequence[Path], output: Path, *, overwrite: bool) -> None:
    """Raise RequestError or FileError before any work if `output` cannot be written."""
    if output.suffix.lower() != ".zip":
        raise RequestError(f"{str(output)!r} does not end in .zip; a dataset is a .zip file")
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
    """Process all images that `work` does not have yet. Raises FileError with `strict`."""
    names = [(source, name) for source in sources for name in source.names]
    if progress is not None:
        progress(work.done, len(names))
    if strict:
        for (source, _), line in zip(names, work.lines, strict=False):
            refuse_skipped(work, source, line)
    chunk = max(1, min(MAX_AT_ONCE, PIXELS_AT_ONCE // request.resolution**2))
    results = in_order(partial(make_image, request=request), payloads(sources, work.done), workers=workers, chunk=chunk)
    with warnings.catch_warnings(), closing(results):
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        for result in results:
            source, name = names[work.done]
            work.add(display_name(source, name, sources), result)
            if strict:
                refuse_skipped(work, source, work.lines[-1])
            if progress is not None:
                progress(work.done, len(names))


def refuse_skipped(work: WorkFolder, source: Source, line: dict[str, Any]) -> None:
    """Raise FileError for a skipped image."""
    if "skipped" in line:
        work.remove()
        raise FileError(source.path, f"the image {line['name']!r} {line['skipped']} (--strict: none may be skipped)")


def payloads(sources: Sequence[Source], start: int) -> Iterator[Payload]:
    """Yield the images of all sources in order, without the first `start`."""
    for source in sources:
        if start < len(source.names):
            yield from source.payloads(start)
        start = max(0, start - len(source.names))


def make_image(payload: Payload, *, request: Request) -> bytes | ImageError:
    """Return one image as a PNG file, or why it is skipped; this runs in the workers."""
    try:
        if isinstance(payload, ImageError):
            raise payload
        if isinstance(payload, np.ndarray):
            image = Image.fromarray(payload)
        else:
            image = decode(read_payload(payload), background=request.background)
        image = fit(image, request.resolution, crop=request.crop, resize=request.resize, background=request.background)
    except ImageError as error:
        return error
    file = io.BytesIO()
    # compressed, unlike StyleGAN's: half the bytes, read by the same tools
    image.save(file, format="PNG", compress_level=LEVEL)
    return file.getvalue()


def read_payload(payload: Path | bytes) -> bytes:
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
    sources: Sequence[Source], request: Request, *, labels: str, skipped: Sequence[tuple[str, str]], ignored: Ignored
) -> dict[str, Any]:
    """Return how the dataset was made: nothing that differs between two runs on the same input."""
    found = sum(len(source.names) + len(source.ignored.left_out) for source in sources)
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
        "labels": labels if labels in ("auto", "none") else Path(labels).name,
        "counts": {"found": found, "kept": found - len(skipped), "skipped": len(skipped)},
        "skipped": [list(pair) for pair in skipped],
        **({"other_files": dict(sorted(ignored.others.items()))} if ignored.others else {}),
        **({"second_images": dict(sorted(ignored.seconds.items()))} if ignored.seconds else {}),
    }


def digest_of(request: Request, sources: Sequence[Source]) -> str:
    """Return a digest of everything that the finished images depend on."""
    parts = (version("polyinr"), Image.__version__, request, [(source.kind, source.fingerprint) for source in sources])
    return sha256(repr(parts).encode()).hexdigest()


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
