"""What was seen of pictures, kept in a folder for the next time; a stale or damaged file is never used."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import FileError
from ..files import PathLike, written_beside
from ..strict_json import JsonError, format_json, is_whole, plain_json
from ..tensor_files import TensorFileError, check_values, encode_tensors, facts_in, read_header, read_tensors

METADATA_KEY = "polyinr_seen"
LARGEST = 1e30  # of a number in statistics: larger ones overflow when distances are computed


class Cache:
    """A folder of files, one for each set of pictures, size, count, network and tap.

    A file's name is the digest of its key, and the key holds the SHA-256 of the pictures' bytes, or of the model
    that draws them, and of the network's weights: what has changed has another name. The key and the digest of
    the tensors are in the file and are compared, so that a file that was renamed or damaged counts as none.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: Mapping[str, Any]) -> Path:
        """Return where what `key` names is kept."""
        return self.folder / f"{hashlib.sha256(text_of(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
        """Return the count of pictures and the tensors under the key, None if that is nothing or is damaged."""
        try:
            path = self.path(key)
            facts, tensors = facts_in(read_header(path), METADATA_KEY), read_tensors(path)
            if not isinstance(facts, dict) or facts.get("key") != plain_json(key):
                return None
            if facts.get("digest") != digest_of(tensors) or not is_whole(facts.get("count")):
                return None
            check_values(tensors, largest=LARGEST)
            return facts["count"], tensors
        except (TensorFileError, FileError):
            return None

    def store(self, key: Mapping[str, Any], count: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors on the CPU, in place of what was kept before. Raises FileError."""
        facts = {"key": key, "count": count, "digest": digest_of(tensors)}
        if self.folder.is_file():
            raise FileError(self.folder, "is a file; --cache names a folder")
        try:
            check_values(tensors, largest=LARGEST)
            data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
        except (JsonError, TensorFileError) as error:
            raise FileError(self.path(key), f"what was seen of the pictures cannot be kept: {error}") from error
        with written_beside(self.path(key), overwrite=True) as draft:
            draft.write_bytes(data)

    def forget(self, key: Mapping[str, Any]) -> None:
        """Remove what is kept under the key, if there is any."""
        with suppress(OSError):
            self.path(key).unlink()


def text_of(facts: Mapping[str, Any]) -> str:
    """Return facts as JSON, the same text for the same facts. Raises JsonError."""
    return format_json(facts)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over tensors' names, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        octets: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(octets)
    return digest.hexdigest()
