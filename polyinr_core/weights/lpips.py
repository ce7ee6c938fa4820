"""LPIPS-VGG: VGG16 from torchvision's cache or a file, its linear heads from the lpips package."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from ..errors import WeightsError
from .pretrained import check_name_digits, check_sha256, read_state

VGG16_FILE = "vgg16-397923af.pth"  # torchvision's, with the first digits of its SHA-256
WIDTHS = (64, 128, 256, 512, 512)
TAPS = (3, 8, 15, 22, 29)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 among VGG16's layers
HEADS_FILE = "weights/v0.1/vgg.pth"
HEADS_SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"  # measured on lpips 0.1.4
SHIFT = (-0.030, -0.088, -0.188)  # the scaling layer of lpips: (x - shift) / scale of pictures in [-1, 1]
SCALE = (0.458, 0.448, 0.450)


class Vgg16Features(nn.Module):
    """VGG16 as LPIPS reads it: pictures [N, 3, H, W] in [-1, 1] to five maps of 64, 128, 256, 512, 512 channels.

    `weights` are torchvision's (`features.0.weight`, ...); the classifier is not needed. Raises WeightsError.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, origin: str = "VGG16") -> None:
        super().__init__()
        with torch.device("meta"):
            layers = torchvision.models.vgg16(weights=None).features[: TAPS[-1] + 1]
        own = {key.removeprefix("features."): value for key, value in weights.items() if "features." in key}
        for key, shape in ((key, value.shape) for key, value in layers.state_dict().items()):
            if key not in own or own[key].shape != shape:
                found = tuple(own[key].shape) if key in own else "missing"
                raise WeightsError(
                    f"{origin}: features.{key} is {found}, VGG16 needs {tuple(shape)}; give torchvision's VGG16"
                )
        layers.load_state_dict({key: own[key] for key in layers.state_dict()}, assign=True)
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                layer.inplace = False  # a tap is read after the next layer has run
        self.layers = layers.eval().requires_grad_(False)
        first: Tensor = own["0.weight"]
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
    """Return LPIPS-VGG's network and its linear heads, one [c] a depth. Nothing is fetched.

    VGG16 comes from `vgg16`, else from torch.hub's cache. A file whose name carries digits is checked against
    them. Raises WeightsError, which says what to do.
    """
    file = vgg16 or cached_vgg16()
    if file is None:
        raise WeightsError(
            f"VGG16 is not on this machine; put {VGG16_FILE} (torchvision's) into {_cache()}, or name it with "
            "--vgg16"
        )
    check_name_digits(file)
    return Vgg16Features(read_state(file), origin=str(file)), load_heads()


def cached_vgg16() -> Path | None:
    """Return torchvision's VGG16 in torch.hub's cache, None if it is not there."""
    file = _cache() / VGG16_FILE
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


def _cache() -> Path:
    return Path(torch.hub.get_dir(), "checkpoints")
