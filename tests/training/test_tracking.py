"""Weights & Biases and Trackio, each offline, read back from what it stores; unknown and missing ones."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image

from polyinr_core.errors import PolyinrError, TrainingError
from polyinr_core.training import tracking
from polyinr_core.training.logging import Logger
from polyinr_core.training.run_dir import RunFolder

pytestmark = pytest.mark.no_numbers
EVENTS = [
    {"kimg": 0.25, "stage": 0, "loss_g": 2.5, "fd-lite2": 7.0, "warning": "text"},
    {"kimg": 0.5, "stage": 0, "loss_g": 1.5, "loss_d": float("nan")},
]
CONFIG = {"batch": 16, "stages": "32:1"}


def write_run(folder: Path, *names: str) -> list[dict[str, Any]]:
    """Log two events and an image by trackers; return the messages."""
    said: list[dict[str, Any]] = []
    logger = Logger(RunFolder(folder), said.append, track=names, config=CONFIG)
    logger.trackers.open()
    for event in EVENTS:
        logger.write(event)
    logger.image("samples", np.full((30, 2500, 3), 200, np.uint8), images=500)
    logger.close()
    return [event for event in said if "message" in event]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Weights & Biases writes files alone; its settings are read anew."""
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


def records(file: Path) -> list[Any]:
    """Return the records that Weights & Biases has stored: blocks of 32 KiB, with a head before each fragment."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, found, whole = file.read_bytes(), 7, [], b""
    while position + 7 <= len(data):
        if 2**15 - position % 2**15 < 7:  # no head fits into the rest of the block
            position += 2**15 - position % 2**15
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)  # CRC, bytes, 1 whole, 2 first, 3 middle, 4 last
        whole += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):
            found.append(Record.FromString(whole))
            whole = b""
    return found


def test_wandb_stores_config_numbers_and_samples(offline: None, tmp_path: Path) -> None:
    folder = tmp_path / "cats"
    folder.mkdir()
    assert write_run(folder, "wandb") == []
    import_module("wandb").teardown()  # until then its process may not have written all
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = records(file)
    (run,) = [record.run for record in found if record.HasField("run")]
    assert (run.project, run.display_name) == ("polyinr", "cats")
    assert {item.key: json.loads(item.value_json) for item in run.config.update}.items() >= CONFIG.items()
    rows = [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    shown = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    assert shown[:2] == [
        {"images": 250, "run/stage": 0, "loss/loss_g": 2.5, "metrics/fd-lite2": 7.0},
        {"images": 500, "run/stage": 0, "loss/loss_g": 1.5},
    ]
    assert shown[2]["images"] == 500
    assert (shown[2]["samples.width"], shown[2]["samples.height"]) == (834, 10)
    assert len(list(folder.glob("wandb/offline-run-*/files/media/images/*.png"))) == 1


def test_wandb_finds_a_resumed_run_again(offline: None, tmp_path: Path) -> None:
    write_run(tmp_path, "wandb")
    write_run(tmp_path, "wandb")
    import_module("wandb").teardown()
    runs = {record.run.run_id for file in tmp_path.glob("wandb/*/*.wandb") for record in records(file)} - {""}
    assert runs == {(tmp_path / tracking.RUN_ID).read_text().strip()}


def test_trackio_stores_config_numbers_and_samples(tmp_path: Path) -> None:
    """In a process of its own, as the folder is chosen when trackio is imported; nothing is printed."""
    if find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    program = f"from test_tracking import *; print(write_run(Path({str(tmp_path / 'cats')!r}), 'trackio'), end='')"
    (tmp_path / "cats").mkdir()
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "store"), "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]"
    with closing(sqlite3.connect(tmp_path / "store" / "polyinr.db")) as store:
        rows = store.execute("SELECT step, run_name, metrics FROM metrics ORDER BY id").fetchall()
        ((config,),) = store.execute("SELECT config FROM configs").fetchall()
    digits = (tmp_path / "cats" / tracking.RUN_ID).read_text().strip()
    assert {name for _, name, _ in rows} == {f"cats-{digits}"}
    numbers = [(step, json.loads(metrics)) for step, _, metrics in rows]
    assert numbers[:2] == [
        (250, {"run/stage": 0, "loss/loss_g": 2.5, "metrics/fd-lite2": 7.0}),
        (500, {"run/stage": 0, "loss/loss_g": 1.5}),
    ]
    (image,) = (tmp_path / "store" / "media").rglob("*.png")
    assert Image.open(image).size == (834, 10)
    assert json.loads(config).items() >= CONFIG.items()


def test_a_run_that_cannot_be_opened_stops_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no account\nlog in")

    monkeypatch.setitem(tracking.TRACKERS, "wandb", refuse)
    logger = Logger(RunFolder(tmp_path), lambda event: None, track=["wandb"])
    with pytest.raises(TrainingError, match="--track wandb: no account log in"):
        logger.trackers.open()


def test_a_failure_in_a_run_ends_one_tracker_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, *_: object) -> None:
            self.calls = 0

        def scalars(self, values: dict[str, float], step: int) -> None:
            raise OSError("the server has gone")

    monkeypatch.setitem(tracking.TRACKERS, "wandb", Failing)
    said: list[dict[str, Any]] = []
    logger = Logger(RunFolder(tmp_path), said.append, track=["wandb", "tensorboard"])
    for event in EVENTS:
        logger.write(event)
    logger.close()
    (message,) = [event["message"] for event in said if "message" in event]
    assert message == f"Weights & Biases logging to {tmp_path} stopped: the server has gone"
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "trackio" else find_spec(name))
    with pytest.raises(PolyinrError, match=r"trackio needs a package; run pip install trackio$"):
        tracking.check_trackers(["tensorboard", "trackio"])


def test_an_unknown_tracker_is_refused(polyinr: Run) -> None:
    refused(polyinr("train", "--track", "tensorbord"), "tracker 'tensorbord' is unknown", "wandb, trackio", code=2)
