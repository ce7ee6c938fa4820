"""Pictures that a model draws to be judged: seeds 0, 1, ..., made in passes as they are looked at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..latents.seeds import UNIFORM, LabelDistribution
from ..model.drawing import at_once
from ..pictures.pixels import checked, quantise
from ..snapshots.snapshot import Snapshot
from .painting import paint, w_of
from .saved import SavedStatistics
from .stored import StoredPictures


def dataset_labels(reals: StoredPictures | SavedStatistics | None, *, classes: int) -> LabelDistribution:
    """Return how often each of a model's `classes` is drawn to match the real images. Raises RequestError."""
    if reals is None:
        raise RequestError("without real images nothing says how often each class occurs; give them with --real")
    if reals.label_counts is None:
        lacks = "does not hold" if isinstance(reals, SavedStatistics) else "has no"
        raise RequestError(f"{reals.name} {lacks} labels, which would say how often each class occurs")
    if len(reals.label_counts) != classes:
        raise RequestError(
            f"{reals.name} has labels of {len(reals.label_counts)} classes, the model of {classes}"
        )
    return LabelDistribution(counts=reals.label_counts)


class DrawnPictures:
    """What a model draws for seeds 0, 1, ..., `count` - 1, on the device that its generator is on.

    A seed draws its class as well, by `labels`, which a model without classes does not read. Pictures are drawn
    in passes that neither the judges' batch nor the span asked for moves, so that a picture is the same to the
    bit. Raises RequestError.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        name: str,
        count: int,
        side: int | None = None,
        psi: float = 1.0,
        labels: LabelDistribution = UNIFORM,
    ) -> None:
        if count < 1:
            raise RequestError(f"{count} pictures cannot be judged; give a count of 1 or more")
        if not (side or snapshot.resolution):
            raise RequestError(f"{name} does not say its resolution; give --res")
        if labels.counts and len(labels.counts) != snapshot.generator.config.classes:
            problem = f"counts of {len(labels.counts)} classes, {name} has {snapshot.generator.config.classes}"
            raise RequestError(f"{problem}; give one count a class of the model")
        self.snapshot = snapshot
        self.name = name
        self.count = count
        self.side = side or snapshot.resolution
        self.psi = psi
        self.labels = labels

    def __len__(self) -> int:
        return self.count

    @property
    def sha256(self) -> str:
        return self.snapshot.sha256

    @property
    def facts(self) -> dict[str, Any]:
        labels = {"labels": "none"}
        if self.snapshot.generator.config.classes:
            labels = {"labels": self.labels.name}
            if self.labels.counts:  # on one line, however many classes
                labels["label_weights"] = " ".join(map(str, self.labels.weights))
        return {
            "kind": "model",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": self.count,
            "seeds": f"0-{self.count - 1}",
            **labels,
            "psi": self.psi,
        }

    @torch.no_grad()
    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        span = range(self.count) if span is None else span
        size = max(at_once(self.snapshot.generator.mapping.w_avg.device) // self.side**2, 1)
        for start in range(span.start // size * size, span.stop, size):
            seeds = range(start, min(start + size, self.count))
            w = w_of(self.snapshot, seeds, psi=self.psi, labels=self.labels, classes_of=seeds)
            drawn = quantise(next(checked([paint(self.snapshot, w, side=self.side)])))
            yield drawn[max(span.start - start, 0) : span.stop - start]
