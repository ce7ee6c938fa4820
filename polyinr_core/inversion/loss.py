"""What an inversion minimizes: the target image, the grid at which it is rendered, and the loss against it.

The loss is the mean squared error of the pixels plus a perceptual distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.data.decode import MAX_IMAGE_BYTES, decode, frame_count
from polyinr_core.data.listing import is_image
from polyinr_core.discriminator.backbones import Lite0Features
from polyinr_core.errors import FileError, ImageError, RequestError
from polyinr_core.images.animation import is_video, read_video
from polyinr_core.images.grid import Pixels
from polyinr_core.metrics.image_similarity import cached_vgg16, load_lpips, unit_channels, unit_distance
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import UNIT, Grid, RegularGrid, Window
from polyinr_core.models.generator import Synthesis, render_checkpointed
from polyinr_core.models.layers import SAVED_BYTES
from polyinr_core.runtime.atomic_io import PathLike, read_bytes
from polyinr_core.runtime.pretrained import load_pretrained

MAX_SHORTER_SIDE = 256  # default limit in pixels for a model that does not state its training resolution
MEMORY_SHARE = 4  # activations may take one part in MEMORY_SHARE of the memory
BLACK = -1 + 1 / 127.5  # below it, a color of a target is black
MAX_BATCH = 16  # images that are inverted together
MIN_FEATURE_SIDE = 64  # smaller images are enlarged before features are extracted
MAX_FEATURE_SIDE = 256  # larger ones are reduced, as the cost of features grows with the area

LossName = Literal["auto", "lpips", "lite0", "pixels"]
LOSS_DESCRIPTIONS = {
    "lpips": "LPIPS-VGG and pixels",
    "lite0": "EfficientNet-lite0 features and pixels",
    "pixels": "pixels alone",
}


@dataclass(frozen=True)
class TargetImage:
    """The image to invert: `pixels` [H, W, 3] uint8, and the `width`, `height` and frame count of its file."""

    name: str
    pixels: Pixels
    width: int
    height: int
    frames: int = 1

    @property
    def is_resized(self) -> bool:
        """Whether the size of `pixels` differs from that of the file."""
        return self.pixels.shape[:2] != (self.height, self.width)

    @property
    def notes(self) -> list[str]:
        """What is lost of the file: all frames but the first, or its size."""
        height, width = self.pixels.shape[:2]
        frames = [f"{self.name}: using the first of {self.frames} frames"] if self.frames > 1 else []
        resized = f"{self.name}: resized from {self.width}x{self.height} to {width}x{height}"
        return [*frames, resized] if self.is_resized else frames

    def colors(self, like: Tensor) -> Tensor:
        """Return colors [1, 3, H, W] in [-1, 1] that quantize to exactly these pixels, in the dtype of `like`.

        Quantization truncates, so the target of a pixel is the middle of its step: (u + 1/2) / 127.5 - 1.
        """
        colors = (torch.from_numpy(self.pixels.astype(np.float64)) + 0.5) / 127.5 - 1
        return colors.permute(2, 0, 1).unsqueeze(0).to(like)


def load_target(
    image: PathLike | bytes | Image.Image | Pixels | TargetImage,
    *,
    name: str = "",
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    resolution: int = 0,
) -> TargetImage:
    """Decode and resize a target image.

    Args:
        image: a path, the bytes of an image file, a PIL image, or a uint8 array [H, W, 3] or [H, W]. Of an
            animation, the first frame is used. A TargetImage is returned unchanged.
        name: the name for messages; by default the path.
        size: (width, height) in pixels; without it the aspect ratio is kept, see `target_size`.
        shorter_side: the shorter side in pixels.
        resolution: the training resolution of the model.

    Images are reduced by Lanczos resampling and enlarged by bicubic resampling. Raises FileError, RequestError.
    """
    if isinstance(image, TargetImage):
        return image
    frames = 1
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            shape = list(image.shape)
            raise RequestError(f"the array is {image.dtype} {shape}; a target image is uint8 [H, W, 3] or [H, W]")
        decoded = Image.fromarray(image).convert("RGB")
    elif isinstance(image, Image.Image):
        decoded = image.convert("RGB")
    else:
        data = image if isinstance(image, bytes) else read_bytes(Path(image))
        name = name or ("image" if isinstance(image, bytes) else str(image))
        decoded, frames = _decoded(data, name), frame_count(data)
    width, height = decoded.size
    wanted = size or target_size(width, height, shorter_side=shorter_side, resolution=resolution)
    if wanted != (width, height):
        is_larger = wanted[0] > width or wanted[1] > height
        decoded = decoded.resize(wanted, Image.Resampling.BICUBIC if is_larger else Image.Resampling.LANCZOS)
    return TargetImage(name or "image", np.array(decoded, dtype=np.uint8), width, height, frames=frames)


def load_targets(
    sources: Sequence[PathLike | bytes],
    *,
    size: tuple[int, int] | None = None,
    shorter_side: int | None = None,
    resolution: int = 0,
) -> tuple[list[TargetImage], float | None]:
    """Load the target images of files, folders of images and bytes (named stdin), or the frames of one video.

    Returns the targets, and the frames per second of a video, else None. For the other arguments see `load_target`.
    Raises FileError, RequestError, PolyinrError for a video without PyAV.
    """
    listed: list[PathLike | bytes] = []
    for source in sources:
        if isinstance(source, bytes) or not Path(source).is_dir():
            listed.append(source)
            continue
        inside = [path for path in sorted(Path(source).iterdir()) if is_image(path.name)]
        if not inside:
            raise FileError(source, "holds no images; name a folder of images, or an image file")
        listed += inside
    if not any(not isinstance(source, bytes) and is_video(source) for source in listed):
        targets = [
            load_target(
                source,
                name="stdin" if isinstance(source, bytes) else str(source),
                size=size,
                shorter_side=shorter_side,
                resolution=resolution,
            )
            for source in listed
        ]
        return targets, None
    if len(listed) > 1:
        raise RequestError("a video is inverted alone; name one video, or images")
    (video,) = listed
    assert not isinstance(video, bytes)
    frames: list[TargetImage] = []
    fps = 0.0
    for pixels, rate in read_video(video):
        fps, name = rate, f"{video} frame {len(frames)}"
        frames.append(load_target(pixels, name=name, size=size, shorter_side=shorter_side, resolution=resolution))
    if not frames:
        raise FileError(video, "holds no frames")
    return frames, fps


def _decoded(data: bytes, name: str) -> Image.Image:
    if len(data) > MAX_IMAGE_BYTES:
        raise FileError(name, f"the file is larger than {MAX_IMAGE_BYTES // 2**20} MiB; give a smaller file")
    try:
        return decode(data)
    except ImageError as error:
        raise FileError(name, f"{error}; use an image file such as PNG, JPEG, WebP or TIFF") from error


def target_size(width: int, height: int, *, shorter_side: int | None, resolution: int) -> tuple[int, int]:
    """Return the (width, height) at which an image of width x height is inverted; the aspect ratio is kept.

    The default of `shorter_side` is that of the image, at most `resolution`, or 256 where that is 0 (unknown).
    """
    if shorter_side is None:
        shorter_side = min(width, height, resolution or MAX_SHORTER_SIDE)
    scale = shorter_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class TargetGrid:
    """The coordinates [P, 3] of an image of width x height; with `chunk` > 0 its gradients are recomputed in chunks."""

    width: int
    height: int
    coordinates: Tensor
    chunk: int = 0

    def render(self, synthesis: Synthesis, affine: Tensor) -> Tensor:
        """Render affine [N, L, 3, n] to colors [N, 3, H, W], about [-1, 1], differentiably."""
        if self.chunk and torch.is_grad_enabled():
            colors = render_checkpointed(synthesis, affine, self.coordinates, chunk=self.chunk)
        else:
            colors = synthesis(affine, self.coordinates)
        return colors.unflatten(1, (self.height, self.width)).permute(0, 3, 1, 2)  # [N, 3, H, W]


def target_grid(
    config: GeneratorConfig,
    *,
    width: int,
    height: int,
    like: Tensor,
    window: Window = UNIT,
    grid: Grid | None = None,
    memory: int | None = None,
) -> TargetGrid:
    """Return the grid of an image of width x height, with coordinates in the dtype and on the device of `like`.

    `grid` defaults to the regular grid of `window`. If the activations of one pass take more than a quarter of
    `memory` bytes (None: no limit), the backward pass recomputes them in chunks. Raises ConfigError.
    """
    grid = RegularGrid(width, height, window) if grid is None else grid
    pixels = width * height
    coordinates = grid.at(torch.arange(pixels, device=like.device), dtype=like.dtype)  # [P, 3]
    max_pixels = _max_pixels(config, memory)
    chunk = 0 if pixels <= max_pixels else max(1024, 1 << (max_pixels // 4).bit_length() - 1)
    return TargetGrid(width, height, coordinates, chunk if chunk < pixels else 0)


def _max_pixels(config: GeneratorConfig, memory: int | None) -> int:
    """Return the number of pixels whose activations fit into their share of `memory` bytes (None: no limit)."""
    return (memory or 2**62) // MEMORY_SHARE // (SAVED_BYTES * config.channels * config.levels)


def images_at_once(config: GeneratorConfig, *, width: int, height: int, memory: int | None = None) -> int:
    """Return how many images of width x height are inverted together: at least 1, at most MAX_BATCH."""
    return max(1, min(MAX_BATCH, _max_pixels(config, memory) // (width * height)))


class PerceptualFeatures(Protocol):
    """A frozen network: images [N, 3, H, W] in [-1, 1] to feature maps [N, c, h, w] at several depths."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(frozen=True)
class PerceptualDistance:
    """The LPIPS form of a distance in a network's features; `weights` are its linear heads, None for ones."""

    extractor: PerceptualFeatures
    weights: tuple[Tensor, ...] | None = None

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the features of images [N, 3, H, W], normalized to unit length over the channels."""
        return unit_channels(self.extractor(_resized_for_features(x)))

    def distance(self, one: Sequence[Tensor], two: Sequence[Tensor]) -> Tensor:
        """Return the distances [N] between two results of `features`."""
        return unit_distance(one, two, weights=self.weights)


@dataclass(frozen=True)
class LossTerms:
    """Of each image, [N]: `loss` is minimized, `pixels` is the mean squared error of colors in [-1, 1]."""

    loss: Tensor
    pixels: Tensor
    perceptual: Tensor | None


@dataclass(frozen=True)
class InversionLoss:
    """The mean squared error of the pixels plus, unless `name` is "pixels", a perceptual distance."""

    name: str
    perceptual: PerceptualDistance | None = None

    def to(self, device: torch.device) -> "InversionLoss":
        """Return the loss on a device. Its network is moved in place."""
        if self.perceptual is None:
            return self
        extractor, weights = self.perceptual.extractor, self.perceptual.weights
        if isinstance(extractor, nn.Module):
            extractor.to(device)
        moved = None if weights is None else tuple(weight.to(device) for weight in weights)
        return replace(self, perceptual=replace(self.perceptual, weights=moved))

    def for_target(self, target: Tensor) -> "TargetLoss":
        """Return the loss for targets [N, 3, H, W]; their features are extracted once."""
        with torch.no_grad():
            return TargetLoss(target, self.perceptual, self.perceptual.features(target) if self.perceptual else None)


@dataclass(frozen=True)
class TargetLoss:
    """The loss for target images [N, 3, H, W]."""

    target: Tensor
    perceptual: PerceptualDistance | None
    features: list[Tensor] | None

    def select(self, images: Sequence[int]) -> "TargetLoss":
        """Return the loss for some of the targets."""
        if len(images) == len(self.target):
            return self
        index = torch.tensor(images, device=self.target.device)
        features = None if self.features is None else [feature[index] for feature in self.features]
        return replace(self, target=self.target[index], features=features)

    def clamp(self, image: Tensor) -> Tensor:
        """Clamp colors at -1 and 1 where the target is clipped there: beyond, the true color is unknown.

        A file's white and black are 1 + 0.5 / 127.5 and -1 + 0.5 / 127.5, see `TargetImage.colors`.
        """
        image = torch.where(self.target >= 1, image.clamp(max=1), image)
        return torch.where(self.target < BLACK, image.clamp(min=-1), image)

    def __call__(self, image: Tensor) -> LossTerms:
        """Compare rendered images [N, 3, H, W] with the targets."""
        image = self.clamp(image)
        pixels = (image - self.target).square().mean(dim=(1, 2, 3))
        if self.features is None or self.perceptual is None:
            return LossTerms(pixels, pixels, None)
        distance = self.perceptual.distance(self.perceptual.features(image), self.features)
        return LossTerms(pixels + distance, pixels, distance)


def load_loss(name: LossName = "auto", *, vgg16: Path | None = None) -> InversionLoss:
    """Load an inversion loss, on the CPU.

    "auto" is "lpips" if `vgg16` is given or torch.hub's cache has VGG16, else "lite0". Nothing is downloaded.
    Raises RequestError, WeightsError.
    """
    if vgg16 is not None and name not in ("auto", "lpips"):
        raise RequestError(f"--vgg16 is for LPIPS; the loss {name} does not use it")
    if name == "auto":
        name = "lite0" if vgg16 is None and cached_vgg16() is None else "lpips"
    if name == "lpips":
        extractor, heads = load_lpips(vgg16)
        return InversionLoss(name, PerceptualDistance(extractor, heads))
    if name == "lite0":
        return InversionLoss(name, PerceptualDistance(Lite0Features(load_pretrained("lite0"))))
    return InversionLoss(name)


def _resized_for_features(x: Tensor) -> Tensor:
    """Resize images so that their shorter side is between MIN_FEATURE_SIDE and MAX_FEATURE_SIDE."""
    shorter = min(x.shape[-2:])
    side = min(max(shorter, MIN_FEATURE_SIDE), MAX_FEATURE_SIDE)
    if side == shorter:
        return x
    size = [max(1, round(length * side / shorter)) for length in x.shape[-2:]]
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=side < shorter)
