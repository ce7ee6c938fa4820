"""A run that is killed twenty times, whenever, ends with the very weights of one that was never killed."""

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import TINY, Nursery, Trainer, drafts, nursery, start, states, write_data

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks after its processes in /proc"),
]
STAGES = ["--stages", "8:0.08,16:0.08", "--state-every", "0.004", "--checkpoint-every", "0.012"]
STAGES += ["--metric-every", "0.04", "--keep", "4"]
ALL = 160  # images of the two stages
# when to kill: so many states after the start, and then at what
MOMENTS = [
    *[(0, "start")] * 3,
    *[(0, "state")] * 2,
    *[(1, "state")] * 5,
    *[(0, "checkpoint")] * 3,
    *[(0, "any")] * 2,
    *[(1, "any")] * 5,
]


@pytest.fixture(scope="module")
def processes() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


def await_moment(trainer: Trainer, *, after: int, what: str, rng: random.Random) -> None:
    """Wait until so many new states are there and what is asked for has begun, then a random moment longer."""
    folder, stood = trainer.folder, states(trainer.folder)[-1:]
    if what == "start":
        time.sleep(rng.uniform(0, 1))
        return
    aim = (stood[0] if stood else 0) + 4 * after
    trainer.wait_for(lambda: states(folder)[-1:] >= [aim] or not aim)
    if what == "any":
        time.sleep(rng.uniform(0, 0.5))
        return
    name = "state" if what == "state" else "checkpoints"
    trainer.wait_for(lambda: name in drafts(folder))
    time.sleep(rng.choice([0, 0, 0.003, 0.01]))


def lines(folder: Path) -> list[str]:
    """Return the lines of the log; the last one may be cut off."""
    log = folder / "run/log.jsonl"
    return log.read_text().splitlines() if log.exists() else []


def phase_of(folder: Path, *, stood: list[int], logged: int) -> str:
    """Say what a killed process was doing, by what it left; `logged` is how long the log was before."""
    left = drafts(folder)
    weights = {path.stem for path in (folder / "run/state").glob("*.safetensors")}
    manifests = {path.stem for path in (folder / "run/state").glob("*.json")}
    if "state" in left or weights - manifests:
        return "while a state was written"
    if "checkpoints" in left or "samples" in left:
        return "while a checkpoint or its sheet was written"
    if "." in left or (states(folder) == stood and all("resumed" in line for line in lines(folder)[logged:])):
        return "in start-up or the first iteration"
    return "between two writes"


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that a run leaves but its log."""
    run = folder / "run"
    kept = [path for path in run.rglob("*") if path.is_file() and path.suffix in (".safetensors", ".json", ".png")]
    return {str(path.relative_to(run)): path.read_bytes() for path in kept}


def test_twenty_kills_leave_no_trace(processes: Nursery, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """States, checkpoints and sheets are compared byte by byte."""
    clock = time.perf_counter()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        write_data(folder)
    assert processes.start(whole, *TINY, *STAGES).end() == 0

    rng = random.Random(0)
    moments = rng.sample(MOMENTS, len(MOMENTS))
    phases: Counter[str] = Counter()
    for after, what in moments:
        stood, logged = states(killed), len(lines(killed))
        trainer = processes.start(killed, *TINY, *STAGES)
        await_moment(trainer, after=after, what=what, rng=rng)
        assert trainer.runs, f"ended too soon: {trainer.said}"
        trainer.kill()
        assert trainer.end() == -signal.SIGKILL
        phases[phase_of(killed, stood=stood, logged=logged)] += 1
    assert states(killed)[-1] < ALL

    last = start(killed, *TINY, *STAGES)  # from nothing, as a shell does
    assert last.end() == 0, last.said
    expected, found = contents(whole), contents(killed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []
    assert f"state/{ALL:012d}.safetensors" in expected
    assert f"checkpoints/{ALL:09d}.safetensors" in expected
    assert not drafts(killed)
    assert phases.total() == 20
    assert phases["while a state was written"] >= 3
    assert phases["while a checkpoint or its sheet was written"] >= 1
    assert phases["in start-up or the first iteration"] >= 1
    with capsys.disabled():
        print(f"\n20 kills: {dict(phases)}; {time.perf_counter() - clock:.0f} s")
