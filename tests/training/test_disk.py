"""A full disk stops a run with one line; the last good state stays, nothing half-written does, and it goes on."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, refused
from processes import TINY, drafts, nursery, states, write_data

from polyinr_core.runtime import pretrained
from polyinr_core.training.state import read_state

pytestmark = pytest.mark.no_numbers
STAGES = ["--stages", "8:0.016", "--state-every", "0.004", "--checkpoint-every", "0.004"]
once = cache(pretrained.load_pretrained)


@pytest.fixture(autouse=True)
def networks_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "load_pretrained", once)


def full_for(name: str, *, number: int) -> Callable[[int], None]:
    """Return an `os.fsync` for a disk that has no room for the file of this name, the so-manyeth of its kind."""
    sync, seen = os.fsync, []

    def starved(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.match(name):
            seen.append(path)
            if len(seen) >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    return starved


def events(folder: Path) -> list[dict[str, Any]]:
    """Return the log's lines, each of which is whole."""
    return [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds out in /proc which file is written")
@pytest.mark.parametrize(
    ("name", "number", "kept"),
    [
        ("*/state/*/*.safetensors", 3, [4, 8]),
        *[
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("*/state/*/*.safetensors", 1, []),
                ("*/state/*/*.json", 2, [4]),
                ("*/checkpoints/*/*.safetensors", 1, []),
                ("*/checkpoints/*/*.safetensors", 3, [4]),
                ("*/samples/*/reals.png", 1, []),
                ("*/samples/*/fakes-*.png", 3, [4]),
            )
        ],
    ],
)
def test_no_room_for_a_file(
    polyinr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, kept: list[int]
) -> None:
    """The system says so when the data is to reach the disk; what was good before still is."""
    write_data(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_for(name, number=number))
        refused(polyinr(*TINY, *STAGES, "--quiet"), "no space left on the disk; free some and run again", code=1)
    assert states(tmp_path) == kept
    assert not drafts(tmp_path)
    assert not (tmp_path / "run/run.lock").exists()
    state, damaged = read_state(tmp_path / "run/state")
    assert not damaged
    assert state is None if not kept else state.counters["images"] == kept[-1]
    ran = polyinr(*TINY, *STAGES)
    assert ran.code == 0, ran.stderr
    assert states(tmp_path) == [12, 16]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_room_for_a_line_of_the_log(polyinr: Run, tmp_path: Path) -> None:
    write_data(tmp_path)
    assert polyinr(*TINY, *STAGES, "--max-time", "0.001s").code == 0
    log, aside = tmp_path / "run/log.jsonl", tmp_path / "log.jsonl"
    log.touch()
    log.rename(aside)
    log.symlink_to("/dev/full")
    refused(polyinr(*TINY, *STAGES, "--quiet"), "log.jsonl: no space left on the disk", code=1)
    assert states(tmp_path) == [4]
    log.unlink()
    aside.rename(log)
    assert polyinr(*TINY, *STAGES).code == 0
    assert states(tmp_path)[-1] == 16
    assert [event["resumed"] for event in events(tmp_path) if "resumed" in event] == [True]


@contextmanager
def small_disk(path: Path, *, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a disk of this size; yield what gives it another. Skip the test where that is not allowed."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a disk can be mounted by root only")
    try:
        yield lambda other: subprocess.run(
            ["mount", "-o", f"remount,size={other}", str(path)], check=True, capture_output=True
        )
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)


@pytest.mark.slow
def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """For the third state there is no room; then there is, and the run ends as one that never lacked any."""
    small, wide = tmp_path / "small", tmp_path / "wide"
    with small_disk(small, size="36m") as resize, nursery() as processes:
        wide.mkdir()
        for folder in (small, wide):
            write_data(folder)
        assert processes.start(wide, *TINY, *STAGES).end() == 0
        trainer = processes.start(small, *TINY, *STAGES, "--quiet")
        assert trainer.end() == 1
        assert trainer.said.count("\n") == 1, trainer.said
        assert "safetensors: no space left on the disk; free some and run again" in trainer.said
        assert states(small) == [4, 8]
        assert not drafts(small)
        assert read_state(small / "run/state")[0].counters["images"] == 8
        resize("200m")
        assert processes.start(small, *TINY, *STAGES).end() == 0
        last = "run/state/000000000016.safetensors"
        assert (small / last).read_bytes() == (wide / last).read_bytes()
