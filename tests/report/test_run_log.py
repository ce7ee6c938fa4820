"""A run's log: repeated iterations, damaged lines, stages, a growing log."""

import json
from pathlib import Path

import pytest
from run_stand_in import events, make_run

from polyinr_core.errors import FileError
from polyinr_core.report.page import stage_rows
from polyinr_core.report.run_reader import Series, StageSpan, read_log, read_run


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_repeated_iterations_replace_earlier_events(tmp_path: Path) -> None:
    log = read_log(make_run(tmp_path / "run") / "log.jsonl")
    assert (log.kimg, log.resumed, log.undone, log.damaged) == (4.0, (1.0,), 2, 0)
    speed = log.series("img_per_sec")
    assert speed.kimg == tuple(0.25 * i for i in range(1, 17))
    assert speed.values == tuple([10.0 + i for i in range(4)] + [10.0 + i for i in range(7, 19)])
    assert log.spans == (StageSpan(0, 16, 0.0, 2.0), StageSpan(1, 32, 2.0, 4.0))
    assert log.warnings == ((4.0, "judging takes <b>long</b>"),)
    assert log.names[:3] == ("stage", "resolution", "kimg")


def test_a_restarted_run_ignores_earlier_events(tmp_path: Path) -> None:
    """Without a word of it, as where somebody removed the states; of two values at one kimg the later counts."""
    first = [{"kimg": 0.0, "diversity": 0.1}, {"kimg": 5.0, "loss_d": 1.0}]
    again = [{"kimg": 0.0, "diversity": 0.2}, {"kimg": 1.0, "loss_d": 2.0}]
    log = read_log(written(tmp_path / "log.jsonl", *first, *again))
    assert (log.kimg, log.undone) == (1.0, 1)
    assert log.series("diversity") == Series((0.0,), (0.2,))
    assert log.series("loss_d") == Series((1.0,), (2.0,))


def test_spans_of_any_stage_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as file:
        file.write(json.dumps({"kimg": 5.0, "stage": 2**31 - 1, "resolution": 64}) + "\n")
    assert [(row.number, row.resolution) for row in stage_rows(read_run(run))] == [(1, 16), (2, 32), (2**31, 64)]


DAMAGED = [
    '{"kimg": 1, "crit',
    "null",
    "[1]",
    '{"loss_d": 1}',
    '{"kimg": "1"}',
    '{"kimg": true}',
    '{"kimg": NaN}',
    '{"kimg": -1}',
    '{"kimg": 1e400}',
    '{"kimg": 1' + "0" * 5000 + "}",
    "[" * 100_000,
    "\0\0\0",
]


@pytest.mark.parametrize("line", DAMAGED, ids=lambda line: line[:16])
def test_damaged_lines_are_counted_and_ignored(tmp_path: Path, line: str) -> None:
    log = read_log(written(tmp_path / "log.jsonl", {"kimg": 1}, line, "", {"kimg": 2, "loss_d": 3}))
    assert (log.kimg, log.damaged, log.undone) == (2.0, 1, 0)
    assert log.series("loss_d").values == (3.0,)


def test_an_incomplete_last_line_is_not_damage(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", *events())
    path.write_bytes(path.read_bytes() + b'{"kimg": 4.2')
    assert (read_log(path).damaged, read_log(path).kimg) == (0, 4.0)


def test_values_that_are_not_finite_are_no_points(tmp_path: Path) -> None:
    values = [None, "x", True, [1], 2, 1e31, -3.5]
    log = read_log(written(tmp_path / "log.jsonl", *({"kimg": i, "loss_d": v} for i, v in enumerate(values))))
    assert log.series("loss_d") == Series((4.0, 6.0), (2.0, -3.5))
    assert log.spans == ()
    assert len(log.series("nothing")) == 0


@pytest.mark.parametrize(("text", "said"), [("", "holds no event"), ("{\nx\n", r"2 damaged lines\); wait")])
def test_a_log_without_events_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(FileError, match=said):
        read_log(tmp_path / "log.jsonl")
