"""The distances by name: which network looks, at how many pictures, and what is compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Sight:
    """How many pictures a network is shown while training: at most so many of each kind (None: all there are).

    With `balanced`, no more fakes than reals.
    """

    reals: int | None
    fakes: int
    balanced: bool


@dataclass(frozen=True)
class Metric:
    """A distance: in whose features, and of what; smaller is better."""

    network: Literal["lite2", "inception"]
    distance: Literal["frechet", "kernel"]
    unbiased: bool = True  # covariances by N - 1, otherwise by N


SIGHTS = {
    "lite2": Sight(reals=10_000, fakes=2_000, balanced=True),
    "inception": Sight(reals=None, fakes=50_000, balanced=False),
}
METRICS = {
    "fd-lite2": Metric("lite2", "frechet"),
    "kd-lite2": Metric("lite2", "kernel"),
    "fid": Metric("inception", "frechet", unbiased=False),  # as StyleGAN-XL: 50k fakes, all reals, no mirror
}


def networks_of(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the networks that these distances look through, each once."""
    return tuple(dict.fromkeys(METRICS[name].network for name in metrics))
