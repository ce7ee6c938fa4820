"""Tar datasets: shards with random access to images by an index, which is saved; nothing in a tar is trusted."""

import hashlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from polyinr_core.errors import DatasetError, FileError
from polyinr_core.runtime.atomic_io import PathLike, explain, read_bytes, refuse_special, written_beside
from polyinr_core.runtime.strict_json import JsonError, parse_json
from polyinr_core.runtime.tensor_files import METADATA, TensorFileError, read_header, read_tensors

from .decode import MAX_IMAGE_BYTES, decode_square
from .labels import FACTS_NAME, Description, LabelUse, UnresolvedLabels, concatenate_labels
from .listing import NOT_REGULAR, Ignored, Listing, ListingBuilder, check_name, fingerprint_of, is_image, may_matter

FORMAT = "3"
SCANNERS = 8  # threads; scanning mostly waits for the disk
GLOB = "*?["
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARRAYS = ("shard", "offset", "size")
LABEL_ARRAYS = ("values", "widths", "folder")


@dataclass(frozen=True)
class Scan:
    """The content of one tar: `places` int64 [n, 2] are the offset and size of each image of the listing."""

    listing: Listing
    places: NDArray[np.int64]
    digest: bytes


@dataclass(frozen=True)
class ShardIndex:
    """The location of each image: `shard` int32 [N], `offset` and `size` in bytes int64 [N]; and `labels`.

    `notes` are sentences about ignored files.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    labels: UnresolvedLabels
    sha256: str
    notes: tuple[str, ...] = ()


class TarDataset:
    """A dataset in tar shards. Images are ordered by the names of the shards, then as in each tar.

    A sample is KEY.png (or another image) and KEY.cls (a class index as text) or KEY.json (an object with `label`) in
    one tar; the first dot of a name ends the key. Otherwise a `dataset.json` inside or class folders give the labels. A
    `dataset.json` beside the shards may hold labels, `class_names` and `provenance`. An image is read with one seek,
    and no file stays open, so reading is safe in threads and processes.
    """

    def __init__(self, path: Path, *, files: list[Path], index: ShardIndex, use: LabelUse = "auto") -> None:
        self.path = path
        self.files = files
        self.index = index
        self.shard_of: NDArray[np.int32] | None = index.shard
        facts, note = index.labels.resolve_for(use, path, lambda number: f"in {files[index.shard[number]].name}")
        self.labels: NDArray[np.int64] | None = facts.labels
        self.classes = facts.classes
        self.class_names = facts.class_names
        self.provenance: dict[str, Any] = facts.provenance
        self.notes: tuple[str, ...] = (*index.notes, *([] if note is None else [note]))
        self.resolution: int = self._decode(0, side=None).shape[0]

    @classmethod
    def open(
        cls,
        path: PathLike,
        *,
        index: Path | None = None,
        progress: Callable[[int, int], None] | None = None,
        labels: LabelUse = "auto",
    ) -> Self:
        """Open a .tar, a folder of them, or a pattern; check all names and labels and the first image.

        The other images are checked when read. `index` is a folder in which the result of the scan is saved for the
        next time; `progress` is called with (shards scanned, shards in all). Labels that cannot be used are an error,
        ignored with "usable"; "none" ignores all. Raises DatasetError, FileError.
        """
        path = Path(path)
        files = shard_files(path)
        found = load_index(path, files, folder=index, progress=progress, beside=find_beside(path, files))
        if (beside := image_beside(path)) is not None:
            found = replace(found, notes=(*found.notes, f"ignored: images beside the .tar files ({beside!r})"))
        return cls(path, files=files, index=found, use=labels)

    def __len__(self) -> int:
        return len(self.index.shard)

    @property
    def sha256(self) -> str:
        """SHA-256 of the names, tables with labels and first images of all shards, not of all pixels."""
        return self.index.sha256

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3], R = `resolution`. Raises DatasetError, FileError."""
        return self._decode(index, side=self.resolution)

    def _decode(self, index: int, *, side: int | None) -> NDArray[np.uint8]:
        """Read and decode image `index`; `side` None: of any size."""
        file = self.files[self.index.shard[index]]
        offset, size = int(self.index.offset[index]), int(self.index.size[index])
        data = read_range(file, offset, size)
        if len(data) < size:
            raise DatasetError(file, "has become shorter since it was scanned; is it being written?")
        try:
            return decode_square(file, "", data, side=side)
        except DatasetError:  # look the name up only now, as a million names would fill memory
            return decode_square(file, name_at(file, offset), data, side=side)

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_pattern(path: Path) -> bool:
    """Return whether a path is a pattern of several files, such as `data-{000..099}.tar` or `a/*.tar`."""
    return any(mark in str(path) for mark in "{" + GLOB) and not os.path.exists(path)


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a path or pattern in the order of their names. Raises DatasetError."""
    if not is_pattern(path):
        files = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not files:
            raise DatasetError(path, "is a folder without .tar files")
        return files
    from braceexpand import braceexpand

    try:
        patterns = [Path(text) for text in braceexpand(str(path))]
    except ValueError as error:
        raise DatasetError(path, "is no pattern; write it as data-{000..099}.tar or data-*.tar") from error
    files = []
    for pattern in patterns:
        if any(mark in str(pattern) for mark in GLOB):
            files += [Path(found) for found in glob(str(pattern))]
        else:
            files.append(pattern)  # each must be there: a gap in a range is a mistake
    if not files:
        raise DatasetError(path, "no file has such a name")
    return sorted(set(files))


def find_beside(path: Path, files: list[Path]) -> Path | None:
    """Return the `dataset.json` beside shards, None if there is none."""
    description = (path if path.is_dir() else files[0].parent) / FACTS_NAME
    return description if description.is_file() else None


def image_beside(path: Path) -> str | None:
    """Return the name of an image that lies in a folder of shards or below it, None if there is none."""
    folders = os.walk(path) if path.is_dir() else ()
    beside = (Path(folder, name) for folder, _, names in folders for name in sorted(names))
    inside = (file.relative_to(path).as_posix() for file in beside)
    return next((name for name in inside if is_image(name)), None)


def means_shards(path: Path) -> bool:
    """Return whether a path means tar shards, by its name or the content of the folder."""
    is_tar = path.name.lower().endswith(TAR_SUFFIXES)
    return is_tar or is_pattern(path) or (os.path.isdir(path) and any(path.glob("*.tar")))


def name_at(file: Path, offset: int) -> str:
    """Return the name of the file at an offset in a shard."""
    members = tar_members(file, compressed=False)
    return next((info.name for info, _ in members if info.offset_data == offset), f"byte {offset}")


def load_index(
    path: Path,
    files: list[Path],
    *,
    folder: Path | None,
    progress: Callable[[int, int], None] | None,
    beside: Path | None = None,
) -> ShardIndex:
    """Return the index of the shards at `path`, from `folder` if it was saved there for these files.

    A saved index is valid for files of the same names, sizes and times. `beside` is a `dataset.json` for all of them.
    Raises DatasetError, FileError.
    """
    fingerprint = fingerprint_of(*files, beside)
    saved = None
    if folder is not None:
        names = "\n".join(str(file.resolve()) for file in files)
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        saved = folder / f"shards-{digest[:16]}.safetensors"
        if (index := read_index(saved, fingerprint)) is not None:
            return index
    index = join_scans(scan(files, read_beside(beside), progress=progress))
    if saved is not None:
        write_index(saved, index, fingerprint)
    return index


def read_beside(beside: Path | None) -> Description | None:
    """Read a `dataset.json` beside shards. Raises FileError."""
    return None if beside is None else Description.read(read_bytes(beside))


def scan(
    files: list[Path], beside: Description | None, *, progress: Callable[[int, int], None] | None = None
) -> Iterator[Scan]:
    """Scan shards in threads; yield the result of each in order. Raises DatasetError, FileError."""
    with ThreadPoolExecutor(SCANNERS) as pool:
        try:
            for done, found in enumerate(pool.map(partial(scan_shard, beside=beside), files), 1):
                yield found
                if progress:
                    progress(done, len(files))
        finally:
            pool.shutdown(cancel_futures=True)


def join_scans(scans: Iterable[Scan]) -> ShardIndex:
    """Join the scans of shards to an index, without the image names, which would fill memory."""
    places, labels, ignored = [], [], Ignored()
    digest = hashlib.sha256()
    for found in scans:
        places.append(found.places)
        labels.append(found.listing.labels)
        ignored.add(found.listing.ignored)
        digest.update(found.digest)
    rows = np.concatenate(places)
    return ShardIndex(
        shard=np.repeat(np.arange(len(places), dtype=np.int32), [len(part) for part in places]),
        offset=rows[:, 0].copy(),
        size=rows[:, 1].copy(),
        labels=concatenate_labels(labels),
        sha256=digest.hexdigest(),
        notes=ignored.lines(),
    )


def scan_shard(file: Path, beside: Description | None = None) -> Scan:
    """Scan a shard: its images, and a digest of its name, table and first image. Raises DatasetError."""
    refuse_special(file)
    if not read_range(file, 0, 1):
        raise DatasetError(file, "is empty")
    found: list[tuple[int, int]] = []
    listing = list_tar(file, beside, compressed=False, found=found)
    if not listing.names:
        ignored = listing.ignored
        first = f" ({ignored.left_out[0][0]!r} {ignored.left_out[0][1]})" if ignored.left_out else ""
        problem = f"holds no images{first} (a sample is KEY.png or KEY.jpg, beside it KEY.cls)"
        raise DatasetError(file, problem)
    places = np.array([found[number] for number in listing.chosen], dtype=np.int64)  # [n, 2]
    lines = [file.name]
    for name, (offset, size), label in zip(listing.names, places.tolist(), listing.labels.values, strict=True):
        lines.append(f"{name} {offset} {size} {label}")
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape"))
    digest.update(read_range(file, *places[0].tolist()))
    return Scan(listing, places, digest.digest())


def list_tar(
    file: Path, beside: Description | None, *, compressed: bool, found: list[tuple[int, int]] | None = None
) -> Listing:
    """List the images of a tar in order; append their places to `found`. Raises DatasetError."""
    lister = ListingBuilder(file, samples=True, beside=beside)
    for info, read in tar_members(file, compressed=compressed, special=True):
        if not info.isreg():
            if is_image(info.name) or (info.issym() and may_matter(info.name)):
                lister.leave_out(info.name, NOT_REGULAR)
        elif lister.add(info.name, info.size, read) and found is not None:
            if info.issparse():
                raise DatasetError(file, f"{info.name!r} is stored with holes; write the shard without --sparse")
            if info.size > MAX_IMAGE_BYTES:
                raise DatasetError(file, f"{info.name!r} declares {info.size} bytes; refused")
            found.append((info.offset_data, info.size))
    return lister.listing()


def read_range(file: Path, offset: int, size: int) -> bytes:
    """Read `size` bytes of a shard, or fewer at its end. Raises FileError."""
    try:
        with file.open("rb", buffering=0) as shard:
            shard.seek(offset)
            return shard.read(size)
    except OSError as error:
        raise explain(file, error) from error


def read_index(saved: Path, fingerprint: str) -> ShardIndex | None:
    """Return a saved index if it is whole and its files have this fingerprint."""
    try:
        facts = read_header(saved)[METADATA]
        if (facts.get("format"), facts.get("stamp")) != (FORMAT, fingerprint):
            return None
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in read_tensors(saved).items()}
        described = parse_json(facts["labels"])
        labels = UnresolvedLabels(
            **{name: arrays.pop(name) for name in LABEL_ARRAYS},
            folder_names=tuple(described.pop("folder_names")),
            numbered=tuple(described.pop("numbered")),
            reasons={int(number): reason for number, reason in described.pop("reasons").items()},
            class_names=tuple(described.pop("class_names")),
            **described,
        )
        index = ShardIndex(**arrays, labels=labels, sha256=facts["sha256"], notes=tuple(parse_json(facts["notes"])))
    except (FileError, TensorFileError, JsonError, TypeError, KeyError, ValueError, AttributeError):
        # missing or damaged: scan again
        return None
    columns = ((index.shard, np.int32), (index.offset, np.int64), (index.size, np.int64))
    if not all(column.shape == index.shard.shape and column.dtype == dtype for column, dtype in columns):
        return None
    return index if index.shard.size and all(column.min() >= 0 for column, _ in columns) else None


def write_index(saved: Path, index: ShardIndex, fingerprint: str) -> None:
    """Save an index. Raises FileError."""
    arrays = {name: getattr(index, name) for name in ARRAYS}
    arrays |= {name: getattr(index.labels, name) for name in LABEL_ARRAYS}
    described = {f.name: getattr(index.labels, f.name) for f in fields(index.labels) if f.name not in LABEL_ARRAYS}
    facts = {"format": FORMAT, "stamp": fingerprint, "sha256": index.sha256}
    facts |= {"labels": json.dumps(described), "notes": json.dumps(index.notes)}
    with written_beside(saved, overwrite=True) as draft:
        save_file(arrays, draft, metadata=facts)


def tar_members(
    path: Path, *, compressed: bool = True, special: bool = False
) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Yield the regular files of a tar in order; with `special` also links and pipes.

    Each has a function that reads it, until the next one is requested. Unless `compressed` tars are allowed, the
    end-of-archive block is checked too, which a tar that was cut between two files lacks. Raises DatasetError,
    FileError.
    """
    with tar_errors(path):
        try:
            tar = tarfile.open(path, "r:*" if compressed else "r:")  # noqa: SIM115 closed below
        except tarfile.ReadError:
            if not compressed and tarfile.is_tarfile(path):
                raise DatasetError(path, "is a compressed tar; shards are read in place: decompress it") from None
            raise
    with tar:
        while True:
            with tar_errors(path):
                info = tar.next()
            if info is None:
                if not compressed:
                    check_end(path, tar)
                return
            tar.members.clear()  # type: ignore[attr-defined]  # a million of them would fill memory
            check_name(path, info.name)
            if info.isreg() or (special and not info.isdir()):
                yield info, partial(read_tar_member, path, tar, info)


def read_tar_member(path: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Return the bytes of a file in a tar. Raises DatasetError, FileError."""
    with tar_errors(path):
        file = tar.extractfile(info)
        return file.read() if file is not None else b""


def check_end(path: Path, tar: tarfile.TarFile) -> None:
    """Raise DatasetError unless a block of zeros follows the last file."""
    assert tar.fileobj is not None
    with tar_errors(path):
        tar.fileobj.seek(tar.offset)
        block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DatasetError(path, "is not a whole tar file (truncated, or damaged after its last readable file)")


@contextmanager
def tar_errors(path: Path) -> Iterator[None]:
    """Raise DatasetError or FileError for what tarfile raises of a damaged tar."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DatasetError(path, "is not a whole tar file (truncated, damaged, or of another type)") from error
    except OSError as error:
        if error.errno is None:  # gzip's and bzip2's own complaints
            raise DatasetError(path, "is not a whole tar file (its compression is damaged)") from error
        raise explain(path, error) from error
