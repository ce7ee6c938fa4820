"""What judges look at while training: which distances there are, in how many pictures of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics.rules import metrics_named
from ..metrics.rules import networks_of as networks_of_metrics


@dataclass(frozen=True)
class Sight:
    """How many pictures a network is shown while training: at most so many of each kind (None: all there are).

    With `balanced`, no more fakes than reals.
    """

    reals: int | None
    fakes: int
    balanced: bool


SIGHTS = {
    "lite2": Sight(reals=10_000, fakes=2_000, balanced=True),
    "inception": Sight(reals=None, fakes=50_000, balanced=False),  # as StyleGAN-XL: 50k fakes, all reals
}
DISTANCES = metrics_named(("fd-lite2", "kd-lite2", "fid"))  # by which a run is judged; smaller is better


def networks_of(distances: Sequence[str]) -> tuple[str, ...]:
    """Return the networks that these distances look through, each once."""
    return networks_of_metrics(DISTANCES[name] for name in distances)
