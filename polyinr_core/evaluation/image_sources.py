"""The images that are evaluated: a dataset or folder, in part or held out, and those that a model generates."""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.data.dataset import ImageDataset, open_dataset
from polyinr_core.data.decode import decode
from polyinr_core.data.import_sources import open_folder
from polyinr_core.data.import_tables import read_arrays, to_rgb
from polyinr_core.data.loader import InfiniteSampler
from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.data.tar_dataset import TarDataset, means_shards
from polyinr_core.errors import ConfigError, FileError, ImageError, RequestError
from polyinr_core.images.grid import check_finite, quantize
from polyinr_core.images.io import read_metadata
from polyinr_core.latents.latents import UNIFORM, LabelDistribution, draw_z
from polyinr_core.rendering.backends import Backend, in_precision, select_backend
from polyinr_core.rendering.render import pixels_per_batch
from polyinr_core.runtime.atomic_io import PathLike, read_bytes, sha256_of
from polyinr_core.runtime.rng import generator_for

READ_BATCH = 32  # images read and decoded together
PROBE_IMAGES = 8  # by which bfloat16 is compared with float32
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, RuntimeError)  # truncated, encrypted
THREADS = min(8, os.cpu_count() or 1)  # that decode; Pillow releases the GIL


@dataclass(frozen=True)
class HeldOut:
    """The images that a training run held out: `count` of the data of this SHA-256, chosen by its seed."""

    run: str
    seed: int
    count: int
    data_sha256: str

    @classmethod
    def from_run(cls, folder: PathLike) -> "HeldOut":
        """Read which images the run in a folder held out. Raises FileError."""
        from polyinr_core.training.config import TrainingConfig
        from polyinr_core.training.run_dir import RunFolder

        run = RunFolder(Path(folder))
        if not run.config.is_file():
            raise FileError(run.path, "is not a run folder: it has no config.json")
        stored = run.read()
        training, data = stored["training"], stored["data"]
        try:
            seed, images, sha256 = int(training["seed"]), int(data["images"]), str(data["sha256"])
            config = replace(TrainingConfig(), held_out=training["held_out"])
            return cls(run.path.name, seed, config.held_out_count(images), sha256)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise FileError(run.config, "does not say which images the run held out; is it damaged?") from error

    def indices(self, data: "ImageDataset | ImageFolder | ImageStack") -> list[int]:
        """Return the indices of the held-out images, ascending. Raises RequestError, FileError for other data."""
        if not self.count:
            raise RequestError(f"{self.run} held out no images; train with --held-out, or evaluate on other data")
        if data.sha256 != self.data_sha256:
            raise FileError(
                data.path,
                f"is not the data that {self.run} was trained on (SHA-256 {data.sha256[:12]}, not "
                f"{self.data_sha256[:12]}); give the unchanged training data",
            )
        return sorted(InfiniteSampler(len(data), seed=self.seed, held_out=self.count).held_out.tolist())


class ImageFolder:
    """A folder of image files, read like a dataset: by index, uint8 [H, W, 3].

    `resolution` is that of the images if all are square and of one size, else 0; `sizes` names two examples. Labels
    that cannot be used are ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        source = open_folder(path)
        self.names = source.names
        facts, _ = source.labels.resolve_for("usable", path, source.name_of)
        self.labels, self.classes, self.class_names = facts.labels, facts.classes, facts.class_names
        self.notes = source.ignored.lines()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="decoding") as pool:
            found = zip(self.names, pool.map(header_size, [path / name for name in self.names]), strict=True)
            sizes = {size: name for name, size in reversed(list(found)) if size is not None}
        height, width = min(sizes) if len(sizes) == 1 else self.read(0).shape[:2]
        self.resolution = height if height == width and len(sizes) < 2 else 0
        self.sizes = ", ".join(
            f"{name} {size[1]}x{size[0]}" for size, name in sorted(sizes.items())[:: max(1, len(sizes) - 1)]
        )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over each file's name and bytes."""
        return sha256_of_files([self.path / name for name in self.names], self.names)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`. Raises FileError."""
        path = self.path / self.names[index]
        try:
            return np.array(decode(read_bytes(path)), dtype=np.uint8)
        except ImageError as error:
            raise FileError(path, str(error)) from error


def header_size(path: Path) -> tuple[int, int] | None:
    """Return the height and width that an image file declares, None if Pillow cannot read its header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


class ImageStack:
    """The square images of an .npy or .npz file (see `read_arrays`), read like a dataset. Raises FileError."""

    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images, info = read_arrays(path)
        shape = self.images.shape
        if shape[1] != shape[2] or not all(shape):
            raise FileError(path, f"holds uint8 {list(shape)}; images are uint8, square, and at least one")
        self.labels, self.classes = info.labels, info.classes
        self.resolution: int = shape[1]

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        return sha256_of(self.path)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, uint8 [R, R, 3]."""
        return to_rgb(self.images[index])


class DatasetImages:
    """The images of a zip, tar shards, a folder of image files or an .npy or .npz array.

    They have their own size, or are area-averaged to a smaller `resolution`. If `any_size`, images of a folder may
    differ in size; the resolution is then 0, and feature extractors resize each image. With `held_out`, only those that
    a training run held out. With `count`, that many, a random subset that is always the same. Raises RequestError,
    FileError.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        resolution: int | None = None,
        count: int | None = None,
        held_out: HeldOut | None = None,
        any_size: bool = False,
    ) -> None:
        path = Path(path)
        data: ImageDataset | ImageFolder | ImageStack
        if path.suffix in (".npy", ".npz"):
            data = ImageStack(path)
        elif path.is_dir() and not means_shards(path):
            data = ImageFolder(path)
        else:
            data = open_dataset(path, labels="usable")
        if not data.resolution and (resolution is not None or not any_size):
            sizes = getattr(data, "sizes", "")
            problem = f"holds images that are not square or not of one size ({sizes}); crop them with `polyinr prepare`"
            raise FileError(data.path, problem + (", or leave out the resolution" if any_size else ""))
        if resolution is not None and resolution > data.resolution:
            problem = f"holds images of {data.resolution} px; {resolution} px are requested, and none is enlarged"
            raise FileError(data.path, problem)
        self.data = data
        self.held_out = held_out
        self.name = str(data.path)
        self.resolution = resolution or data.resolution
        available = list(range(len(data))) if held_out is None else held_out.indices(data)
        if count is not None and not 0 < count <= len(available):
            which = "images" if held_out is None else f"images that {held_out.run} held out"
            raise RequestError(f"{data.path} holds {len(available)} {which}; {count} are requested")
        chosen = torch.randperm(len(available), generator=generator_for("reals"))[:count].sort().values
        self.indices = [available[index] for index in chosen.tolist()]

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def sha256(self) -> str:
        if isinstance(self.data, TarDataset):  # their digest does not cover all pixels
            return sha256_of_files(self.data.files, [file.name for file in self.data.files])
        return self.data.sha256

    @cached_property
    def written_by_sample(self) -> bool:
        """Whether all are 8-bit image files whose metadata says that polyinr wrote them."""
        if not isinstance(self.data, ImageFolder):
            return False
        files = (self.data.path / self.data.names[index] for index in self.indices)
        try:
            return all((metadata := read_metadata(file)) and "bits" not in metadata for file in files)
        except FileError:  # a damaged one
            return False

    @property
    def image_labels(self) -> NDArray[np.int64] | None:
        """The class of each image, None without labels."""
        return None if self.data.labels is None else np.asarray(self.data.labels, dtype=np.int64)[self.indices]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, their indices if they have none."""
        return tuple(self.data.class_names) or tuple(map(str, range(self.data.classes)))

    @property
    def label_counts(self) -> tuple[int, ...] | None:
        """The number of these images in each class of the dataset; None without labels."""
        labels = self.image_labels
        return None if labels is None else tuple(np.bincount(labels, minlength=self.data.classes).tolist())

    @property
    def provenance(self) -> dict[str, Any]:
        stored, held_out = self.data.resolution, self.held_out
        facts: dict[str, Any] = {
            "kind": "images",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": len(self),
            "of": len(self.data),
            "stored_resolution": stored or "various",
            "reduction": "none" if stored == self.resolution else "area average",
            "labels": "as they are",
        }
        if held_out is not None:
            facts["held_out"] = {"run": held_out.run, "seed": held_out.seed, "count": held_out.count}
        return facts

    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        indices = range(len(self)) if indices is None else indices
        reduced = self.resolution != self.data.resolution
        weights = area_weights(self.data.resolution, self.resolution) if reduced else None
        with ThreadPoolExecutor(THREADS, thread_name_prefix="decoding") as pool:
            for start in range(indices.start, indices.stop, READ_BATCH):
                numbers = self.indices[start : min(start + READ_BATCH, indices.stop)]
                images = [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in pool.map(self.data.read, numbers)]
                if not self.resolution:
                    yield from (image[None] for image in images)
                elif weights is None:
                    yield torch.stack(images)
                else:
                    yield quantize(area_average(torch.stack(images), weights))


class GeneratedImages:
    """The images that a model generates for seeds 0 to `count` - 1, on its generator's device.

    Each seed also draws a class from `labels`, which a model without classes ignores. The rendering batch does not
    depend on the extractor's batch or on the requested indices, so that an image always has the same bits.
    `dtype` bfloat16 reduces the n x n products; path lengths are of images in float32 all the same. Raises
    RequestError.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str,
        count: int,
        resolution: int | None = None,
        psi: float = 1.0,
        labels: LabelDistribution = UNIFORM,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if count < 1:
            raise RequestError(f"count {count} is below 1")
        if not (resolution or checkpoint.resolution):
            raise RequestError(f"{name} does not say its resolution; give --res")
        if labels.counts and len(labels.counts) != checkpoint.generator.config.classes:
            problem = f"counts of {len(labels.counts)} classes, {name} has {checkpoint.generator.config.classes}"
            raise RequestError(f"{problem}; give one count for each class of the model")
        self.checkpoint = checkpoint
        self.name = name
        self.count = count
        self.resolution = resolution or checkpoint.resolution
        self.psi = psi
        self.labels = labels
        self.dtype = dtype

    def __len__(self) -> int:
        return self.count

    @property
    def provenance(self) -> dict[str, Any]:
        labels = {"labels": "none"}
        if self.checkpoint.generator.config.classes:
            labels = {"labels": self.labels.name}
            if self.labels.counts:  # as one string, on one line however many classes
                labels["label_weights"] = " ".join(map(str, self.labels.weights))
        return {
            "kind": "model",
            "name": Path(self.name).name,
            "sha256": self.checkpoint.sha256,
            "count": self.count,
            "seeds": f"0-{self.count - 1}",
            **labels,
            "psi": self.psi,
        }

    @property
    def image_labels(self) -> NDArray[np.int64] | None:
        """The class that each seed draws, None for a model without classes."""
        classes = self.checkpoint.generator.config.classes
        return self.labels.draw(range(self.count), classes).numpy() if classes else None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, their indices if they have none."""
        return tuple(self.checkpoint.class_names) or tuple(map(str, range(self.checkpoint.generator.config.classes)))

    @cached_property
    def backends(self) -> dict[torch.dtype, Backend]:
        """The rendering backends that were used, for the generator's device."""
        return {}

    def backend(self, dtype: torch.dtype) -> Backend:
        """Return the rendering backend in float32 (the generator's own dtype) or bfloat16, built at its first use."""
        if dtype not in self.backends:
            generator = self.checkpoint.generator
            synthesis = in_precision(generator.synthesis, dtype) if dtype == torch.bfloat16 else generator.synthesis
            self.backends[dtype] = select_backend(synthesis, generator.mapping.w_avg.device)
        return self.backends[dtype]

    def rounding_error(self) -> float:
        """Return the root mean square, in gray levels of 255, by which bfloat16 changes the first images."""
        w = self.sample_w(range(min(self.count, PROBE_IMAGES)))
        exact, reduced = (self.render(w, dtype=dtype).clamp(-1, 1) for dtype in (torch.float32, torch.bfloat16))
        return 127.5 * float((reduced - exact).double().square().mean().sqrt())

    def sample_w(self, seeds: range, *, label_seeds: range | None = None) -> Tensor:
        """Return w [N, L, w_dim] of seeds, whose classes are drawn by `label_seeds`, by default the same."""
        label_seeds = seeds if label_seeds is None else label_seeds
        return sample_w(self.checkpoint, seeds, psi=self.psi, labels=self.labels, label_seeds=label_seeds)

    def render(self, w: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Render w [N, L, w_dim] to colors [N, 3, resolution, resolution], about [-1, 1]."""
        return render_images(self.checkpoint, w, resolution=self.resolution, backend=self.backend(dtype))

    @torch.no_grad()
    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        indices = range(self.count) if indices is None else indices
        device = self.checkpoint.generator.mapping.w_avg.device
        size = max(pixels_per_batch(device) // self.resolution**2, 1)
        for start in range(indices.start // size * size, indices.stop, size):
            seeds = range(start, min(start + size, self.count))
            pixels = quantize(next(check_finite([self.render(self.sample_w(seeds), dtype=self.dtype)])))
            yield pixels[max(indices.start - start, 0) : indices.stop - start]


def sample_w(
    checkpoint: Checkpoint, seeds: range, *, psi: float, labels: LabelDistribution = UNIFORM, label_seeds: range
) -> Tensor:
    """Return w [N, L, w_dim] of seeds on the generator's device, each in the class that its label seed draws."""
    generator, classes = checkpoint.generator, checkpoint.generator.config.classes
    w_avg = generator.mapping.w_avg
    label = labels.draw(label_seeds, classes).to(w_avg.device) if classes else None
    return generator.w_each(draw_z(seeds, generator.config.z_dim).to(w_avg), label, psi=psi)


@torch.no_grad()
def render_images(checkpoint: Checkpoint, w: Tensor, *, resolution: int, backend: Backend | None = None) -> Tensor:
    """Render w [N, L, w_dim] to colors [N, 3, resolution, resolution], about [-1, 1], in chunks of pixels."""
    generator = checkpoint.generator
    affine = generator.affine_each(w)
    grid = checkpoint.grid(resolution, resolution)
    coordinates = grid.at(torch.arange(resolution**2, device=w.device), dtype=w.dtype)  # [P, 3]
    chunks = coordinates.split(max(1, pixels_per_batch(w.device) // len(w)))
    backend = backend or select_backend(generator.synthesis, w.device)
    colors = torch.cat([backend(affine, chunk) for chunk in chunks], dim=1)  # [N, P, 3]
    return colors.unflatten(1, (resolution, resolution)).permute(0, 3, 1, 2)


def sha256_of_files(files: list[Path], names: tuple[str, ...] | list[str]) -> str:
    """Return the SHA-256 over the names and the SHA-256 of files. Raises FileError."""
    digest = hashlib.sha256()
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name!r} {sha256_of(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
