"""What was seen of pictures, kept in a folder for the next time; a stale or damaged file is never used."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import FileError
from ..files import written_beside

METADATA_KEY = "polyinr_seen"


class Cache:
    """A folder of files, one for each set of pictures, size, count, network and tap.

    A file's name is the digest of its key, and the key holds the SHA-256 of the pictures' bytes, or of the model
    that draws them, and of the network's weights: what has changed has another name. The key and the digest of
    the tensors are in the file and are compared, so that a file that was renamed or damaged counts as none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: Mapping[str, Any]) -> Path:
        """Return where what `key` names is kept."""
        return self.folder / f"{hashlib.sha256(text_of(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
        """Return the count of pictures and the tensors under the key, None if that is nothing or is damaged."""
        try:
            with safe_open(self.path(key), "pt") as file:
                facts = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["key"] != json.loads(text_of(key)) or facts["digest"] != digest_of(tensors):
                return None
            return int(facts["count"]), tensors
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None

    def store(self, key: Mapping[str, Any], count: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors on the CPU, in place of what was kept before. Raises FileError."""
        facts = {"key": key, "count": count, "digest": digest_of(tensors)}
        if self.folder.is_file():
            raise FileError(self.folder, "is a file; --cache names a folder")
        with written_beside(self.path(key), overwrite=True) as draft:
            draft.write_bytes(save(dict(tensors), metadata={METADATA_KEY: text_of(facts)}))

    def forget(self, key: Mapping[str, Any]) -> None:
        """Remove what is kept under the key, if there is any."""
        with suppress(OSError):
            self.path(key).unlink()


def text_of(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON, the same text for the same facts."""
    return json.dumps(facts, sort_keys=True)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over tensors' names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        octets: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(octets)
    return digest.hexdigest()
