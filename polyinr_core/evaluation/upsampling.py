"""Images enlarged before a network looks, as people do who do not draw larger: paper, table 3."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from polyinr_core.errors import RequestError
from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_pass import Progress
from polyinr_core.metrics.feature_statistics import Need, Seen
from polyinr_core.metrics.registry import Metric, Sense
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext

from .generated_images import DrawnImages
from .set_metrics import Row, Settings, figures_of, seen_of

Filter = Literal["nearest", "bilinear", "bicubic"]
FILTERS: tuple[Filter, ...] = get_args(Filter)


class Enlarging:
    """A network that sees images, uint8 [N, 3, H, W], enlarged by Pillow to `side` pixels squared."""

    def __init__(self, network: FeatureNetwork, filter: Filter, *, side: int) -> None:
        self.network = network
        self.filter = filter
        self.side = side
        self.dim = network.dim
        self.name = f"{network.name}/{filter}"
        self.sha256 = network.sha256

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.network(enlarge(pixels, self.side, self.filter))

    def to(self, device: torch.device) -> "Enlarging":
        return Enlarging(self.network.to(device), self.filter, side=self.side)


def enlarge(pixels: Tensor, side: int, filter: Filter) -> Tensor:
    """Enlarge 8-bit images [N, 3, H, W] to [N, 3, side, side], on the same device, by Pillow's filter."""
    how = Image.Resampling[filter.upper()]
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    larger = [np.asarray(Image.fromarray(image).resize((side, side), how)) for image in images]
    return torch.from_numpy(np.stack(larger)).permute(0, 3, 1, 2).to(pixels.device)


def drawn_at_once(name: str) -> str:
    """Return what the distance of images drawn at the full size is called; it is taken as any other."""
    return f"{name}/drawn"


def small_of(large: DrawnImages) -> DrawnImages:
    """Return the same images at the training resolution. Raises RequestError if that is not smaller."""
    trained = large.checkpoint.resolution
    if not trained:
        raise RequestError(f"{large.name} does not say its resolution: upsampling has nothing to start from")
    if trained >= large.side:
        raise RequestError(
            f"upsampling goes from the training resolution, {trained} px, to a larger one; {large.side} px are "
            "asked for: give --res above it and reals of that size"
        )
    return DrawnImages(
        large.checkpoint, name=large.name, count=large.count, side=trained, psi=large.psi, labels=large.labels
    )


def enlarged_rows(
    metrics: Mapping[str, Metric],
    large: DrawnImages,
    reals: Mapping[Sense, Seen],
    networks: Mapping[str, FeatureNetwork],
    settings: Settings,
    *,
    device: torch.device,
    progress: Progress,
    ranks: DistributedContext = SINGLE_PROCESS,
) -> dict[str, Row]:
    """Return the distances of enlarged images, as NAME/nearest and so on; every rank must call it.

    The images are drawn once, at the training resolution, for all filters and `metrics`. `reals` is what was
    seen of the reals at the size of `large`; only the leading rank needs it, and has rows. Paper, table 3.
    Raises RequestError, PolyinrError.
    """
    small = small_of(large)
    seers = {
        (metric.network, filter): Enlarging(networks[metric.network], filter, side=large.side)
        for metric in metrics.values()
        for filter in FILTERS
    }
    need = Need(statistics=True, features=settings.bootstrap > 0)
    seen = seen_of(
        small,
        {(seer.name, "pooled"): need for seer in seers.values()},
        {seer.name: seer for seer in seers.values()},
        settings,
        device=device,
        progress=progress,
        ranks=ranks,
    )
    rows: dict[str, Row] = {}
    for name, metric in metrics.items() if ranks.is_main else ():
        for filter in FILTERS:
            fakes = seen[seers[metric.network, filter].name, "pooled"]
            rows |= figures_of(f"{name}/{filter}", metric, reals[metric.sense], fakes, settings.bootstrap)
    return rows
