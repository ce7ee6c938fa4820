"""The journal: JSON lines that stay valid, TensorBoard's files, and trouble with them that stops nothing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polyinr_core.errors import FileError
from polyinr_core.training import logging as memory
from polyinr_core.training import tracking
from polyinr_core.training.logging import Logger, memory_stats
from polyinr_core.training.run_dir import RunFolder

EVENT = {"kimg": 0.25, "stage": 0, "resolution": 8, "loss_g": 2.5, "d_sign_fake": -0.5, "fd-lite2": 7.0}


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def journal(tmp_path: Path, said: list) -> Logger:
    return Logger(RunFolder(tmp_path), said.append)


def logged(folder: Path) -> list[dict[str, Any]]:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in (folder / "log.jsonl").read_text().splitlines()]


def charted(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: (step, value) by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_an_event_is_logged_reported_and_charted(journal: Logger, said: list, tmp_path: Path) -> None:
    journal.write(EVENT)
    journal.close()
    assert logged(tmp_path) == said == [EVENT]
    assert charted(tmp_path) == {
        "run/stage": [(250, 0.0)],
        "run/resolution": [(250, 8.0)],
        "loss/loss_g": [(250, 2.5)],
        "sign/d_sign_fake": [(250, -0.5)],
        "metrics/fd-lite2": [(250, 7.0)],
    }


def test_what_is_no_number_stays_out_of_json(journal: Logger, said: list, tmp_path: Path) -> None:
    odd = {"loss_g": float("nan"), "loss_d": np.float32("-inf"), "reals": np.int64(3), "is": np.float32(0.5)}
    journal.write({**EVENT, **odd, "resumed": True, "warning": "text"})
    changes = {"loss_g": None, "loss_d": None, "reals": 3, "is": 0.5, "resumed": True, "warning": "text"}
    assert logged(tmp_path) == said == [{**EVENT, **changes}]
    assert not {"loss/loss_g", "loss/loss_d", "metrics/resumed"} & charted(tmp_path).keys()


def test_a_resumed_run_appends(tmp_path: Path, said: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log keeps what came after the state; TensorBoard shows what the run did in the end."""
    for number, kimgs in enumerate(([0.1, 0.2, 0.3], [0.2, 0.3])):
        monkeypatch.setattr("os.getpid", lambda number=number: number)  # another process
        journal = Logger(RunFolder(tmp_path), said.append)
        for kimg in kimgs:
            journal.write({"kimg": kimg, "loss_d": float(number)} | ({"resumed": True} if number else {}))
        journal.close()
    assert [event["kimg"] for event in logged(tmp_path)] == [0.1, 0.2, 0.3, 0.2, 0.3]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert charted(tmp_path)["loss/loss_d"] == [(100, 0.0), (200, 0.0), (200, 1.0), (300, 1.0)]


def test_sheets_are_charted_small(journal: Logger, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    journal.image("fakes", np.full((30, 2500, 3), 200, np.uint8), images=40)
    journal.close()
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    (image,) = reader.Images("fakes")
    assert (image.step, image.width, image.height) == (40, 834, 10)


def test_without_tensorboard_there_is_silence(said: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    journal = Logger(RunFolder(tmp_path), said.append)
    journal.write(EVENT)
    journal.image("fakes", np.zeros((2, 2, 3), np.uint8), images=0)
    journal.close()
    assert said == [EVENT]
    assert not (tmp_path / "tensorboard").exists()


def test_a_full_disk_ends_the_charts_only(journal: Logger, said: list, tmp_path: Path) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    journal.write(EVENT)
    events = journal.trackers.opened["tensorboard"]
    assert isinstance(events, tracking.TensorBoardFile)
    events.records = RecordWriter(open("/dev/full", "wb", buffering=0))  # noqa: SIM115
    for _ in range(3):
        journal.write(EVENT)
    journal.close()
    assert logged(tmp_path) == [EVENT] * 4
    (message,) = [event["message"] for event in said if event != EVENT]
    assert "TensorBoard logging to" in message
    assert "space" in message


def test_a_folder_that_cannot_be_ends_the_charts_only(journal: Logger, said: list, tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    journal.write(EVENT)
    journal.write(EVENT)
    assert len(said) == 3
    assert "TensorBoard logging to" in said[1]["message"]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path: Path, said: list) -> None:
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError):
        Logger(RunFolder(tmp_path), said.append).write(EVENT)


@pytest.mark.slow
def test_charting_is_silent_and_needs_no_tensorflow(tmp_path: Path) -> None:
    """Not a word on stdout or stderr, no thread, and a TensorFlow that happens to be installed is not loaded."""
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('loaded')")
    program = (
        "import threading, pathlib\n"
        "from polyinr_core.training.logging import Logger\n"
        "from polyinr_core.training.run_dir import RunFolder\n"
        "said = []\n"
        f"journal = Logger(RunFolder(pathlib.Path({str(tmp_path)!r})), said.append)\n"
        "journal.write({'kimg': 1, 'discriminator': 2.0})\n"
        "assert journal.trackers.opened['tensorboard'] and len(said) == 1 and threading.active_count() == 1, said\n"
        "journal.close()\n"
    )
    ran = subprocess.run([sys.executable, "-W", "always", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_memory_is_logged_in_mebibytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    facts = memory_stats(torch.device("cpu"))
    assert facts.keys() == {"cpu_mem_mib"}
    assert 20 < facts["cpu_mem_mib"] < 1e5
    monkeypatch.setattr(memory, "STATM", tmp_path / "absent")
    assert 20 < memory_stats(torch.device("cpu"))["cpu_mem_mib"] < 1e5


def test_memory_of_a_cuda_device_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    assert memory_stats(torch.device("cuda"))["gpu_mem_mib"] == 3.0
