"""What was seen of real pictures, kept in a folder for the next time; a stale or damaged file is never used."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import FileError
from ..files import written_beside
from ..metrics.gaussian import FeatureStatistics
from .looking import Need, Seen

FORMAT = 1
METADATA_KEY = "polyinr_reals"


class Cache:
    """A folder of files, one for each set of pictures, size, count, network and tap.

    A file's name is the digest of its key, and the key holds the SHA-256 of the pictures' bytes and of the
    network's weights: what has changed has another name. The key and the digest of the tensors are in the file
    and are compared, so that a file that was renamed or damaged counts as none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: dict[str, Any]) -> Path:
        """Return where what `key` names is kept."""
        return self.folder / f"{hashlib.sha256(text_of(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: dict[str, Any], need: Need, *, device: torch.device) -> Seen | None:
        """Return what is kept under the key, None if that is nothing, damaged, or less than is needed."""
        try:
            with safe_open(self.path(key), "pt") as file:
                facts = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError):
            return None
        if not isinstance(facts, dict) or facts.get("key") != key or facts.get("digest") != digest_of(tensors):
            return None
        seen = Seen(count=int(facts["count"]))
        if {"mean", "scatter"} <= tensors.keys():
            seen.statistics = FeatureStatistics(len(tensors["mean"]), device=device)
            seen.statistics.count = seen.count
            seen.statistics.mean = tensors["mean"].to(device)
            seen.statistics.scatter = tensors["scatter"].to(device)
        if "features" in tensors:
            seen.features = tensors["features"].to(device)
        lacking = (need.statistics and seen.statistics is None) or (need.features and seen.features is None)
        return None if lacking else seen

    def store(self, key: dict[str, Any], seen: Seen) -> None:
        """Keep what was seen, in place of what was kept before. Raises FileError."""
        tensors: dict[str, torch.Tensor] = {}
        if seen.statistics is not None:
            tensors |= {"mean": seen.statistics.mean, "scatter": seen.statistics.scatter}
        if seen.features is not None:
            tensors["features"] = seen.features
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        facts = {"key": key, "count": seen.count, "digest": digest_of(tensors)}
        if self.folder.is_file():
            raise FileError(self.folder, "is a file; --cache names a folder")
        with written_beside(self.path(key), overwrite=True) as draft:
            draft.write_bytes(save(tensors, metadata={METADATA_KEY: text_of(facts)}))


def text_of(facts: dict[str, Any]) -> str:
    """Return facts as JSON, the same text for the same facts."""
    return json.dumps(facts, sort_keys=True)


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 over tensors' names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
