"""One run in two processes is the run of one; a process that dies ends the job, and the job goes on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from processes import COMMAND, TINY, Nursery, Trainer, nursery, start, states, write_data
from safetensors.torch import load_file

from polyinr_core.training.state import read_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks after its processes in /proc"),
]
TORCHRUN = [COMMAND[0], "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", COMMAND[2]]
# ten iterations in two stages
SHORT = [*TINY, "--precision", "float64", "--stages", "8:0.02,16:0.02", "--state-every", "0.004"]
SHORT += ["--checkpoint-every", "0.02"]
RENDER = "polyinr: render images of this run with: polyinr sample -m run --seeds 0-7 -o images/"
SAVED = "polyinr: training state saved to run; run the same command again to resume"
FINE = 1e-9  # float64; sums over two halves are rounded otherwise than over the whole


@pytest.fixture(scope="module")
def processes() -> Iterator[Nursery]:
    with nursery() as found:
        yield found


def place(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def one(processes: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one process, never disturbed."""
    folder = place(tmp_path_factory.mktemp("runs"), "one")
    trainer = processes.start(folder, *SHORT)
    assert trainer.end() == 0, trainer.said
    return folder


@pytest.fixture(scope="module")
def two(processes: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two processes, never disturbed."""
    folder = place(tmp_path_factory.mktemp("runs"), "two")
    assert processes.run_ranks(folder, *SHORT, count=2) == [0, 0], (folder / "said-0.txt").read_text()
    return folder


def said_by_main(folder: Path) -> list[str]:
    """Return the lines on stderr of rank 0."""
    return (folder / "said-0.txt").read_text().splitlines()


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "run/state").glob("*.safetensors")))


def largest_difference(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one if one[name].numel())


def workers(trainer: Trainer) -> list[int]:
    """Return the processes that torchrun has started, in the order of their ranks."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == trainer.number:
                rank = [v for v in (stat.parent / "environ").read_bytes().split(b"\0") if v.startswith(b"RANK=")]
                found += [(int(rank[0][5:]), number)] if rank else []
        except (OSError, ValueError):
            continue
    return [number for _, number in sorted(found)]


def test_two_processes_end_as_one(one: Path, two: Path) -> None:
    """Every tensor of the state: weights, average, discriminator, spectral norms, BatchNorm, both optimizers."""
    assert states(one)[-1] == states(two)[-1] == 40
    expected = last_state(one)
    assert any("running" in name or name.endswith("_u") for name in expected)
    assert largest_difference(expected, last_state(two)) < FINE
    assert said_by_main(two)[-1] == RENDER
    assert (two / "said-1.txt").read_text() == ""


def test_two_processes_end_as_one_with_every_option(processes: Nursery, tmp_path: Path) -> None:
    """Paired losses, penalties, adaptive augmentation and schedules are of the whole batch, accumulated as well."""
    options = "--loss relativistic --penalty 0.05 --penalty-every 2 --lecam 0.1 --augment adaptive --schedule cosine"
    given = [*SHORT, *options.split(), "--micro-batch", "2", "--held-out", "0"]
    one, two = place(tmp_path, "one"), place(tmp_path, "two")
    trainer = processes.start(one, *given)
    assert trainer.end() == 0, trainer.said
    assert processes.run_ranks(two, *given, count=2) == [0, 0], (two / "said-0.txt").read_text()
    assert states(one)[-1] == states(two)[-1] == 40
    assert largest_difference(last_state(one), last_state(two)) < FINE


def test_gradients_of_one_iteration_agree(processes: Nursery, tmp_path: Path) -> None:
    """With a first moment that forgets at once, what Adam keeps of the first iteration is its gradient."""
    folders = place(tmp_path, "one"), place(tmp_path, "two")
    stop = ["--max-time", "0.001s"]
    assert processes.start(folders[0], *SHORT, *stop).end() == 0
    assert processes.run_ranks(folders[1], *SHORT, *stop, count=2) == [0, 0]
    gradients = [
        {name: tensor for name, tensor in last_state(folder).items() if name.endswith("exp_avg")} for folder in folders
    ]
    assert states(folders[0]) == states(folders[1]) == [4]
    assert max(float(tensor.abs().max()) for tensor in gradients[0].values()) > 1e-3
    assert largest_difference(*gradients) < FINE


def test_a_state_of_two_goes_on_with_one(processes: Nursery, one: Path, tmp_path: Path) -> None:
    folder = place(tmp_path, "mixed")
    assert processes.run_ranks(folder, *SHORT, "--max-time", "0.001s", count=2) == [0, 0]
    assert states(folder) == [4]
    assert said_by_main(folder)[-2:] == [RENDER, SAVED]
    assert (folder / "said-1.txt").read_text() == ""
    assert processes.start(folder, *SHORT).end() == 0
    assert largest_difference(last_state(one), last_state(folder)) < FINE


def test_a_killed_rank_ends_the_job_which_goes_on(processes: Nursery, two: Path, tmp_path: Path) -> None:
    """The end is, to the bit, that of two processes that were never killed."""
    folder = place(tmp_path, "killed")
    trainer = start(folder, *SHORT, command=TORCHRUN)
    assert trainer.wait_for(lambda: states(folder)), trainer.said
    os.kill(workers(trainer)[1], signal.SIGKILL)
    assert trainer.end() != 0
    assert "signal 9" in trainer.said.lower() or "sigkill" in trainer.said.lower(), trainer.said
    assert states(folder)[-1] < 40
    assert processes.run_ranks(folder, *SHORT, count=2) == [0, 0]
    expected, found = last_state(two), last_state(folder)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_ctrl_c_saves_and_stops_the_job(tmp_path: Path) -> None:
    """The terminal sends it to all, and torchrun hands it on: each process hears it twice."""
    folder = place(tmp_path, "stopped")
    long = [*TINY, "--stages", "8:4", "--state-every", "4", "--checkpoint-every", "0.004"]
    trainer = start(folder, *long, command=TORCHRUN)
    assert trainer.wait_for((folder / "run/checkpoints/000000008.safetensors").exists), trainer.said
    os.killpg(trainer.number, signal.SIGINT)
    assert trainer.end() == 1  # torchrun's code for a signal
    said = trainer.said.splitlines()
    end = next(number for number, line in enumerate(said) if line.startswith("polyinr: interrupted; "))
    assert said[end - 2 : end] == [RENDER, SAVED]
    assert not any(line.startswith("polyinr") for line in said[end + 1 :])
    assert "Traceback" not in "".join(said[:end])
    assert trainer.said.count("Traceback") == 1  # torchrun's own
    assert "SignalException" in said[-1]
    state, damaged = read_state(folder / "run/state")
    assert state.counters["images"] >= 8
    assert not damaged
    assert not (folder / "run/run.lock").exists()
