"""Training in processes of their own, to be killed, stopped or starved: `polyinr train` as a person runs it."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
COMMAND = [sys.executable, "-m", "polyinr_cli"]
TINY = ["train", "data.zip", "--preset", "tiny", "--channels", "16", "--batch", "4", "--run-dir", "run"]
PATIENCE = 300.0  # seconds until a test gives a process up

# Imports what a run needs, which takes longer than the runs of these tests, then forks a process for each line
# that it reads: a folder, arguments and environment. Answers with its number; for an empty line, with how the
# processes ended that it has started since the last one.
NURSERY = """
import json, os, signal, sys
from functools import cache
from polyinr_cli.main import outcome
from polyinr_core.training import loop
from polyinr_core.runtime import pretrained
pretrained.load_pretrained = cache(pretrained.load_pretrained)
for name in ("lite0", "lite2"):
    pretrained.load_pretrained(name, file=None, download=False)
for number, how in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    signal.signal(number, how)  # whoever runs the tests may ignore them, as nohup does
print("ready", flush=True)
children = []
for line in sys.stdin:
    if not line.strip():
        print(*[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
        children = []
        continue
    folder, said, arguments, environment = json.loads(line)
    if not (child := os.fork()):
        os.setsid()
        os.chdir(folder)
        os.environ.update(environment)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        os._exit(outcome(arguments))
    children.append(child)
    print(child, flush=True)
"""


class Trainer:
    """One process that trains in `folder`; `said` is what it wrote to stderr and stdout."""

    def __init__(self, folder: Path, number: int, end: Callable[[], int]) -> None:
        self.folder = folder
        self.number = number
        self.end = end

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.number, number)

    def wait_for(self, reached: Callable[[], Any]) -> bool:
        """Wait until `reached()` and return True, or until the process has ended and return False."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if not self.runs:
                return False
            assert time.monotonic() < deadline, self.said
            time.sleep(0.0005)
        return True

    @property
    def runs(self) -> bool:
        """Whether the process has not ended; one that waits to be reaped has."""
        try:
            return Path(f"/proc/{self.number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


class Nursery:
    """Starts processes that need not import anything any more."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def start(self, folder: Path, *arguments: str) -> Trainer:
        """Start `polyinr ARGUMENTS...`; its end is awaited by `Trainer.end`, before the next one starts."""
        return Trainer(folder, self.fork(folder, "said.txt", arguments, {}), lambda: self.ends()[0])

    def run_ranks(self, folder: Path, *arguments: str, count: int) -> list[int]:
        """Run the processes of a job, as torchrun would start them, and return how they ended."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
        for rank in range(count):
            own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            self.fork(folder, f"said-{rank}.txt", arguments, own)
        return self.ends()

    def fork(self, folder: Path, said: str, arguments: tuple[str, ...], environment: dict[str, str]) -> int:
        """Fork one process and return its number."""
        print(json.dumps([str(folder), said, arguments, environment]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def ends(self) -> list[int]:
        """Wait for all that was forked since the last time, and return how it ended."""
        print(file=self.process.stdin, flush=True)
        return [int(code) for code in self.process.stdout.readline().split()]


@contextmanager
def nursery() -> Iterator[Nursery]:
    """Have a nursery; what was started in it and still runs at the end is killed."""
    command = [sys.executable, "-c", NURSERY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield Nursery(process)
        process.stdin.close()


def start(folder: Path, *arguments: str, command: list[str] = COMMAND) -> Trainer:
    """Start `polyinr ARGUMENTS...` from nothing, as a shell does."""
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [*command, *arguments], cwd=folder, stdout=said, stderr=said, env=ENVIRONMENT, start_new_session=True
        )
    return Trainer(folder, process.pid, process.wait)


def write_data(folder: Path, *, images: int = 12, classes: int = 3, side: int = 16) -> None:
    """Write data.zip: noise of a few classes."""
    rng = np.random.default_rng(0)
    names = [f"00000/img{i:08d}.png" for i in range(images)]
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for name in names:
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "png")
            archive.writestr(name, file.getvalue())
        labels = [[name, i % classes] for i, name in enumerate(names)] if classes else None
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


def states(folder: Path) -> list[int]:
    """Return the images seen at each finished state, the last one last."""
    found = (folder / "run/state").glob("*.json")
    return sorted(int(path.stem) for path in found)


def drafts(folder: Path) -> set[str]:
    """Return the folders of the run in which a file is being written, or was when the process was killed."""
    found = set()
    for name in (".", "state", "checkpoints", "samples"):
        try:
            if any(entry.endswith(".part") for entry in os.listdir(folder / "run" / name)):
                found.add(name)
        except FileNotFoundError:
            continue
    return found
