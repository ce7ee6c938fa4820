"""A dataset of images to train on, whatever it lies in: a zip, tar shards, or a torch Dataset."""

import hashlib
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from polyinr_core.errors import DatasetError, ImageError
from polyinr_core.runtime.atomic_io import PathLike

from .import_sources import MapDataset, dataset_labels, pixels_of
from .labels import LabelInfo, LabelUse, describe_classes
from .tar_dataset import TarDataset, means_shards
from .zip_dataset import ZipDataset

if TYPE_CHECKING:
    from torch.utils.data import Dataset

HASHED_IMAGES = 1024  # of a torch Dataset


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

    def __exit__(self, *exc: object) -> None: ...


class TorchImageDataset:
    """A map-style torch Dataset of (image, label) pairs, or of images, as an ImageDataset.

    An image is square: uint8 [3, R, R] or [R, R, 3] or gray, a tensor, an array or a Pillow image; a label is a class
    number. Labels are taken from the attribute `targets`, as torchvision's datasets have it; without it every item is
    read once. An item must be the same whenever it is read, or a resumed run differs: use no random transforms.
    Raises DatasetError.
    """

    def __init__(self, dataset: MapDataset, *, labels: LabelUse = "auto") -> None:
        self.dataset = dataset
        self.path = Path(type(dataset).__name__)
        if not len(dataset):
            raise DatasetError(self.path, "holds no images")
        self.resolution = 0
        self.resolution = len(self.read(0))
        info = LabelInfo() if labels == "none" else dataset_labels(dataset, self.path)
        self.labels, self.classes, self.class_names = info.labels, info.classes, info.class_names
        self.provenance: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self.shard_of: NDArray[np.int32] | None = None
        self.sha256 = self.hash_images()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3]. Raises DatasetError."""
        pixels = pixels_of(self.dataset[index])
        if isinstance(pixels, ImageError):
            raise DatasetError(self.path, f"image {index} {pixels}") from pixels
        size = self.resolution or len(pixels)
        if pixels.shape != (size, size, 3):
            expected = f"{size}x{size} as the first" if self.resolution else "square"
            raise DatasetError(self.path, f"image {index} is {pixels.shape[1]}x{pixels.shape[0]}, not {expected}")
        return pixels

    def hash_images(self) -> str:
        """Return a SHA-256 of the labels and of up to 1024 images, spread evenly. Raises DatasetError."""
        digest = hashlib.sha256(f"{len(self)} {self.resolution}".encode())
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        for index in np.linspace(0, len(self) - 1, min(len(self), HASHED_IMAGES)).round().astype(int):
            digest.update(self.read(int(index)).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: the dataset is the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...


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


def as_image_dataset(
    data: "PathLike | ImageDataset | Dataset[Any]", *, index: PathLike | None = None, labels: LabelUse = "auto"
) -> ImageDataset:
    """Return the dataset of a path or of a torch Dataset; an ImageDataset is returned as it is."""
    if isinstance(data, str | os.PathLike):
        return open_dataset(data, index=index, labels=labels)
    if hasattr(data, "__getitem__"):
        return TorchImageDataset(cast(MapDataset, data), labels=labels)
    return data


def bundled_dataset() -> Path:
    """Return the path of the dataset that is installed with polyinr: 2000 animal faces of 64 px."""
    return Path(str(files("polyinr_core").joinpath("assets", "animals-64.zip")))


def describe_dataset(data: ImageDataset) -> dict[str, Any]:
    """Return a dataset's facts: its size, its classes, where it comes from, and its hash."""
    return {
        "kind": "data set",
        "count": len(data),
        "shards": None if data.shard_of is None else int(data.shard_of[-1]) + 1,
        "resolution": data.resolution,
        **describe_classes(data.labels, data.classes, data.class_names),
        "provenance": data.provenance,
        "sha256": data.sha256,
    }


def dataset_grid(data: ImageDataset, *, count: int = 64) -> NDArray[np.uint8]:
    """Return one image with a grid of `count` images, evenly spread over the dataset, or of all."""
    from polyinr_core.images.grid import make_grid

    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int).tolist()
    return make_grid(np.stack([data.read(index) for index in chosen]))
