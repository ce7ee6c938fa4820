"""Tables of results: columns by name, the best values, notes on comparability; three formats."""

import csv
import json
from importlib import resources
from typing import Any

import pytest
from test_comparison import result

from polyinr_core.errors import RequestError
from polyinr_core.evaluation.results import Result
from polyinr_core.evaluation.tables import Table, format_value, published, table_of, tables, typeset
from polyinr_core.metrics.registry import better


def row(name: str, figures: dict[str, Any], **changes: Any) -> Result:
    rows = {key: value if isinstance(value, dict) else {"value": value} for key, value in figures.items()}
    return Result(name, rows, result(**changes).card)


def bold(table: Table, column: int = 0) -> list[str]:
    return [name for name, cells in table.rows if cells[column] is not None and cells[column].best]


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def test_columns_and_best_values() -> None:
    table = table_of([row("a", {"fd-lite2": 2.0, "is": 3.0}), row("b", {"is": 4.0, "kd-lite2": 1.0, "joy": 2.0})])
    assert [(column.name, column.better) for column in table.columns] == [
        ("fd-lite2", "lower"),
        ("is", "higher"),
        ("kd-lite2", "lower"),
        ("joy", None),
    ]
    assert [bold(table, i) for i in range(4)] == [[], ["b"], [], []]  # alone is not best
    assert table.rows[0][1][2] is None
    assert table.notes == ()


@pytest.mark.parametrize("format", ["markdown", "latex", "csv"])
def test_a_name_of_several_lines_is_joined(format: str) -> None:
    table = table_of([row("a\nb", {"fd-lite2\r\n joy": 2.0})])
    lines = typeset(table, format)
    assert sum("fd-lite2 joy" in line for line in lines) == sum("a b" in line for line in lines) == 1


def test_values_within_the_interval_of_the_best_are_best() -> None:
    def rows(*values: float) -> list[Result]:
        return [row(str(i), {"fd-lite2": interval(value, 3)}, fakes__sha256=str(i)) for i, value in enumerate(values)]

    assert bold(table_of(rows(9, 6, 1))) == ["2"]
    assert bold(table_of(rows(9, 5, 1))) == ["1", "2"]


def test_equal_values_have_no_best() -> None:
    assert bold(table_of([row(name, {"params": 3.0}) for name in "abc"])) == []


def test_incomparable_values_have_a_note_and_no_best() -> None:
    rows = [
        row("a", {"fd-lite2": 3.0, "is": 3.0}),
        row("b", {"fd-lite2": 2.0, "is": 4.0}, reals__sha256="ee"),
        row("c", {"fd-lite2": 1.0}, libraries__torch="3"),
        row("d", {"fd-lite2": 1.0}, weather="rain"),
        row("e", {"fd-lite2": 1.0}, weather="sun"),
    ]
    table = table_of(rows)
    assert bold(table) == []
    assert bold(table, 1) == ["b"]  # which needs no reals
    assert [table.notes[number - 1] for number in table.columns[0].notes] == [
        "Not comparable with a: b (other reals).",
        "Not known to be comparable with a: d, e (weather).",
        "Comparable only within what differs with a: c (library versions).",
    ]
    assert table.columns[1].notes == ()


def test_paper_rows_share_columns_of_the_same_name() -> None:
    mine = row("mine", {"fid": 2.0, "fd-lite2": 1.0, "rfid-seed0": 3.0}, resolution=256, fakes__count=1000)
    mine.card["fakes"] |= {"labels": "dataset", "label_weights": "7 9"}
    table = table_of([mine], published("imagenet-256"))
    names = [column.name for column in table.columns]
    assert names[:3] == ["fid", "fd-lite2", "rfid-seed0"]
    title, cells = table.rows[-1]
    assert title == "Poly-INR (paper)"
    printed = {name: cell.digits for name, cell in zip(names, cells, strict=True) if cell is not None}
    assert printed["fid"] == "2.86"
    assert printed["params"] == "46.0M"
    assert not {"fd-lite2", "rfid-seed0"} & printed.keys()
    assert bold(table) == []  # the paper's are never marked
    notes = [table.notes[number - 1] for number in table.columns[0].notes]
    assert notes == ["Comparable only within what differs with the paper's: mine (the count of generated images)."]
    assert "Table 1" in table.source
    assert "no card" in table.source
    other = table_of([row("mine", {"fid": 2.0}, resolution=32, fakes__labels="dataset")], published("imagenet-256"))
    assert other.notes == ("Not comparable with the paper's: mine (the resolution).",)
    alike = row("mine", {"fid": 2.0}, resolution=256, fakes__count=50_000, fakes__seeds="0-49999")
    alike.card["fakes"]["labels"] = "dataset"
    assert table_of([alike], published("imagenet-256")).notes == ()


def test_paper_values() -> None:
    """Each is a number of a metric whose direction is known; two are copied from the paper."""
    for name in tables()["tables"]:
        known = published(name)
        assert known.rows
        for printed in known.rows:
            for key, figure in printed.metrics.items():
                assert better(key) is not None, key
                assert figure["value"] > 0
    assert published("imagenet-512").rows[0].metrics["is"]["value"] == 267.44
    assert published("ffhq-256").rows[0].metrics["params"]["value"] == pytest.approx(13.6e6)
    with pytest.raises(RequestError, match=r"no table 'imagenet'; choose from imagenet-128, .*inversion"):
        published("imagenet")


def test_paper_tables_are_package_data() -> None:
    text = resources.files("polyinr_core").joinpath("assets", "paper.json").read_text()
    assert json.loads(text) == tables()


@pytest.mark.parametrize(
    ("name", "value", "digits"),
    [
        ("fid", 2.0816, "2.08"),
        ("kid", 0.00031416, "0.0003142"),
        ("pr-lite2/recall", 0.4567, "0.457"),
        ("inversion/psnr", 26.518, "26.52"),
        ("inversion/ssim", 0.7604, "0.760"),
        ("params", 45_871_743.0, "45.9M"),
        ("params/mapping", 800.0, "800"),
        ("speed", 0.0543, "0.0543"),
    ],
)
def test_digits(name: str, value: float, digits: str) -> None:
    assert format_value(name, value) == digits


ODD = "a|b_c{50%}"


@pytest.fixture
def small() -> Table:
    rows = [row(ODD, {"fd-lite2": interval(2, 0.5), "joy": 1}), row("y", {"fd-lite2": 9.0})]
    rows.append(row("z", {"fd-lite2": 1.0}, libraries__torch="3"))
    return table_of(rows)


def test_markdown(small: Table) -> None:
    lines = typeset(small, "markdown")
    cells = [[cell.strip() for cell in line.replace(r"\|", "!").split("|")[1:-1]] for line in lines[:5]]
    assert cells[0] == ["", "fd-lite2 ↓ (1)", "joy"]
    assert cells[2] == ["a!b_c{50%}", "2.00 [1.50, 2.50]", "1"]
    assert cells[4] == ["z", "**1.00**", ""]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5:] == [
        "",
        f"(1) Comparable only within what differs with {ODD}: z (library versions).".replace("|", r"\|"),
    ]


def test_latex(small: Table) -> None:
    lines = typeset(small, "latex")
    assert lines[0] == r"\begin{tabular}{lrr}"
    text = "\n".join(lines)
    assert r"fd-lite2 $\downarrow$ (1)" in text
    assert r"a|b\_c\{50\%\}" in text
    assert r"\textbf{1.00}" in text
    assert text.count(r"\\") == 4
    assert lines.index(r"\end{tabular}") < next(i for i, line in enumerate(lines) if line.startswith("(1)"))


def test_csv(small: Table) -> None:
    rows = list(csv.reader(typeset(small, "csv")))
    assert rows == [
        ["name", "fd-lite2", "fd-lite2 low", "fd-lite2 high", "joy"],
        [ODD, "2", "1.5", "2.5", "1"],
        ["y", "9", "", "", ""],
        ["z", "1", "", "", ""],
    ]
