"""Warnings about a run that goes wrong: saturation, collapse, overfitting, a rising distance, slow metrics."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from polyinr_core.images.grid import Pixels
from polyinr_core.latents.latents import draw_z
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.strict_json import are_texts, is_number, is_whole

# A warning is given at *_BAD, and given again only after the number has been at *_GOOD.
# Signs: the running mean of (real - fake) / 2 with a half-life of 1 kimg. Over docs/training-run/log.jsonl, an
# hour without trouble, it stays below 0.91 after 2 kimg; over first-attempt.jsonl, which collapsed between 12 and 16
# kimg, it exceeds 0.94 at 13. That run's distance to the data rose from 504 to 565 (1.12 times) and 795 (1.58).
SIGN_HALF_LIFE = 1000  # images
SIGN_FROM = 2000  # images of a stage: a new discriminator easily separates a new generator's images
SIGN_BAD, SIGN_GOOD = 0.94, 0.9
# Diversity: over the sample grids of that hour and of five shorter runs it was between 0.6 and 1 of its best, and
# between 0.4 and 0.9 of the data's; fewer than 16 shapes among 32 samples bring it near 0. It does not see the
# collapse of the first attempt, to a few shapes in many colors: signs and distance do.
DIVERSITY_OF_BEST, DIVERSITY_OF_DATA, DIVERSITY_MARGIN = 0.4, 0.2, 1.25
DIVERSITY_FROM = 20000  # images of a stage: with the release's start values all images are one color for a while
DIVERSITY_RESOLUTION = 16  # pixels: shapes and colors, no texture
# Overfitting: StyleGAN2-ADA's r_v, 0 for a discriminator that rates held-out images as training images, 1 if as fakes,
# from running means of the logits, as one batch's are noise. The `tiny` preset at 32 px, against 300 images that its
# discriminator never saw: 0.02 to 0.05 over 20 epochs of 150 images, 0.16 to 0.22 over 30 to 120 epochs of 16.
OVERFITTING_BAD, OVERFITTING_GOOD = 0.15, 0.1
LOGITS_FROM, LOGITS_WINDOW = 8, 32  # measurements
# what adaptive augmentation holds r_v at, or the mean sign where no images are held out: below the warnings
OVERFITTING_TARGET, SIGN_TARGET = 0.05, 0.8
MIN_LOGIT_GAP = 0.5  # between training images and fakes; the margin of the hinge loss is 1
DISTANCE_BAD, DISTANCE_GOOD = 1.25, 1.1  # of the stage's best
METRIC_TIME_BAD, METRIC_TIME_GOOD = 0.1, 0.08  # of the time
METRIC_TIME_FROM = 60.0  # seconds of training


@dataclass
class Diagnostics:
    """Running statistics of a run, and the warnings that follow from them.

    Every `update_*` method returns the warning that is due, or None. A warning is given once a stage, and again only
    after its number has recovered. All but the times is saved with the training state, so that a resumed run warns as
    an uninterrupted one.
    """

    raised: list[str] = field(default_factory=list)
    sign: float = 0.0
    sign_weight: float = 0.0
    best_diversity: float = 0.0  # relative to the data's
    logits: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # training images, held-out images, fakes
    logits_count: int = 0
    metric: str = ""  # whose distance is the best
    best_distance: float | None = None
    measured: bool = field(default=False, metadata={"saved": False})
    metric_seconds: float = field(default=0.0, metadata={"saved": False})
    training_seconds: float = field(default=0.0, metadata={"saved": False})

    def start_stage(self) -> None:
        """Reset all but the times: a stage has a discriminator of its own."""
        initial = Diagnostics()
        for name in self.to_dict():
            setattr(self, name, getattr(initial, name))

    def update_signs(self, *, fake: float, real: float, images: int, stage_images: int) -> str | None:
        """Add the mean signs of the discriminator's logits over `images` images, after `stage_images` of the stage."""
        sign = (real - fake) / 2
        if not math.isfinite(sign):
            return None
        decay = 0.5 ** (images / SIGN_HALF_LIFE)
        self.sign = decay * self.sign + (1 - decay) * sign
        self.sign_weight = decay * self.sign_weight + (1 - decay)
        if stage_images < SIGN_FROM or not self.sign_weight:
            return None
        mean = self.sign / self.sign_weight
        return self.warn_once(
            "saturation",
            bad=mean > SIGN_BAD,
            good=mean < SIGN_GOOD,
            text=lambda: (
                f"the discriminator is saturated (mean sign {mean:.2f} of 1), so the generator learns little: start "
                "from an earlier checkpoint with --init-from and a lower learning rate of the discriminator, as "
                "--stages 32:200:d_lr=5e-5, or a larger --batch"
            ),
        )

    def update_diversity(self, *, samples: float, data: float, stage_images: int) -> str | None:
        """Add the `diversity` of the averaged generator's samples, and that of as many images of the data."""
        if not (math.isfinite(samples) and data > 0):
            return None
        ratio = samples / data
        self.best_diversity = max(self.best_diversity, min(ratio, 1.0))  # above 1 it is an untrained generator's noise
        dropped = ratio < DIVERSITY_OF_BEST * self.best_diversity
        low = ratio < DIVERSITY_OF_DATA and stage_images >= DIVERSITY_FROM
        recovered = ratio > DIVERSITY_MARGIN * max(DIVERSITY_OF_BEST * self.best_diversity, DIVERSITY_OF_DATA)
        return self.warn_once(
            "collapse",
            bad=dropped or low,
            good=recovered,
            text=lambda: (
                f"the samples are alike: their diversity is {ratio:.2f} of the data's, and was "
                f"{self.best_diversity:.2f}; the generator may be collapsing (see samples/progress.png): start from an "
                "earlier checkpoint with --init-from and lower learning rates, as "
                "--stages 32:200:g_lr=1e-4:d_lr=5e-5, or a larger --batch"
            ),
        )

    def update_logits(self, *, training: float, held_out: float, fakes: float) -> str | None:
        """Add the discriminator's mean logits of training images, of held-out images, and of fakes."""
        values = (training, held_out, fakes)
        if not all(map(math.isfinite, values)):
            return None
        self.logits_count += 1
        weight = 1 / min(self.logits_count, LOGITS_WINDOW)
        self.logits = [mean + weight * (value - mean) for mean, value in zip(self.logits, values, strict=True)]
        r_v = overfitting(*self.logits)
        return self.warn_once(
            "overfitting",
            bad=r_v > OVERFITTING_BAD and self.logits_count >= LOGITS_FROM,
            good=r_v < OVERFITTING_GOOD,
            text=lambda: (
                f"the discriminator is overfitting (r_v = {r_v:.2f}): add images, or use --mirror; an earlier "
                "checkpoint may be the better model"
            ),
        )

    def augment_sign(self) -> int:
        """Return 1 if the discriminator overfits, so that adaptive augmentation must grow, else -1.

        Measured by r_v on held-out images; where there are none, by the mean sign of its logits.
        """
        if self.logits_count:
            return 1 if overfitting(*self.logits) > OVERFITTING_TARGET else -1
        return 1 if self.sign_weight and self.sign / self.sign_weight > SIGN_TARGET else -1

    def update_distance(self, name: str, value: float) -> str | None:
        """Add a Fréchet distance to the data. Kernel distances approach 0, where a ratio means nothing."""
        if not name.startswith(("fd", "fid")) or not math.isfinite(value):
            return None
        if name != self.metric:  # a resumed run may use another metric
            self.metric, self.best_distance = name, None
        best = self.best_distance = value if self.best_distance is None else min(self.best_distance, value)
        return self.warn_once(
            "distance",
            bad=value > DISTANCE_BAD * best,
            good=value < DISTANCE_GOOD * best,
            text=lambda: (
                f"{name} has risen to {value:.4g} from {best:.4g}, the best of this stage: the training may be "
                "diverging; checkpoints/best.safetensors is the better model, to start from with --init-from"
            ),
        )

    def add_training_time(self, seconds: float) -> None:
        """Add the time of an iteration."""
        self.training_seconds += seconds

    def add_metric_time(self, seconds: float) -> str | None:
        """Add the time of a measurement; the first one, which reads the reals as well, starts the count."""
        if not self.measured:
            self.measured, self.training_seconds = True, 0.0
            return None
        self.metric_seconds += seconds
        fraction = self.metric_seconds / max(self.metric_seconds + self.training_seconds, 1e-9)
        return self.warn_once(
            "metric_time",
            bad=fraction > METRIC_TIME_BAD and self.training_seconds > METRIC_TIME_FROM,
            good=fraction < METRIC_TIME_GOOD,
            text=lambda: f"metrics take {fraction:.0%} of the time: increase --metric-every",
        )

    def warn_once(self, name: str, *, bad: bool, good: bool, text: Callable[[], str]) -> str | None:
        """Return the text if the number has just become bad; it must become good before it is returned again."""
        if bad and name not in self.raised:
            self.raised.append(name)
            return text()
        if good and name in self.raised:
            self.raised.remove(name)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return what a training state saves, as plain JSON values."""
        saved = {entry.name for entry in fields(self) if entry.metadata.get("saved", True)}
        timeless = {"raised": [name for name in self.raised if name != "metric_time"]}
        return {name: value for name, value in asdict(self).items() if name in saved} | timeless

    @classmethod
    def from_dict(cls, counters: dict[str, Any]) -> Self:
        """Read what `to_dict` returned; a missing or damaged field starts again."""
        intact: dict[str, bool] = {}
        for name, value in counters.items() if isinstance(counters, dict) else ():
            if name == "raised":
                intact[name] = are_texts(value)
            elif name == "logits":
                intact[name] = isinstance(value, list) and len(value) == 3 and all(map(is_number, value))
            elif name == "metric":
                intact[name] = isinstance(value, str)
            elif name == "logits_count":
                intact[name] = is_whole(value)
            elif name in ("sign", "sign_weight", "best_diversity", "best_distance"):
                intact[name] = is_number(value) or (value is None and name == "best_distance")
        return cls(**{name: counters[name] for name, is_intact in intact.items() if is_intact})


def diversity(images: Pixels) -> float:
    """Return the mean over images [N, r, r, 3] of the distance to the most similar other one, 0 to 2.

    The distance is the root mean square over the colors in [-1, 1], reduced to 16 px by area. The nearest image, unlike
    the mean over all pairs, reveals a generator with a few shapes left, each in a color or place of its own: those are
    far from each other, but each occurs many times.
    """
    if len(images) < 2:
        return 0.0
    size = (DIVERSITY_RESOLUTION, DIVERSITY_RESOLUTION)
    small = [Image.fromarray(image).resize(size, Image.Resampling.BOX) for image in images]
    flat = np.stack([np.asarray(image, dtype=np.float64).ravel() for image in small]) / 127.5
    distances = squareform(pdist(flat)) / np.sqrt(flat.shape[1])  # [N, N]
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


def overfitting(training: float, held_out: float, fakes: float) -> float:
    """Return r_v = (training - held_out) / (training - fakes) of mean logits; 0 where the gap is too small.

    StyleGAN2-ADA (Karras et al. 2020), Eq. 1.
    """
    gap = training - fakes
    return (training - held_out) / gap if gap >= MIN_LOGIT_GAP else 0.0


CLASS_SHARE_SEEDS, CLASS_SHARE_CLASSES = 32, 64


@torch.no_grad()
def class_share(generator: Generator) -> float:
    """Return the part of w's variance that the class explains at fixed z, 0 to 1: near 0 classes look alike.

    Over 32 seeds and, evenly spread, up to 64 classes.
    """
    classes = generator.config.classes
    label = torch.linspace(0, classes - 1, min(classes, CLASS_SHARE_CLASSES)).long()
    z = draw_z(range(CLASS_SHARE_SEEDS), generator.config.z_dim).to(generator.mapping.w_avg)
    rows = z.repeat_interleave(len(label), dim=0), label.repeat(len(z)).to(z.device)
    w = generator.mapping(*rows).unflatten(0, (len(z), len(label)))  # [seeds, classes, w]
    within = w.var(dim=1, correction=0).mean(dim=0).sum()
    total = w.flatten(0, 1).var(dim=0, correction=0).sum()
    return float(within / total) if total > 0 else 0.0
