"""The paper's figures, by the name of their table, with what is known of how they were taken."""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ..errors import RequestError
from .result import Result

MILLION = 1e6
UNCHECKED = "It has no card: whether the reals and the networks agree is not checked."


@dataclass(frozen=True)
class Published:
    """A table of the paper: rows as results, whose cards hold the little that is known, and the printed digits.

    `note` says where the figures are from and how they were taken.
    """

    rows: tuple[Result, ...]
    digits: dict[tuple[str, str], str]
    note: str


@cache
def tables() -> dict[str, Any]:
    """Return all of assets/paper.json."""
    text = resources.files("polyinr_core").joinpath("assets", "paper.json").read_text(encoding="utf-8")
    facts: dict[str, Any] = json.loads(text)
    return facts


def published(name: str) -> Published:
    """Return a table of the paper. Raises RequestError, with the list, for a name that is none."""
    facts = tables()
    if name not in facts["tables"]:
        raise RequestError(f"the paper has no table {name!r}; choose from {', '.join(facts['tables'])}")
    table = facts["tables"][name]
    rows: list[Result] = []
    digits: dict[tuple[str, str], str] = {}
    for row, figures in table["rows"].items():
        title = f"{row} (paper)"
        rows.append(Result(title, {key: {"value": number(text)} for key, text in figures.items()}, table["card"]))
        digits |= {(title, key): text for key, text in figures.items()}
    where = f", {table['where']}" if table["where"] else ""
    note = f"(paper): {facts['source']}{where}: {table['protocol']}. {UNCHECKED}"
    return Published(tuple(rows), digits, note)


def number(text: str) -> float:
    """Return the number that was printed: 2.08, or 46.0M."""
    return float(text.removesuffix("M")) * (MILLION if text.endswith("M") else 1)
