"""Compare two results by their cards: what differs, what that does to each metric, which can be compared."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from math import hypot, log2
from typing import Any, Literal

from polyinr_core.metrics.registry import Family, base_of, best, family_of

from .results import Estimate, Field, Result

# subject: it is what the comparison is about. rounding: the last digits change. spread: the value changes as by other
# seeds. bias: it shifts by an amount that can be bounded. other: the two values measure different things.
Grade = Literal["subject", "rounding", "spread", "bias", "other", "unknown"]


@dataclass(frozen=True)
class Fact:
    """What is known about a difference: its short name `word`, its `effect`, and the `source`, if any."""

    grade: Grade
    word: str
    effect: str
    source: str


@dataclass(frozen=True)
class Rule:
    """A fact about the fields of a card that the pattern `field` matches, for `families` (empty: all)."""

    field: Field
    fact: Fact
    families: frozenset[Family]


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules of assets/differences.json; the first that matches a field and a family applies."""
    asset = resources.files("polyinr_core").joinpath("assets", "differences.json")
    facts = json.loads(asset.read_text(encoding="utf-8"))
    return tuple(
        Rule(
            tuple(rule["field"].split(".")),
            Fact(rule["does"], rule["word"], rule["effect"], rule["source"]),
            frozenset(facts["metrics"][rule["metrics"]]),
        )
        for rule in facts["rules"]
    )


def fact_of(field: Field, family: Family) -> Fact | None:
    """Return what is known about a field for metrics of a family, None if it does not affect them.

    If no rule matches the field, or the family is unknown, the fact is "unknown".
    """
    matching = [rule for rule in rules() if matches(rule.field, field)]
    fact = next((rule.fact for rule in matching if not rule.families or family in rule.families), None)
    if fact is None and (not matching or family == "other"):
        return Fact("unknown", " ".join(field), "The effect of this on a metric is not known.", "")
    return fact


def matches(pattern: Field, field: Field) -> bool:
    """Return whether a field matches a pattern, in which * is any name and a final ** any names or none."""
    if pattern[-1] == "**":
        pattern = pattern[:-1]
        field = field[: len(pattern)]
    return len(pattern) == len(field) and all(map(fnmatchcase, field, pattern))


Standing = Literal["comparable", "within", "unknown", "not comparable"]

REDUNDANT = ("name", "of", "stored_resolution", "run")  # implied by the hash
INTERVALS = (("low", "high"), ("min", "max"))
ABSENT = "not on the card"
LABELS = ("fakes", "labels"), ("fakes", "label_weights")
LIMITS: tuple[tuple[Standing, tuple[Grade, ...]], ...] = (  # the first that applies, and the differences that cause it
    ("not comparable", ("other",)),
    ("unknown", ("unknown",)),
    ("within", ("bias", "spread", "rounding")),
)
MAX_ROUNDING = 1e-5  # relative: the assumed limit of what another order of summation changes


@dataclass(frozen=True)
class Difference:
    """A field that differs, both values in words, and the effects with the metrics that each one affects."""

    field: Field
    values: tuple[str, str]
    effects: dict[Fact, tuple[str, ...]]


@dataclass(frozen=True)
class Verdict:
    """Whether the two values of one metric can be compared.

    Attributes:
        within: how much they may differ for reasons other than the models, in the metric's unit; None if unknown.
        because: the differences that limit or prevent the comparison.
        compares: the differences that the comparison is about.
        better: the index of the better value, None if it cannot be decided.
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
    """The comparison of two results; `alone` holds the metrics that only one of them has."""

    differences: tuple[Difference, ...]
    verdicts: dict[str, Verdict]
    alone: tuple[tuple[str, ...], tuple[str, ...]]

    def to_dict(self, names: tuple[str, str]) -> dict[str, Any]:
        """Return what `polyinr compare --json` prints, with the names of the results."""
        return {
            "a": names[0],
            "b": names[1],
            "differences": [
                {
                    "field": ".".join(difference.field),
                    "a": difference.values[0],
                    "b": difference.values[1],
                    "effects": [
                        {"kind": fact.grade, "effect": fact.effect, "source": fact.source, "metrics": list(names)}
                        for fact, names in difference.effects.items()
                    ],
                }
                for difference in self.differences
            ],
            "metrics": {
                name: {
                    "a": verdict.values[0],
                    "b": verdict.values[1],
                    "standing": verdict.standing,
                    "within": verdict.within,
                    "because": list(verdict.because),
                    "compares": list(verdict.compares),
                    "better": None if verdict.better is None else "ab"[verdict.better],
                }
                for name, verdict in self.verdicts.items()
            },
            "only_a": list(self.alone[0]),
            "only_b": list(self.alone[1]),
        }


def compare(a: Result, b: Result) -> Comparison:
    """Compare two results by their cards."""
    shared = [name for name in a.metrics if name in b.metrics]
    differences = []
    for field, values in differing(a, b).items():
        effects: dict[Fact, tuple[str, ...]] = {}
        for name in shared:
            if (fact := effect_on(name, field, a, b)) is not None:
                effects[fact] = (*effects.get(fact, ()), name)
        differences.append(Difference(field, values, effects))
    return Comparison(
        differences=tuple(differences),
        verdicts={name: verdict(name, a, b, differences) for name in shared},
        alone=(
            tuple(name for name in a.metrics if name not in b.metrics),
            tuple(name for name in b.metrics if name not in a.metrics),
        ),
    )


def differing(a: Result, b: Result) -> dict[Field, tuple[str, str]]:
    """Return the fields that differ, with both values in words, except those implied by another difference."""
    first, second = a.fields, b.fields
    other_kind = {name for name in ("reals", "fakes") if first.get((name, "kind")) != second.get((name, "kind"))}
    differences = {}
    for field in dict.fromkeys([*first, *second]):
        one, other = first.get(field, ABSENT), second.get(field, ABSENT)
        if one != other and not is_implied(field, first, second, other_kind):
            differences[field] = (words(field, one, first), words(field, other, second))
    return differences


def is_implied(field: Field, first: dict[Field, Any], second: dict[Field, Any], other_kind: set[str]) -> bool:
    """Return whether a difference follows from another one, or belongs to metrics that are not shared."""
    part, name = field[0], field[-1]
    values = first.get(field), second.get(field)
    if part in ("networks", "protocols"):
        return name == "published" or field[:2] not in {other[:2] for other in first} & {other[:2] for other in second}
    if part not in ("reals", "fakes"):
        return part == "quantization" and "fakes" in other_kind and "as stored" in values  # then it is unknown
    if name in REDUNDANT or (name == "reduction" and all(value in (None, "none") for value in values)):
        return True
    if part in other_kind:
        return name not in ("kind", "count", "reduction")
    if name == "seeds":  # the same seeds, more of them
        starts = {str(value).partition("-")[0] for value in values}
        return len(starts) == 1 and first.get((part, "count")) != second.get((part, "count"))
    if field in LABELS:
        one, other = labels_of(first), labels_of(second)
        return one == other or (name == "label_weights" and one[0] != other[0])
    return False


def labels_of(fields: dict[Field, Any]) -> tuple[Any, Any]:
    """Return how the labels of generated images are drawn, and the weights of a dataset's classes.

    With equally many images in each class, both give the same images.
    """
    labels, weights = (fields.get(field) for field in LABELS)
    if labels == "dataset" and len(set(str(weights).split())) == 1 and weights is not None:
        return "uniform", None
    return labels, weights


def words(field: Field, value: Any, fields: dict[Field, Any]) -> str:
    """Return a field's value in words: images and models by their name and the first digits of their hash."""
    if field[-1] == "kind":
        return f"{value} {words((field[0], 'sha256'), fields.get((field[0], 'sha256')), fields)}"
    if field[-1] == "sha256" and value != ABSENT:
        short = f"{str(value)[:12]}..." if value else "hash not known"
        name = fields.get((*field[:-1], "name"))
        return f"{name} ({short})" if name else short
    return str(value)


def effect_on(name: str, field: Field, a: Result, b: Result) -> Fact | None:
    """Return the effect of a difference in `field` on the metric of that name, None if it has none."""
    if field[0] == "protocols" and field[1] not in (name, base_of(name)):
        return None
    if field[0] == "networks" and field[1] not in (network_of(name, a), network_of(name, b)):
        return None
    return fact_of(field, family_of(name))


def network_of(name: str, result: Result) -> str | None:
    """Return the network that a metric uses, None if its card names none."""
    fields = result.fields
    return fields.get(("protocols", name, "network"), fields.get(("protocols", base_of(name), "network")))


def verdict(name: str, a: Result, b: Result, differences: list[Difference]) -> Verdict:
    """Return whether the two values of a shared metric can be compared, from the differences of the cards."""
    facts: dict[Grade, dict[str, Field]] = {}
    for difference in differences:
        for fact, names in difference.effects.items():
            if name in names:
                facts.setdefault(fact.grade, {})[fact.word] = difference.field
    estimates = a.metrics[name], b.metrics[name]
    values = estimates[0]["value"], estimates[1]["value"]
    standing, grades = next(((s, grades) for s, grades in LIMITS if facts.keys() & {*grades}), ("comparable", ()))
    because = tuple(word for grade in grades for word in facts.get(grade, {}))
    parts = [combined_spread(estimates)]
    if "bias" in facts:
        parts += [max_bias(field, estimates, a, b) for field in facts["bias"].values()]
    if "rounding" in facts:
        parts.append(MAX_ROUNDING * max(map(abs, values)))
    known = [part for part in parts if part is not None]
    within = sum(known) if known and standing in ("comparable", "within") else None
    return Verdict(
        name=name,
        values=values,
        standing=standing,
        within=within,
        because=because,
        compares=tuple(facts.get("subject", {})),
        better=index_of_better(name, values, standing, within),
    )


def combined_spread(estimates: tuple[Estimate, Estimate]) -> float | None:
    """Return the spread of the difference of two estimates, None if one has no spread.

    That of an estimate is half its confidence interval, half the range of times, or the standard deviation over the
    splits of an Inception score.
    """
    halves = []
    for estimate in estimates:
        ends = next((pair for pair in INTERVALS if set(pair) <= estimate.keys()), None)
        half = estimate.get("std") if ends is None else (estimate[ends[1]] - estimate[ends[0]]) / 2
        if half is None:
            return None
        halves.append(half)
    return hypot(*halves)


def max_bias(field: Field, estimates: tuple[Estimate, Estimate], a: Result, b: Result) -> float | None:
    """Return the largest possible shift of a Fréchet distance between two counts, n and N images.

    The bias falls as 1/N (Chong and Forsyth 2020), and with about as many images as features
    slightly faster, by a term in 1/N^2. As no distance is below 0, the shift is at most
    value_n (1 - (n/N)^2). It is also at most log2(N/n) times the bias that halving the n generated images shows.
    """
    counts = [result.fields.get(field) for result in (a, b)]
    numbers = [count for count in counts if type(count) is int and 0 < count < 2**53]
    if len(numbers) < 2:
        return None
    few, many = min(numbers), max(numbers)
    estimate = estimates[counts.index(few)]
    limit = abs(estimate["value"]) * (1 - (few / many) ** 2)
    if field[0] == "fakes" and "bias" in estimate:
        return min(limit, abs(estimate["bias"]) * log2(many / few))
    return limit


def index_of_better(name: str, values: tuple[float, float], standing: Standing, within: float | None) -> int | None:
    """Return the index of the better of two values, None if it cannot be decided."""
    if standing in ("not comparable", "unknown") or abs(values[0] - values[1]) <= (within or 0.0):
        return None
    best_value = best(name, values)
    return None if best_value is None else values.index(best_value)
