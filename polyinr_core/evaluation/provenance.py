"""The card: all that a figure depends on, so that two figures can be told to be comparable, or why not."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_pass import Judged
from polyinr_core.metrics.registry import Metric

from .image_sources import StoredImages

LIBRARIES = ("polyinr", "torch", "timm", "torchvision", "numpy", "pillow")
DRAWN, STORED = "uint8, x * 127.5 + 128, clamped", "as stored"
SAMPLED = "uint8, (x + 1) * 127.5, clamped, truncated: as sample writes files"
INSIDE = "299, inside the network"
RESIZING = {
    "inception": INSIDE,
    "inception-clean": "299, bicubic on float channels, as clean-fid",
    "rfid-seed0": "299, as the 2015 Inception",
    "vgg16": "inside the network",
}
CPU_FACTS = Path("/proc/cpuinfo")


def card_of(
    reals: Judged | None,
    fakes: Judged,
    metrics: Mapping[str, Metric],
    networks: Mapping[str, FeatureNetwork],
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Return the card of a result, as plain JSON facts; `reals` is None where no metric looks at any."""
    of_reals = {} if reals is None else {"reals": reals.facts}
    return {
        "resolution": reals.side if reals is not None and reals.side else fakes.side,
        "mirror": "none",
        "quantization": quantization_of(fakes),
        "precision": "float32",
        **of_reals,
        "fakes": fakes.facts,
        "networks": {name: network_facts(name, network) for name, network in networks.items()},
        "protocols": {
            name: {"network": metric.network, "tap": metric.tap, "rule": metric.rule}
            for name, metric in metrics.items()
        },
        "libraries": versions(),
        "device": device_facts(device),
    }


def quantization_of(fakes: Judged) -> str:
    """Return how the generated images came to 8 bits, as far as that is known, in words."""
    if fakes.facts.get("kind") == "model":
        return DRAWN
    return SAMPLED if isinstance(fakes, StoredImages) and fakes.written_by_us else STORED


def network_facts(name: str, network: FeatureNetwork) -> dict[str, Any]:
    """Return what of a network figures depend on; of Inception also whether it is the published file."""
    facts: dict[str, Any] = {"sha256": network.sha256, "resize": resizing_of(name, network)}
    published = getattr(network, "published", None)
    return facts if published is None else {**facts, "published": published}


def resizing_of(name: str, network: FeatureNetwork) -> str:
    """Return how a network brings images to its own size, in words."""
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


def device_facts(device: torch.device) -> dict[str, Any]:
    """Return what computes: its type, its name where that is known, of a CPU the threads."""
    if device.type == "cuda":
        return {"type": device.type, "name": torch.cuda.get_device_name(device)}
    return {"type": device.type, "name": cpu_name(), "threads": torch.get_num_threads()}


def cpu_name() -> str:
    """Return the processor's name as Linux tells it, "unknown" elsewhere."""
    try:
        lines = CPU_FACTS.read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
