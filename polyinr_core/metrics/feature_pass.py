"""One pass over images through feature extractors: batched, prefetched, divided over ranks, resumable, cached."""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from polyinr_core.data.loader import prefetch
from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.runtime.atomic_io import PathLike, written_beside
from polyinr_core.runtime.device import to_device
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.strict_json import JsonError, format_json, is_whole, plain_json
from polyinr_core.runtime.tensor_files import (
    TensorFileError,
    check_values,
    encode_tensors,
    facts_in,
    read_header,
    read_tensors,
)

from .extractors import FeatureExtractor
from .feature_statistics import Accumulator, FeatureStatistics, Requirements
from .inception import InceptionFeatures, InceptionTaps
from .registry import FeatureKey, Tap

BATCH_SIZE = 64
PREFETCH = 2  # batches made ahead of the one in the network
SAVE_INTERVAL = 30.0  # seconds between two saved states
SAVE_COST_RATIO = 20  # the time between two saved states is at least this many times that of saving one
CACHE_KEY = "polyinr_features"  # of a cached file's metadata
MAX_VALUE = 1e30  # larger statistics overflow when distances are computed

Progress = Callable[[int, int], None]  # images done, images in all


class ImageBatches(Protocol):
    """Images in a fixed order."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def batches(self, indices: range | None = None) -> Iterator[Tensor]:
        """Yield the images of `indices`, by default all, as uint8 [n, 3, H, W].

        An image does not depend on which others are requested.
        """


class ImageSource(ImageBatches, Protocol):
    """Images with their `provenance`: a JSON object for a result's card, which changes with any byte of theirs."""

    @property
    def resolution(self) -> int: ...

    @property
    def provenance(self) -> dict[str, Any]: ...


def extract_features(
    images: ImageBatches,
    extractors: Mapping[str, FeatureExtractor],
    requirements: Mapping[FeatureKey, Requirements],
    *,
    batch: int = BATCH_SIZE,
    device: torch.device,
    progress: Progress | None = None,
    ranks: DistributedContext = SINGLE_PROCESS,
    limits: Mapping[str, int] | None = None,
    checkpoint: "PassCheckpoint | None" = None,
) -> dict[FeatureKey, FeatureStatistics]:
    """Run the images through the extractors that `requirements` names. Call on every rank.

    Each rank processes complete batches: no feature depends on which rank computes it, and all ranks return the
    statistics of all images. A thread makes the next batches during the current one. Memory does not grow with
    the number of images, except for features that are required.

    Args:
        images: what to read; a rank reads only its part.
        extractors: by the name in a feature key.
        requirements: what to accumulate, by feature key.
        batch: images a batch.
        device: where the extractors run; they are moved there.
        progress: called after each batch with this rank's images done and its images in all.
        limits: by extractor, how many images it is given, the first ones; by default all. Not with a checkpoint.
        checkpoint: a saved state to continue from; an interruption saves one.

    Returns: the statistics by feature key; empty without requirements.
    Raises: PassInterrupted after Ctrl-C with a checkpoint; PolyinrError for features that are NaN or Inf.
    """
    if not requirements:
        return {}
    networks = {name for name, _ in requirements}
    functions = {name: feature_function(extractors[name].to(device), requirements, name) for name in networks}
    indices = rank_indices(len(images), batch, ranks)
    totals = {name: min(len(images), (limits or {}).get(name, len(images))) for name in networks}
    accumulators = {
        (name, tap): Accumulator(
            required,
            range(min(indices.start, totals[name]), min(indices.stop, totals[name])),
            totals[name],
            statistics_device(device),
        )
        for (name, tap), required in requirements.items()
    }
    done = 0 if checkpoint is None else checkpoint.restore(accumulators)  # of this rank's images

    def accumulate(batch_features: Mapping[FeatureKey, Sequence[Tensor]], images_in_batch: int) -> None:
        nonlocal done
        for (name, tap), parts in batch_features.items():
            if (name, tap) not in accumulators:
                continue
            features = torch.cat(list(parts))
            if not bool(features.isfinite().all()):
                raise PolyinrError(
                    f"{name} gives NaN or Inf for images of {images.name}; its weights are damaged, or belong to "
                    "another network"
                )
            accumulators[name, tap].add(features.float())
        done += images_in_batch

    # Updates run in a thread, which Ctrl-C does not interrupt: a saved state always holds complete batches.
    updates = ThreadPoolExecutor(1, thread_name_prefix="accumulate features")
    remaining = range(indices.start + done, indices.stop)
    batches = prefetch(rebatch(images.batches(remaining), batch), depth=PREFETCH)
    try:
        with closing(batches), updates:
            for pixels in batches:
                batch_features: dict[FeatureKey, list[Tensor]] = {}
                for name, function in functions.items():
                    for part in first_images(pixels, totals[name] - indices.start - done):
                        for tap, features in function(to_device(part, device)).items():
                            batch_features.setdefault((name, tap), []).append(features)
                updates.submit(accumulate, batch_features, sum(map(len, pixels))).result()
                if progress is not None:
                    progress(done, len(indices))
                if checkpoint is not None:
                    checkpoint.save_if_due(accumulators)
    except KeyboardInterrupt as error:
        updates.shutdown()
        if checkpoint is None or not done:
            raise
        checkpoint.save(accumulators)
        raise PassInterrupted(
            f"interrupted; the features of {done} of {len(indices)} images of {images.name} are saved in "
            f"{checkpoint.cache.folder}: run the same command again to resume"
        ) from error
    return {key: accumulator.result(ranks) for key, accumulator in accumulators.items()}


class PassInterrupted(PolyinrError):
    """A pass was interrupted by Ctrl-C and its state is saved."""

    exit_code = 130


class PassCheckpoint:
    """The saved state of an unfinished pass: all its accumulators in one file of the cache.

    `key` holds all that the state depends on, including the batch size and this rank's indices, so that a
    resumed pass gives the same bits as an uninterrupted one.
    """

    def __init__(self, cache: "FeatureCache", key: Mapping[str, Any]) -> None:
        self.cache = cache
        self.key = key
        self.next_save = time.monotonic() + SAVE_INTERVAL

    def restore(self, accumulators: Mapping[FeatureKey, Accumulator]) -> int:
        """Restore the accumulators if a state is saved. Return the number of images in it, 0 for none."""
        saved = self.cache.load(self.key)
        if saved is None:
            return 0
        count, tensors = saved
        for number, accumulator in enumerate(accumulators.values()):
            prefix = f"{number}."
            state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            accumulator.restore(state, count)
        return count

    def save_if_due(self, accumulators: Mapping[FeatureKey, Accumulator]) -> None:
        """Save the state if the save interval has passed."""
        if (start := time.monotonic()) >= self.next_save:
            self.save(accumulators)
            now = time.monotonic()
            self.next_save = now + max(SAVE_INTERVAL, SAVE_COST_RATIO * (now - start))

    def save(self, accumulators: Mapping[FeatureKey, Accumulator]) -> None:
        """Save the state. Raises FileError."""
        tensors = {
            f"{number}.{name}": tensor
            for number, accumulator in enumerate(accumulators.values())
            for name, tensor in accumulator.state().items()
        }
        self.cache.store(self.key, next(iter(accumulators.values())).count, tensors)

    def delete(self) -> None:
        """Delete the state, after the pass is complete."""
        self.cache.delete(self.key)


def rank_indices(count: int, batch: int, ranks: DistributedContext) -> range:
    """Return this rank's contiguous part of `count` images, in complete batches."""
    part = ranks.local_slice(-(-count // batch))
    return range(min(part.start * batch, count), min(part.stop * batch, count))


def statistics_device(device: torch.device) -> torch.device:
    """Return the device for float64 statistics: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def feature_function(
    network: FeatureExtractor, requirements: Mapping[FeatureKey, Requirements], name: str
) -> Callable[[Tensor], dict[Tap, Tensor]]:
    """Return the function from images [N, 3, H, W] to features [N, d] by tap, all in one forward pass."""
    if {tap for other, tap in requirements if other == name} == {"pooled"}:
        return lambda pixels: {"pooled": network(pixels)}
    assert isinstance(network, InceptionFeatures), name
    taps = InceptionTaps(network)

    def extract(pixels: Tensor) -> dict[Tap, Tensor]:
        output = taps(pixels)
        return {"pooled": output.pooled, "spatial": output.spatial, "probabilities": output.probabilities}

    return extract


def rebatch(parts: Iterable[Tensor], size: int) -> Generator[list[Tensor], None, None]:
    """Yield images that come in parts [n, 3, H, W] of any length in batches of `size`; the last may be smaller.

    A batch is one tensor, or several if the size of the images changes.
    """
    pending: list[Tensor] = []
    count = 0
    for part in parts:
        while len(part):
            piece, part = part[: size - count], part[size - count :]
            pending.append(piece)
            count += len(piece)
            if count == size:
                yield joined(pending)
                pending, count = [], 0
    if count:
        yield joined(pending)


def joined(parts: Iterable[Tensor]) -> list[Tensor]:
    """Concatenate successive parts whose images have one size."""
    return [torch.cat(list(group)) for _, group in groupby(parts, key=lambda part: part.shape[1:])]


def first_images(batch: Iterable[Tensor], count: int) -> list[Tensor]:
    """Return the first `count` images of a batch, none for a negative count."""
    first = []
    for part in batch:
        if count > 0:
            first.append(part[:count])
        count -= len(part)
    return first


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
            facts, tensors = facts_in(read_header(path), CACHE_KEY), read_tensors(path)
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
            data = encode_tensors(tensors, key=CACHE_KEY, facts=facts)
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
