"""What is due between iterations: the same whether a run was stopped or not, and complete at a stage's end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import write_data

from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training import hooks, loop
from polyinr_core.training.config import PRESETS, TrainingConfig, parse_stages
from polyinr_core.training.state import read_state

pytestmark = pytest.mark.no_numbers
CONFIG = replace(
    PRESETS["tiny"],
    stages=parse_stages("8:0.012"),
    batch=4,
    channels=16,
    disc_channels=8,
    head_divisor=16,
    blur_sigma=0.0,
    checkpoint_every=1.0,
)


@pytest.fixture(scope="module")
def weights() -> dict:
    return {"lite0": load_pretrained("lite0")}


@pytest.fixture
def archive(tmp_path: Path) -> ZipDataset:
    write_data(tmp_path)
    return ZipDataset.open(tmp_path / "data.zip")


class MetricsHook:
    """Tells the same distance every time."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def measure(self, generator: object) -> dict[str, Any]:
        return {"fd-lite2": 100.0, "seconds": 0.0}


class Seen:
    """Takes the place of a method, and notes when it was called."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, *, stage_images: int, **_: float) -> None:
        self.seen.append(stage_images)


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MetricsHook", MetricsHook)


def train(config: TrainingConfig, archive: ZipDataset, weights: dict, *, stop_after: int = 1000) -> bool:
    """Train in the folder "run" beside the archive; stop after so many iterations."""
    left = iter(range(stop_after - 1))
    folder = archive.path.parent / "run"
    return loop.train(archive, run_dir=folder, config=config, weights=weights, stop=lambda: next(left, None) is None)


def counters(archive: ZipDataset) -> dict[str, Any]:
    state, _ = read_state(archive.path.parent / "run/state")
    assert state is not None
    return state.counters


def test_a_stage_that_stands_still_leaves_its_last_model(archive: ZipDataset, weights: dict, judged: None) -> None:
    assert train(replace(CONFIG, metric_every=0.004, auto_advance=2), archive, weights)
    assert counters(archive)["images"] == 8
    checkpoints = archive.path.parent / "run/checkpoints"
    assert sorted(path.stem for path in checkpoints.iterdir()) == ["000000000", "000000008", "best"]


def test_a_stage_can_stand_still_before_its_blur_is_all_gone(archive: ZipDataset, weights: dict, judged: None) -> None:
    """The blur of a short stage fades until its end, but one of a fraction of a pixel changes no image."""
    config = replace(CONFIG, blur_sigma=0.3, metric_every=0.004, auto_advance=2)
    assert train(config, archive, weights)
    assert counters(archive)["images"] == 8


def test_a_stop_leaves_no_trace_in_what_is_remembered(
    archive: ZipDataset, weights: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes a sheet of samples that is not due; the warnings of the run do not depend on it."""
    monkeypatch.setattr(hooks.Diagnostics, "update_diversity", see := Seen())
    assert not train(CONFIG, archive, weights, stop_after=2)
    assert train(CONFIG, archive, weights)
    assert see.seen == [0, 12]


@pytest.mark.parametrize("saved", [None, {"diagnostics": {"raised": 3, "sign": "x"}, "early_stopping": []}])
def test_a_state_without_sound_notes_goes_on(archive: ZipDataset, weights: dict, saved: dict | None) -> None:
    """As an older version wrote it, or where they are damaged: what they held begins anew."""
    assert not train(CONFIG, archive, weights, stop_after=2)
    (manifest,) = (archive.path.parent / "run/state").glob("*8.json")
    facts = json.loads(manifest.read_text())
    del facts["counters"]["hooks"]
    if saved is not None:
        facts["counters"]["hooks"] = saved
    manifest.write_text(json.dumps(facts))
    assert train(CONFIG, archive, weights)
    assert counters(archive)["images"] == 12
