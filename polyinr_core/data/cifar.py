"""CIFAR-10's python archive: its batches of pictures, their labels and class names."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArchiveError
from ..pickles import Made, PickleProblem, bytes_of, read_pickle, text_of
from .facts import Facts, certain
from .source import Payload, Source, stamp_of
from .tars import tar_members

BATCH_NAME = re.compile(r"(^|/)data_batch_\d+$")
META_NAME = re.compile(r"(^|/)batches\.meta$")
SIDE = 32
MAX_BYTES = 2**30  # of all batches; the published ones take 155 MB
ARRAY_NAMES = frozenset(  # what the pickle of a numpy array mentions
    {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype"}
    | {"_codecs.encode"}
)

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]  # pictures [N, 32, 32, 3], labels [N]


def open_cifar(path: Path) -> Source:
    """List CIFAR-10's training pictures in the order of their batches. Raises ArchiveError, FileError."""
    batches: dict[str, Batch] = {}
    class_names: tuple[str, ...] = ()
    size = 0
    for member in tar_members(path):
        is_meta = META_NAME.search(member.name)
        if not (is_meta or BATCH_NAME.search(member.name)):
            continue
        size += member.size
        if size > MAX_BYTES:
            raise ArchiveError(path, f"{member.name!r} is too large for a CIFAR-10 batch; refused")
        try:
            facts = read_dictionary(member.read())
            if is_meta:
                class_names = class_names_of(facts)
            else:
                batches[member.name] = batch_of(facts)
        except PickleProblem as problem:
            raise ArchiveError(path, f"{member.name!r} is no CIFAR-10 batch ({problem}); refused") from problem
    ordered = sorted(batches.items())
    labels = np.concatenate([labels for _, (_, labels) in ordered])
    classes = max(int(labels.max()) + 1, len(class_names))
    if len(class_names) < classes:
        class_names = ()

    def payloads(start: int) -> Iterator[Payload]:
        return islice((picture for _, (pictures, _) in ordered for picture in pictures), start, None)

    names = tuple(
        f"{name.split('/')[-1]}/{index:05d}" for name, (_, part) in ordered for index in range(len(part))
    )
    return Source(
        path,
        "cifar-10",
        names,
        stamp_of(path),
        payloads,
        certain(Facts(labels, classes, class_names), len(names)),
    )


def read_dictionary(data: bytes) -> dict[str, Any]:
    """Return the dictionary that a pickle describes. Raises PickleProblem."""
    facts, _ = read_pickle(memoryview(data), known=lambda module, name: f"{module}.{name}" in ARRAY_NAMES)
    if not isinstance(facts, dict):
        raise PickleProblem("it holds no dictionary")
    return facts


def class_names_of(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names, none if there is no list of them. Raises PickleProblem."""
    names = facts.get("label_names")
    return tuple(map(text_of, names)) if isinstance(names, list) else ()


def batch_of(facts: dict[str, Any]) -> Batch:
    """Return a batch's pictures and labels. Raises PickleProblem."""
    match facts.get("data"):
        case Made(state=(_, (int(count), int(width)), Made(arguments=(kind, *_)), False, raw)) if (
            width == 3 * SIDE** 2 and text_of(kind) in ("u1", "|u1")
        ):
            pixels = np.frombuffer(bytes_of(raw, most=2 * count * width), np.uint8)
        case _:
            raise PickleProblem(f"it holds no pictures of {SIDE}x{SIDE}")
    if not 0 < count * width == len(pixels):
        raise PickleProblem("it holds more or fewer pictures than it announces")
    labels = facts.get("labels")
    if not isinstance(labels, list) or len(labels) != count:
        raise PickleProblem("it does not hold one label for each picture")
    if not all(type(label) is int and 0 <= label < 1000 for label in labels):
        raise PickleProblem("its labels are no classes")
    return pixels.reshape(count, 3, SIDE, SIDE).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64)
