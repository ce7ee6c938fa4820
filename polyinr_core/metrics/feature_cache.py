"""The folder of cached feature statistics: one .safetensors file for each key."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, written_beside
from polyinr_core.runtime.strict_json import JsonError, format_json, is_whole, plain_json
from polyinr_core.runtime.tensor_files import (
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

METADATA_KEY = "polyinr_features"
MAX_VALUE = 1e30  # larger statistics overflow when distances are computed


class FeatureCache:
    """A folder of feature statistics.

    A file's name is the digest of its key. The key holds the SHA-256 of the images or of the model, and of the
    network's weights, so that changed inputs have another file. The file holds the key and a digest of its
    tensors; one that was renamed or damaged is ignored.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def path_for(self, key: Mapping[str, Any]) -> Path:
        """Return the file that holds the statistics of `key`."""
        return self.folder / f"{hashlib.sha256(format_json(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
        """Return the number of images and the tensors of `key`, None if they are missing or damaged."""
        try:
            path = self.path_for(key)
            facts, tensors = facts_in(read_header(path), METADATA_KEY), read_tensors(path)
            if not isinstance(facts, dict) or facts.get("key") != plain_json(key):
                return None
            if facts.get("digest") != digest_tensors(tensors) or not is_whole(facts.get("count")):
                return None
            check_values(tensors, max_value=MAX_VALUE)
            return facts["count"], tensors
        except (TensorFileError, FileError):
            return None

    def store(self, key: Mapping[str, Any], count: int, tensors: Mapping[str, Tensor]) -> None:
        """Store CPU tensors of `count` images, replacing those stored before. Raises FileError."""
        facts = {"key": key, "count": count, "digest": digest_tensors(tensors)}
        if self.folder.is_file():
            raise FileError(self.folder, "is a file; --cache names a folder")
        try:
            check_values(tensors, max_value=MAX_VALUE)
            data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
        except (JsonError, TensorFileError) as error:
            raise FileError(self.path_for(key), f"the features cannot be cached: {error}") from error
        with written_beside(self.path_for(key), overwrite=True) as draft:
            draft.write_bytes(data)

    def delete(self, key: Mapping[str, Any]) -> None:
        """Delete the file of `key`, if there is one."""
        with suppress(OSError):
            self.path_for(key).unlink()


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the names, shapes, dtypes and bytes of CPU tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        octets: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(octets)
    return digest.hexdigest()
