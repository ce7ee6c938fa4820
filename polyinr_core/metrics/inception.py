"""Inception: the network of 2015-12-05 in TorchScript and one of random weights, resizing, the inception score."""

import hashlib
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.errors import PolyinrError, WeightsError
from polyinr_core.runtime.atomic_io import sha256_of
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.pretrained import torch_hub_folder
from polyinr_core.runtime.rng import generator_for, meta_init

from .registry import IS_SPLITS

FILE = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # as mmagic and k-diffusion pin it
RESOLUTION = 299  # pixels of its input
PROBE_SIZE = 32  # pixels; the network resizes inside
SPATIAL_BLOCK = "mixed_6"  # whose branch `conv`, 1 x 1, is sFID's tap (Nash et al. 2021)
SPATIAL_CHANNELS = 7  # of 17 x 17: 2023 numbers, about as many as the pooled ones
TOLERANCE = 1e-3  # of the largest output: rounding of the resizing, propagated through the network
SUM_TOLERANCE = 1e-3  # float16 probabilities may sum to 1 within this


def clean_resize(pixels: Tensor) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, 299, 299] in 0 .. 255, on the same device, as clean-fid does.

    By clean-fid's own function: Pillow's bicubic filter on float channels, clipped, not rounded. Parmar et al.,
    "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (2022).
    """
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = np.empty((len(images), RESOLUTION, RESOLUTION, 3), dtype=np.float32)
    for index, image in enumerate(images):
        resized[index] = resize(image)
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(pixels.device)


def corner_resize(pixels: Tensor) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, 299, 299] in 0 .. 255, as the 2015 Inception does inside.

    Bilinear without a filter, and with the grids' top left corners aligned: pixel i is read at
    i * H / 299, as TensorFlow 1 did. Pixel centers are at i + 1/2 in the grid here, hence the shift.
    """
    count, channels, height, width = pixels.shape
    x = pixels.float()
    shift = torch.tensor([[1, 0, 1 / width], [0, 1, 1 / height]], dtype=torch.float32, device=x.device)
    shift[:, 2] -= 1 / RESOLUTION
    size = [count, channels, RESOLUTION, RESOLUTION]
    grid = functional.affine_grid(shift.expand(count, 2, 3), size, align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


class InceptionFeatures(nn.Module):
    """Map uint8 images [N, 3, H, W] to pooled features [N, 2048]; the network resizes to 299 px itself.

    `sha256` is that of the file; `published` is whether it is the file of published FIDs.
    """

    dim = 2048
    name = "inception"

    def __init__(self, network: Any, sha256: str) -> None:
        super().__init__()
        self.network = network
        self.sha256 = sha256

    @property
    def published(self) -> bool:
        return self.sha256 == SHA256

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network(pixels, return_features=True)
        return features.flatten(1)


@dataclass(frozen=True)
class Taps:
    """Inception's outputs for N images, float32."""

    pooled: Tensor  # [N, 2048], for fid, kid
    spatial: Tensor  # [N, 2023], for sfid: channel by channel, row by row
    probabilities: Tensor  # [N, 1008], without the final bias, for is


class InceptionTaps(nn.Module):
    """Map uint8 images [N, 3, H, W] to all outputs that metrics read from Inception, in one pass.

    TorchScript has no hooks, so the layers are called here one after another, as the network itself does.
    `resize` maps images to float [N, 3, 299, 299] in 0 .. 255: the network's rule, or clean-fid's. The constructor
    compares the outputs with the network's on one image. Raises WeightsError.
    """

    def __init__(self, features: InceptionFeatures, *, resize: Callable[[Tensor], Tensor] = corner_resize) -> None:
        super().__init__()
        self.features = features
        self.sha256 = features.sha256
        self.resize = resize
        self._check()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Taps:
        return self._taps(self.resize(pixels))

    def _taps(self, resized: Tensor) -> Taps:
        network = self.features.network
        x, spatial = (resized - 128) / 128, None
        for name, layer in network.layers.named_children():
            if name == SPATIAL_BLOCK:
                spatial = layer.conv(x)[:, :SPATIAL_CHANNELS].flatten(1).float()
            x = layer(x)
        if spatial is None:
            raise AttributeError(SPATIAL_BLOCK)
        pooled = x.flatten(1).float()
        logits = functional.linear(pooled, network.output.weight)
        return Taps(pooled, spatial, logits.softmax(dim=1))

    @torch.no_grad()
    def _check(self) -> None:
        network = self.features.network
        device = next(network.parameters()).device
        rng = generator_for("inception probe")
        probe = torch.randint(0, 256, (1, 3, PROBE_SIZE, PROBE_SIZE + 9), generator=rng, dtype=torch.uint8).to(device)
        problem = "its layers or its output do not have Inception's names"
        try:
            taps = self._taps(corner_resize(probe))
            pooled, probabilities = self.features(probe), network(probe, no_output_bias=True)
            problem = ""
            if not (same(taps.pooled, pooled) and same(taps.probabilities, probabilities)):
                problem = "its layers, called one after another, do not give its output"
            elif taps.spatial.shape[1] != SPATIAL_CHANNELS * 17 * 17:
                problem = f"its {SPATIAL_BLOCK} gives {taps.spatial.shape[1]} features, not 2023"
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"Inception {self.sha256[:8]}: {problem}; give {FILE}") from error
        if problem:
            raise WeightsError(f"Inception {self.sha256[:8]}: {problem}; give {FILE}")


class ResizedInception(nn.Module):
    """Map uint8 images [N, 3, H, W], resized by the rule of `taps`, to Inception's pooled features [N, 2048]."""

    dim = InceptionFeatures.dim

    def __init__(self, taps: InceptionTaps, *, name: str) -> None:
        super().__init__()
        self.taps = taps
        self.name = name
        self.sha256 = taps.sha256

    @property
    def published(self) -> bool:
        return self.taps.features.published

    def forward(self, pixels: Tensor) -> Tensor:
        pooled: Tensor = self.taps(pixels).pooled
        return pooled


def load_inception(file: Path | None) -> InceptionFeatures:
    """Load the network from `file` or a cache, on the CPU, and test it on one image.

    A given file may be any network of that form; one from a cache must be the published file. Raises
    WeightsError, FileError.
    """
    file = file or cached_inception()
    if file is None:
        raise WeightsError(
            f"fid needs the 2015 Inception network ({FILE}), which is not part of polyinr: run `polyinr weights "
            "--download inception`, or give --weights inception=FILE; fd-lite2 and kd-lite2 need no file"
        )
    sha256 = sha256_of(file)
    try:
        features = InceptionFeatures(load_script(file), sha256)
        shape = tuple(features(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE, dtype=torch.uint8)).shape)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file}: not a TorchScript network of Inception's form; give {FILE}") from error
    if shape != (1, InceptionFeatures.dim):
        raise WeightsError(f"{file}: gives features of shape {shape}, not (1, 2048); give {FILE}")
    return features


def load_script(file: Path) -> Any:
    """Load a TorchScript network on the CPU, in eval mode. Raises RuntimeError, ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch announces the end of TorchScript
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(file), map_location="cpu").eval()


def cache_paths() -> list[Path]:
    """Return where clean-fid, k-diffusion, StyleGAN and torch.hub keep the published file."""
    cache = Path.home() / ".cache"
    stylegan = cache / "dnnlib" / "downloads"
    return [
        Path(tempfile.gettempdir(), FILE),
        cache / "k-diffusion" / FILE,
        *(sorted(stylegan.glob(f"*_{FILE}")) or [stylegan / f"*_{FILE}"]),
        torch_hub_folder() / FILE,
    ]


def cached_inception() -> Path | None:
    """Return the published file, by its hash, from one of `cache_paths`, or None."""
    return next((path for path in cache_paths() if path.is_file() and sha256_of(path) == SHA256), None)


def same(one: Tensor, two: Tensor) -> bool:
    """Return whether two tensors agree within TOLERANCE times the largest absolute value."""
    return one.shape == two.shape and bool((one - two).abs().max() <= TOLERANCE * two.abs().max())


class RandomInception(nn.Module):
    """Map uint8 images [N, 3, H, W] to pooled features [N, 2048] of an Inception v3 with weights from a seed.

    Convolutions are initialized as by He et al. (2015), which preserves the variance through the layers;
    BatchNorms are identities. Images are resized as in the 2015 Inception. Published rFIDs use other random
    weights, in a file, and are not comparable; hence the name `rfid-seed0`. `sha256` is that of the weights.
    """

    dim = 2048

    def __init__(self, seed: int = 0) -> None:
        from torchvision.models import inception_v3

        super().__init__()
        with meta_init():
            network: Any = inception_v3(weights=None, aux_logits=False, init_weights=False)
        network.fc = nn.Identity()
        network.to_empty(device="cpu")
        digest = hashlib.sha256()
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d):
                std = (2 / layer.weight[0].numel()) ** 0.5
                rng = generator_for(seed, "random inception", name)
                layer.weight.data.normal_(generator=rng).mul_(std)
                digest.update(layer.weight.detach().numpy().tobytes())
            elif isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.weight.data.fill_(1)
                layer.bias.data.fill_(0)
        self.network = network.eval().requires_grad_(False)
        self.name = f"rfid-seed{seed}"
        self.sha256 = digest.hexdigest()

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network((corner_resize(pixels) - 128) / 128)
        return features


class InceptionScore:
    """The inception score of `count` images in `splits` contiguous splits, in float64.

    Split i holds images i * count // splits to (i + 1) * count // splits - 1. It stores the sums of p and of
    p log p of each split. Salimans et al., "Improved Techniques for Training GANs" (2016); the splits are StyleGAN's.
    """

    def __init__(
        self, count: int, classes: int, *, splits: int = IS_SPLITS, device: torch.device | None = None
    ) -> None:
        if not 0 < splits <= count:
            raise PolyinrError(f"{count} images are too few for {splits} splits")
        self.borders = torch.arange(splits + 1, device=device) * count // splits
        self.counts = torch.zeros(splits, dtype=torch.float64, device=device)
        self.sums = torch.zeros(splits, classes, dtype=torch.float64, device=device)
        self.negative_entropies = torch.zeros(splits, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, *, first: int) -> None:
        """Add the class probabilities [N, C] of images `first`, `first` + 1, ...; batches may come in any order.

        Raises PolyinrError for rows that do not sum to 1 and for images past `count`.
        """
        p = probabilities.to(self.sums.device).double()
        if not bool(((p.sum(dim=1) - 1).abs() < SUM_TOLERANCE).all() and (p >= 0).all()):
            raise PolyinrError("class probabilities do not sum to 1; pass the softmax, not the logits")
        if first < 0 or first + len(p) > int(self.borders[-1]):
            raise PolyinrError(f"images {first} to {first + len(p) - 1} are not among {int(self.borders[-1])}")
        indices = torch.arange(first, first + len(p), device=p.device)
        splits = torch.searchsorted(self.borders, indices, right=True) - 1
        self.counts.index_add_(0, splits, torch.ones_like(indices, dtype=torch.float64))
        self.sums.index_add_(0, splits, p)
        self.negative_entropies.index_add_(0, splits, torch.xlogy(p, p).sum(dim=1))

    def gather(self, ranks: DistributedContext) -> None:
        """Sum over all ranks, each of which has added other images."""
        self.restore({name: ranks.all_reduce(tensor) for name, tensor in self.state().items()})

    def state(self) -> dict[str, Tensor]:
        """Return all sums by name."""
        return {"counts": self.counts, "sums": self.sums, "negative_entropies": self.negative_entropies}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the `state` of another score."""
        self.counts, self.sums, self.negative_entropies = (state[name].to(self.sums.device) for name in self.state())

    def result(self) -> tuple[float, float]:
        """Return the mean and the (biased) standard deviation of the score over the splits.

        Raises PolyinrError unless every image was added once.
        """
        if not torch.equal(self.counts, self.borders.diff().double()):
            raise PolyinrError(f"{int(self.counts.sum())} of {int(self.borders[-1])} images were added")
        marginal = self.sums / self.counts[:, None]
        divergence = self.negative_entropies / self.counts - torch.xlogy(marginal, marginal).sum(dim=1)
        scores = divergence.exp()
        return float(scores.mean()), float(scores.std(correction=0))
