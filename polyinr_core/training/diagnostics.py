"""How much images differ from each other: what a collapsing generator loses."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from PIL import Image
from scipy.spatial.distance import pdist, squareform

from polyinr_core.images.grid import Pixels
from polyinr_core.runtime.strict_json import are_texts, is_number, is_whole

SIDE = 16  # pixels: shapes and colors, no texture


def spread(images: Pixels) -> float:
    """Return the mean over images [N, r, r, 3] of the distance to the one that is most like it, 0 to 2.

    The distance is the root mean square over the colors in [-1, 1], brought to 16 px by area. The nearest
    image, unlike the mean over all pairs, shows a generator that has a few shapes left, each of its own color
    or place: those are far from each other, and each is drawn many times.
    """
    if len(images) < 2:
        return 0.0
    small = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX) for image in images]
    flat = np.stack([np.asarray(image, dtype=np.float64).ravel() for image in small]) / 127.5
    distances = squareform(pdist(flat)) / np.sqrt(flat.shape[1])  # [N, N]
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).mean())


# Signs: the running mean of (real - fake) / 2 with a half-life of 1 kimg. Over docs/training-run/log.jsonl, a
# healthy hour, it stays below 0.91 after 2 kimg; over first-attempt.jsonl, which collapsed between 12 and 16, it
# passes 0.94 at 13. That run's distance to the data rose from 504 to 565 (1.12 times) and 795 (1.58).
SIGN_HALF_LIFE = 1000  # images
SIGN_FROM = 2000  # images of a stage: a new discriminator tells a new generator's images easily
SIGN_BAD, SIGN_WELL = 0.94, 0.9
# Spread: over the sheets of that healthy run and of five shorter ones it lay between 0.6 and 1 of its best, and
# between 0.4 and 0.9 of the data's; fewer than 16 shapes among 32 samples bring it near 0. What it cannot see is
# the collapse of the first attempt, to a few shapes in many colors: the signs and the distance do.
SPREAD_OF_BEST, SPREAD_OF_DATA = 0.4, 0.2
SPREAD_FROM = 20000  # images of a stage: a generator of the release's start values draws one color for a while
# Over-fitting: StyleGAN2-ADA's r_v, 0 for a discriminator that treats held-out images as its own, 1 if as drawn ones,
# from running means of the logits, as one batch's are noise. The `tiny` preset at 32 px, against 300 others that
# its discriminator never saw: 0.02 to 0.05 over 20 epochs of 150 images, 0.16 to 0.22 over 30 to 120 epochs of 16.
OVERFITTING_BAD, OVERFITTING_WELL = 0.15, 0.1
LOGITS_FROM, LOGITS_WINDOW = 8, 32  # measurements
MIN_GAP = 0.5  # between the logits of training images and drawn ones; the hinge's margin is 1
DISTANCE_BAD, DISTANCE_WELL = 1.25, 1.1  # of the stage's best
JUDGING_BAD, JUDGING_WELL = 0.1, 0.08  # of the time
JUDGING_FROM = 60.0  # seconds of training


@dataclass
class Diagnosis:
    """Hears the numbers of a run, and says in words what they mean when they are bad.

    Every method returns the warning that is due now, or None. A warning is raised once a stage, and again only
    after its number has been well in between. All but the time is kept by a state, so that a resumed run warns as
    the uninterrupted one would.
    """

    raised: list[str] = field(default_factory=list)
    sign: float = 0.0
    sign_weight: float = 0.0
    best_spread: float = 0.0  # a share of the data's
    logits: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # training, held out, drawn
    logits_count: int = 0
    metric: str = ""  # whose distance is the best
    best_distance: float | None = None
    judging: bool = field(default=False, metadata={"kept": False})
    judging_seconds: float = field(default=0.0, metadata={"kept": False})
    training_seconds: float = field(default=0.0, metadata={"kept": False})

    def begin_stage(self) -> None:
        """Forget all but the time spent: a stage has a discriminator and images of its own."""
        anew = Diagnosis()
        for name in self.to_dict():
            setattr(self, name, getattr(anew, name))

    def hear_signs(self, *, fake: float, real: float, images: int, seen: int) -> str | None:
        """Take in the mean signs of the discriminator's logits over `images` images; the stage has `seen` so many."""
        told = (real - fake) / 2
        if not math.isfinite(told):
            return None
        kept = 0.5 ** (images / SIGN_HALF_LIFE)
        self.sign = kept * self.sign + (1 - kept) * told
        self.sign_weight = kept * self.sign_weight + (1 - kept)
        if seen < SIGN_FROM or not self.sign_weight:
            return None
        mean = self.sign / self.sign_weight
        return self.raise_once(
            "saturation",
            bad=mean > SIGN_BAD,
            well=mean < SIGN_WELL,
            text=lambda: (
                f"the discriminator tells real from drawn almost without fail (mean sign {mean:.2f} of 1), "
                "so the generator learns little: go on from an earlier checkpoint with --init-from and a lower "
                "rate of the discriminator, as --stages 32:200:d_lr=5e-5, or a larger --batch"
            ),
        )

    def see_spread(self, *, samples: float, data: float, seen: int) -> str | None:
        """Take in the `spread` of the averaged generator's samples, and of as many images of the data."""
        if not (math.isfinite(samples) and data > 0):
            return None
        share = samples / data
        self.best_spread = max(self.best_spread, min(share, 1.0))  # a young generator's noise is no measure
        fallen = share < SPREAD_OF_BEST * self.best_spread
        small = share < SPREAD_OF_DATA and seen >= SPREAD_FROM
        grown = share > 1.25 * max(SPREAD_OF_BEST * self.best_spread, SPREAD_OF_DATA)
        return self.raise_once(
            "collapse",
            bad=fallen or small,
            well=grown,
            text=lambda: (
                f"the samples are alike: their spread, {share:.2f} of the data's, was {self.best_spread:.2f}; "
                "the generator may be collapsing (see samples/progress.png): go on from an earlier checkpoint "
                "with --init-from and lower rates, as --stages 32:200:g_lr=1e-4:d_lr=5e-5, or a larger --batch"
            ),
        )

    def hear_logits(self, *, training: float, held_out: float, fakes: float) -> str | None:
        """Take in the discriminator's mean logits on training images, on ones never trained on, and on drawn ones."""
        told = (training, held_out, fakes)
        if not all(map(math.isfinite, told)):
            return None
        self.logits_count += 1
        share = 1 / min(self.logits_count, LOGITS_WINDOW)
        self.logits = [mean + share * (value - mean) for mean, value in zip(self.logits, told, strict=True)]
        ratio = overfitting(*self.logits)
        return self.raise_once(
            "overfitting",
            bad=ratio > OVERFITTING_BAD and self.logits_count >= LOGITS_FROM,
            well=ratio < OVERFITTING_WELL,
            text=lambda: (
                f"the discriminator learns its images by heart (others are {ratio:.0%} on the way to drawn ones): "
                "give more images, or --mirror; a checkpoint from before this may be the better model"
            ),
        )

    def hear_distance(self, name: str, value: float) -> str | None:
        """Take in a Fréchet distance to the data. Kernel distances reach 0, and their ratio says nothing."""
        if not name.startswith(("fd", "fid")) or not math.isfinite(value):
            return None
        if name != self.metric:  # a run that goes on may be judged otherwise
            self.metric, self.best_distance = name, None
        best = self.best_distance = value if self.best_distance is None else min(self.best_distance, value)
        return self.raise_once(
            "distance",
            bad=value > DISTANCE_BAD * best,
            well=value < DISTANCE_WELL * best,
            text=lambda: (
                f"{name} has risen to {value:.4g} from {best:.4g}, the best of this stage: the training may be "
                "falling apart; checkpoints/best.safetensors holds the better model, from which --init-from goes on"
            ),
        )

    def count_training(self, seconds: float) -> None:
        """Take in how long iterations took."""
        self.training_seconds += seconds

    def count_judging(self, seconds: float) -> str | None:
        """Take in how long a measurement took; the first, which looks at the data as well, begins the count."""
        if not self.judging:
            self.judging, self.training_seconds = True, 0.0
            return None
        self.judging_seconds += seconds
        share = self.judging_seconds / max(self.judging_seconds + self.training_seconds, 1e-9)
        return self.raise_once(
            "judging",
            bad=share > JUDGING_BAD and self.training_seconds > JUDGING_FROM,
            well=share < JUDGING_WELL,
            text=lambda: f"judging takes {share:.0%} of the time; a larger --metric-every makes it less than a tenth",
        )

    def raise_once(self, name: str, *, bad: bool, well: bool, text: Callable[[], str]) -> str | None:
        """Return the text if the number has just become bad; wait for it to be well before doing so again."""
        if bad and name not in self.raised:
            self.raised.append(name)
            return text()
        if well and name in self.raised:
            self.raised.remove(name)
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return what a state keeps, as plain JSON values."""
        kept = {entry.name for entry in fields(self) if entry.metadata.get("kept", True)}
        timeless = {"raised": [name for name in self.raised if name != "judging"]}
        return {name: value for name, value in asdict(self).items() if name in kept} | timeless

    @classmethod
    def from_dict(cls, counters: dict[str, Any]) -> Self:
        """Take up what `to_dict` returned; what an older state does not hold, or holds damaged, begins anew."""
        kinds: dict[str, bool] = {}
        for name, value in counters.items() if isinstance(counters, dict) else ():
            if name == "raised":
                kinds[name] = are_texts(value)
            elif name == "logits":
                kinds[name] = isinstance(value, list) and len(value) == 3 and all(map(is_number, value))
            elif name == "metric":
                kinds[name] = isinstance(value, str)
            elif name == "logits_count":
                kinds[name] = is_whole(value)
            elif name in ("sign", "sign_weight", "best_spread", "best_distance"):
                kinds[name] = is_number(value) or (value is None and name == "best_distance")
        return cls(**{name: counters[name] for name, fits in kinds.items() if fits})


def overfitting(training: float, held_out: float, fakes: float) -> float:
    """Return r_v = (training - held_out) / (training - fakes) of mean logits; 0 where nothing is told apart.

    StyleGAN2-ADA (Karras et al. 2020), Eq. 1.
    """
    gap = training - fakes
    return (training - held_out) / gap if gap >= MIN_GAP else 0.0
