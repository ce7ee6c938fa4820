"""A table of results as text: Markdown, LaTeX, or CSV."""

import csv
import io
import re
from typing import Literal

from tabulate import tabulate  # type: ignore[import-untyped]

from .tables import Cell, Table

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
