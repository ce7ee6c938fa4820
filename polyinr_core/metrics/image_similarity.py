"""The similarity of two images: LPIPS and lite2's perceptual distance, PSNR, SSIM."""

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.runtime.atomic_io import sha256_of
from polyinr_core.runtime.pretrained import check_name_digits, check_sha256, read_state, torch_hub_folder

from .extractors import RESOLUTION, Lite2Taps, read_lite2

EPSILON = 1e-8
VGG16_FILE = "vgg16-397923af.pth"  # torchvision's, with the first digits of its SHA-256
WIDTHS = (64, 128, 256, 512, 512)
TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 among VGG16's layers
HEADS_FILE = "weights/v0.1/vgg.pth"
HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"  # measured on lpips 0.1.4
SHIFT = (-0.030, -0.088, -0.188)  # the scaling layer of lpips: (x - shift) / scale of images in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
LPIPS_MIN_RESOLUTION = 16  # pixels: VGG16 halves them four times
SSIM_WINDOW = 11  # pixels


def feature_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Return the distances [N] of N pairs of images, given the feature maps [N, C, H, W] of both.

    Each pixel's channels are normalized to unit length; their squared differences are summed over channels and
    averaged over pixels and depths, so that orthogonal features have distance 2. LPIPS without learned weights
    (Zhang et al. 2018, equation 1).
    """
    return unit_distance(unit_channels(first), unit_channels(second))


def unit_channels(taps: Sequence[Tensor]) -> list[Tensor]:
    """Normalize the channels of each pixel of feature maps [N, C, H, W] to unit length; zeros stay zero."""
    return [functional.normalize(tap, dim=1, eps=EPSILON) for tap in taps]


def unit_distance(
    first: Sequence[Tensor], second: Sequence[Tensor], *, weights: Sequence[Tensor] | None = None
) -> Tensor:
    """Return the distances [N] of feature maps normalized by `unit_channels`.

    `weights`, one [C] a depth, are LPIPS's linear heads: they weight the channels, and depths are summed instead
    of averaged.
    """
    squares = [(a - b).square() for a, b in zip(first, second, strict=True)]
    if weights is None:
        return torch.stack([tap.sum(dim=1).mean(dim=(1, 2)) for tap in squares]).mean(dim=0)
    weighed = [torch.einsum("nchw,c->nhw", tap, weight) for tap, weight in zip(squares, weights, strict=True)]
    return torch.stack([tap.mean(dim=(1, 2)) for tap in weighed]).sum(dim=0)


class Vgg16Features(nn.Module):
    """Map images [N, 3, H, W] in [-1, 1] to VGG16's five feature maps of 64, 128, 256, 512, 512 channels.

    `weights` are torchvision's (`features.0.weight`, ...), with or without the classifier. Raises WeightsError.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, origin: str = "VGG16") -> None:
        from torchvision.models import vgg16

        super().__init__()
        with torch.device("meta"):
            layers = vgg16(weights=None).features[: TAPS[-1] + 1]
        given = {key.removeprefix("features."): value for key, value in weights.items() if "features." in key}
        for key, shape in ((key, value.shape) for key, value in layers.state_dict().items()):
            if key not in given or given[key].shape != shape:
                found = tuple(given[key].shape) if key in given else "missing"
                raise WeightsError(
                    f"{origin}: features.{key} is {found}, VGG16 needs {tuple(shape)}; give torchvision's VGG16"
                )
        layers.load_state_dict({key: given[key] for key in layers.state_dict()}, assign=True)
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # a feature map is read after the next layer has run
        self.layers = layers.eval().requires_grad_(False)
        first: Tensor = given["0.weight"]
        self.register_buffer("shift", first.new_tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", first.new_tensor(SCALE)[:, None, None])

    shift: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> list[Tensor]:
        taps = []
        x = (x - self.shift) / self.scale
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in TAPS:
                taps.append(x)
        return taps


def load_lpips(vgg16: Path | None = None) -> tuple[Vgg16Features, tuple[Tensor, ...]]:
    """Return LPIPS-VGG's network and its linear heads, one [C] a depth, without downloading.

    VGG16 comes from `vgg16`, else from torch.hub's cache. A file whose name contains digits of its SHA-256 is
    checked against them. Raises WeightsError.
    """
    file = vgg16 or cached_vgg16()
    if file is None:
        raise WeightsError(
            f"VGG16 is not on this machine; run `polyinr weights --download lpips`, put {VGG16_FILE} (torchvision's) "
            f"into {torch_hub_folder()}, or name it with --vgg16"
        )
    check_name_digits(file)
    return Vgg16Features(read_state(file), origin=str(file)), load_heads()


def cached_vgg16() -> Path | None:
    """Return torchvision's VGG16 in torch.hub's cache, None if it is not there."""
    file = torch_hub_folder() / VGG16_FILE
    return file if file.is_file() else None


def load_heads() -> tuple[Tensor, ...]:
    """Return LPIPS's linear heads for VGG16, [64], [128], [256], [512], [512]. Raises WeightsError."""
    spec = importlib.util.find_spec("lpips")  # found, not imported: it prints
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder, HEADS_FILE)).is_file():
            check_sha256(path, HEADS_SHA256)
            state = read_state(path)
            return tuple(state[f"lin{depth}.model.1.weight"].flatten() for depth in range(len(WIDTHS)))
    raise WeightsError("LPIPS's linear heads are not installed; run `pip install lpips==0.1.4`")


@dataclass(frozen=True)
class PerceptualMetric:
    """A perceptual distance of images.

    Attributes:
        features: maps images [N, 3, H, W] to feature maps at several depths.
        heads: LPIPS's channel weights, one [C] a depth.
        sha256: of the network's weights.
        resize: in words, how images are resized.
        min_resolution: of images, in pixels.
    """

    name: str
    features: Callable[[Tensor], Sequence[Tensor]]
    heads: tuple[Tensor, ...] | None = None
    sha256: str = ""
    resize: str = "none"
    min_resolution: int = 1

    @torch.no_grad()
    def __call__(self, one: Tensor, two: Tensor) -> Tensor:
        """Return the distances [N] of pairs of images [N, 3, H, W] in [-1, 1]. Raises RequestError."""
        resolution = min(one.shape[-2:])
        if resolution < self.min_resolution:
            raise RequestError(f"{self.name} needs images of {self.min_resolution} pixels or more, not {resolution}")
        here, there = (unit_channels(self.features(images)) for images in (one, two))
        return unit_distance(here, there, weights=self.heads)

    def to(self, device: torch.device) -> "PerceptualMetric":
        """Return the distance on a device; the network is moved in place."""
        if isinstance(self.features, nn.Module):
            self.features.to(device)
        heads = None if self.heads is None else tuple(head.to(device) for head in self.heads)
        return replace(self, heads=heads)


def load_perceptual_metric(name: Literal["lpips", "lite2"], file: Path | None = None) -> PerceptualMetric:
    """Return the distance of that name, on the CPU; `file` holds its network's weights. Raises WeightsError.

    Without a file VGG16 comes from torch.hub's cache, lite2 from its pip package.
    """
    if name == "lite2":
        weights, sha256 = read_lite2(file)
        taps = Lite2Taps(weights)
        return PerceptualMetric(name, taps, sha256=sha256, resize=f"{RESOLUTION}, bilinear with antialiasing")
    file = file or cached_vgg16()
    if file is None:
        raise WeightsError(
            f"LPIPS needs torchvision's VGG16 ({VGG16_FILE}), which is not part of polyinr: run `polyinr weights "
            f"--download lpips`, or give --weights lpips={VGG16_FILE}; ppl-lite2 needs no file"
        )
    features, heads = load_lpips(file)
    return PerceptualMetric(name, features, heads, sha256=sha256_of(file), min_resolution=LPIPS_MIN_RESOLUTION)


def psnr(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in dB of 8-bit images of one shape; Inf for equal images.

    The peak is 255, which is 1 on [0, 1]. Raises RequestError.
    """
    _check_shapes(one, two)
    error = float(np.square(one.astype(np.float64) - two).mean())
    return 20 * math.log10(255) - 10 * math.log10(error) if error else math.inf


def ssim(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float | None:
    """Return the structural similarity of 8-bit images [H, W, 3], None below 11 pixels in height or width.

    Gaussian window of 11 x 11, sigma 1.5, covariance divided by N, mean over channels. Wang et al., 2004.
    Raises RequestError.
    """
    from skimage.metrics import structural_similarity

    _check_shapes(one, two)
    if min(one.shape[:2]) < SSIM_WINDOW:
        return None
    rule = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(one, two, data_range=255, channel_axis=-1, **rule))


def _check_shapes(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> None:
    if one.shape != two.shape:
        raise RequestError(f"images of {one.shape[1::-1]} and {two.shape[1::-1]} pixels cannot be compared")
