"""Datasets at lower resolutions: exact area averages, bit for bit the same in any batch, cached on a device."""

import os
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from threading import Lock

import torch
from torch import Tensor

from polyinr_core.runtime.device import to_device

from .dataset import ImageDataset

MAX_THREADS = 16


class ResizedDataset:
    """A dataset at `resolution`: uint8 at the dataset's resolution, else float32 area averages in [-1, 1]."""

    def __init__(self, data: ImageDataset, resolution: int) -> None:
        self.data = data
        self.resolution = resolution
        self.weights = None if resolution == data.resolution else area_weights(data.resolution, resolution)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images."""
        return torch.uint8 if self.weights is None else torch.float32

    @property
    def total_bytes(self) -> int:
        """Memory that all images take."""
        return len(self.data) * 3 * self.resolution**2 * self.dtype.itemsize

    def read(self, items: list[int], *, threads: int = min(MAX_THREADS, os.cpu_count() or 1)) -> Tensor:
        """Return [B, 3, r, r]; Pillow releases the interpreter lock while it decodes. Raises DatasetError."""
        if threads == 1 or len(items) < 2:
            return torch.stack([self.image(item) for item in items])
        with ThreadPoolExecutor(min(len(items), threads)) as pool:
            return torch.stack(list(pool.map(self.image, items)))

    def image(self, item: int) -> Tensor:
        """Return one image, [3, r, r]. Raises DatasetError, FileError."""
        pixels = torch.from_numpy(self.data.read(item)).permute(2, 0, 1)
        return pixels if self.weights is None else area_average(pixels, self.weights)


class DeviceCache:
    """All images of a resized dataset, [N, 3, r, r] on `device`, read at their first use, from any thread."""

    def __init__(self, resized: ResizedDataset, device: torch.device) -> None:
        self.resized = resized
        self.device = device
        self.values: Tensor | None = None  # allocated at the first read: some loaders are only asked for labels
        self.is_cached = torch.zeros(len(resized.data), dtype=torch.bool)
        self.lock = Lock()

    def read(self, items: Tensor) -> Tensor:
        """Return [B, 3, r, r] on the device, decoding only what is not cached. Raises DatasetError."""
        resolution = self.resized.resolution
        with self.lock:
            if self.values is None:
                shape = (len(self.is_cached), 3, resolution, resolution)
                self.values = torch.empty(shape, dtype=self.resized.dtype, device=self.device)
            missing = items[~self.is_cached[items]].unique()
            if len(missing):
                pixels = self.resized.read(missing.tolist())
                self.values[to_device(missing, self.device)] = to_device(pixels, self.device)
                self.is_cached[missing] = True
        return self.values[to_device(items, self.device)]


def area_weights(fine: int, coarse: int) -> Tensor:
    """Return integers [coarse, fine]: how much of each fine pixel lies in each coarse one.

    Each row sums to fine / gcd(fine, coarse). The dtype is the smallest in which the sum over a window of uint8
    pixels is exact, hence independent of the order of additions and of the batch.
    """
    divisor = gcd(fine, coarse)
    width, step = fine // divisor, coarse // divisor  # of a coarse and of a fine pixel, in common units
    left = torch.arange(coarse)[:, None] * width
    start = torch.arange(fine)[None, :] * step
    overlap = torch.minimum(left + width, start + step) - torch.maximum(left, start)
    exact = torch.float32 if 255 * width * width < 2**24 else torch.float64
    return overlap.clamp(min=0).to(exact)


def area_average(pixels: Tensor, weights: Tensor) -> Tensor:
    """Average uint8 [..., R, R] to float32 [..., r, r] in [-1, 1], x / 127.5 - 1, by `area_weights(R, r)`."""
    if weights.shape[0] == weights.shape[1]:
        return normalized(pixels)
    total = weights @ (pixels.to(weights.dtype) @ weights.T)
    return scaled(total / weights[0].sum() ** 2).to(torch.float32)


def normalized(values: Tensor) -> Tensor:
    """Return images of a `ResizedDataset`, uint8 or averages, as float32 in [-1, 1]."""
    return values if values.is_floating_point() else scaled(values.to(torch.float32))


def scaled(values: Tensor) -> Tensor:
    """Map 0 .. 255 to [-1, 1], bit for bit the same on every device.

    The divisor is a tensor on the values' device: a GPU would multiply by the reciprocal of a Python number.
    """
    return values / torch.full((), 127.5, dtype=values.dtype, device=values.device) - 1
