"""Tests of benchmarks/speed_check.py: a ratio that has fallen fails the job, one that a busy machine hid does not."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import typer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
STATED = {"rendering": 2.0, "training": 3.0}


@pytest.fixture
def speed_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import speed_check

    return speed_check


def given(*ratios: dict[str, float]):
    """Return a measurement that finds these one after another."""
    left = list(ratios)
    return lambda: left.pop(0)


def test_a_ratio_under_four_fifths_of_the_stated_one_is_named(speed_check, capsys) -> None:
    measure = given(*[{"rendering": 1.59, "training": 2.5}] * 3)
    assert speed_check.too_low((measure,), STATED) == ["rendering"]
    assert "rendering: 1.59, 2.00 is stated: TOO LOW" in capsys.readouterr().out


def test_a_ratio_that_is_low_once_is_measured_again(speed_check) -> None:
    measure = given({"rendering": 0.5, "training": 3.0}, {"rendering": 1.7, "training": 0.1}, {})
    assert speed_check.too_low((measure,), STATED) == []
    assert measure() == {}  # twice was enough


def test_the_job_fails_by_its_exit_code(speed_check, monkeypatch, tmp_path) -> None:
    stated = tmp_path / "speed_check.json"
    monkeypatch.setattr(speed_check, "STATED", stated)
    monkeypatch.setattr(speed_check.torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(speed_check, "MEASURES", (lambda: {"rendering": 2.0},))
    here = {name: speed_check.facts()[name] for name in ("machine", "capability")}
    for ratio, processor, fails in (
        (2.4, here, False),
        (2.6, here, True),
        (3.9, {**here, "machine": "another"}, False),
        (4.1, {**here, "machine": "another"}, True),
        (3.9, {**here, "capability": "another"}, False),
    ):
        stated.write_text(json.dumps({**processor, "ratios": {"rendering": ratio}}))
        if fails:
            with pytest.raises(typer.Exit) as ended:
                speed_check.main(new=False)
            assert ended.value.exit_code == 1
        else:
            speed_check.main(new=False)


def test_what_is_stated_is_what_is_measured(speed_check) -> None:
    stated = json.loads(speed_check.STATED.read_text())["ratios"]
    assert set(stated) == {
        "rendering, times the baseline",
        "rendering, of the floor's rate",
        "rendering with tolerance 1, times exact",
        "training iteration, times the baseline",
    }
    assert all(ratio > 0 for ratio in stated.values())
