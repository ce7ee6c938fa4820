"""The script for SLURM: jobs of limited time that go on one after the other, and the signals that SLURM sends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_run import make_archive

from polyinr_cli.runtime import stopping

ROOT = Path(__file__).parents[2]
SRUN = '#!/bin/sh\necho $$ >"$SRUN_PID"\nexec setsid "$@"\n'  # a step is a process group, as SLURM signals it
POLYINR = f'#!/bin/sh\nexec {sys.executable} -m polyinr_cli "$@"\n'
SECONDS = 400.0  # the longest wait, on a busy machine


def test_sigusr1_asks_once_for_a_state() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with stopping() as asked:
        assert not asked.save_asked()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked.save_asked()
        assert not asked.save_asked()
        assert not asked.asked()
    assert signal.getsignal(signal.SIGUSR1) is before


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until something holds while a process runs."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.2)


def start(folder: Path, *options: str, max_time: str) -> subprocess.Popen:
    """Start the script in a folder, with a stand-in for srun."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    for name, text in (("srun", SRUN), ("polyinr", POLYINR)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SRUN_PID": str(folder / "pid"),
        "MAX_TIME": max_time,
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_GPUS_ON_NODE": "1",
    }
    settings = ["--preset", "tiny", "--batch", "4", "--metric-every", "0", "--state-every", "1000", "--workers", "1"]
    command = ["bash", str(ROOT / "examples" / "slurm.sh"), "noise.zip", "run", "--device", "cpu", *settings, *options]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_jobs_go_on_one_after_the_other(tmp_path: Path) -> None:
    make_archive(tmp_path / "noise.zip")
    log, state = tmp_path / "run" / "log.jsonl", tmp_path / "run" / "state"
    states = lambda: sorted(path.name for path in state.glob("*.safetensors"))  # noqa: E731

    first = start(tmp_path, "--stages", "16:500", max_time="24h")
    wait_for(lambda: log.exists() and '"loss_g"' in log.read_text(), first)
    step = int((tmp_path / "pid").read_text())
    assert states() == []
    os.killpg(step, signal.SIGUSR1)  # to the workers, too
    wait_for(states, first)
    saved = states()
    lines = len(log.read_text().splitlines())
    wait_for(lambda: len(log.read_text().splitlines()) > lines + 1, first)  # it has gone on
    os.kill(step, signal.SIGTERM)
    _, stderr = first.communicate(timeout=SECONDS)
    assert first.returncode == 143, stderr
    assert "Traceback" not in stderr
    assert "resource_tracker" not in stderr
    assert states()[-1] > saved[-1]

    second = start(tmp_path, "--stages", "16:500", max_time="1s")
    _, stderr = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, stderr
    assert '"resumed": true' in log.read_text()
    assert states()[-1] > saved[-1]
