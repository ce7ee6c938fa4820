"""One process a run folder: the second is refused, a killed one frees the lock, nothing is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polyinr_core.errors import FileError, TrainingError
from polyinr_core.training.config import PRESETS
from polyinr_core.training.run_dir import DataFacts, RunFolder

DATA = DataFacts("data.zip", "ab" * 32, 12, 3)
HOLD = """
import os, sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
if not os.fork():
    print(os.getpid(), flush=True)  # the child has let go of the lock by now
time.sleep(100)
"""


@contextmanager
def holder(folder: RunFolder) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock, with a child that outlives it, as one that reads images may."""
    command = [sys.executable, "-c", HOLD, str(folder.lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)


def claimed(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.claim(PRESETS["tiny"], DATA)
    return folder


@contextmanager
def another_user() -> Iterator[None]:
    """Be nobody in particular for a while, where one is root, whom no permission stops."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_second_process_is_refused_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    with holder(folder) as process:
        with pytest.raises(TrainingError, match=r"run: another process is training here; [^\n]*--run-dir$"):
            folder.locked().__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert folder.lock.exists()
        with folder.locked():
            pass
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json"]


def test_a_process_excludes_itself_too(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    with folder.locked(), pytest.raises(TrainingError, match="another process"):
        RunFolder(folder.path).locked().__enter__()
    with folder.locked():
        pass


def test_a_new_folder_in_which_nothing_comes_goes_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "new")
    with pytest.raises(TrainingError, match="no"), folder.locked():
        raise TrainingError("no")
    assert not list(tmp_path.iterdir())
    with folder.locked():
        folder.claim(PRESETS["tiny"], DATA)
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TrainingError, match="already exists and is no run folder"):
        RunFolder(tmp_path).locked().__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_process_killed_at_its_start_leaves_is_no_hindrance(tmp_path: Path) -> None:
    """It had made the folder and the lock, and was writing config.json."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.lock.touch()
    draft = folder.path / ".config.json.abc.part"
    draft.mkdir()
    (draft / "config.json").write_text("{")
    with folder.locked():
        folder.claim(PRESETS["tiny"], DATA)
    assert [path.name for path in folder.path.iterdir()] == ["config.json"]


def test_drafts_of_a_killed_process_are_cleared_away(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "run")
    drafts = [
        folder.state / ".000000000008.safetensors.x.part",
        folder.checkpoint(8).parent / ".000000008.safetensors.x.part",
        folder.sample("reals").parent / ".reals.png.x.part",
    ]
    for draft in drafts:
        draft.mkdir(parents=True)
        (draft / "half").write_text("half")
    with folder.locked():
        assert not any(draft.exists() for draft in drafts)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that any user may look into; pytest's own are for one alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("there", [True, False], ids=["run", "new"])
def test_a_folder_that_one_may_not_write_to_is_refused(place: Path, there: bool) -> None:
    folder = RunFolder(place / "run")
    if there:
        claimed(folder.path)
    for path in place, folder.path:
        if path.exists():
            path.chmod(0o555)
    with another_user(), pytest.raises(FileError, match=r"run: permission denied; [^\n]*$"):
        folder.locked().__enter__()
    assert [path.name for path in place.rglob("*")] == (["run", "config.json"] if there else [])
    for path in place, folder.path:
        if path.exists():
            path.chmod(0o755)


def test_a_folder_that_one_may_not_look_into_is_refused(place: Path) -> None:
    folder = claimed(place / "run")
    folder.path.chmod(0)
    with another_user(), pytest.raises(FileError, match="permission denied"):
        folder.locked().__enter__()
    folder.path.chmod(0o755)
