"""Tests of benchmarks/held.py: a ratio that has fallen fails the job, one that a busy machine hid does not."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import typer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STATED = {"drawing": 2.0, "training": 3.0}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import held

    return held


def given(*ratios: dict[str, float]):
    """Return a measurement that finds these one after another."""
    left = list(ratios)
    return lambda: left.pop(0)


def test_a_ratio_under_four_fifths_of_the_stated_one_is_named(held, capsys) -> None:
    measure = given(*[{"drawing": 1.59, "training": 2.5}] * 3)
    assert held.too_low((measure,), STATED) == ["drawing"]
    assert "drawing: 1.59, 2.00 is stated: TOO LOW" in capsys.readouterr().out


def test_a_ratio_that_is_low_once_is_measured_again(held) -> None:
    measure = given({"drawing": 0.5, "training": 3.0}, {"drawing": 1.7, "training": 0.1}, {})
    assert held.too_low((measure,), STATED) == []
    assert measure() == {}  # twice was enough


def test_the_job_fails_by_its_exit_code(held, monkeypatch, tmp_path) -> None:
    stated = tmp_path / "held.json"
    monkeypatch.setattr(held, "STATED", stated)
    monkeypatch.setattr(held.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(held, "MEASURES", (lambda: {"drawing": 2.0},))
    here = {name: held.facts()[name] for name in ("machine", "capability")}
    for ratio, processor, fails in (
        (2.4, here, False),
        (2.6, here, True),
        (3.9, {**here, "machine": "another"}, False),
        (4.1, {**here, "machine": "another"}, True),
        (3.9, {**here, "capability": "another"}, False),
    ):
        stated.write_text(json.dumps({**processor, "ratios": {"drawing": ratio}}))
        if fails:
            with pytest.raises(typer.Exit) as ended:
                held.main(new=False)
            assert ended.value.exit_code == 1
        else:
            held.main(new=False)


def test_what_is_stated_is_what_is_measured(held) -> None:
    stated = json.loads(held.STATED.read_text())["ratios"]
    assert set(stated) == {
        "drawing, times the literal form",
        "drawing, of the floor's rate",
        "tolerance 1, times exact",
        "training iteration, times the literal one",
    }
    assert all(ratio > 0 for ratio in stated.values())
