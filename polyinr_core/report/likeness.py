"""What a model draws beside the reals that are most like it: copies, and how real each picture looks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import FileError
from ..evaluation.inputs import Pictures
from ..evaluation.looking import Progress, look
from ..evaluation.measure import Settings, check_sizes, check_variety, seen_of
from ..evaluation.seen import Need
from ..metrics.neighbours import manifold, nearest, realism
from ..metrics.networks import FeatureNetwork
from ..metrics.rules import NEIGHBOUR, Sense

SHOWN = 5  # reals beside a drawn picture
NEAR = 0.1  # the share of the reals that have another as near as "near" is


@dataclass(frozen=True)
class Likeness:
    """Drawn pictures [N] among reals [M], by the distances of their features; all on the CPU.

    `distances` and `numbers` [N, k] are of each drawn picture's nearest reals, the nearest first; `gaps` [M] is
    how far each real is from the nearest other; `realism` [N] is above 1 where a picture lies among the reals.
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
        """The share of the drawn pictures that are as near to a real; far above a tenth speaks of copying."""
        return float((self.distances[:, 0] <= self.near).float().mean())

    @property
    def share_among(self) -> float:
        """The share of the drawn pictures that lie among the reals."""
        return float((self.realism >= 1).float().mean())

    def nearest_of_all(self, count: int) -> list[int]:
        """Return the seeds whose pictures are nearest to a real, the nearest first."""
        order: list[int] = self.distances[:, 0].argsort(stable=True)[:count].tolist()
        return order

    def ranked(self, count: int) -> dict[str, list[int]]:
        """Return the seeds that look most real, middling and least real, `count` of each or a third of all."""
        order: list[int] = self.realism.argsort(descending=True, stable=True).tolist()
        count = max(1, min(count, len(order) // 3))
        middle = (len(order) - count) // 2
        return {"best": order[:count], "middle": order[middle : middle + count], "worst": order[-count:]}


def likeness(
    reals: Pictures,
    fakes: Pictures,
    network: FeatureNetwork,
    *,
    device: torch.device,
    settings: Settings,
    progress: Callable[[str], Progress] | None = None,
) -> Likeness:
    """Look at both through lite2 and compare; `progress` makes a callback for a description.

    Neighbours are Euclidean in the pooled features. Realism: Kynkäänniemi et al. (2019), equation 6, balls to
    neighbour 3. Raises RequestError for pictures of different sizes, FileError for too few reals and for reals
    that are all alike, PolyinrError.
    """
    check_sizes(reals, fakes)
    if len(reals) <= NEIGHBOUR:
        raise FileError(
            reals.name, f"holds {len(reals)} pictures; neighbours are found among {NEIGHBOUR + 1} or more"
        )
    moves = progress or (lambda description: lambda done, total: None)
    sense: Sense = ("lite2", "pooled")
    needs, networks = {sense: Need(features=True)}, {"lite2": network}
    seen = seen_of(reals, needs, networks, settings, device=device, progress=moves("reals"))
    check_variety("reals", reals, seen, None)
    drawn = look(fakes, networks, needs, batch=settings.batch, device=device, progress=moves("fakes"))
    features = [part[sense].features for part in (seen, drawn)]
    assert features[0] is not None
    assert features[1] is not None
    ground = manifold(features[0], k=NEIGHBOUR)
    distances, numbers = nearest(features[1], features[0], min(SHOWN, len(reals)))
    return Likeness(
        distances=distances.cpu(),
        numbers=numbers.cpu(),
        gaps=ground.radii(1).cpu(),
        realism=realism(features[1], ground, k=NEIGHBOUR).cpu(),
    )
