"""What a difference between two cards is known to do to figures, and who found it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from .results import Field
from .scales import Family

# subject: it is what the two figures compare. rounding: the last digits. spread: as much as other seeds would.
# bias: by an amount that can be bounded. other: the figures are different measurements.
Grade = Literal["subject", "rounding", "spread", "bias", "other", "unknown"]


@dataclass(frozen=True)
class Fact:
    """`word` is what a verdict calls the difference, `effect` what it does, `source` who says so, if any."""

    grade: Grade
    word: str
    effect: str
    source: str


@dataclass(frozen=True)
class Rule:
    """A fact about the card's fields that `field` matches, for figures of `families` (none given: of all)."""

    field: Field
    fact: Fact
    families: frozenset[Family] = frozenset()


PARMAR = "Parmar et al. 2022, On Aliased Resizing and Surprising Subtleties in GAN Evaluation"
CHONG = "Chong and Forsyth 2020, Effectively Unbiased FID and Inception Score"
BINKOWSKI = "Bińkowski et al. 2018, Demystifying MMD GANs"
NEIGHBOURS = "Kynkäänniemi et al. 2019, Improved Precision and Recall; Naeem et al. 2020, Reliable Fidelity"
CLASSES = "Kynkäänniemi et al. 2023, The Role of ImageNet Classes in Fréchet Inception Distance"
TRUNCATION = "Brock et al. 2019, Large Scale GAN Training; Kynkäänniemi et al. 2019"
NETWORK = "Barratt and Sharma 2018, A Note on the Inception Score; Stein et al. 2023, Exposing Flaws"
LIBRARIES = "PyTorch's documentation, Reproducibility"

FRECHET: frozenset[Family] = frozenset({"frechet", "upsampling"})
NEAR: frozenset[Family] = frozenset({"neighbours"})
KERNEL: frozenset[Family] = frozenset({"kernel"})
OF_REALS: frozenset[Family] = frozenset({*FRECHET, *NEAR, *KERNEL, "inversion", "other"})
OF_FAKES: frozenset[Family] = frozenset({*FRECHET, *NEAR, *KERNEL, "score", "path", "other"})
OF_PICTURES = OF_REALS | OF_FAKES
SPEED: frozenset[Family] = frozenset({"speed"})
COMPUTED = OF_PICTURES | SPEED

BIASED = (
    "A Fréchet distance of a sample is too large, by about 1/N of it, and by how much depends on the model; the "
    "figure of more pictures looks better. Draw equal counts, or compare what --bootstrap extrapolates."
)
UNBIASED = "The kernel distance is unbiased: fewer pictures widen its spread and do not shift it."
DENSER = (
    "The balls to the k-th neighbour shrink as pictures are added, so precision, recall and coverage of other "
    "counts are on another scale; by how much depends on the data."
)
RESIZED = (
    "Filters that do not smooth before they reduce leave aliasing, which networks see: another way of resizing "
    "alone shifts FID by whole points."
)
TRUNCATED = (
    "Truncation trades variety for quality: as psi falls precision rises and recall falls; FID is often best a "
    "little below 1 and bad far below it. A figure at one psi says nothing of another."
)
SAVED = Fact(
    "rounding",
    "saved statistics",
    "Statistics of the same pictures, saved earlier by the library versions of then: the last digits.",
    LIBRARIES,
)

RULES = (
    Rule(
        ("resolution",),
        Fact("other", "the resolution", "The time goes with the number of pixels.", ""),
        SPEED,
    ),
    Rule(
        ("resolution",),
        Fact(
            "other",
            "the resolution",
            "Every network brings pictures to a size of its own: at another resolution it sees other detail, in "
            "reals and fakes. Figures at two resolutions are two measurements.",
            PARMAR,
        ),
        OF_PICTURES,
    ),
    Rule(
        ("mirror",),
        Fact(
            "other",
            "the mirroring",
            "Mirrored reals are a larger, symmetric set: the distance to it is another. The protocols take reals "
            "as they are, even where training mirrored them.",
            "Sauer et al. 2022, StyleGAN-XL: its metrics set xflip=False",
        ),
        OF_REALS,
    ),
    Rule(
        ("quantisation",),
        Fact(
            "other",
            "the quantisation",
            "Colours rounded, clamped or compressed in another way are other pictures to a network; JPEG alone "
            "shifts FID, and where the reals are JPEG it even improves that of generated pictures.",
            PARMAR,
        ),
        OF_PICTURES,
    ),
    Rule(
        ("reals", "sha256"),
        Fact(
            "other",
            "other reals",
            "The figures are distances to two different sets. (The hash is of files: the same pictures, packed "
            "anew, have another one.)",
            "Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule",
        ),
        OF_REALS,
    ),
    Rule(
        ("reals", "held_out", "**"),
        Fact(
            "other",
            "other reals",
            "A model knows what it was trained on: its distance to pictures held out is larger, and each choice "
            "of them is another set.",
            "Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule",
        ),
        OF_REALS,
    ),
    Rule(
        ("reals", "kind"),
        Fact(
            "unknown",
            "the reals' statistics",
            "An .npz of statistics says neither of which pictures nor of which network it is; whether the reals "
            "are the same only its maker knows.",
            PARMAR,
        ),
        OF_REALS,
    ),
    Rule(("reals", "statistics", "**"), SAVED, OF_REALS),
    Rule(("fakes", "statistics", "**"), SAVED, OF_FAKES),
    Rule(("reals", "count"), Fact("bias", "the count of reals", BIASED, CHONG), FRECHET),
    Rule(("reals", "count"), Fact("spread", "the count of reals", UNBIASED, BINKOWSKI), KERNEL),
    Rule(("reals", "count"), Fact("other", "the count of reals", DENSER, NEIGHBOURS), NEAR),
    Rule(
        ("reals", "count"),
        Fact("other", "the count of reals", "The mean is over other pictures.", ""),
        OF_REALS,
    ),
    Rule(("reals", "reduction"), Fact("other", "the reals' resizing", RESIZED, PARMAR), OF_REALS),
    Rule(
        ("reals", "labels"),
        Fact("other", "the reals' classes", "Another mix of classes is another set of reals.", CLASSES),
        OF_REALS,
    ),
    Rule(
        ("fakes", "sha256"),
        Fact("subject", "the model", "This is what is compared.", ""),
    ),
    Rule(
        ("fakes", "kind"),
        Fact(
            "subject",
            "where the pictures come from",
            "One result is of a model that draws, the other of stored pictures. How those were made (seeds, psi, "
            "labels, JPEG) no card can say; compare them only if that is known to agree.",
            PARMAR,
        ),
        COMPUTED,
    ),
    Rule(("fakes", "count"), Fact("bias", "the count of generated pictures", BIASED, CHONG), FRECHET),
    Rule(("fakes", "count"), Fact("spread", "the count of generated pictures", UNBIASED, BINKOWSKI), KERNEL),
    Rule(("fakes", "count"), Fact("other", "the count of generated pictures", DENSER, NEIGHBOURS), NEAR),
    Rule(
        ("fakes", "count"),
        Fact(
            "other",
            "the count of generated pictures",
            "The Inception score of few pictures is too small, by an amount that depends on the model.",
            CHONG,
        ),
        frozenset({"score"}),
    ),
    Rule(
        ("fakes", "count"),
        Fact(
            "spread",
            "the count of generated pictures",
            "A mean over fewer paths spreads more and is not shifted.",
            "Karras et al. 2019, A Style-Based Generator Architecture",
        ),
        frozenset({"path"}),
    ),
    Rule(
        ("fakes", "seeds"),
        Fact(
            "spread",
            "the seeds",
            "Other seeds are another sample of the same distribution: the figure moves within its interval "
            "(--bootstrap 100 gives one).",
            "Efron 1979, Bootstrap Methods",
        ),
        OF_FAKES,
    ),
    Rule(("fakes", "psi"), Fact("subject", "psi", TRUNCATED, TRUNCATION), OF_FAKES),
    Rule(
        ("fakes", "labels"),
        Fact(
            "other",
            "the distribution of labels",
            "Classes in other proportions shift every figure: making the classes of the two sets agree improves "
            "FID substantially without a better picture. The published protocol draws labels uniformly.",
            CLASSES,
        ),
        OF_FAKES,
    ),
    Rule(("fakes", "reduction"), Fact("other", "the generated pictures' resizing", RESIZED, PARMAR), OF_FAKES),
    Rule(
        ("networks", "*", "sha256"),
        Fact(
            "other",
            "the network's weights",
            "Other weights are other features: two trainings of one architecture, equally accurate, score the "
            "same pictures differently.",
            NETWORK,
        ),
    ),
    Rule(("networks", "*", "resize"), Fact("other", "the network's resizing", RESIZED, PARMAR)),
    Rule(
        ("protocols", "*", "network"),
        Fact("other", "the feature network", "Another network ranks models differently.", NETWORK),
    ),
    Rule(
        ("protocols", "*", "tap"),
        Fact(
            "other",
            "the layer that is read",
            "Features of another layer have another scale: sFID read elsewhere is off by an order of magnitude.",
            "Nash et al. 2021, Generating Images with Sparse Representations",
        ),
    ),
    Rule(
        ("protocols", "*", "rule"),
        Fact(
            "other",
            "the rule",
            "It is another metric under the same name. (Covariances by N or by N - 1 alone differ by 1/N: hardly "
            "seen at 50000 pictures, seen below 1000.)",
            "",
        ),
    ),
    Rule(
        ("libraries", "polyinr"),
        Fact(
            "rounding",
            "polyinr's version",
            "The last digits, unless CHANGELOG.md names the metric between these versions.",
            "CHANGELOG.md",
        ),
        OF_PICTURES,
    ),
    Rule(
        ("libraries", "*"),
        Fact(
            "rounding",
            "library versions",
            "Other versions sum in another order and decode pictures with other rounding: the last digits.",
            LIBRARIES,
        ),
        OF_PICTURES,
    ),
    Rule(
        ("libraries", "*"),
        Fact("other", "library versions", "A version may be faster or slower.", ""),
        SPEED,
    ),
    Rule(
        ("device", "**"),
        Fact("subject", "the device", "A time is one of a machine: it is what is compared.", ""),
        SPEED,
    ),
    Rule(
        ("device", "**"),
        Fact(
            "rounding",
            "the device",
            "CPUs and GPUs sum in another order, GPUs may multiply in TF32: the last digits.",
            LIBRARIES,
        ),
        OF_PICTURES,
    ),
)


def fact_of(field: Field, family: Family) -> Fact | None:
    """Return what is known of a field for figures of a family, None if it does not touch them.

    Where no rule speaks of the field, or none of such figures, the fact says so.
    """
    spoken = [rule for rule in RULES if matches(rule.field, field)]
    found = next((rule.fact for rule in spoken if not rule.families or family in rule.families), None)
    if found is None and (not spoken or family == "other"):
        return Fact("unknown", " ".join(field), "What this does to a figure is not known here.", "")
    return found


def matches(pattern: Field, field: Field) -> bool:
    """Say whether a field is one of a pattern, in which * is any name and ** any names or none."""
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        field = field[: len(pattern)]
    return len(pattern) == len(field) and all(map(fnmatchcase, field, pattern))
