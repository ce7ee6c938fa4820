"""The plan of a gallery: which seeds, classes, psi values, levels and sizes it shows of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from polyinr_core.errors import RequestError
from polyinr_core.latents.latents import check_psi
from polyinr_core.models.config import GeneratorConfig

DEFAULT_SEEDS = tuple(range(16))
DEFAULT_PSI = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2)
DEFAULT_FRAMES = 48
MIN_RESOLUTION, MAX_RESOLUTION = 8, 1024
MIN_DEFAULT_RESOLUTION, MAX_DEFAULT_RESOLUTION = 128, 256
ENLARGED_RESOLUTION = 256  # of the seeds' images, which open enlarged
SIZES = (64, 128, 256, 512, 1024)
MARGIN = 0.25  # of the extrapolation, in widths of the trained window
MAX_SEEDS, MAX_PSI_VALUES, MAX_FRAMES = 128, 24, 480
MAX_CLASSES, MAX_LEVELS = 16, 12
CLASS_SEEDS, PSI_SEEDS, MIXING_SEEDS, KEYFRAMES, HEATMAP_SEEDS, EXTRAPOLATION_SEEDS = 6, 8, 4, 4, 3, 6
LIVE_SEEDS = 16  # whose affine parameters are part of the page


@dataclass(frozen=True)
class GalleryPlan:
    """What a gallery shows. `classes` are those of the classes section; elsewhere seeds draw their class.

    `resolution` is that of most images in pixels, `mixing_groups` are the groups of levels that are mixed.
    """

    seeds: tuple[int, ...]
    psi_values: tuple[float, ...]
    resolution: int
    frames: int
    label: int | None
    classes: tuple[int, ...]
    levels: tuple[int, ...]
    mixing_groups: tuple[tuple[int, ...], ...]

    @property
    def class_seeds(self) -> tuple[int, ...]:
        return self.seeds[:CLASS_SEEDS]

    @property
    def mixing_seeds(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sources and targets, both empty if there is nothing to mix."""
        count = min(MIXING_SEEDS, len(self.seeds) // 2) if self.mixing_groups else 0
        return self.seeds[:count], self.seeds[count : 2 * count]

    @property
    def keyframes(self) -> tuple[int, ...]:
        """The seeds of the interpolation, empty if there is only one."""
        keyframes = self.seeds[: min(KEYFRAMES, self.frames)]
        return keyframes if len(keyframes) > 1 else ()

    @property
    def enlarged_resolution(self) -> int:
        return max(self.resolution, ENLARGED_RESOLUTION)

    @property
    def extrapolation_resolution(self) -> int:
        return round(self.resolution * (1 + 2 * MARGIN))


def plan_gallery(
    config: GeneratorConfig,
    trained_resolution: int,
    *,
    seeds: Sequence[int] = DEFAULT_SEEDS,
    psi_values: Sequence[float] = DEFAULT_PSI,
    resolution: int | None = None,
    frames: int = DEFAULT_FRAMES,
    label: int | None = None,
) -> GalleryPlan:
    """Plan the gallery of a model by the arguments of `build_gallery`. Raises RequestError.

    `trained_resolution` is the training resolution of the model, 0 if unknown.
    """
    if not 1 <= len(seeds) <= MAX_SEEDS:
        raise RequestError(f"--seeds names {len(seeds)} images; a gallery shows 1 to {MAX_SEEDS}")
    if resolution is None:
        resolution = min(max(trained_resolution, MIN_DEFAULT_RESOLUTION), MAX_DEFAULT_RESOLUTION)
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise RequestError(f"--res {resolution} is out of range {MIN_RESOLUTION}-{MAX_RESOLUTION}")
    if not 2 <= frames <= MAX_FRAMES:
        raise RequestError(f"--frames {frames} is out of range 2-{MAX_FRAMES}")
    values = {value + 0.0 for value in psi_values}  # -0.0 becomes 0.0
    if not 1 <= len(values) <= MAX_PSI_VALUES:
        raise RequestError(f"--psi names {len(values)} values; a gallery shows 1 to {MAX_PSI_VALUES}")
    for value in values:
        check_psi(value)
    return GalleryPlan(
        seeds=tuple(seeds),
        psi_values=tuple(sorted(values)),
        resolution=resolution,
        frames=frames,
        label=label,
        classes=evenly_spaced(range(config.classes), MAX_CLASSES) if label is None else (label,),
        levels=evenly_spaced(range(config.levels), MAX_LEVELS),
        mixing_groups=mixing_groups(config.levels),
    )


def parse_psi_values(text: str) -> tuple[float, ...]:
    """Parse "0,0.5,1". Raises RequestError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise RequestError(f"--psi {text!r} is not a list of numbers; write for instance 0,0.5,1") from error


def format_psi(psi: float) -> str:
    """Format a psi without a trailing ".0": 1, 0.5."""
    return repr(psi).removesuffix(".0")


def evenly_spaced(items: Sequence[int], max_count: int) -> tuple[int, ...]:
    """Return all items, or `max_count` evenly spaced ones that include the first and the last."""
    if len(items) <= max_count:
        return tuple(items)
    return tuple(items[i * (len(items) - 1) // (max_count - 1)] for i in range(max_count))


def mixing_groups(levels: int) -> tuple[tuple[int, ...], ...]:
    """Return groups of levels to mix: the last two, as in the paper's Figure 6, and the others in halves.

    Empty for a model of one level.
    """
    if levels < 2:
        return ()
    last = levels - min(2, levels // 2)
    cuts = sorted({0, (last + 1) // 2, last, levels})
    return tuple(tuple(range(low, high)) for low, high in pairwise(cuts))
