"""Signals and --max-time stop a run within an iteration, saved and whole; the same command goes on."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Run, refused
from processes import TINY, Nursery, Trainer, drafts, nursery, states, write_data

from polyinr_core.training import state as state_files
from polyinr_core.training.state import SavedState, read_state, write_state

linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks after its processes in /proc")
LONG = ["--stages", "8:4", "--state-every", "4", "--checkpoint-every", "0.004"]
SAVED = "polyinr: training state saved to run; run the same command again to resume"
INTERRUPTED = "polyinr: interrupted"


@pytest.fixture(scope="module")
def processes() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def seen(folder: Path) -> int:
    """Return the images seen at the last checkpoint, of which these runs write one an iteration."""
    names = [path.stem for path in (folder / "run/checkpoints").glob("*.safetensors")]
    return max((int(name) for name in names if name.isdigit()), default=-1)


def begun(processes: Nursery, folder: Path) -> Trainer:
    """Start a run and wait for its second iteration."""
    trainer = processes.start(folder, *TINY, *LONG)
    assert trainer.wait_for(lambda: seen(folder) >= 8), trainer.said
    return trainer


def check_sound(folder: Path, *, images: int) -> None:
    """Find the state of this many images, whole, and nothing else."""
    state, damaged = read_state(folder / "run/state")
    assert state.counters["images"] == images
    assert not damaged
    assert not drafts(folder)
    assert not (folder / "run/run.lock").exists()


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_stops_within_an_iteration(processes: Nursery, folder: Path, number: int) -> None:
    """No state is due: the one there is was written because of the signal."""
    trainer = begun(processes, folder)
    before = seen(folder)
    assert states(folder) == []
    trainer.kill(number)
    assert trainer.end() == 128 + number
    assert trainer.said.splitlines()[-2:] == [SAVED, INTERRUPTED]
    (after,) = states(folder)
    assert before <= after <= before + 8  # the one at work, and the one after if it was past the question already
    assert seen(folder) == after
    check_sound(folder, images=after)
    again = processes.start(folder, *TINY, *LONG)
    assert again.wait_for(lambda: seen(folder) > after), again.said
    again.kill(signal.SIGTERM)
    assert again.end() == 143
    assert f"polyinr: resuming at {after / 1000:g} kimg" in again.said


@linux
@pytest.mark.slow
def test_signals_while_the_state_is_written_are_the_same_wish(processes: Nursery, folder: Path) -> None:
    trainer = begun(processes, folder)
    trainer.kill(signal.SIGINT)
    trainer.kill(signal.SIGINT)
    assert trainer.wait_for(lambda: "state" in drafts(folder)), trainer.said
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        trainer.kill(number)
    assert trainer.end() == 128 + signal.SIGINT  # the first
    assert trainer.said.splitlines()[-2:] == [SAVED, INTERRUPTED]
    check_sound(folder, images=states(folder)[-1])


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_all_is_loaded_ends_at_once(processes: Nursery, folder: Path, number: int) -> None:
    """Nothing is trained yet: nothing is waited for, nothing saved, and the same command begins again."""
    trainer = processes.start(folder, *TINY, *LONG)
    assert trainer.wait_for((folder / "run/run.lock").exists), trainer.said
    trainer.kill(number)
    assert trainer.end() == 128 + number, trainer.said
    assert trainer.said.splitlines()[-1] == INTERRUPTED
    assert SAVED not in trainer.said
    assert states(folder) == []
    assert not drafts(folder)


@linux
@pytest.mark.slow
def test_max_time_ends_well_and_says_how_to_go_on(processes: Nursery, folder: Path) -> None:
    clock = time.monotonic()
    trainer = processes.start(folder, *TINY, *LONG, "--max-time", "2s")
    assert trainer.end() == 0
    assert time.monotonic() - clock < 60
    assert trainer.said.splitlines()[-1] == SAVED
    (images,) = states(folder)
    check_sound(folder, images=images)
    assert seen(folder) == images


@linux
@pytest.mark.slow
def test_two_processes_on_one_folder(processes: Nursery, folder: Path, polyinr: Run) -> None:
    """The second is refused and harms nothing."""
    first = begun(processes, folder)
    refused(polyinr(*TINY, *LONG), "run: another process is training here", "choose another --run-dir", code=1)
    assert first.runs
    first.kill(signal.SIGTERM)
    assert first.end() == 128 + signal.SIGTERM
    check_sound(folder, images=states(folder)[-1])


@pytest.mark.parametrize("number", [0, 1], ids=["the tensors", "the manifest"])
def test_an_interruption_while_a_state_is_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A second Ctrl-C, a second later."""
    write_state(tmp_path, SavedState({"a": torch.zeros(3)}, {"images": 4}), images=4)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state_files, ("sha256_of", "remove_other_states")[number], interrupt)
        if number:
            patch.setattr(state_files, "format_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_state(tmp_path, SavedState({"a": torch.ones(3)}, {"images": 8}), images=8)
    state, damaged = read_state(tmp_path)
    assert (state.counters, damaged) == ({"images": 4}, [])
    assert not list(tmp_path.glob(".*.part"))
