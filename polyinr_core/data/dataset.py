"""A dataset of images to train on, whatever it lies in: a zip, or tar shards."""

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

__all__ = ["ImageDataset", "bundled_dataset", "means_shards", "open_dataset"]


class ImageDataset(Protocol):
    """Square RGB images of one size, in a fixed order. Reading is thread-safe; the object can be pickled.

    Attributes:
        path: Where the images lie; its name stands for the dataset in messages.
        resolution: Width and height of every image.
        labels: int64 [N], or None.
        classes: Number of classes, 0 for an unlabeled dataset.
        class_names: Their names; may be empty.
        notes: Sentences about what was left out.
        shard_of: int32 [N], the file that each image lies in; None where there is one file only.
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
        """Identifies the dataset, in hexadecimal digits."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3], R = `resolution`. Raises DatasetError, FileError."""

    def close(self) -> None:
        """Close what is open; reading opens it again."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_dataset(
    path: PathLike,
    *,
    index: PathLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    labels: LabelUse = "auto",
) -> ImageDataset:
    """Open a zip, a folder of .tar shards, one .tar, or a pattern as `data-{000..099}.tar`, `a/*.tar`.

    Args:
        path: The file, folder or pattern.
        index: A folder in which the scan of the shards is kept for the next time.
        progress: Called with (shards scanned, shards in all).
        labels: Unusable labels are refused ("auto"), or left out ("usable"); "none" leaves all out.

    Raises:
        DatasetError, FileError.
    """
    path, index = Path(path), None if index is None else Path(index)
    if means_shards(path):
        return TarDataset.open(path, index=index, progress=progress, labels=labels)
    return ZipDataset.open(path, labels=labels)


def bundled_dataset() -> Path:
    """Return the path of the dataset that is installed with polyinr: 2000 animal faces of 64 px."""
    return Path(str(files("polyinr_core").joinpath("assets", "animals-64.zip")))
