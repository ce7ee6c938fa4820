"""Results as text: tables as Markdown, LaTeX or CSV, with the paper's published values, and comparisons of two."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from textwrap import wrap
from typing import Any, Literal

from tabulate import tabulate  # type: ignore[import-untyped]

from polyinr_core.errors import RequestError
from polyinr_core.metrics.registry import Better, best, better, family_of

from .compare import Comparison, Difference, Fact, Grade, Verdict, compare
from .results import Result

MILLION = 1e6
UNCHECKED = "It has no card: whether the reals and the networks agree is not checked."
PREVENTS: dict[str, str] = {
    "not comparable": "Not comparable with",
    "unknown": "Not known to be comparable with",
    "within": "Comparable only within what differs with",
}
WIDTH = 100  # columns
WITHIN = "Within: the difference that the sampling, the counts or rounding can explain."
NOT_SAMPLED = ("params", "speed")
SETS = ("fakes", "reals")
HEADINGS: dict[Grade, str] = {
    "subject": "What the comparison is about",
    "other": "What makes the values different measurements",
    "unknown": "Differences of unknown effect",
    "bias": "What shifts the values",
    "spread": "What changes the values as other seeds would",
    "rounding": "What changes the last digits",
}
Format = Literal["markdown", "latex", "csv"]
ARROWS = {
    "markdown": {"lower": " ↓", "higher": " ↑", None: ""},
    "latex": {"lower": r" $\downarrow$", "higher": r" $\uparrow$", None: ""},
}
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
ESCAPES: dict[str, Callable[[str], str]] = {
    "markdown": lambda text: re.sub(r"[\\`*|<\[]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text),
    "latex": lambda text: re.sub(r"[\\~^&%$#_{}]", lambda found: LATEX.get(found[0], f"\\{found[0]}"), text),
}
BOLD = {"markdown": "**{}**", "latex": r"\textbf{{{}}}"}


@dataclass(frozen=True)
class Published:
    """A table of the paper: its rows as results, whose cards hold what is known, and the digits as printed.

    `note` gives the source of the values and their protocol.
    """

    rows: tuple[Result, ...]
    digits: dict[tuple[str, str], str]
    note: str


@cache
def tables() -> Any:
    """Return all of assets/paper.json."""
    return json.loads((resources.files("polyinr_core") / "assets" / "paper.json").read_text(encoding="utf-8"))


def published(name: str) -> Published:
    """Return a table of the paper. Raises RequestError, with the list, for an unknown name."""
    facts = tables()
    if name not in facts["tables"]:
        raise RequestError(f"the paper has no table {name!r}; choose from {', '.join(facts['tables'])}")
    table = facts["tables"][name]
    rows: list[Result] = []
    digits: dict[tuple[str, str], str] = {}
    for row, values in table["rows"].items():
        title = f"{row} (paper)"
        rows.append(Result(title, {key: {"value": number(text)} for key, text in values.items()}, table["card"]))
        digits |= {(title, key): text for key, text in values.items()}
    where = f", {table['where']}" if table["where"] else ""
    note = f"(paper): {facts['source']}{where}: {table['protocol']}. {UNCHECKED}"
    return Published(tuple(rows), digits, note)


def number(text: str) -> float:
    """Return the number of a printed text such as 2.08 or 46.0M."""
    return float(text.removesuffix("M")) * (MILLION if text.endswith("M") else 1)


@dataclass(frozen=True)
class Cell:
    """A value and the ends of its interval, if it has one, as numbers and as text; `best` if none is better."""

    value: float
    digits: str
    ends: tuple[float, ...] = ()
    interval: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A metric's name, which values are better, and the numbers, from 1, of the notes about it."""

    name: str
    better: Better | None
    notes: tuple[int, ...]


@dataclass(frozen=True)
class Table:
    """Columns, named rows with a cell or None for each column, and notes."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    notes: tuple[str, ...]
    source: str = ""


def table_of(results: Sequence[Result], paper: Published | None = None) -> Table:
    """Return a table of results, in their order, with the paper's rows below.

    Only metrics of one name share a column. In a column whose cards prevent a comparison no value is marked as best;
    else the best one is, and those that cannot be distinguished from it. The paper's values, which have no card,
    never are.
    """
    known = paper.rows if paper is not None else ()
    names = list(dict.fromkeys(name for result in [*results, *known] for name in result.metrics))
    notes: dict[str, int] = {}
    columns, cells = [], []
    for name in names:
        holders = [result for result in results if name in result.metrics]
        column_notes = notes_of(name, holders, [row for row in known if name in row.metrics])
        numbers = tuple(notes.setdefault(note, len(notes) + 1) for note in column_notes)
        columns.append(Column(one_line(name), better(name), numbers))
        winners = best_of(name, holders)
        cells.append([cell_of(name, result, winners) for result in results])
        cells[-1] += [printed(name, row, paper) for row in known] if paper is not None else []
    titles = [one_line(result.name) for result in [*results, *known]]
    rows = tuple((title, tuple(column[i] for column in cells)) for i, title in enumerate(titles))
    return Table(tuple(columns), rows, tuple(notes), paper.note if paper is not None else "")


def notes_of(name: str, holders: Sequence[Result], known: Sequence[Result]) -> list[str]:
    """Return the notes of a column: which rows are not comparable with its first row or with the paper's."""
    notes = []
    if holders:
        notes += differing_from(
            holders[0].name, [(other, verdict_of(name, holders[0], other)) for other in holders[1:]]
        )
    if holders and known:
        found = []
        for other in holders:  # only by what both cards say: the paper's say little
            one = replace(other, card=common(other.card, known[0].card))
            printed = replace(known[0], card=common(known[0].card, other.card))
            found.append((other, verdict_of(name, one, printed)))
        notes += differing_from("the paper's", found)
    return notes


def differing_from(first: str, found: Sequence[tuple[Result, Verdict]]) -> list[str]:
    """Return a note for each way in which rows are not comparable with `first`."""
    notes = []
    for standing, words in PREVENTS.items():
        rows: dict[tuple[str, ...], list[str]] = {}
        for result, verdict in found:
            if verdict.standing == standing:
                rows.setdefault(verdict.because, []).append(one_line(result.name))
        if rows:
            listed = "; ".join(f"{', '.join(names)} ({', '.join(because)})" for because, names in rows.items())
            notes.append(f"{words} {one_line(first)}: {listed}.")
    return notes


def one_line(name: str) -> str:
    """Return a name without line breaks, which would end a row of the table."""
    return " ".join(name.split())


def verdict_of(name: str, a: Result, b: Result) -> Verdict:
    """Return whether two results' values of a metric can be compared."""
    return compare(a, b).verdicts[name]


def common(card: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a card that another card has as well."""
    found = {}
    for name in card.keys() & other.keys():
        one, two = card[name], other[name]
        nested = isinstance(one, dict) and isinstance(two, dict)
        found[name] = common(one, two) if nested else one
    return found


def best_of(name: str, holders: Sequence[Result]) -> list[Result]:
    """Return the best results of a metric: one, and those not distinguishable from it; none if those are all."""
    value = best(name, [result.metrics[name]["value"] for result in holders])
    if value is None or len(holders) < 2:
        return []
    first = next(result for result in holders if result.metrics[name]["value"] == value)
    verdicts = [(other, verdict_of(name, first, other)) for other in holders if other is not first]
    if any(verdict.standing in ("not comparable", "unknown") for _, verdict in verdicts):
        return []
    found = [first, *(other for other, verdict in verdicts if verdict.better is None)]
    return found if len(found) < len(holders) else []


def cell_of(name: str, result: Result, winners: Sequence[Result]) -> Cell | None:
    """Return a metric of a result as a cell, None if it has no such metric."""
    estimate = result.metrics.get(name)
    if estimate is None:
        return None
    ends = (estimate["low"], estimate["high"]) if {"low", "high"} <= estimate.keys() else ()
    return Cell(
        value=estimate["value"],
        digits=format_value(name, estimate["value"]),
        ends=ends,
        interval=tuple(format_value(name, end) for end in ends),
        best=any(result is winner for winner in winners),
    )


def printed(name: str, row: Result, paper: Published) -> Cell | None:
    """Return a value of the paper in the digits of the print."""
    text = paper.digits.get((row.name, name))
    return None if text is None else Cell(row.metrics[name]["value"], text)


def format_value(name: str, value: float) -> str:
    """Return a value with the digits that are usual for the metric."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family == "params":
        return f"{value / MILLION:.1f}M" if value >= MILLION else f"{value:.0f}"
    if family == "neighbors" or part in ("ssim", "lpips"):
        return f"{value:.3f}"
    if family in ("frechet", "upsampling", "score", "path", "inversion"):
        return f"{value:.2f}"
    return f"{value:.4g}"


def typeset(table: Table, format: Format) -> list[str]:
    """Return the table as lines; CSV has the numbers only, with intervals in columns of their own."""
    if format == "csv":
        return as_csv(table)
    escape = ESCAPES[format]
    headers = [""] + [
        escape(column.name) + ARROWS[format][column.better] + "".join(f" ({note})" for note in column.notes)
        for column in table.columns
    ]
    rows = [[escape(name), *(cell_in(format, cell) for cell in cells)] for name, cells in table.rows]
    text = tabulate(
        rows,
        headers,
        tablefmt="github" if format == "markdown" else "latex_raw",
        colalign=["left", *["right"] * len(table.columns)],
        disable_numparse=True,
    )
    notes = [f"({number}) {escape(note)}" for number, note in enumerate(table.notes, 1)]
    notes += [escape(table.source)] if table.source else []
    return [*text.split("\n"), *(line for note in notes for line in ("", note))]


def cell_in(format: Format, cell: Cell | None) -> str:
    """Return a cell's text: the value, bold if it is the best, and the interval."""
    if cell is None:
        return ""
    digits = BOLD[format].format(cell.digits) if cell.best else cell.digits
    return f"{digits} [{', '.join(cell.interval)}]" if cell.interval else digits


def as_csv(table: Table) -> list[str]:
    """Return the table as CSV; a column with intervals is followed by two with their ends."""
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


def comparison_lines(a: Result, b: Result, comparison: Comparison) -> list[str]:
    """Return a comparison as text, in lines of at most 100 characters."""
    lines = [f"A  {about(a)}", f"B  {about(b)}"]
    lines += difference_lines(comparison)
    lines += ["", "Metrics"]
    equal = []
    for verdict in comparison.verdicts.values():
        if verdict.standing == "comparable" and verdict.values[0] == verdict.values[1]:
            equal.append(verdict.name)
        else:
            lines += wrapped(f"{verdict.name}: {sentence_of(verdict)}", first="  ", others="      ")
    if equal:
        lines += wrapped(f"Equal in both: {', '.join(equal)}.", first="  ", others="      ")
    if not comparison.verdicts:
        lines.append("  The results have no metric in common.")
    for which, names in zip("AB", comparison.alone, strict=True):
        if names:
            lines += wrapped(f"Only in {which}: {', '.join(names)}.", first="  ", others="      ")
    if any(verdict.within is not None for verdict in comparison.verdicts.values()):
        lines += ["", *wrapped(WITHIN)]
    return lines


def about(result: Result) -> str:
    """Return a line about a result: its name, the generated images and the real ones."""
    fields = result.fields
    fakes, reals = ({name: fields.get((part, name)) for name in ("name", "count", "psi")} for part in SETS)
    words = [str(fakes["name"])]
    words += [f"psi {fakes['psi']}"] if fakes["psi"] is not None else []
    words += [f"{fakes['count']} images"] if fakes["count"] else []
    words += [f"{fields['resolution',]} px"] if ("resolution",) in fields else []
    against = f", against {reals['name']}" + (f" ({reals['count']})" if reals["count"] else "") if reals["name"] else ""
    return f"{result.name}: {', '.join(words)}{against}"


def difference_lines(comparison: Comparison) -> list[str]:
    """Return the differences by their effect, each effect once."""
    if not comparison.differences:
        return ["", "The cards agree in everything that the metrics depend on."]
    by_grade: dict[Grade, dict[str, list[Difference]]] = {}
    for difference in comparison.differences:
        for fact, names in difference.effects.items():
            by_grade.setdefault(fact.grade, {}).setdefault(effect_text(fact, names, comparison), []).append(difference)
    lines = []
    for grade, heading in HEADINGS.items():
        lines += ["", heading] if grade in by_grade else []
        for effect, differences in by_grade.get(grade, {}).items():
            for difference in differences:
                one, other = difference.values
                lines += wrapped(f"{'.'.join(difference.field)}: A {one}, B {other}", first="  ", others="      ")
            lines += wrapped(effect, first="      ", others="      ")
    idle = [".".join(difference.field) for difference in comparison.differences if not difference.effects]
    if idle:
        lines += ["", *wrapped(f"Differences that affect none of the metrics below: {', '.join(idle)}.")]
    return lines


def effect_text(fact: Fact, names: tuple[str, ...], comparison: Comparison) -> str:
    """Return an effect with its source, preceded by the metrics that it affects unless it affects all."""
    metrics = "" if len(names) == len(comparison.verdicts) else f"{', '.join(names)}: "
    return f"{metrics}{fact.effect}" + (f" ({fact.source})" if fact.source else "")


def sentence_of(verdict: Verdict) -> str:
    """Return in a sentence whether two values can be compared, and which is better."""
    a, b = (f"{value:.0f}" if value >= 1000 and value.is_integer() else f"{value:.5g}" for value in verdict.values)
    values = f"A {a}, B {b}"
    because = enumeration(verdict.because)
    if verdict.standing == "not comparable":
        return f"{values}: not comparable, because of {because}."
    if verdict.standing == "unknown":
        return f"{values}: it is unknown whether they are comparable, because of {because}."
    within = "" if verdict.within is None else f" within {verdict.within:.3g}"
    limits = ", because of" if within else " except for"
    comparable = f"comparable{within}" + (f"{limits} {because}" if because else "")
    if verdict.better is not None:
        gap = f"{abs(verdict.values[0] - verdict.values[1]):.3g}"
        outcome = f"{'AB'[verdict.better]} is better by {gap}"
        if verdict.within is None and family_of(verdict.name) not in NOT_SAMPLED:
            outcome += ", which may be chance: --bootstrap 100 gives intervals"
    elif verdict.values[0] == verdict.values[1]:
        outcome = "they are equal"
    elif better(verdict.name) is None:
        outcome = "it is unknown whether lower or higher is better"
    else:
        outcome = "the difference is within that limit"
    more = f" Together, {enumeration(verdict.compares)} differ." if len(verdict.compares) > 1 else ""
    return f"{values}: {comparable}; {outcome}.{more}"


def enumeration(words: tuple[str, ...]) -> str:
    """Return words as an enumeration."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def wrapped(text: str, *, first: str = "", others: str = "") -> list[str]:
    return wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
