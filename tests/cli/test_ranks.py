"""Which of torchrun's processes this is, by an environment that may be empty, half or garbage."""

import pytest
from conftest import Run, refused

from polyinr_cli.runtime import Job, job, joined, rank_or_first
from polyinr_core.errors import RequestError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Job()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Job(3, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, Job()),
        ({"WORLD_SIZE": "8"}, Job()),
        ({"RANK": "3", "WORLD_SIZE": "8"}, Job()),  # a scheduler's, of which a single command is none of the job
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": ""}, Job()),
        ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": ""}, Job()),
        ({"WORLD_SIZE": "x"}, Job()),
    ],
)
def test_a_job_is_one_that_torchrun_started(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], expected: Job
) -> None:
    set_all(monkeypatch, **values)
    assert job() == expected
    assert rank_or_first() == expected.rank


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "8", "9999999999999999999999"])
@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_an_environment_that_is_no_jobs_is_one_line(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    set_all(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0")
    monkeypatch.setenv(name, value)
    good = value.isdecimal() and name != "RANK"
    if good:
        assert job().rank == 0
    else:
        with pytest.raises(RequestError, match=rf"\${name} is"):
            job()
    assert rank_or_first() == 0
    refused(polyinr("info", "missing.png"), "missing.png: no such file", code=1)  # the reporter reads it as well


@pytest.mark.parametrize("world_size", ["8", "x"])
def test_a_stray_world_size_leaves_nothing_out(
    polyinr: Run,
    tiny_checkpoint: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    world_size: str,
) -> None:
    set_all(monkeypatch, WORLD_SIZE=world_size, RANK="1")
    ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "0-4", "-o", "out/", "--json")
    assert [line["seed"] for line in ran.lines] == [0, 1, 2, 3, 4]
    warning = f"$WORLD_SIZE is {world_size!r} without $LOCAL_RANK: not started by torchrun; running alone"
    assert caplog.messages == [warning]


@pytest.mark.parametrize("world_size", ["", "1"])
def test_a_world_of_one_needs_no_word(
    polyinr: Run, tiny_checkpoint: object, monkeypatch: pytest.MonkeyPatch, world_size: str
) -> None:
    set_all(monkeypatch, WORLD_SIZE=world_size)
    ran = polyinr("sample", "-m", tiny_checkpoint, "--seeds", "0", "-o", "out/")
    assert (ran.code, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "value"), [("MASTER_ADDR", None), ("MASTER_ADDR", ""), ("MASTER_PORT", None), ("MASTER_PORT", "x")]
)
def test_processes_need_a_place_to_meet(monkeypatch: pytest.MonkeyPatch, name: str, value: str | None) -> None:
    import torch

    set_all(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
    monkeypatch.delenv(name)
    if value is not None:
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=rf"\${name} is"), joined(torch.device("cpu")):
        pass
