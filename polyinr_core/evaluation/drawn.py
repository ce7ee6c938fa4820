"""Pictures that a model draws to be judged: seeds 0, 1, ..., made in passes as they are looked at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RequestError
from ..latents.seeds import draw_labels, draw_z
from ..model import draw_rows
from ..pictures.pixels import checked, quantise
from ..snapshots.snapshot import Snapshot

CPU_PIXELS, PIXELS = 2**14, 2**17  # drawn in one pass on a CPU, elsewhere


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
        like = self.snapshot.generator.mapping.w_avg
        at_once = (CPU_PIXELS if like.device.type == "cpu" else PIXELS) // self.side**2
        size = max(at_once, 1)
        for start in range(span.start // size * size, span.stop, size):
            drawn = self._draw(range(start, min(start + size, self.count)), whole=at_once > 0)
            pixels = torch.cat([quantise(part) for part in checked([drawn])]).permute(0, 3, 1, 2)
            yield pixels[max(span.start - start, 0) : span.stop - start]

    def _draw(self, seeds: range, *, whole: bool) -> Tensor:
        """Draw [n, side, side, 3], in one product a level or, of large pictures, in bands."""
        generator, classes = self.snapshot.generator, self.snapshot.generator.config.classes
        like = generator.mapping.w_avg
        labels = None
        if classes:
            given = torch.full((len(seeds),), self.label or 0)
            labels = (draw_labels(seeds, classes) if self.label is None else given).to(like.device)
        w = generator.w(draw_z(seeds, generator.config.z_dim).to(like), labels, psi=self.psi)
        affine = generator.affine(w)
        grid = self.snapshot.grid(self.side, self.side)
        if not whole:
            bands = [torch.cat(list(draw_rows(generator.synthesis, maps, grid))) for maps in affine]
            return torch.stack(bands)
        points = grid.at(torch.arange(self.side**2, device=like.device), dtype=like.dtype)
        return generator.synthesis(affine, points).unflatten(1, (self.side, self.side))
