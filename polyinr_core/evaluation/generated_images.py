"""A model's images as numbers, for figures that 8 bits would spoil or that are of time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.errors import RequestError
from polyinr_core.images.quantize import check_finite, quantize
from polyinr_core.latents.latents import UNIFORM, LabelDistribution, draw_z
from polyinr_core.rendering.backends import select_backend
from polyinr_core.rendering.render import pixels_per_batch

from .image_sources import StoredImages
from .statistics_io import SavedStatistics


def w_of(
    checkpoint: Checkpoint, seeds: range, *, psi: float, labels: LabelDistribution = UNIFORM, classes_of: range
) -> Tensor:
    """Return w [N, L, w_dim] of seeds, each in the class that its seed of `classes_of` draws, on the device."""
    generator, classes = checkpoint.generator, checkpoint.generator.config.classes
    like = generator.mapping.w_avg
    label = labels.draw(classes_of, classes).to(like.device) if classes else None
    return generator.w_each(draw_z(seeds, generator.config.z_dim).to(like), label, psi=psi)


@torch.no_grad()
def paint(checkpoint: Checkpoint, w: Tensor, *, side: int) -> Tensor:
    """Draw w [N, L, w_dim] as colors [N, 3, side, side], about [-1, 1]; large images a part at a time."""
    generator = checkpoint.generator
    affine = generator.affine_each(w)
    points = checkpoint.grid(side, side).at(torch.arange(side**2, device=w.device), dtype=w.dtype)
    parts = points.split(max(1, pixels_per_batch(w.device) // len(w)))
    drawer = select_backend(generator.synthesis, w.device)
    colors = torch.cat([drawer(affine, part) for part in parts], dim=1)
    return colors.unflatten(1, (side, side)).permute(0, 3, 1, 2)


def dataset_labels(reals: StoredImages | SavedStatistics | None, *, classes: int) -> LabelDistribution:
    """Return how often each of a model's `classes` is drawn to match the real images. Raises RequestError."""
    if reals is None:
        raise RequestError("without real images nothing says how often each class occurs; give them with --real")
    if reals.label_counts is None:
        lacks = "does not hold" if isinstance(reals, SavedStatistics) else "has no"
        raise RequestError(f"{reals.name} {lacks} labels, which would say how often each class occurs")
    if len(reals.label_counts) != classes:
        raise RequestError(f"{reals.name} has labels of {len(reals.label_counts)} classes, the model of {classes}")
    return LabelDistribution(counts=reals.label_counts)


class DrawnImages:
    """What a model draws for seeds 0, 1, ..., `count` - 1, on the device that its generator is on.

    A seed draws its class as well, by `labels`, which a model without classes does not read. Images are drawn
    in passes that neither the judges' batch nor the span asked for moves, so that an image is the same to the
    bit. Raises RequestError.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str,
        count: int,
        side: int | None = None,
        psi: float = 1.0,
        labels: LabelDistribution = UNIFORM,
    ) -> None:
        if count < 1:
            raise RequestError(f"{count} images cannot be judged; give a count of 1 or more")
        if not (side or checkpoint.resolution):
            raise RequestError(f"{name} does not say its resolution; give --res")
        if labels.counts and len(labels.counts) != checkpoint.generator.config.classes:
            problem = f"counts of {len(labels.counts)} classes, {name} has {checkpoint.generator.config.classes}"
            raise RequestError(f"{problem}; give one count a class of the model")
        self.checkpoint = checkpoint
        self.name = name
        self.count = count
        self.side = side or checkpoint.resolution
        self.psi = psi
        self.labels = labels

    def __len__(self) -> int:
        return self.count

    @property
    def sha256(self) -> str:
        return self.checkpoint.sha256

    @property
    def facts(self) -> dict[str, Any]:
        labels = {"labels": "none"}
        if self.checkpoint.generator.config.classes:
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
        size = max(pixels_per_batch(self.checkpoint.generator.mapping.w_avg.device) // self.side**2, 1)
        for start in range(span.start // size * size, span.stop, size):
            seeds = range(start, min(start + size, self.count))
            w = w_of(self.checkpoint, seeds, psi=self.psi, labels=self.labels, classes_of=seeds)
            drawn = quantize(next(check_finite([paint(self.checkpoint, w, side=self.side)])))
            yield drawn[max(span.start - start, 0) : span.stop - start]
