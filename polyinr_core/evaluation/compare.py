"""What a difference between two cards is known to do to figures, and who found it: assets/differences.json."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from math import hypot, log2
from typing import Any, Literal

from .results import Family, Field, Result, Row, base_of, best, family_of

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
    families: frozenset[Family]


@cache
def rules() -> tuple[Rule, ...]:
    """Return all rules; of a field's, the first that speaks of a family holds."""
    asset = resources.files("polyinr_core").joinpath("assets", "differences.json")
    facts = json.loads(asset.read_text(encoding="utf-8"))
    return tuple(
        Rule(
            tuple(rule["field"].split(".")),
            Fact(rule["does"], rule["word"], rule["effect"], rule["source"]),
            frozenset(facts["figures"][rule["figures"]]),
        )
        for rule in facts["rules"]
    )


def fact_of(field: Field, family: Family) -> Fact | None:
    """Return what is known of a field for figures of a family, None if it does not touch them.

    Where no rule speaks of the field, or none of such figures, the fact says so.
    """
    spoken = [rule for rule in rules() if matches(rule.field, field)]
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


Standing = Literal["comparable", "within", "unknown", "not comparable"]

NAMES = ("name", "of", "stored_resolution", "run")  # say nothing that the hash does not say
ENDS = (("low", "high"), ("least", "most"))
ABSENT = "not on the card"
LABELS = ("fakes", "labels"), ("fakes", "label_weights")
OLDER = {"uniform by seed": "uniform"}  # what cards said before they knew of labels drawn from a dataset
LAST_DIGITS = 1e-5  # of a figure: what rounding in another order is taken to move at most


@dataclass(frozen=True)
class Difference:
    """A field that differs, with both values as a person reads them, and what that does to which figures."""

    field: Field
    values: tuple[str, str]
    effects: dict[Fact, tuple[str, ...]]


@dataclass(frozen=True)
class Verdict:
    """What two figures of one name are worth beside each other.

    `within` is by how much they may differ for reasons that are not the models', in the figure's own unit, None
    if that is not known. `because` names what is in the way, `compares` what the two figures compare. `better`
    is the index of the better one, None if that cannot be told.
    """

    name: str
    values: tuple[float, float]
    standing: Standing
    within: float | None
    because: tuple[str, ...]
    compares: tuple[str, ...]
    better: int | None


@dataclass(frozen=True)
class Comparison:
    """All that two results have to say to each other; `alone` holds the names that only one of them has."""

    differences: tuple[Difference, ...]
    verdicts: dict[str, Verdict]
    alone: tuple[tuple[str, ...], tuple[str, ...]]


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results by their cards."""
    shared = [name for name in a.figures if name in b.figures]
    found = []
    for field, values in differing(a, b).items():
        effects: dict[Fact, tuple[str, ...]] = {}
        for name in shared:
            if (fact := effect_on(name, field, a, b)) is not None:
                effects[fact] = (*effects.get(fact, ()), name)
        found.append(Difference(field, values, effects))
    return Comparison(
        differences=tuple(found),
        verdicts={name: verdict(name, a, b, found) for name in shared},
        alone=(
            tuple(name for name in a.figures if name not in b.figures),
            tuple(name for name in b.figures if name not in a.figures),
        ),
    )


def differing(a: Result, b: Result) -> dict[Field, tuple[str, str]]:
    """Return the fields whose values differ, with these in words; what follows from another is left out."""
    first, second = a.fields, b.fields
    kinds = {side for side in ("reals", "fakes") if first.get((side, "kind")) != second.get((side, "kind"))}
    found = {}
    for field in [*first, *(field for field in second if field not in first)]:
        one, other = first.get(field, ABSENT), second.get(field, ABSENT)
        if one == other or follows(field, first, second, kinds):
            continue
        found[field] = (words(field, one, first), words(field, other, second))
    return found


def follows(field: Field, first: dict[Field, Any], second: dict[Field, Any], kinds: set[str]) -> bool:
    """Say whether a difference in a field says nothing of its own, or belongs to figures that are not shared."""
    side, name = field[0], field[-1]
    if side in ("networks", "protocols"):
        return name == "published" or field[:2] not in {other[:2] for other in first} & {other[:2] for other in second}
    if side not in ("reals", "fakes"):
        values = first.get(field), second.get(field)
        return side == "quantization" and "fakes" in kinds and "as stored" in values  # it is not known then
    values = first.get(field), second.get(field)
    if name in NAMES or (name == "reduction" and all(value in (None, "none") for value in values)):
        return True
    if side in kinds:
        return name not in ("kind", "count", "reduction")
    if name == "seeds":  # a longer run of the same seeds
        starts = {str(value).partition("-")[0] for value in values}
        return len(starts) == 1 and first.get((side, "count")) != second.get((side, "count"))
    if field in LABELS:
        one, other = labels_of(first), labels_of(second)
        return one == other or (name == "label_weights" and one[0] != other[0])
    return False


def labels_of(fields: dict[Field, Any]) -> tuple[Any, Any]:
    """Return how generated images' labels are drawn, and the classes' weights where these are a dataset's.

    A dataset of as many images in each class is drawn from as uniformly as without one, to the same images.
    """
    labels, weights = (fields.get(field) for field in LABELS)
    if labels == "dataset" and len(set(str(weights).split())) == 1 and weights is not None:
        return "uniform", None
    return OLDER.get(str(labels), labels), weights


def words(field: Field, value: Any, fields: dict[Field, Any]) -> str:
    """Return a field's value as a person reads it: images and models by name and by the start of their hash."""
    if field[-1] == "kind":
        return f"{value} {words((field[0], 'sha256'), fields.get((field[0], 'sha256')), fields)}"
    if field[-1] == "sha256" and value != ABSENT:
        short = f"{str(value)[:12]}..." if value else "hash not known"
        name = fields.get((*field[:-1], "name"))
        return f"{name} ({short})" if name else short
    return str(value)


def effect_on(name: str, field: Field, a: Result, b: Result) -> Fact | None:
    """Return what a difference in `field` does to the figure of that name, None if it does not touch it."""
    if field[0] == "protocols" and field[1] not in (name, base_of(name)):
        return None
    if field[0] == "networks" and field[1] not in (network_of(name, a), network_of(name, b)):
        return None
    return fact_of(field, family_of(name))


def network_of(name: str, result: Result) -> str | None:
    """Return the network through which a figure was taken, None if its card names none."""
    fields = result.fields
    return fields.get(("protocols", name, "network"), fields.get(("protocols", base_of(name), "network")))


def verdict(name: str, a: Result, b: Result, differences: list[Difference]) -> Verdict:
    """Return what a shared figure of two results is worth, from what differs between them."""
    facts: dict[Grade, dict[str, Field]] = {}
    for difference in differences:
        for fact, names in difference.effects.items():
            if name in names:
                facts.setdefault(fact.grade, {})[fact.word] = difference.field
    rows = a.figures[name], b.figures[name]
    values = rows[0]["value"], rows[1]["value"]
    standing: Standing = "comparable"
    if "other" in facts:
        standing = "not comparable"
    elif "unknown" in facts:
        standing = "unknown"
    elif facts.keys() & {"bias", "spread", "rounding"}:
        standing = "within"
    grades: dict[Standing, tuple[Grade, ...]] = {
        "not comparable": ("other",),
        "unknown": ("unknown",),
        "within": ("bias", "spread", "rounding"),
    }
    because = tuple(word for grade in grades.get(standing, ()) for word in facts.get(grade, {}))
    parts = [spread_of(rows)]
    if "bias" in facts:
        parts += [bias_of(field, rows, a, b) for field in facts["bias"].values()]
    if "rounding" in facts:
        parts.append(LAST_DIGITS * max(map(abs, values)))
    known = [part for part in parts if part is not None]
    within = sum(known) if known and standing in ("comparable", "within") else None
    return Verdict(
        name=name,
        values=values,
        standing=standing,
        within=within,
        because=because,
        compares=tuple(facts.get("subject", {})),
        better=better_of(name, values, standing, within),
    )


def spread_of(rows: tuple[Row, Row]) -> float | None:
    """Return how far two figures' difference spreads by what their rows say, None if one says nothing.

    That is half an interval of resamples, half of what times came to, or the deviation over a score's splits.
    """
    halves = []
    for row in rows:
        ends = next((pair for pair in ENDS if set(pair) <= row.keys()), None)
        half = row.get("deviation") if ends is None else (row[ends[1]] - row[ends[0]]) / 2
        if half is None:
            return None
        halves.append(half)
    return hypot(*halves)


def bias_of(field: Field, rows: tuple[Row, Row], a: Result, b: Result) -> float | None:
    """Return by how much at most a Fréchet distance is shifted between two counts, n and N images.

    The bias goes as 1/N (Chong and Forsyth 2020); where there are about as many images as features a little
    faster, through a term in 1/N^2. As no distance is below 0 the shift is at most value_n (1 - (n/N)^2). What
    halving n generated images added, another doubling does not exceed: at most that, log2(N/n) times.
    """
    counts = [result.fields.get(field) for result in (a, b)]
    numbers = [count for count in counts if type(count) is int and 0 < count < 2**53]
    if len(numbers) < 2:
        return None
    few, many = min(numbers), max(numbers)
    row = rows[counts.index(few)]
    most = abs(row["value"]) * (1 - (few / many) ** 2)
    return min(most, abs(row["bias"]) * log2(many / few)) if field[0] == "fakes" and "bias" in row else most


def better_of(name: str, values: tuple[float, float], standing: Standing, within: float | None) -> int | None:
    """Return the index of the better of two figures, None if nobody can tell."""
    if standing in ("not comparable", "unknown") or abs(values[0] - values[1]) <= (within or 0.0):
        return None
    found = best(name, values)
    return None if found is None else values.index(found)
