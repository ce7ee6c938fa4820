"""Pictures that a model draws to be judged: seeds 0, 1, ..., made in passes as they are looked at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..model.drawing import at_once
from ..pictures.pixels import checked, quantise
from ..snapshots.snapshot import Snapshot
from .painting import paint, w_of


class DrawnPictures:
    """What a model draws for seeds 0, 1, ..., `count` - 1, on the device that its generator is on.

    A seed draws its class as well, uniformly, unless `label` is given. Pictures are drawn in passes that neither
    the judges' batch nor the span asked for moves, so that a picture is the same to the bit. Raises RequestError.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        name: str,
        count: int,
        side: int | None = None,
        psi: float = 1.0,
        label: int | None = None,
    ) -> None:
        if count < 1:
            raise RequestError(f"{count} pictures cannot be judged; give a count of 1 or more")
        if not (side or snapshot.resolution):
            raise RequestError(f"{name} does not say its resolution; give --res")
        self.snapshot = snapshot
        self.name = name
        self.count = count
        self.side = side or snapshot.resolution
        self.psi = psi
        self.label = label

    def __len__(self) -> int:
        return self.count

    @property
    def sha256(self) -> str:
        return self.snapshot.sha256

    @property
    def facts(self) -> dict[str, Any]:
        labels = "none"
        if self.snapshot.generator.config.classes:
            labels = "uniform by seed" if self.label is None else f"class {self.label}"
        return {
            "kind": "model",
            "name": Path(self.name).name,
            "sha256": self.sha256,
            "count": self.count,
            "seeds": f"0-{self.count - 1}",
            "labels": labels,
            "psi": self.psi,
        }

    @torch.no_grad()
    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        span = range(self.count) if span is None else span
        size = max(at_once(self.snapshot.generator.mapping.w_avg.device) // self.side**2, 1)
        for start in range(span.start // size * size, span.stop, size):
            seeds = range(start, min(start + size, self.count))
            w = w_of(self.snapshot, seeds, psi=self.psi, label=self.label, classes_of=seeds)
            drawn = quantise(next(checked([paint(self.snapshot, w, side=self.side)])))
            yield drawn[max(span.start - start, 0) : span.stop - start]
