"""Latents: z, w and affine parameters of images, drawn from seeds and mapped by a generator.

At the end: seeds, levels and classes as text.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import FileError, LabelError, RequestError
from polyinr_core.models.coordinates import UNIT, Window
from polyinr_core.models.generator import Generator, check_label, truncate

if TYPE_CHECKING:
    from polyinr_core.runtime.atomic_io import PathLike

Space = Literal["z", "w", "affine"]
SPACES: tuple[Space, ...] = get_args(Space)
TENSORS = (*SPACES, "label")
MAX_SEED = 2**32 - 1  # NumPy's largest
MAX_SEEDS = 1_000_000
MAX_NUMBER = 1e6  # largest magnitude of psi, mixing strengths and direction amounts


@dataclass(frozen=True)
class Photo:
    """The photo that an image was inverted from.

    Attributes:
        name: The photo's file, as it was named.
        size: Width and height in pixels at which the two were compared; the photo's aspect ratio.
        window: Where the photo lies on the plane: x0, y0, x1, y1.
        scores: PSNR in dB, SSIM, perceptual distance and the loss it belongs to, as JSON values.
    """

    name: str
    size: tuple[int, int]
    window: Window = UNIT
    scores: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Latents:
    """The latents of N images in one or more spaces.

    Attributes:
        z: [N, z_dim], standard normal.
        w: [N, L, w_dim], truncated by `psi`.
        affine: [N, L, 3, n], the affine parameters that the synthesis network evaluates.
        label: [N], int64, the class of each image.
        seeds: The seeds that z was drawn from, where known.
        psi: The truncation that w and affine hold, where known.
        model_sha256: The model that w and affine belong to, where known.
        untuned_sha256: The model before pivotal tuning, which takes the same latents.
        photos: The photos that the images were inverted from, one for each or none.
        sha256: The file that the latents were read from.
    """

    z: Tensor | None = None
    w: Tensor | None = None
    affine: Tensor | None = None
    label: Tensor | None = None
    seeds: tuple[int, ...] = ()
    psi: float | None = None
    model_sha256: str = ""
    sha256: str = ""
    untuned_sha256: str = ""
    photos: tuple[Photo, ...] = ()

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, index: int | slice) -> Self:
        """Return one image, as latents of N = 1, or a slice of them. Raises IndexError."""
        if isinstance(index, int):
            start = range(len(self))[index]
            index = slice(start, start + 1)
        rows: dict[str, Any] = {
            name: None if tensor is None else tensor[index] for name, tensor in self._tensors().items()
        }
        return replace(self, **rows, seeds=self.seeds[index], photos=self.photos[index])

    @property
    def space(self) -> Space:
        """The space closest to the image of those that are held."""
        if self.affine is not None:
            return "affine"
        return "z" if self.w is None else "w"

    @property
    def tensor(self) -> Tensor:
        """The latents in `space`."""
        tensor = getattr(self, self.space)
        if tensor is None:
            raise RequestError("the latents are empty; one of z, w, affine is needed")
        return tensor

    def to(self, like: Tensor) -> Self:
        """Return the latents on the device and in the dtype of `like`; labels keep their dtype."""
        moved: dict[str, Any] = {
            name: tensor if tensor is None else tensor.to(like.device if name == "label" else like)
            for name, tensor in self._tensors().items()
        }
        return replace(self, **moved)

    def save(self, path: "PathLike", *, overwrite: bool = False) -> None:
        """Write a latents file (.safetensors). Raises FileError."""
        from .io import write_latents

        write_latents(path, self, overwrite=overwrite)

    @staticmethod
    def load(path: "PathLike") -> "Latents":
        """Read a latents file (.safetensors). Raises FileError."""
        from .io import read_latents

        return read_latents(path)

    def _tensors(self) -> dict[str, Tensor | None]:
        return {name: getattr(self, name) for name in TENSORS}


def concatenate(latents: Sequence[Latents]) -> Latents:
    """Concatenate latents along N, in the spaces that all of them hold."""
    columns = {name: [getattr(one, name) for one in latents] for name in TENSORS}
    rows: dict[str, Any] = {
        name: None if any(tensor is None for tensor in tensors) else torch.cat(tensors)
        for name, tensors in columns.items()
    }
    seeds = tuple(seed for one in latents for seed in one.seeds)
    photos = tuple(photo for one in latents for photo in one.photos)
    if any(not one.photos for one in latents):
        photos = ()  # one for each image or none
    return replace(latents[0], **rows, seeds=seeds, photos=photos, sha256="")


def common_photo(photos: Iterable[Photo | None]) -> Photo | None:
    """Return the first of the photos if all have its shape, size and window; else None."""
    photos = list(photos)
    first = photos[0] if photos else None
    if first is None or any(one is None or (one.size, one.window) != (first.size, first.window) for one in photos):
        return None
    return first


def draw_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw z [N, z_dim], float32, each row from its own seed.

    The release's draw for a batch of one, from NumPy's frozen generator, the same on every platform.
    docs/method.md, "Where paper and release differ".
    """
    rows = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(rows), z_dim))


def draw_labels(seeds: Sequence[int], classes: int) -> Tensor:
    """Draw a class [N], int64, for each seed, uniformly, from a generator apart from that of z.

    The release's draw for a batch of one. docs/method.md, "Where paper and release differ".
    """
    return torch.tensor([np.random.RandomState(seed).randint(0, classes) for seed in seeds], dtype=torch.int64)


@dataclass(frozen=True)
class LabelDistribution:
    """Which class a seed draws: `label` whatever the seed, one by a dataset's class `counts`, or any, uniformly.

    With counts a seed draws one image of the dataset and takes its class, as StyleGAN-XL's and the release's
    metrics do (metric_utils.iterate_random_labels). The class depends on the seed and the frequencies alone.
    """

    label: int | None = None
    counts: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What cards call it."""
        if self.label is not None:
            return f"class {self.label}"
        return "dataset" if self.counts else "uniform"

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """The counts by their greatest common divisor: the same for the same frequencies."""
        divisor = math.gcd(*self.counts) or 1
        return tuple(count // divisor for count in self.counts)

    def draw(self, seeds: Sequence[int], classes: int) -> Tensor:
        """Return the class [N], int64, of each seed. Equal counts give to the bit what uniform gives."""
        if self.label is not None:
            return torch.full((len(seeds),), self.label)
        if not self.counts:
            return draw_labels(seeds, classes)
        ends = torch.tensor(self.weights).cumsum(0)
        return torch.searchsorted(ends, draw_labels(seeds, int(ends[-1])), right=True)


UNIFORM = LabelDistribution()


def from_seeds(generator: Generator, seeds: Sequence[int], *, label: int | None = None, psi: float = 1.0) -> Latents:
    """Draw the latents of N seeds in all three spaces.

    Args:
        generator: The model.
        seeds: Integers in 0 to 2^32 - 1. A seed gives the same latents, to the last bit, in any batch.
        label: The class of all images. By default each seed draws its own class.
        psi: Truncation: 1 leaves w as it is, 0 gives the mean image.

    Raises LabelError, RequestError.
    """
    classes = generator.config.classes
    labels = None
    if classes:
        labels = draw_labels(seeds, classes) if label is None else torch.full((len(seeds),), label)
    elif label is not None:
        raise LabelError("the model has no classes: leave the label out")
    z = draw_z(seeds, generator.config.z_dim)
    return to_affine(generator, Latents(z=z, label=labels, seeds=tuple(seeds)), psi=psi)


def check_psi(psi: float) -> None:
    """Raise RequestError for a truncation psi out of range, or NaN."""
    if not abs(psi) <= MAX_NUMBER:
        raise RequestError(f"psi {psi} is outside -1e6 to 1e6; 0.5 to 1 is usual")


@torch.no_grad()
def to_affine(generator: Generator, latents: Latents, *, psi: float | None = None) -> Latents:
    """Complete latents up to their affine parameters [N, L, 3, n].

    Without `psi`, latents that hold affine parameters are returned as they are. With `psi` they are truncated
    again: from z where it is held, else from w. Computed on the device and in the dtype of the generator.
    Raises RequestError, LabelError.
    """
    if psi is None and latents.affine is not None:
        return latents
    if psi is not None:
        check_psi(psi)
    like = generator.mapping.w_avg
    w = None if latents.w is None else latents.w.to(like)
    label = None if latents.label is None else latents.label.to(like.device)
    if latents.z is not None and (w is None or psi is not None):
        psi = next(value for value in (psi, latents.psi, 1.0) if value is not None)
        w = generator.w_each(latents.z.to(like), label, psi=psi)
    elif w is not None and psi is not None:
        check_label(label, classes=generator.config.classes)
        w = truncate(w, generator.mapping.w_avg_for(label), psi)
        psi = psi * (1.0 if latents.psi is None else latents.psi)
    elif w is None:
        raise RequestError("affine parameters alone cannot be truncated; leave psi out")
    stored = latents.psi if psi is None else psi
    return replace(latents, w=w, affine=generator.affine_each(w), label=label, psi=stored)


def with_label(generator: Generator, latents: Latents, label: int | None) -> Latents:
    """Return latents in another class, or with the class that their seeds draw where z alone has none.

    Raises LabelError if they cannot be: the class is part of w, and only z is free of it.
    """
    if label is not None:
        if latents.z is None:
            raise LabelError(f"latents in {latents.space} have their class in them; leave the label out")
        labels = torch.full((len(latents),), label)
        return replace(latents, w=None, affine=None, label=labels)
    if latents.space == "z" and generator.config.classes and latents.label is None:
        if not latents.seeds:
            raise LabelError("the latents have no class and no seed to draw it from; give a label")
        return replace(latents, label=draw_labels(latents.seeds, generator.config.classes))
    return latents


def in_space(latents: Latents, space: Space) -> Tensor:
    """Return the latents in one space. Raises RequestError where they are not held in it."""
    tensor: Tensor | None = getattr(latents, space)
    if tensor is None:
        held = " and ".join(name for name in SPACES if getattr(latents, name) is not None)
        raise RequestError(f"the latents hold {held}, not {space}; choose the space {latents.space}")
    return tensor


def common_label(*images: Latents) -> Tensor | None:
    """Return the class [1], on the CPU, that all images are of, None if they differ or have none."""
    labels = [image.label for image in images]
    if any(label is None for label in labels):
        return None
    classes = torch.cat([label.cpu() for label in labels if label is not None])
    return classes[:1] if bool((classes == classes[0]).all()) else None


def common_dtype(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors on the device of the first, in the wider dtype of both."""
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(device=a.device, dtype=dtype)


def check_latents(generator: Generator, latents: Latents, *, source: str) -> None:
    """Raise FileError if latents do not fit the model's sizes, LabelError if their classes do not."""
    config = generator.config
    expected = {
        "z": (config.z_dim,),
        "w": (config.levels, config.w_dim),
        "affine": (config.levels, 3, config.channels),
    }
    for name, shape in expected.items():
        tensor: Tensor | None = getattr(latents, name)
        if tensor is not None and tuple(tensor.shape[1:]) != shape:
            raise FileError(
                source,
                f"{name} is {list(tensor.shape[1:])} an image, not {list(shape)}; take the model it is from",
            )
    if latents.label is not None:
        check_label(latents.label, classes=config.classes)


def parse_seeds(text: str) -> list[int]:
    """Parse "0-7,12" as [0, ..., 7, 12]. Raises RequestError."""
    seeds: list[int] = []
    for first, last in _parse_ranges(text, noun="seeds", example="7, 0-7 or 0-7,12"):
        if last > MAX_SEED:
            raise RequestError(f"seed {last} is outside 0-{MAX_SEED}")
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise RequestError(f"seeds {text!r} are more than {MAX_SEEDS}; render them in several runs")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise RequestError(f"seeds {text!r} name a seed twice")
    return seeds


def seeds_text(seeds: Iterable[int]) -> str:
    """Format seeds, or levels, as `parse_seeds` takes them, in the same order."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def parse_levels(text: str, *, levels: int) -> list[int]:
    """Parse "8-9" or "0,2-4" as levels of a model with `levels` levels, sorted. Raises RequestError."""
    chosen: list[int] = []
    for first, last in _parse_ranges(text, noun="levels", example="3, 5-7 or 0,8-9"):
        if last >= levels:
            raise RequestError(f"level {last} is outside 0-{levels - 1} (the model has {levels} levels)")
        chosen += range(first, last + 1)
    if len(set(chosen)) < len(chosen):
        raise RequestError(f"levels {text[:40]!r} name a level twice")
    return sorted(chosen)


def _parse_ranges(text: str, *, noun: str, example: str) -> Iterator[tuple[int, int]]:
    """Parse "0-7,12" as (0, 7) and (12, 12). Raises RequestError."""
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        if match is None:
            raise RequestError(f"{noun} {text[:40]!r} are not understood at {part[:40]!r}; write {example}")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise RequestError(f"{noun} {part.strip()} run backwards; write {last}-{first}")
        yield first, last


def parse_label(text: str, *, classes: int, class_names: Sequence[str] = ()) -> int:
    """Return the index of a class that is given by name or number. Raises LabelError."""
    if not classes:
        raise LabelError("the model has no classes: leave --label out")
    name = text.strip()
    if name in class_names:
        return class_names.index(name)
    alike = [i for i, other in enumerate(class_names) if other.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if re.fullmatch(r"-?\d{1,18}", name, re.ASCII):
        if 0 <= int(name) < classes:
            return int(name)
        raise LabelError(f"class {name} is outside 0-{classes - 1}")
    parts = [other for other in class_names if name and name.casefold() in other.casefold()]
    near = parts[:3] or get_close_matches(name, class_names)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"give a number in 0-{classes - 1}"
    if class_names and not near:
        hint = f"{hint}, or a name that `polyinr info MODEL` lists"
    raise LabelError(f"class {name!r} is unknown; {hint}")
