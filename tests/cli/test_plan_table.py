"""The plan on the screen: a table for people, JSON lines for machines, a line about weights that are missing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from polyinr_cli.train_display import expectations
from polyinr_core.errors import WeightsError
from polyinr_core.training.config import make_config
from polyinr_core.training.dry_run import Plan, StagePlan, plan_lines, size, weights_at_hand

STAGE = StagePlan(
    resolution=16,
    kimg=0.1,
    batch=8,
    micro_batch=4,
    iterations=13,
    g_lr=2e-4,
    d_lr=1e-4,
    mirror=False,
    guidance=0.0,
    blur=2.0,
    chunk=0,
    seconds_per_iteration=0.5,
    seconds=6.5,
    memory=2**28,
)
PLAN = Plan(
    data={"name": "cats.zip", "images": 1562, "resolution": 64, "classes": 8, "held_out": 31},
    parameters={"generator": 873343, "discriminator": 1438256, "backbones": 3083472},
    stages=(STAGE, replace(STAGE, resolution=128, mirror=True, guidance=8.0, chunk=4096, memory=2**31)),
    notes=("a note",),
)


@pytest.mark.parametrize(
    ("preset", "channels", "device", "where", "expected"),
    [
        ("small", None, "cpu", "the CPU, threads: ", "15 at 64 px; --dry-run"),
        ("small", 64, "cpu", "the CPU, threads: ", "--dry-run"),  # of another size than was measured
        ("small", None, "cuda:1", "cuda:1; ", "--dry-run"),
        ("imagenet", None, "cpu", "the CPU, threads: ", "is for GPUs"),
    ],
)
def test_a_run_says_what_to_expect(preset: str, channels: int | None, device: str, where: str, expected: str) -> None:
    config = make_config(preset, stages="32:40,64:20", **({} if channels is None else {"channels": channels}))
    first, second = expectations(config, torch.device(device))
    assert first.startswith(f"training on {where}")
    assert first.endswith("; 32 px for 40 kimg, 64 px for 20 kimg")
    assert expected in second
    assert "--dry-run measures" in second


def test_people_get_a_table() -> None:
    lines = plan_lines(PLAN)
    assert lines[0] == "data        cats.zip: 1,562 images (31 held out) of 64 px, 8 classes"
    assert "generator 873,343" in lines[1]
    heading = next(index for index, line in enumerate(lines) if "iterations" in line)
    rows = lines[heading : heading + 3]
    assert len({len(row) for row in rows}) == 1  # columns stand below each other
    assert " ".join(rows[1].split()) == "16 px 0.1 2x4 13 0.0002 0.0001 no - 2 px - 16 6 s 256 MiB"
    assert "yes         8  2 px  4,096" in rows[2]
    assert all(len(line) <= 120 for line in lines)
    assert "about 13 s, peak memory 2.0 GiB" in lines[-2]
    assert lines[-1].endswith("a note")


def test_no_classes() -> None:
    assert plan_lines(replace(PLAN, data={**PLAN.data, "classes": 0, "held_out": 0}))[0].endswith("no classes")


def test_machines_get_json_lines() -> None:
    facts = json.loads(json.dumps(PLAN.to_dicts()))
    assert [fact["kind"] for fact in facts] == ["data", "parameters", "stage", "stage", "note", "total"]
    assert facts[3]["guidance"] == 8.0
    assert facts[-1] == {"kind": "total", "seconds": 13.0, "memory": 2**31}


def test_sizes() -> None:
    assert [size(count) for count in (2**20, 2**30, 3 * 2**40)] == ["1 MiB", "1.0 GiB", "3,072.0 GiB"]


def test_weights_that_are_not_here_are_said_and_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, download: bool = False) -> None:
        assert not download
        raise WeightsError("not here")

    monkeypatch.setattr("polyinr_core.runtime.pretrained.hosted_file", refuse)
    found, lines = weights_at_hand({"lite0", "deit-base"}, {})
    assert list(found) == ["lite0"]
    assert lines == ["not here"]
    with pytest.raises(WeightsError):
        weights_at_hand({"lite0"}, {"lite0": tmp_path / "absent.safetensors"})
