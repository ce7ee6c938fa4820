"""The run folder: whose configuration it holds, how a run is made longer, a log of whole lines."""

import errno
import json
import os
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import torch

from polyinr_core.errors import FileError, TrainingError
from polyinr_core.training.config import PRESETS, TrainingConfig, parse_stages
from polyinr_core.training.run_dir import MAY_CHANGE, DataFacts, RunFolder
from polyinr_core.training.state import SavedState, write_state

DATA = DataFacts("data.zip", "ab" * 32, 12, 3)


def config(stages: str = "16:0.02", **changes: Any) -> TrainingConfig:
    return replace(PRESETS["tiny"], stages=parse_stages(stages), **changes)


def begun(path: Path, stages: str, *, stage: int, images: int) -> RunFolder:
    """Return the folder of a run that stands in this stage."""
    folder = RunFolder(path)
    folder.claim(config(stages), DATA)
    counters = {"stage": stage, "images": images, "images_before": 0}
    write_state(folder.state, SavedState({"a": torch.zeros(1)}, counters), images=images)
    return folder


def stages_of(folder: RunFolder) -> str:
    return json.loads(folder.config.read_text())["training"]["stages"]


def test_a_run_is_trained_on(tmp_path: Path) -> None:
    """Longer, then one more stage, then that one changed before it begins: config.json holds the last."""
    folder = begun(tmp_path / "run", "16:0.02", stage=0, images=20)
    for stages in ("16:0.04", "16:0.04,32:0.01", "16:0.04,64:0.01"):
        folder.claim(config(stages), DATA)
        assert stages_of(folder) == stages
    assert not list(folder.path.glob(".*.part"))


def test_what_was_seen_is_not_cut_off(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run", "16:0.02,32:0.02", stage=1, images=12)
    before = folder.config.read_bytes()
    with pytest.raises(TrainingError, match=r"32:0.01 is shorter than the 0.012 kimg seen already; .*16:0.02,32:0.02"):
        folder.claim(config("16:0.02,32:0.01"), DATA)
    with pytest.raises(TrainingError, match=r"the stage 16:0.02 is over and cannot become 16:0.03"):
        folder.claim(config("16:0.03,32:0.02"), DATA)
    assert folder.config.read_bytes() == before


def test_a_field_that_may_not_change_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(config(), DATA)
    with pytest.raises(TrainingError, match=r"seed 0 \(now 1\); classes 3 \(now 0\)"):
        folder.claim(config(seed=1), replace(DATA, classes=0))


@pytest.mark.parametrize("field", sorted(MAY_CHANGE - {"name"}))
def test_bookkeeping_may_change_and_is_kept(tmp_path: Path, field: str) -> None:
    """How often, how many, by which way: no weight depends on it but by rounding."""
    values = {"metrics": ("kd-lite2",), "auto_advance": 3, "metric_every": 2.0}
    folder = RunFolder(tmp_path / "run")
    folder.claim(config(metric_every=1.0), DATA)
    folder.claim(config(**{"metric_every": 1.0, field: values.get(field, 5)}), DATA)
    assert json.loads(folder.config.read_text())["training"][field] in (5, *values.values(), ["kd-lite2"])


def test_every_field_that_may_change_is_one() -> None:
    assert {*config().to_dict(), "name"} >= MAY_CHANGE


@pytest.mark.parametrize("stages", ["nonsense", 3, None])
def test_damaged_stages_are_refused(tmp_path: Path, stages: Any) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.claim(config(), DATA)
    stored = json.loads(folder.config.read_text())
    stored["training"]["stages"] = stages
    folder.config.write_text(json.dumps(stored))
    with pytest.raises(TrainingError, match=r"config\.json: damaged"):
        folder.claim(config(), DATA)


def test_the_log_is_made_of_whole_lines(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append({"a": 1})
    with folder.log.open("a") as file:
        file.write('{"b"')  # a crash
    folder.append({"c": 3})
    assert folder.log.read_text() == '{"a": 1}\n{"b"\n{"c": 3}\n'


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes five bytes, then is full."""
    folder = RunFolder(tmp_path)
    folder.append({"a": 1})
    write = FileIO.write

    def cramped(self: FileIO, data: bytes) -> int:
        if len(data) < 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, data[:5])

    class Cramped(FileIO):
        pass

    Cramped.write = cramped  # type: ignore[method-assign]
    monkeypatch.setattr(Path, "open", lambda self, mode, buffering: Cramped(self, mode.replace("b", "")))
    with pytest.raises(FileError, match=r"log\.jsonl: no space left"):
        folder.append({"b": 2222})
    monkeypatch.undo()
    assert folder.log.read_text() == '{"a": 1}\n'
