"""What is evaluated: a set of pictures, a folder of them, or a model that draws; all of one size, uint8."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.averaging import area_average, area_weights
from ..data.decoding import decode
from ..data.picture_set import PictureSet, means_shards, open_data
from ..data.shards import Shards
from ..data.sources import open_folder
from ..errors import FileError, PictureError, RequestError
from ..files import read_bytes, sha256_of
from ..latents.seeds import draw_labels, draw_z
from ..model import draw_rows
from ..pictures.pixels import checked, quantise
from ..seeds import generator_for
from ..snapshots.snapshot import Snapshot

CPU_PIXELS, PIXELS = 2**14, 2**17  # drawn in one pass on a CPU, elsewhere
READ = 32  # pictures of a set that are read in one pass


class Pictures(Protocol):
    """Pictures in a fixed order, all of `side` pixels squared, and what a card says of them.

    `sha256` tells them from others: it changes with any byte that they are made of.
    """

    name: str
    side: int

    @property
    def sha256(self) -> str: ...

    @property
    def facts(self) -> dict[str, Any]: ...

    def __len__(self) -> int: ...

    def passes(self) -> Iterator[Tensor]:
        """Yield the pictures in their order, some at a time: uint8 [n, 3, side, side]."""


class Folder:
    """A folder of picture files, read as a picture set is: by number, uint8 [R, R, 3].

    All must be square and of the first one's size: nothing is cut or enlarged before it is judged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = open_folder(path).names
        self.resolution = len(self._pixels(0))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over each file's name and bytes."""
        return sha256_of_files([self.path / name for name in self.names], self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return picture `index`. Raises FileError."""
        pixels = self._pixels(index)
        if len(pixels) != self.resolution:
            problem = f"is {len(pixels)} px, others of the folder {self.resolution} px; bring all to one size"
            raise FileError(self.path / self.names[index], problem)
        return pixels

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        path = self.path / self.names[index]
        try:
            pixels = np.array(decode(read_bytes(path)), dtype=np.uint8)
        except PictureError as error:
            raise FileError(path, str(error)) from error
        height, width = pixels.shape[:2]
        if height != width:
            raise FileError(path, f"is {width}x{height}; square pictures are judged, `polyinr prepare` cuts them")
        return pixels


class StoredPictures:
    """Pictures of a set or a folder, at their own size or area-averaged to a smaller one.

    With `count`, so many of them, chosen at random once and for all. Raises RequestError, FileError.
    """

    def __init__(self, data: PictureSet | Folder, *, side: int | None = None, count: int | None = None) -> None:
        whole = len(data)
        if count is not None and not 0 < count <= whole:
            raise RequestError(f"{data.path} holds {whole} pictures; {count} of them cannot be taken")
        if side is not None and side > data.resolution:
            problem = f"holds pictures of {data.resolution} px, {side} px are asked for; none is enlarged"
            raise FileError(data.path, problem)
        self.data = data
        self.name = str(data.path)
        self.side = side or data.resolution
        order = torch.randperm(whole, generator=generator_for("reals"))[:count]
        self.order = [*range(whole)] if count in (None, whole) else order.sort().values.tolist()

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.data, Shards):  # whose own digest is not over all pixels
            return sha256_of_files(self.data.files, [file.name for file in self.data.files])
        return self.data.sha256

    @property
    def facts(self) -> dict[str, Any]:
        own = self.data.resolution
        return {
            "kind": "pictures",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": len(self),
            "of": len(self.data),
            "stored_resolution": own,
            "reduction": "none" if own == self.side else "area average",
            "labels": "as they are",
        }

    def passes(self) -> Iterator[Tensor]:
        weights = area_weights(self.data.resolution, self.side)
        for start in range(0, len(self), READ):
            pixels = np.stack([self.data.read(index) for index in self.order[start : start + READ]])
            stacked = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            yield stacked if self.side == self.data.resolution else quantise(area_average(stacked, weights))


class DrawnPictures:
    """What a model draws for seeds 0, 1, ..., `count` - 1, on the device that its generator is on.

    A seed draws its class as well, uniformly, unless `label` is given. Pictures are drawn in passes that the
    count of the judges' batch does not touch. Raises RequestError.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        name: str,
        count: int,
        side: int | None = None,
        psi: float = 1.0,
        label: int | None = None,
    ) -> None:
        if count < 1:
            raise RequestError(f"{count} pictures cannot be judged; give a count of 1 or more")
        if not (side or snapshot.resolution):
            raise RequestError(f"{name} does not say its resolution; give --res")
        self.snapshot = snapshot
        self.name = name
        self.count = count
        self.side = side or snapshot.resolution
        self.psi = psi
        self.label = label

    def __len__(self) -> int:
        return self.count

    @property
    def sha256(self) -> str:
        return self.snapshot.sha256

    @property
    def facts(self) -> dict[str, Any]:
        labels = "none"
        if self.snapshot.generator.config.classes:
            labels = "uniform by seed" if self.label is None else f"class {self.label}"
        return {
            "kind": "model",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": self.count,
            "seeds": f"0-{self.count - 1}",
            "labels": labels,
            "psi": self.psi,
        }

    @torch.no_grad()
    def passes(self) -> Iterator[Tensor]:
        like = self.snapshot.generator.mapping.w_avg
        at_once = (CPU_PIXELS if like.device.type == "cpu" else PIXELS) // self.side**2
        for start in range(0, self.count, max(at_once, 1)):
            drawn = self._draw(range(start, min(start + max(at_once, 1), self.count)), whole=at_once > 0)
            yield torch.cat([quantise(part) for part in checked([drawn])]).permute(0, 3, 1, 2)

    def _draw(self, seeds: range, *, whole: bool) -> Tensor:
        """Draw [n, side, side, 3], in one product a level or, of large pictures, in bands."""
        generator, classes = self.snapshot.generator, self.snapshot.generator.config.classes
        like = generator.mapping.w_avg
        labels = None
        if classes:
            given = torch.full((len(seeds),), self.label or 0)
            labels = (draw_labels(seeds, classes) if self.label is None else given).to(like.device)
        w = generator.w(draw_z(seeds, generator.config.z_dim).to(like), labels, psi=self.psi)
        affine = generator.affine(w)
        grid = self.snapshot.grid(self.side, self.side)
        if not whole:
            bands = [torch.cat(list(draw_rows(generator.synthesis, maps, grid))) for maps in affine]
            return torch.stack(bands)
        points = grid.at(torch.arange(self.side**2, device=like.device), dtype=like.dtype)
        return generator.synthesis(affine, points).unflatten(1, (self.side, self.side))


def open_pictures(path: Path, *, side: int | None = None, count: int | None = None) -> StoredPictures:
    """Open an archive, tar shards, or a folder of picture files. Raises FileError, RequestError."""
    if path.is_dir() and not means_shards(path):
        return StoredPictures(Folder(path), side=side, count=count)
    return StoredPictures(open_data(path), side=side, count=count)


def sha256_of_files(files: list[Path], names: tuple[str, ...] | list[str]) -> str:
    """Return the SHA-256 over the names and the SHA-256 of files. Raises FileError."""
    digest = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name!r} {sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def check_sizes(reals: Pictures, fakes: Pictures) -> None:
    """Raise RequestError if two kinds of pictures are of different sizes."""
    if reals.side != fakes.side:
        smaller = min(reals.side, fakes.side)
        raise RequestError(
            f"{reals.name} holds reals of {reals.side} px, {fakes.name} gives fakes of {fakes.side} px; "
            f"bring both to one size, as by --res {smaller}"
        )
