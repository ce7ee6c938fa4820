"""Results as rows of a table: figures with their intervals, the best of each column, notes where cards differ."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .comparing import Verdict, compare
from .published import MILLION, Published
from .result import Result
from .scales import Better, best, better, family_of

FORBIDS: dict[str, str] = {
    "not comparable": "Not comparable with",
    "unknown": "Not known to be comparable with",
    "within": "Comparable only within what differs with",
}


@dataclass(frozen=True)
class Cell:
    """A figure and its interval's ends, if it has one, as numbers and in digits; `best` if none is better."""

    value: float
    digits: str
    ends: tuple[float, ...] = ()
    interval: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A figure's name, which way it is better, and the numbers of the notes that are made of it, from 1."""

    name: str
    better: Better | None
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Columns, rows by name with a cell or nothing for each column, and notes."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    notes: tuple[str, ...]
    source: str = ""


def table_of(results: Sequence[Result], paper: Published | None = None) -> Table:
    """Return a table of results, in their order, with the paper's rows below.

    Only figures of one name share a column. In a column whose cards forbid a comparison nothing is called best;
    else the best one is, and what cannot be told from it. The paper's figures, which have no card, never are.
    """
    known = paper.rows if paper is not None else ()
    names = list(dict.fromkeys(name for result in [*results, *known] for name in result.figures))
    notes: dict[str, int] = {}
    columns, cells = [], []
    for name in names:
        holders = [result for result in results if name in result.figures]
        told = notes_of(name, holders, [row for row in known if name in row.figures])
        numbers = tuple(notes.setdefault(note, len(notes) + 1) for note in told)
        columns.append(Column(in_a_line(name), better(name), numbers))
        winners = best_of(name, holders)
        cells.append([cell_of(name, result, winners) for result in results])
        cells[-1] += [printed(name, row, paper) for row in known] if paper is not None else []
    titles = [in_a_line(result.name) for result in [*results, *known]]
    rows = tuple((title, tuple(column[i] for column in cells)) for i, title in enumerate(titles))
    return Table(tuple(columns), rows, tuple(notes), paper.note if paper is not None else "")


def notes_of(name: str, holders: Sequence[Result], known: Sequence[Result]) -> list[str]:
    """Return what a reader must know of a column: which rows do not compare with its first or the paper's."""
    notes = []
    if holders:
        notes += differing_from(
            holders[0].name, [(other, verdict_of(name, holders[0], other)) for other in holders[1:]]
        )
    if holders and known:
        pairs = [(other, beside(other, known[0]), beside(known[0], other)) for other in holders]
        found = [(other, verdict_of(name, one, printed)) for other, one, printed in pairs]
        notes += differing_from("the paper's", found)
    return notes


def differing_from(first: str, found: Sequence[tuple[Result, Verdict]]) -> list[str]:
    """Return a note for each way in which rows do not compare with `first`."""
    notes = []
    for standing, words in FORBIDS.items():
        rows: dict[tuple[str, ...], list[str]] = {}
        for result, verdict in found:
            if verdict.standing == standing:
                rows.setdefault(verdict.because, []).append(in_a_line(result.name))
        if rows:
            told = "; ".join(f"{', '.join(names)} ({', '.join(because)})" for because, names in rows.items())
            notes.append(f"{words} {in_a_line(first)}: {told}.")
    return notes


def in_a_line(name: str) -> str:
    """Return a name without line breaks, which would end a table's row."""
    return " ".join(name.split())


def verdict_of(name: str, a: Result, b: Result) -> Verdict:
    """Return what the figures of one name of two results are worth beside each other."""
    return compare(a, b).verdicts[name]


def beside(result: Result, other: Result) -> Result:
    """Return a result whose card says what that of `other` says too: the paper's cards say little."""
    return replace(result, card=common(result.card, other.card))


def common(card: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return what a card says of that of which another speaks as well."""
    found = {}
    for name in card.keys() & other.keys():
        one, two = card[name], other[name]
        nested = isinstance(one, dict) and isinstance(two, dict)
        found[name] = common(one, two) if nested else one
    return found


def best_of(name: str, holders: Sequence[Result]) -> list[Result]:
    """Return the best results in a figure: one, and those that cannot be told from it; none if that is all."""
    value = best(name, [result.figures[name]["value"] for result in holders])
    if value is None or len(holders) < 2:
        return []
    first = next(result for result in holders if result.figures[name]["value"] == value)
    verdicts = [(other, verdict_of(name, first, other)) for other in holders if other is not first]
    if any(verdict.standing in ("not comparable", "unknown") for _, verdict in verdicts):
        return []
    found = [first, *(other for other, verdict in verdicts if verdict.better is None)]
    return found if len(found) < len(holders) else []


def cell_of(name: str, result: Result, winners: Sequence[Result]) -> Cell | None:
    """Return a figure as a cell, None where a result has no such figure."""
    row = result.figures.get(name)
    if row is None:
        return None
    ends = (row["low"], row["high"]) if {"low", "high"} <= row.keys() else ()
    return Cell(
        value=row["value"],
        digits=digits_of(name, row["value"]),
        ends=ends,
        interval=tuple(digits_of(name, end) for end in ends),
        best=any(result is winner for winner in winners),
    )


def printed(name: str, row: Result, paper: Published) -> Cell | None:
    """Return a figure of the paper in the digits that it was printed in."""
    text = paper.digits.get((row.name, name))
    return None if text is None else Cell(row.figures[name]["value"], text)


def digits_of(name: str, value: float) -> str:
    """Return a figure in as many digits as are usual for it."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family == "params":
        return f"{value / MILLION:.1f}M" if value >= MILLION else f"{value:.0f}"
    if family == "neighbours" or part in ("ssim", "lpips"):
        return f"{value:.3f}"
    if family in ("frechet", "upsampling", "score", "path", "inversion"):
        return f"{value:.2f}"
    return f"{value:.4g}"
