"""What a difference between two cards is known to do to figures, and who found it: assets/differences.json."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Literal

from .result import Field
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
