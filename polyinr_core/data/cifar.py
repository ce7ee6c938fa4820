"""CIFAR-10's python archive: its batches of pictures, their labels and class names."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError
from .facts import Facts
from .plain_pickles import read_plain_pickle
from .source import Payload, Source, stamp_of
from .tars import tar_members

BATCH_NAME = re.compile(r"(^|/)data_batch_\d+$")
META_NAME = re.compile(r"(^|/)batches\.meta$")
SIDE = 32
MAX_BATCH_BYTES = 2**28


def open_cifar(path: Path) -> Source:
    """List CIFAR-10's training pictures in the order of their batches. Raises ArchiveError, FileError."""
    batches: list[tuple[str, NDArray[np.int64]]] = []
    class_names: tuple[str, ...] = ()
    for name, facts in read_batches(path):
        if META_NAME.search(name):
            names = facts.get("label_names")
            class_names = tuple(map(plain_text, names)) if isinstance(names, list) else ()
        else:
            batches.append((name, batch_arrays(path, name, facts)[1]))
    batches.sort(key=lambda batch: batch[0])
    labels = np.concatenate([labels for _, labels in batches])
    classes = max(int(labels.max()) + 1, len(class_names))
    if len(class_names) < classes:
        class_names = ()

    def payloads(start: int) -> Iterator[Payload]:
        pixels = {
            name: batch_arrays(path, name, facts)[0] for name, facts in read_batches(path) if is_batch(name)
        }
        return islice((picture for name, _ in batches for picture in pixels[name]), start, None)

    listed = tuple(f"{name.split('/')[-1]}/{index:05d}" for name, part in batches for index in range(len(part)))
    return Source(path, "cifar-10", listed, stamp_of(path), payloads, Facts(labels, classes, class_names))


def is_batch(name: str) -> bool:
    """Tell whether a file of the archive is a batch of training pictures."""
    return BATCH_NAME.search(name) is not None


def read_batches(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the training batches and the class names of the archive as dictionaries. Raises ArchiveError."""
    for member in tar_members(path):
        if not (is_batch(member.name) or META_NAME.search(member.name)):
            continue
        if member.size > MAX_BATCH_BYTES:
            raise ArchiveError(path, f"{member.name!r} is too large for a CIFAR-10 batch; refused")
        try:
            facts = read_plain_pickle(member.read())
        except (ValueError, TypeError, LookupError, AttributeError, UnicodeError) as error:
            problem = (
                f"{member.name!r} is no plain CIFAR-10 batch ({' '.join(str(error).split())[:100]}); refused"
            )
            raise ArchiveError(path, problem) from error
        if not isinstance(facts, dict):
            raise ArchiveError(path, f"{member.name!r} holds no dictionary")
        yield member.name, {plain_text(key): value for key, value in facts.items()}


def batch_arrays(path: Path, name: str, facts: dict[str, Any]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a batch's pictures uint8 [N, 32, 32, 3] and labels int64 [N]. Raises ArchiveError."""
    pixels, labels = facts.get("data"), facts.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3 * SIDE * SIDE:
        raise ArchiveError(path, f"{name!r} holds no pictures of {SIDE}x{SIDE}")
    whole = isinstance(labels, list) and all(type(label) is int and 0 <= label < 1000 for label in labels)
    if not (whole and labels and len(labels) == len(pixels)):
        raise ArchiveError(path, f"{name!r} does not hold one label for each picture")
    pictures = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)  # [N, H, W, 3]
    return pictures, np.array(labels, dtype=np.int64)


def plain_text(value: object) -> str:
    """Return a text of Python 2 or 3 as a text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
