"""One pass: every picture is made once, and goes once through each network, for all metrics together."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PolyinrError
from ..metrics.gaussian import FeatureStatistics
from ..metrics.inception import InceptionFeatures, InceptionTaps
from ..metrics.networks import FeatureNetwork
from ..metrics.rules import SPLITS, Metric, Sense, Tap
from ..metrics.scores import InceptionScore
from .inputs import Pictures

BATCH = 64
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Need:
    """What is wanted of the features that a network gives: statistics, which stream, the features, a score."""

    statistics: bool = False
    features: bool = False
    score: bool = False


@dataclass
class Seen:
    """What was seen of one kind of pictures in one sense."""

    count: int = 0
    statistics: FeatureStatistics | None = None
    features: Tensor | None = None  # [N, d], float32
    score: tuple[float, float] | None = None  # mean and deviation over the splits


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


def look(
    pictures: Pictures,
    networks: Mapping[str, FeatureNetwork],
    needs: Mapping[Sense, Need],
    *,
    batch: int = BATCH,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[Sense, Seen]:
    """Show the pictures, `batch` at a time, to the networks that `needs` names. Raises PolyinrError.

    Memory does not grow with their number, but for the features that a need names.
    """
    views = {name: view_of(networks[name].to(device), needs, name) for name in {name for name, _ in needs}}
    place = torch.device("cpu") if device.type == "mps" else device  # where float64 is
    takers = {sense: _Taker(need, len(pictures), place) for sense, need in needs.items()}
    done = 0
    for pixels in rebatched(pictures.passes(), batch) if needs else ():
        pixels = pixels.to(device)
        for name, view in views.items():
            for tap, features in view(pixels).items():
                if (name, tap) in takers:
                    if not bool(features.isfinite().all()):
                        raise PolyinrError(
                            f"{name} gives features that are no finite numbers for pictures of {pictures.name}; "
                            "its weights are damaged, or are of another network"
                        )
                    takers[name, tap].add(features.float(), first=done)
        done += len(pixels)
        if progress is not None:
            progress(done, len(pictures))
    return {sense: taker.result() for sense, taker in takers.items()}


def view_of(
    network: FeatureNetwork, needs: Mapping[Sense, Need], name: str
) -> Callable[[Tensor], dict[Tap, Tensor]]:
    """Return how pictures [N, 3, H, W] become features [N, d] by the name of their tap, in one pass."""
    taps = {tap for other, tap in needs if other == name}
    if taps == {"pooled"}:
        return lambda pixels: {"pooled": network(pixels)}
    assert isinstance(network, InceptionFeatures), name
    inside = InceptionTaps(network)

    def tapped(pixels: Tensor) -> dict[Tap, Tensor]:
        found = inside(pixels)
        return {"pooled": found.pooled, "spatial": found.spatial, "probabilities": found.probabilities}

    return tapped


def rebatched(passes: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Yield what comes in passes [n, ...] in batches of `size`, the last one as it falls."""
    waiting: list[Tensor] = []
    held = 0
    for part in passes:
        waiting.append(part)
        held += len(part)
        if held >= size:
            joined = torch.cat(waiting)
            whole = held // size * size
            yield from joined[:whole].split(size)
            waiting, held = [joined[whole:]], held - whole
    if held:
        yield torch.cat(waiting)


class _Taker:
    """Takes in the features of one sense, whose number it learns from the first."""

    def __init__(self, need: Need, count: int, place: torch.device) -> None:
        self.need = need
        self.count = count
        self.place = place
        self.seen = Seen()
        self.score: InceptionScore | None = None

    def add(self, features: Tensor, *, first: int) -> None:
        features = features.to(self.place)
        if not first:
            self._begin(features.shape[1])
        self.seen.count += len(features)
        if self.seen.statistics is not None:
            self.seen.statistics.add(features)
        if self.seen.features is not None:
            self.seen.features[first : first + len(features)] = features
        if self.score is not None:
            self.score.add(features, first=first)

    def _begin(self, dim: int) -> None:
        if self.need.statistics:
            self.seen.statistics = FeatureStatistics(dim, device=self.place)
        if self.need.features:
            self.seen.features = torch.zeros(self.count, dim, device=self.place)
        if self.need.score:
            self.score = InceptionScore(self.count, dim, splits=SPLITS, device=self.place)

    def result(self) -> Seen:
        if self.score is not None:
            self.seen.score = self.score.result()
        return self.seen
