"""The card of a result: everything that a metric's value depends on, so that two results can be compared."""

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from polyinr_core.metrics.extractors import FeatureExtractor
from polyinr_core.metrics.registry import Metric

from .image_sources import DatasetImages

LIBRARIES = ("polyinr", "torch", "timm", "torchvision", "numpy", "pillow")
GENERATED, STORED = "uint8, x * 127.5 + 128, clamped", "as stored"
WRITTEN_BY_SAMPLE = "uint8, (x + 1) * 127.5, clamped, truncated: as sample writes files"
RESIZED_INSIDE = "inside the network"
RESIZING = {
    "inception": "299, inside the network",
    "inception-clean": "299, bicubic on float channels, as clean-fid",
    "rfid-seed0": "299, as the 2015 Inception",
}
CPU_INFO = Path("/proc/cpuinfo")


class HasProvenance(Protocol):
    """Images, or the statistics of images; a resolution of 0 is unknown."""

    @property
    def resolution(self) -> int: ...

    @property
    def provenance(self) -> dict[str, Any]: ...


def make_card(
    reals: HasProvenance | None,
    fakes: HasProvenance,
    metrics: Mapping[str, Metric],
    extractors: Mapping[str, FeatureExtractor],
    *,
    device: torch.device,
) -> dict[str, Any]:
    """Return the card of a result as a JSON object; `reals` is None if no metric uses them."""
    return {
        "resolution": reals.resolution if reals is not None and reals.resolution else fakes.resolution,
        "mirror": "none",
        "quantization": describe_quantization(fakes),
        "precision": "float32",
        **({} if reals is None else {"reals": reals.provenance}),
        "fakes": fakes.provenance,
        "networks": {name: describe_extractor(name, extractor) for name, extractor in extractors.items()},
        "protocols": {
            name: {"network": metric.network, "tap": metric.tap, "rule": metric.rule}
            for name, metric in metrics.items()
        },
        "libraries": library_versions(),
        "device": describe_device(device),
    }


def describe_quantization(fakes: HasProvenance) -> str:
    """Return in words how the generated images were quantized to 8 bits, as far as that is known."""
    if fakes.provenance.get("kind") == "model":
        return GENERATED
    return WRITTEN_BY_SAMPLE if isinstance(fakes, DatasetImages) and fakes.written_by_sample else STORED


def describe_extractor(name: str, extractor: FeatureExtractor) -> dict[str, Any]:
    """Return an extractor's SHA-256 and resizing, and for Inception whether it is the published file."""
    facts: dict[str, Any] = {"sha256": extractor.sha256, "resize": describe_resizing(name, extractor)}
    published = getattr(extractor, "published", None)
    return facts if published is None else {**facts, "published": published}


def describe_resizing(name: str, extractor: FeatureExtractor) -> str:
    """Return in words how an extractor resizes images."""
    resolution = getattr(extractor, "resolution", None)
    if name == "lite2":
        return f"{resolution}, bilinear with antialiasing"
    if resolution is not None:
        return f"{resolution}, {getattr(extractor, 'interpolation', 'bicubic')} with antialiasing"
    return RESIZING.get(name, RESIZED_INSIDE)


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that the last digits of a metric depend on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the type and name of the device, and the number of threads of a CPU."""
    if device.type == "cuda":
        return {"type": device.type, "name": torch.cuda.get_device_name(device)}
    return {"type": device.type, "name": cpu_name(), "threads": torch.get_num_threads()}


def cpu_name() -> str:
    """Return the processor's name from Linux's /proc, "unknown" elsewhere."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
