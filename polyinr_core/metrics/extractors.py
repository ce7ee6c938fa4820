"""Feature extractors by name: EfficientNet-lite2, Inception, timm's networks, TorchScript files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.errors import RequestError, WeightsError, first_line
from polyinr_core.runtime.atomic_io import sha256_of
from polyinr_core.runtime.pretrained import (
    SOURCES,
    Hosted,
    Packaged,
    check_name_digits,
    fit,
    fold_batch_norms,
    hosted_file,
    load_pretrained,
    packaged_file,
    pretrained_network,
    read_state,
)

from .inception import InceptionTaps, RandomInception, ResizedInception, clean_resize, load_inception, load_script

EXTRACTORS = "lite2, inception, inception-clean, rfid-seedN, dinov2, timm:NAME, torchscript:FILE"
RESOLUTION = 128  # of lite2's input, in pixels
DINOV2 = "vit_large_patch14_dinov2.lvd142m"
DINOV2_RESOLUTION = 224  # Stein et al., "Exposing Flaws of Generative Model Evaluation Metrics" (2023)
PROBE_SIZE = 64  # pixels


class FeatureExtractor(Protocol):
    """A function from uint8 images [N, 3, H, W] of any size to features [N, dim].

    `sha256` is that of the weights' file, empty if unknown.
    """

    dim: int
    name: str
    sha256: str

    def __call__(self, pixels: Tensor) -> Tensor: ...

    def to(self, device: torch.device) -> "FeatureExtractor": ...


class Lite2Features(nn.Module):
    """Map uint8 images [N, 3, H, W] to pooled features [N, 1280] of EfficientNet-lite2.

    Images are resized bilinearly to `resolution`. `weights` are timm's for tf_efficientnet_lite2, trained at
    260 px on inputs in [-1, 1]. A smaller resolution is faster and gives other distances: it is part of the
    protocol. `sha256` is that of the weights' file, empty if unknown. The discriminator uses other backbones.
    """

    dim = 1280
    name = "lite2"

    def __init__(self, weights: Mapping[str, Tensor], *, resolution: int = RESOLUTION, sha256: str = "") -> None:
        super().__init__()
        self.sha256 = sha256
        network = pretrained_network("tf_efficientnet_lite2", weights)
        network.reset_classifier(0)
        fold_batch_norms(network.eval())
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.resolution = resolution

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.float() / 127.5 - 1
        x = functional.interpolate(x, size=(self.resolution,) * 2, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))
        return features


class Lite2Taps(nn.Module):
    """Map images [N, 3, H, W], about [-1, 1], to EfficientNet-lite2's feature maps at strides 4, 8, 16, 32.

    They have 24, 48, 120, 352 channels. Images are resized bilinearly to `resolution`; `weights` are those of
    Lite2Features.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, resolution: int = RESOLUTION) -> None:
        super().__init__()
        self.network = pretrained_network("tf_efficientnet_lite2", weights)
        self.resolution = resolution
        fold_batch_norms(self.network.eval())
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.interpolate(x, size=(self.resolution,) * 2, mode="bilinear", align_corners=False, antialias=True)
        taps: list[Tensor] = self.network.forward_intermediates(x, indices=4, intermediates_only=True)
        return taps


class TimmFeatures(nn.Module):
    """Map uint8 images to the pre-classifier features of one of timm's networks.

    Images are resized to `resolution` without cropping, by the filter, mean and deviation of timm's configuration. A
    vision transformer's position embedding is resampled to the resolution. `weights` have timm's names. Raises
    RequestError for a resolution that the network does not support, WeightsError for tensors that do not fit.
    """

    def __init__(
        self, model: str, weights: dict[str, Tensor], *, resolution: int | None = None, sha256: str = "", name: str = ""
    ) -> None:
        import timm
        from timm.data import resolve_model_data_config

        super().__init__()
        facts = timm.get_pretrained_cfg(model)
        given: dict[str, Any] = {"img_size": resolution} if resolution and facts and facts.fixed_input_size else {}
        try:
            network: Any = timm.create_model(
                model, pretrained=True, num_classes=0, pretrained_cfg_overlay={"state_dict": weights}, **given
            )
        except (AssertionError, TypeError, ValueError) as error:
            raise RequestError(f"{model} does not support {resolution} pixels: {first_line(error)}") from error
        patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1,))[0]
        if (resolution or patch) % patch:
            raise RequestError(f"{model} has patches of {patch} pixels; {resolution} is not a multiple")
        if missing := network.state_dict().keys() - weights.keys():
            raise WeightsError(f"the weights of {model} lack {min(missing)}; give a complete file")
        rule = resolve_model_data_config(network)
        self.network = network.eval().requires_grad_(False)
        self.dim = int(getattr(network, "head_hidden_size", None) or network.num_features)
        self.resolution = resolution or int(rule["input_size"][-1])
        self.interpolation = "bilinear" if rule["interpolation"] == "bilinear" else "bicubic"
        self.name = name or f"timm:{model}"
        self.sha256 = sha256
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(rule[key])[:, None, None] * 255, persistent=False)

    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        x = smooth_resize(pixels, self.resolution, interpolation=self.interpolation)
        features: Tensor = self.network((x - self.mean) / self.std)
        return features


def smooth_resize(pixels: Tensor, resolution: int, *, interpolation: str) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, resolution, resolution] in 0 .. 255; "bilinear" or "bicubic".

    The filter widens where images shrink, as Pillow's does, on the device that the images are on: what
    clean-fid's rule gives, but for rounding. Images of that size are only converted.
    """
    x = pixels.float()
    if x.shape[-2:] == (resolution, resolution):
        return x
    x = functional.interpolate(
        x, size=(resolution, resolution), mode=interpolation, align_corners=False, antialias=True
    )
    return x.clamp(0, 255)


class ScriptFeatures(nn.Module):
    """A TorchScript network on uint8 images [N, 3, H, W] that resizes them itself, as NVIDIA's VGG16 does.

    If its forward has the argument `return_features`, that is set. The output is flattened to [N, dim].
    """

    def __init__(self, network: Any, *, sha256: str, name: str) -> None:
        super().__init__()
        self.network = network
        self.sha256 = sha256
        self.name = name
        arguments = [argument.name for argument in network.forward.schema.arguments]
        self.options = {"return_features": True} if "return_features" in arguments else {}
        self.dim = self(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE, dtype=torch.uint8)).shape[1]

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.network(pixels, **self.options)
        return features.flatten(1).float()


def load_extractor(
    name: str, *, file: Path | None = None, resolution: int | None = None, download: bool = False
) -> FeatureExtractor:
    """Return the extractor of that name (one of EXTRACTORS), on the CPU.

    `file` holds weights for timm's networks, lite2 and Inception; without it they come from a pip package, a hub
    cache or, if `download` is true, the internet. `resolution` in pixels is for timm's networks and lite2. Raises
    RequestError, WeightsError, FileError.
    """
    kind, _, rest = name.partition(":")
    seed = re.fullmatch(r"rfid-seed(\d+)", name)
    if resolution is not None and (seed or kind in ("inception", "inception-clean", "torchscript")):
        raise RequestError(f"{name} has a fixed input size; leave out the resolution")
    if name == "lite2":
        weights, sha256 = read_lite2(file)
        return Lite2Features(weights, resolution=resolution or RESOLUTION, sha256=sha256)
    if name == "inception":
        return load_inception(file)
    if name == "inception-clean":
        return ResizedInception(InceptionTaps(load_inception(file), resize=clean_resize), name=name)
    if seed:
        return RandomInception(int(seed[1]))
    if name == "dinov2":
        return load_timm(DINOV2, file, resolution=resolution or DINOV2_RESOLUTION, download=download, name=name)
    if kind == "timm" and rest:
        return load_timm(rest, file, resolution=resolution, download=download, name=name)
    if kind == "torchscript" and rest:
        return load_script_features(Path(rest), name=name)
    raise RequestError(f"feature extractor {name!r} is unknown; choose from {EXTRACTORS}")


def read_lite2(file: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """Return EfficientNet-lite2's weights, of its package or of `file`, and the file's SHA-256. Raises WeightsError."""
    source = SOURCES["lite2"]
    assert isinstance(source, Packaged)
    return load_pretrained("lite2", file=file), sha256_of(file or packaged_file("lite2", source))


def load_timm(model: str, file: Path | None, *, resolution: int | None, download: bool, name: str) -> TimmFeatures:
    """Return timm's `model`, whose name may end in the tag of its weights. Raises RequestError, WeightsError."""
    import timm

    if not timm.is_model(model.split(".")[0]):
        raise RequestError(f"timm has no network {model!r}; see timm.list_models()")
    if file is None:
        file = hosted_file(name, timm_source(model), download=download)
    check_name_digits(file)
    weights = fit(read_state(file), model, origin=str(file))
    return TimmFeatures(model, weights, resolution=resolution, sha256=sha256_of(file), name=name)


def timm_source(model: str) -> Hosted:
    """Return where timm hosts the weights of a network. Raises WeightsError."""
    import timm

    facts = timm.get_pretrained_cfg(model)
    if facts is None or not facts.hf_hub_id:
        raise WeightsError(f"timm hosts no weights for {model}; give a file")
    file = str(facts.url or "model.safetensors").rsplit("/", 1)[-1]
    return Hosted(str(facts.architecture), file, instead="network lite2", tag=facts.tag or "")


def load_script_features(file: Path, *, name: str) -> ScriptFeatures:
    """Return the TorchScript network in `file`, tested on one image. Raises WeightsError, FileError."""
    sha256 = sha256_of(file)
    try:
        return ScriptFeatures(load_script(file), sha256=sha256, name=name)
    except (RuntimeError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise WeightsError(
            f"{file}: not a TorchScript network from uint8 images [N, 3, H, W] to features: {first_line(error)}"
        ) from error
