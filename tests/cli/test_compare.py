"""`polyinr compare`: what it prints of two results, the same as JSON, what is refused."""

import json
from pathlib import Path

import pytest
from conftest import Run, refused
from results import REFUSED, write_not_results, write_result


def explained(polyinr: Run, *words: str) -> list[str]:
    ran = polyinr("compare", *words)
    assert (ran.code, ran.stderr) == (0, "")
    return ran.stdout.decode().splitlines()


def test_what_differs_what_it_does_and_what_it_is_worth(polyinr: Run) -> None:
    write_result("a.json", {"fd-lite2": {"value": 30, "low": 29, "high": 31}, "is": 5})
    write_result("b.json", {"fd-lite2": 40, "is": 5}, psi=0.7, count=10_000)
    lines = explained(polyinr, "a.json", "b.json")
    text = "\n".join(lines)
    assert lines[0] == "A  a: m.safetensors, psi 1.0, 20000 images, 32 px, against cats.zip (900)"
    assert "  fakes.psi: A 1.0, B 0.7" in lines
    assert "Truncation trades diversity for quality" in text
    assert "Chong and Forsyth 2020" in text
    assert "fd-lite2: A 30, B 40: comparable within 30, because of the count of generated images;" in text
    assert "is: A 5, B 5: not comparable, because of the count of generated images." in text
    assert text.index("What the comparison is about") < text.index("What shifts the values") < text.index("\nMetrics")
    assert max(map(len, lines)) <= 100


def test_chance_is_named_where_there_is_no_interval(polyinr: Run) -> None:
    write_result("a.json", {"fd-lite2": 30.0, "joy": 1, "only": 2})
    write_result("b.json", {"fd-lite2": 29.0, "joy": 2, "extra": 3}, sha="b", psi=0.5)
    text = " ".join(" ".join(explained(polyinr, "a.json", "b.json")).split())
    assert "comparable; B is better by 1, which may be chance: --bootstrap 100 gives intervals." in text
    assert "Together, the model and psi differ." in text
    assert "joy: A 1, B 2: comparable; it is unknown whether lower or higher is better." in text
    assert "Only in A: only." in text
    assert "Only in B: extra." in text


def test_cards_that_agree(polyinr: Run) -> None:
    write_result("a.json", {"fd-lite2": 30.0})
    write_result("x/a.json", {"fd-lite2": 30.0})
    text = "\n".join(explained(polyinr, "a.json", "x/a.json"))
    assert "The cards agree in everything that the metrics depend on." in text
    assert "Equal in both: fd-lite2." in text
    assert "B  x/a: " in text


def test_a_difference_that_touches_no_shared_figure_is_said_of_none(polyinr: Run) -> None:
    write_result("a.json", {"is": 5.0})
    facts = json.loads(write_result("b.json", {"is": 5.0}))
    facts["card"]["reals"]["sha256"] = "e" * 64
    facts["card"]["weather"] = "rain\x1b[2J"
    Path("b.json").write_text(json.dumps(facts))
    text = "\n".join(explained(polyinr, "a.json", "b.json"))
    assert "Differences that affect none of the metrics below: reals.sha256." in text
    assert "weather: A not on the card, B rain?[2J" in text
    assert "is: A 5, B 5: it is unknown whether they are comparable, because of weather." in text


def test_json_from_a_pipe(polyinr: Run) -> None:
    piped = write_result("b.json", {"fd-lite2": 40.0}, count=10_000)
    write_result("a.json", {"fd-lite2": 30.0})
    ran = polyinr("compare", "a.json", "-", "--json", stdin=piped.encode())
    (facts,) = ran.lines
    assert (facts["a"], facts["b"]) == ("a", "stdin")
    (difference,) = facts["differences"]
    assert (difference["field"], difference["a"], difference["b"]) == ("fakes.count", "20000", "10000")
    (effect,) = difference["effects"]
    assert (effect["kind"], effect["metrics"]) == ("bias", ["fd-lite2"])
    assert "Chong" in effect["source"]
    assert facts["metrics"]["fd-lite2"] == {
        "a": 30.0,
        "b": 40.0,
        "standing": "within",
        "within": 30.0,
        "because": ["the count of generated images"],
        "compares": [],
        "better": None,
    }


@pytest.mark.parametrize(("file", "code", "said"), [(file, code, said) for file, code, *said in REFUSED])
def test_what_is_refused(polyinr: Run, file: str, code: int, said: list[str]) -> None:
    write_not_results()
    write_result("a.json", {"fd-lite2": 30.0})
    refused(polyinr("compare", "a.json", file), *said, code=code)


def test_one_file_is_too_few(polyinr: Run) -> None:
    write_result("a.json", {"fd-lite2": 30.0})
    refused(polyinr("compare", "a.json"), "B.json", code=2)
