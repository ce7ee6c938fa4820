"""`polyinr table`: formats, names, the paper's rows, pipes, what is refused."""

import csv
import subprocess
import sys

import pytest
from conftest import Run, refused
from results import REFUSED, write_not_results, write_result


@pytest.fixture
def two(polyinr: Run) -> str:
    """Write a.json and x/a.json, of two models; return the text of the second."""
    write_result("a.json", {"fd-lite2": {"value": 30, "low": 29, "high": 31}, "is": 5})
    return write_result("x/a.json", {"fd-lite2": {"value": 40, "low": 39, "high": 41}, "is": 5}, sha="b")


def test_markdown(polyinr: Run, two: str) -> None:
    ran = polyinr("table", "a.json", "x/a.json")
    assert (ran.code, ran.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in ran.stdout.decode().splitlines()]
    assert lines[0] == "| | fd-lite2 ↓ | is ↑ |"
    assert lines[2] == "| a | **30.00** [29.00, 31.00] | 5.00 |"
    assert lines[3] == "| x/a | 40.00 [39.00, 41.00] | 5.00 |"
    assert len(lines) == 4


def test_names_and_latex(polyinr: Run, two: str) -> None:
    ran = polyinr("table", "a.json", "x/a.json", "--names", "ours, theirs_1", "--format", "latex")
    text = ran.stdout.decode()
    assert ran.code == 0
    assert text.startswith(r"\begin{tabular}{lrr}")
    assert " ours " in text
    assert r" theirs\_1 " in text


def test_csv_and_its_notes(polyinr: Run, two: str) -> None:
    write_result("b.json", {"fd-lite2": 20.0}, count=10_000)
    words = ["table", "a.json", "b.json", "--format", "csv", "--paper", "ffhq-256"]
    ran = polyinr(*words)
    rows = list(csv.reader(ran.stdout.decode().splitlines()))
    assert [row[0] for row in rows] == ["name", "a", "b", "Poly-INR (paper)"]
    assert rows[0][:4] == ["name", "fd-lite2", "fd-lite2 low", "fd-lite2 high"]
    said = ran.stderr.splitlines()
    assert len(said) == 2
    assert said[0].startswith("polyinr: Comparable only within what differs with a: b")
    assert "Table 2" in said[1]
    assert polyinr(*words, "-q").stderr == ""


def test_from_a_pipe(polyinr: Run, two: str) -> None:
    ran = polyinr("table", "-", "a.json", stdin=two.encode())
    assert [line.split()[1] for line in ran.stdout.decode().splitlines()[2:]] == ["stdin", "a"]


def test_into_a_pipe_that_closes(polyinr: Run, two: str) -> None:
    """As `| head -n 1`: what reads has gone after a line, and nothing is said of it."""
    command = [sys.executable, "-m", "polyinr_cli", "table"]
    process = subprocess.Popen(
        [*command, "a.json", "--paper", "imagenet-256"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 1


@pytest.mark.parametrize(("file", "code", "said"), [(file, code, said) for file, code, *said in REFUSED])
def test_what_is_refused(polyinr: Run, file: str, code: int, said: list[str]) -> None:
    write_not_results()
    write_result("a.json", {"fd-lite2": 30.0})
    refused(polyinr("table", "a.json", file), *said, code=code)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "FILE"),
        ("a.json --format html", "--format"),
        ("a.json --paper imagenet", "no table 'imagenet'"),
        ("a.json x/a.json --names one", "--names 'one' must give 2 different names"),
        ("a.json x/a.json --names one,one", "--names 'one,one'"),
        ("a.json x/a.json --names one,", "--names 'one,'"),
        ("a.json --psi 1", "--psi"),
    ],
)
def test_words_that_make_no_sense(polyinr: Run, two: str, words: str, said: str) -> None:
    refused(polyinr("table", *words.split()), said, code=2)
