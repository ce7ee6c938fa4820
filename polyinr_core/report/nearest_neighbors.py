"""What a model draws beside the reals that are most like it: copies, and how real each image looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyinr_core.errors import FileError
from polyinr_core.evaluation.set_metrics import Settings, check_sizes, check_variety, seen_of
from polyinr_core.images.grid import GAP, Pixels, caption, make_grid
from polyinr_core.metrics.extractors import FeatureNetwork
from polyinr_core.metrics.feature_pass import Images, Progress, look
from polyinr_core.metrics.feature_statistics import Need
from polyinr_core.metrics.prdc import manifold, nearest, realism
from polyinr_core.metrics.registry import NEIGHBOR, Sense

SHOWN = 5  # reals beside a drawn image
NEAR = 0.1  # the share of the reals that have another as near as "near" is


@dataclass(frozen=True)
class Likeness:
    """Drawn images [N] among reals [M], by the distances of their features; all on the CPU.

    `distances` and `numbers` [N, k] are of each drawn image's nearest reals, the nearest first; `gaps` [M] is
    how far each real is from the nearest other; `realism` [N] is above 1 where an image lies among the reals.
    """

    distances: Tensor
    numbers: Tensor
    gaps: Tensor
    realism: Tensor

    @property
    def near(self) -> float:
        """The distance within which a tenth of the reals have another real."""
        return float(self.gaps.quantile(NEAR))

    @property
    def share_near(self) -> float:
        """The share of the drawn images that are as near to a real; far above a tenth speaks of copying."""
        return float((self.distances[:, 0] <= self.near).float().mean())

    @property
    def share_among(self) -> float:
        """The share of the drawn images that lie among the reals."""
        return float((self.realism >= 1).float().mean())

    def nearest_of_all(self, count: int) -> list[int]:
        """Return the seeds whose images are nearest to a real, the nearest first."""
        order: list[int] = self.distances[:, 0].argsort(stable=True)[:count].tolist()
        return order

    def ranked(self, count: int) -> dict[str, list[int]]:
        """Return the seeds that look most real, middling and least real, `count` of each or a third of all."""
        order: list[int] = self.realism.argsort(descending=True, stable=True).tolist()
        count = max(1, min(count, len(order) // 3))
        middle = (len(order) - count) // 2
        return {"best": order[:count], "middle": order[middle : middle + count], "worst": order[-count:]}


def likeness(
    reals: Images,
    fakes: Images,
    network: FeatureNetwork,
    *,
    device: torch.device,
    settings: Settings,
    progress: Callable[[str], Progress] | None = None,
) -> Likeness:
    """Look at both through lite2 and compare; `progress` makes a callback for a description.

    Neighbors are Euclidean in the pooled features. Realism: Kynkäänniemi et al. (2019), equation 6, balls to
    neighbor 3. Raises RequestError for images of different sizes, FileError for too few reals and for reals
    that are all alike, PolyinrError.
    """
    check_sizes(reals, fakes)
    if len(reals) <= NEIGHBOR:
        raise FileError(reals.name, f"holds {len(reals)} images; neighbors are found among {NEIGHBOR + 1} or more")
    moves = progress or (lambda description: lambda done, total: None)
    sense: Sense = ("lite2", "pooled")
    needs, networks = {sense: Need(features=True)}, {"lite2": network}
    seen = seen_of(reals, needs, networks, settings, device=device, progress=moves("reals"))
    check_variety("reals", reals, seen, None)
    drawn = look(fakes, networks, needs, batch=settings.batch, device=device, progress=moves("fakes"))
    features = [part[sense].features for part in (seen, drawn)]
    assert features[0] is not None
    assert features[1] is not None
    ground = manifold(features[0], k=NEIGHBOR)
    distances, numbers = nearest(features[1], features[0], min(SHOWN, len(reals)))
    return Likeness(
        distances=distances.cpu(),
        numbers=numbers.cpu(),
        gaps=ground.radii(1).cpu(),
        realism=realism(features[1], ground, k=NEIGHBOR).cpu(),
    )


COLUMNS = 8
SIDE = 96  # pixels that an image has at least, so that its caption can be read
LINE = 14
TITLE = 22


def realism_sheet(groups: Mapping[str, Sequence[tuple[Pixels, str]]]) -> Pixels:
    """Set groups of images [r, r, 3], each with its caption below, under one another: [H, W, 3].

    Every image is enlarged by a whole factor, by repeating pixels, to SIDE or more.
    """
    blocks = [block(title, images) for title, images in groups.items()]
    width = max(part.shape[1] for part in blocks)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0)), constant_values=255) for part in blocks]
    )


def block(title: str, images: Sequence[tuple[Pixels, str]]) -> Pixels:
    """Return one group: its title, and its images in rows."""
    cells = []
    for pixels, words in images:
        factor = -(-SIDE // len(pixels))
        large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
        cells.append(np.concatenate([large, caption(words, width=large.shape[1], height=LINE)]))
    rows = make_grid(np.stack(cells), COLUMNS)
    heading = caption(title, width=max(rows.shape[1], COLUMNS * SIDE), height=TITLE)
    lines = np.pad(rows, ((GAP, GAP), (0, heading.shape[1] - rows.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([heading, lines])
