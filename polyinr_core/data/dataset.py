"""A set of images to learn from, whatever file or files it lies in: a zip archive, or tar shards."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from polyinr_core.runtime.atomic_io import PathLike

from .labels import LabelUse
from .tar_dataset import TarDataset, means_shards
from .zip_dataset import ZipDataset

__all__ = ["ImageSet", "means_shards", "open_data"]


class ImageSet(Protocol):
    """Square RGB images of one size, in a fixed order. Reading is safe from threads; it can be pickled.

    `labels` is int64 [N] or None, `classes` their number (0: unlabeled), `class_names` may be empty; `notes` are
    sentences on what was ignored; `shard_of` is int32 [N], which file each image lies in, or None where
    there is one file only.
    """

    path: Path
    resolution: int
    labels: NDArray[np.int64] | None
    classes: int
    class_names: tuple[str, ...]
    provenance: dict[str, Any]
    notes: tuple[str, ...]
    shard_of: NDArray[np.int32] | None

    @property
    def sha256(self) -> str:
        """What tells this set from others, as hexadecimal digits."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3], R = `resolution`. Raises DatasetError, FileError."""

    def close(self) -> None:
        """Close what is open; reading opens it again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_data(
    path: PathLike,
    *,
    index: PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    labels: LabelUse = "auto",
) -> ImageSet:
    """Open a zip archive, a folder of .tar shards, one .tar, or a pattern as `data-{000..099}.tar`, `a/*.tar`.

    TarDataset are scanned once, and `progress` is told (shards scanned, shards in all); what was found is kept in
    the folder `index`, if one is given, for the next time. Labels that cannot be used are refused; with `labels`
    "usable" they are left out, with "none" all are. Raises DatasetError, FileError.
    """
    path, index = Path(path), None if index is None else Path(index)
    if means_shards(path):
        return TarDataset.open(path, index=index, progress=progress, labels=labels)
    return ZipDataset.open(path, labels=labels)


def bundled_images() -> Path:
    """Return the path of the bundled archive."""
    return Path(str(files("polyinr_core").joinpath("assets", "emoji-64.zip")))
