"""What metrics need to see of images, and what was seen: statistics, features, a score."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.runtime.atomic_io import PathLike, written_beside
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

from .frechet import FeatureStatistics, Gaussian
from .inception_score import InceptionScore
from .registry import SPLITS, Metric, Sense

CONSTANT = 1e-12  # of the squared mean: a spread below it is float32's rounding


@dataclass(frozen=True)
class Need:
    """What is wanted of the features that a network gives: statistics, which stream, the features, a score."""

    statistics: bool = False
    features: bool = False
    score: bool = False

    @property
    def kept(self) -> "Need":
        """What is taken where it is kept for later: statistics beside features, as they cost little."""
        return replace(self, statistics=self.statistics or self.features)


@dataclass
class Seen:
    """What was seen of one kind of images in one sense; `given` is a Gaussian that others have taken."""

    count: int = 0
    statistics: FeatureStatistics | None = None
    features: Tensor | None = None  # [N, d], float32
    score: tuple[float, float] | None = None  # mean and deviation over the splits
    given: Gaussian | None = None

    def gaussian(self, *, unbiased: bool) -> Gaussian:
        """Return the Gaussian of the features, with a covariance by N - 1 or by N; a given one is as it is."""
        if self.given is not None:
            return self.given
        assert self.statistics is not None
        return self.statistics.gaussian(unbiased=unbiased)

    def serves(self, need: Need) -> bool:
        """Say whether all that is needed was seen."""
        return (
            (not need.statistics or self.statistics is not None or self.given is not None)
            and (not need.features or self.features is not None)
            and (not need.score or self.score is not None)
        )

    @property
    def constant(self) -> bool:
        """Say whether all images look the same."""
        if self.statistics is not None and self.count > 1:
            size = self.statistics.mean.square().sum() * self.count
            return bool(self.statistics.scatter.trace() <= size * CONSTANT)
        if self.features is not None and self.count > 1:
            first = self.features[:1]
            return bool((self.features - first).abs().max() <= first.abs().max() * CONSTANT**0.5)
        return False

    def tensors(self) -> dict[str, Tensor]:
        """Return all that is there by name, on the CPU."""
        found: dict[str, Tensor] = {}
        if self.statistics is not None:
            found |= {"mean": self.statistics.mean, "scatter": self.statistics.scatter}
        if self.features is not None:
            found["features"] = self.features
        if self.score is not None:
            found["score"] = torch.tensor(self.score, dtype=torch.float64)
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> "Seen":
        """Return what `tensors` gave."""
        seen = cls(count)
        if "mean" in tensors:
            seen.statistics = statistics_of(tensors, count, device=device)
        if "features" in tensors:
            seen.features = tensors["features"].to(device)
        if "score" in tensors:
            seen.score = (float(tensors["score"][0]), float(tensors["score"][1]))
        return seen


def statistics_of(tensors: Mapping[str, Tensor], count: int, *, device: torch.device) -> FeatureStatistics:
    """Return the statistics whose `mean` and `scatter` are given."""
    statistics = FeatureStatistics(len(tensors["mean"]), device=device)
    statistics.count = count
    statistics.mean = tensors["mean"].to(device)
    statistics.scatter = tensors["scatter"].to(device)
    return statistics


def needs_of(metrics: Mapping[str, Metric], *, resampled: bool = False, reals: bool) -> dict[Sense, Need]:
    """Return what metrics need to see of the reals, or of the fakes, which may be `resampled` for intervals."""
    needs: dict[Sense, Need] = {}
    for metric in metrics.values():
        if metric.kind == "score" and reals:
            continue
        old = needs.get(metric.sense, Need())
        streams = metric.kind == "frechet"
        needs[metric.sense] = Need(
            statistics=old.statistics or streams,
            features=old.features
            or metric.kind in ("kernel", "overlap", "spread")
            or (resampled and streams and not reals),
            score=old.score or metric.kind == "score",
        )
    return needs


class Taker:
    """Takes in the features of one sense, whose number it learns from the first, of this rank's `span`."""

    def __init__(self, need: Need, span: range, whole: int, place: torch.device) -> None:
        self.need = need
        self.span = span
        self.whole = whole
        self.place = place
        self.count = 0
        self.dim = 0
        self.statistics: FeatureStatistics | None = None
        self.features: Tensor | None = None
        self.score: InceptionScore | None = None

    def add(self, features: Tensor) -> None:
        """Take in the features [n, d] of the next images."""
        features = features.to(self.place)
        if not self.dim:
            self._begin(features.shape[1])
        if self.statistics is not None:
            self.statistics.add(features)
        if self.features is not None:
            self.features[self.count : self.count + len(features)] = features
        if self.score is not None:
            self.score.add(features, first=self.span.start + self.count)
        self.count += len(features)

    def _begin(self, dim: int) -> None:
        self.dim = dim
        if self.need.statistics:
            self.statistics = FeatureStatistics(dim, device=self.place)
        if self.need.features:
            self.features = torch.zeros(len(self.span), dim, device=self.place)
        if self.need.score:
            self.score = InceptionScore(self.whole, dim, splits=SPLITS, device=self.place)

    def seen(self, ranks: DistributedContext = SINGLE_PROCESS) -> Seen:
        """Return what all ranks have seen, the same on each; to be called once, at the end."""
        dim = max(ranks.all_gather_int(self.dim))
        if not self.dim:
            self._begin(dim)  # this rank had no image
        seen = Seen(sum(ranks.all_gather_int(self.count)))
        if self.statistics is not None:
            seen.statistics = self.statistics.merged(ranks)
        if self.features is not None:
            seen.features = ranks.all_gather(self.features)
        if self.score is not None:
            self.score.gather(ranks)
            seen.score = self.score.result()
        return seen

    def state(self) -> dict[str, Tensor]:
        """Return all that has come of the images taken in so far."""
        found: dict[str, Tensor] = {}
        if self.statistics is not None:
            found |= {"mean": self.statistics.mean, "scatter": self.statistics.scatter}
        if self.features is not None:
            found["features"] = self.features[: self.count]
        if self.score is not None:
            found |= {"scored": self.score.seen, "sums": self.score.sums}
            found["negative_entropies"] = self.score.negative_entropies
        return {name: tensor.cpu().contiguous() for name, tensor in found.items()}

    def restore(self, state: Mapping[str, Tensor], count: int) -> None:
        """Go on from a state of so many images."""
        self._begin(next(state[name].shape[-1] for name in ("mean", "features", "sums") if name in state))
        self.count = count
        if self.statistics is not None:
            self.statistics = statistics_of(state, count, device=self.place)
        if self.features is not None:
            self.features[:count] = state["features"].to(self.place)
        if self.score is not None:
            self.score.seen = state["scored"].to(self.place)
            self.score.sums = state["sums"].to(self.place)
            self.score.negative_entropies = state["negative_entropies"].to(self.place)


METADATA_KEY = "polyinr_seen"
LARGEST = 1e30  # of a number in statistics: larger ones overflow when distances are computed


class Cache:
    """A folder of files, one for each set of images, size, count, network and tap.

    A file's name is the digest of its key, and the key holds the SHA-256 of the images' bytes, or of the model
    that draws them, and of the network's weights: what has changed has another name. The key and the digest of
    the tensors are in the file and are compared, so that a file that was renamed or damaged counts as none.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)

    def path(self, key: Mapping[str, Any]) -> Path:
        """Return where what `key` names is kept."""
        return self.folder / f"{hashlib.sha256(text_of(key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, key: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
        """Return the count of images and the tensors under the key, None if that is nothing or is damaged."""
        try:
            path = self.path(key)
            facts, tensors = facts_in(read_header(path), METADATA_KEY), read_tensors(path)
            if not isinstance(facts, dict) or facts.get("key") != plain_json(key):
                return None
            if facts.get("digest") != digest_of(tensors) or not is_whole(facts.get("count")):
                return None
            check_values(tensors, max_value=LARGEST)
            return facts["count"], tensors
        except (TensorFileError, FileError):
            return None

    def store(self, key: Mapping[str, Any], count: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors on the CPU, in place of what was kept before. Raises FileError."""
        facts = {"key": key, "count": count, "digest": digest_of(tensors)}
        if self.folder.is_file():
            raise FileError(self.folder, "is a file; --cache names a folder")
        try:
            check_values(tensors, max_value=LARGEST)
            data = encode_tensors(tensors, key=METADATA_KEY, facts=facts)
        except (JsonError, TensorFileError) as error:
            raise FileError(self.path(key), f"what was seen of the images cannot be kept: {error}") from error
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
