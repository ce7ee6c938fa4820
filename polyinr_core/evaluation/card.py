"""The card: all that a figure depends on, so that two figures can be told to be comparable, or why not."""

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from ..metrics.networks import FeatureNetwork
from ..metrics.rules import Metric
from .inputs import Judged

LIBRARIES = ("polyinr", "torch", "timm", "torchvision", "numpy", "pillow")
INSIDE = "299, inside the network"
RESIZING = {
    "inception": INSIDE,
    "inception-clean": "299, bicubic on float channels, as clean-fid",
    "rfid-seed0": "299, as the 2015 Inception",
    "vgg16": "inside the network",
}


def card_of(
    reals: Judged,
    fakes: Judged,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Return the card of a result, as plain JSON facts."""
    return {
        "resolution": reals.side or fakes.side,
        "mirror": "none",
        "quantisation": "uint8, x * 127.5 + 128, clamped",
        "reals": reals.facts,
        "fakes": fakes.facts,
        "networks": {
            name: {"sha256": network.sha256, "resize": resizing_of(name, network)}
            for name, network in networks.items()
        },
        "protocols": {
            name: {"network": metric.network, "tap": metric.tap, "rule": metric.rule}
            for name, metric in metrics.items()
        },
        "libraries": versions(),
        "device": device.type,
    }


def resizing_of(name: str, network: FeatureNetwork) -> str:
    """Return how a network brings pictures to its own size, in words."""
    side = getattr(network, "side", None)
    if name == "lite2":
        return f"{side}, bilinear with antialiasing"
    if side is not None:
        return f"{side}, {getattr(network, 'interpolation', 'bicubic')} with antialiasing"
    return RESIZING.get(name, "inside the network")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a figure's last digits depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found
