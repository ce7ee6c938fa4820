"""The paper's figures, by the name of their table, with what is known of how they were taken."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal

from tabulate import tabulate  # type: ignore[import-untyped]

from polyinr_core.errors import RequestError

from .compare import Verdict, compare
from .results import Better, Result, best, better, family_of

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
    if family == "neighbors" or part in ("ssim", "lpips"):
        return f"{value:.3f}"
    if family in ("frechet", "upsampling", "score", "path", "inversion"):
        return f"{value:.2f}"
    return f"{value:.4g}"


Format = Literal["markdown", "latex", "csv"]
ARROWS = {
    "markdown": {"lower": " ↓", "higher": " ↑", None: ""},
    "latex": {"lower": r" $\downarrow$", "higher": r" $\uparrow$", None: ""},
}
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def typeset(table: Table, format: Format) -> list[str]:
    """Return the table as lines; of CSV the numbers alone, with intervals in columns of their own."""
    if format == "csv":
        return as_csv(table)
    escaped = in_markdown if format == "markdown" else in_latex
    headers = [""] + [
        escaped(column.name) + ARROWS[format][column.better] + "".join(f" ({note})" for note in column.notes)
        for column in table.columns
    ]
    rows = [[escaped(name), *(cell_in(format, cell) for cell in cells)] for name, cells in table.rows]
    text = tabulate(
        rows,
        headers,
        tablefmt="github" if format == "markdown" else "latex_raw",
        colalign=["left", *["right"] * len(table.columns)],
        disable_numparse=True,
    )
    notes = [f"({number}) {escaped(note)}" for number, note in enumerate(table.notes, 1)]
    notes += [escaped(table.source)] if table.source else []
    return [*text.split("\n"), *(line for note in notes for line in ("", note))]


def cell_in(format: Format, cell: Cell | None) -> str:
    """Return a cell's text: digits, bold where they are the best, and the interval."""
    if cell is None:
        return ""
    bold = {"markdown": "**{}**", "latex": r"\textbf{{{}}}"}[format]
    digits = bold.format(cell.digits) if cell.best else cell.digits
    return f"{digits} [{', '.join(cell.interval)}]" if cell.interval else digits


def as_csv(table: Table) -> list[str]:
    """Return a line a row; a column that has intervals is followed by two, its low and high ends."""
    by_column = zip(*(cells for _, cells in table.rows), strict=True)
    wide = [any(cell is not None and cell.ends for cell in column) for column in by_column]
    lines = [["name"]]
    for column, spans in zip(table.columns, wide, strict=True):
        lines[0] += [column.name, *([f"{column.name} low", f"{column.name} high"] if spans else [])]
    for name, cells in table.rows:
        line = [name]
        for cell, spans in zip(cells, wide, strict=True):
            numbers = (cell.value, *cell.ends) if cell is not None else ()
            line += [f"{number:.10g}" for number in numbers] + [""] * ((3 if spans else 1) - len(numbers))
        lines.append(line)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().splitlines()


def in_markdown(text: str) -> str:
    """Return text of which Markdown makes nothing."""
    return re.sub(r"[\\`*|<\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)


def in_latex(text: str) -> str:
    """Return text of which LaTeX makes nothing."""
    return "".join(LATEX.get(character, character) for character in text)
