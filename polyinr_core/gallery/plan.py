"""What a gallery shows of a model: which seeds, classes, psi, levels and sizes; bounded, whatever the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from polyinr_core.errors import RequestError
from polyinr_core.latents.naming import parse_seeds
from polyinr_core.models.config import GeneratorConfig

SEEDS = "0-15"
PSI = "0,0.2,0.4,0.6,0.8,1,1.2"
FRAMES = 48
MIN_SIDE, MAX_SIDE = 8, 1024
SMALL, LARGE = 128, 256  # pixels: images have the training resolution, but no less and no more than these
UNKNOWN = 128  # pixels, of a model that does not say its resolution
MAX_SEEDS, MAX_PSI, MAX_FRAMES = 128, 24, 480
MAX_CLASSES, MAX_LEVELS = 16, 12
IN_CLASS, SWEPT, MIXED, STOPS, HEATED, BEYOND = 6, 8, 4, 4, 3, 6  # of the seeds, in each part
IN_PAGE = 16  # of the seeds, whose maps the page carries
MARGIN = 0.25
SIZES = (64, 128, 256, 512, 1024)
OPENED = 256  # pixels of the seeds' images, which open


@dataclass(frozen=True)
class Plan:
    """What is shown. `classes` are those of the first part, of `of_classes`; all others draw the seeds' own."""

    seeds: tuple[int, ...]
    psis: tuple[float, ...]
    side: int
    frames: int
    label: int | None
    classes: tuple[int, ...]
    of_classes: int
    levels: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]

    @property
    def in_class(self) -> tuple[int, ...]:
        return self.seeds[:IN_CLASS]

    @property
    def swept(self) -> tuple[int, ...]:
        """The seeds that are drawn at every psi."""
        return self.seeds[:SWEPT]

    @property
    def mixed(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sources and targets, empty where there is nothing to mix."""
        half = min(MIXED, len(self.seeds) // 2) if self.groups else 0
        return self.seeds[:half], self.seeds[half : 2 * half]

    @property
    def stops(self) -> tuple[int, ...]:
        """The images that the walk leads over, empty where there is one alone."""
        stops = self.seeds[: min(STOPS, self.frames)]
        return stops if len(stops) > 1 else ()

    @property
    def heated(self) -> tuple[int, ...]:
        return self.seeds[:HEATED]

    @property
    def beyond(self) -> tuple[int, ...]:
        return self.seeds[:BEYOND]

    @property
    def in_page(self) -> tuple[int, ...]:
        """The seeds that the page can draw by itself."""
        return self.seeds[:IN_PAGE]

    @property
    def opened_side(self) -> int:
        return max(self.side, OPENED)

    @property
    def beyond_side(self) -> int:
        return round(self.side * (1 + 2 * MARGIN))


def plan_for(
    config: GeneratorConfig,
    resolution: int,
    *,
    seeds: str = SEEDS,
    psis: str = PSI,
    side: int | None = None,
    frames: int = FRAMES,
    label: int | None = None,
) -> Plan:
    """Return what is shown of a model of that resolution, 0 where it is unknown. Raises RequestError."""
    chosen = parse_seeds(seeds)
    if len(chosen) > MAX_SEEDS:
        raise RequestError(f"--seeds names {len(chosen)} images; a page shows {MAX_SEEDS} at most")
    if side is None:
        side = min(max(resolution, SMALL), LARGE) if resolution else UNKNOWN
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise RequestError(f"--res {side} is outside {MIN_SIDE}-{MAX_SIDE}")
    if not 2 <= frames <= MAX_FRAMES:
        raise RequestError(f"--frames {frames} is outside 2-{MAX_FRAMES}")
    classes = spread(range(config.classes), MAX_CLASSES) if label is None else (label,)
    return Plan(
        seeds=tuple(chosen),
        psis=parse_psis(psis),
        side=side,
        frames=frames,
        label=label,
        classes=classes,
        of_classes=config.classes,
        levels=spread(range(config.levels), MAX_LEVELS),
        groups=groups_of(config.levels),
    )


def parse_psis(text: str) -> tuple[float, ...]:
    """Read "0,0.5,1" as rising values of psi. Raises RequestError."""
    try:
        values = {float(part) for part in text.split(",")}
    except ValueError:
        values = set()
    if not values or not all(abs(value) <= 100 for value in values):
        raise RequestError(f"--psi {text!r} is not understood; write values such as 0,0.5,1, none beyond 100")
    if len(values) > MAX_PSI:
        raise RequestError(f"--psi names {len(values)} values; the slider has {MAX_PSI} at most")
    return tuple(sorted(value + 0.0 for value in values))  # -0.0 becomes 0.0


def psi_text(psi: float) -> str:
    """Write a psi as a person would: 1, 0.5."""
    return repr(psi).removesuffix(".0")


def spread(items: Sequence[int], most: int) -> tuple[int, ...]:
    """Return all items, or so many of them from the first to the last, evenly."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[i * (len(items) - 1) // (most - 1)] for i in range(most))


def groups_of(levels: int) -> tuple[tuple[int, ...], ...]:
    """Return the groups of levels to mix: the last two, as in the paper's Figure 6, and the others in halves.

    A model of one level has nothing to mix.
    """
    if levels < 2:
        return ()
    last = levels - min(2, levels // 2)
    cuts = sorted({0, (last + 1) // 2, last, levels})
    return tuple(tuple(range(low, high)) for low, high in pairwise(cuts))
