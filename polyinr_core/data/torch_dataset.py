"""Any map-style torch Dataset of images as a dataset to train on."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from polyinr_core.errors import DatasetError
from polyinr_core.runtime.atomic_io import PathLike

from .dataset import ImageDataset, open_dataset
from .labels import LabelUse

HASHED_IMAGES = 1024  # spread evenly over the dataset


def as_image_dataset(data: PathLike | ImageDataset | Dataset[Any], *, labels: LabelUse = "auto") -> ImageDataset:
    """Return the dataset of a path or of a torch Dataset; an ImageDataset is returned as it is."""
    if isinstance(data, str | os.PathLike):
        return open_dataset(data, labels=labels)
    if isinstance(data, Dataset):
        return TorchImageDataset(data, labels=labels)
    return data


class TorchImageDataset:
    """A map-style torch Dataset of (image, label) pairs, or of images, as an ImageDataset.

    An image is uint8 [3, H, W] or [H, W, 3], square, a tensor, an array or a Pillow image; a label is a class number or
    None. Labels are taken from the attribute `targets`, as torchvision's datasets have it; without it every item is
    read once. An item must be the same whenever it is read, or a resumed run differs: use no random transforms.
    Raises DatasetError.
    """

    def __init__(self, dataset: Dataset[Any], *, labels: LabelUse = "auto") -> None:
        self.dataset = dataset
        self.path = Path(type(dataset).__name__)
        self.count = len(dataset)  # type: ignore[arg-type]
        if not self.count:
            raise DatasetError(self.path, "holds no images")
        self.resolution = 0
        self.resolution = len(self.read(0))
        self.labels = None if labels == "none" else self.read_labels()
        self.classes = 0 if self.labels is None else int(self.labels.max()) + 1
        names = getattr(dataset, "classes", ())
        self.class_names = tuple(map(str, names)) if self.classes and len(names) == self.classes else ()
        self.provenance: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        self.shard_of: NDArray[np.int32] | None = None
        self.sha256 = self.hash_images()

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3]. Raises DatasetError."""
        item = self.dataset[index]
        image = item[0] if isinstance(item, tuple | list) else item
        pixels = image.numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[0] == 3 != pixels.shape[2]:
            pixels = pixels.transpose(1, 2, 0)
        size = self.resolution or (pixels.shape[0] if pixels.ndim else 0)
        if pixels.dtype != np.uint8 or pixels.shape != (size, size, 3):
            shape = f"{size}, {size}" if self.resolution else "R, R"
            raise DatasetError(
                self.path,
                f"image {index} is {pixels.dtype} {list(pixels.shape)}; uint8 [3, {shape}] or [{shape}, 3] is needed",
            )
        return np.ascontiguousarray(pixels)

    def read_labels(self) -> NDArray[np.int64] | None:
        """Return the label of every item, or None if they have none. Raises DatasetError."""
        values: Sequence[Any] | None = getattr(self.dataset, "targets", None)
        if values is None:
            items = (self.dataset[index] for index in range(self.count))
            values = [item[1] if isinstance(item, tuple | list) and len(item) > 1 else None for item in items]
        if all(value is None for value in values):
            return None
        try:
            labels = np.array([int(value) for value in values], dtype=np.int64)
        except (TypeError, ValueError) as error:
            raise DatasetError(self.path, f"holds a label that is no class number ({error})") from error
        if len(labels) != self.count or labels.min() < 0:
            raise DatasetError(self.path, f"needs one label of 0 or more for each of its {self.count} images")
        return labels

    def hash_images(self) -> str:
        """Return a SHA-256 of the labels and of up to 1024 images."""
        digest = hashlib.sha256(f"{self.count} {self.resolution}".encode())
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        for index in np.linspace(0, self.count - 1, min(self.count, HASHED_IMAGES)).round().astype(int):
            digest.update(self.read(int(index)).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: the dataset is the caller's."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
