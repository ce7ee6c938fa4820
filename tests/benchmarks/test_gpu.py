"""What is measured on a GPU: its logic on a CPU, and its counts on paper."""

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.mark.slow
def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", "--output", tmp_path]
    subprocess.run(command, cwd=BENCHMARKS.parent, check=True, capture_output=True)
    parts = {path.stem: json.loads(path.read_text())["rows"] for path in tmp_path.glob("*.json")}
    assert parts.keys() == {"correctness", "ceilings", "training", "sampling", "float32"}
    assert not [row for rows in parts.values() for row in rows if "failed" in row]
    assert all(row["right"] for row in parts["correctness"])
    assert {row["form"] for row in parts["correctness"]} > {"chosen float32", "gradient of the generator, bfloat16"}
    assert parts["ceilings"][1]["flops_a_second"] > 0
    rendered = {row["form"]: row for row in parts["sampling"]}
    assert {"literal float32", "eager float32", "eager bfloat16", "chosen bfloat16, in parts"} <= set(rendered)
    assert rendered["chosen float32"]["relative"] < 1e-5
    assert {row["form"] for row in parts["float32"]} == {"eager float32", "chosen float32"}
    assert all(row["right"] and row["ms"] > 0 for row in parts["float32"])
    trained = {row["form"]: row for row in parts["training"]}
    assert trained.keys() > {"literal float32", "ours bfloat16", "ours bfloat16, in chunks"}
    assert 0 < trained["ours float32"]["launches"] < trained["literal float32"]["launches"]


def test_a_part_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--parts", "training,cooking"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    assert ended.value.code == (  # a text, which Python writes to stderr, and exits with 1
        "gpu.py: --parts cooking is unknown; choose from correctness, ceilings, training, sampling, float32"
    )


def test_counts_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the operations of the whole network, and a kernel that reads and writes n numbers of 2 bytes."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from level_cost import counts

    from polyinr_core.models.config import GeneratorConfig
    from polyinr_core.models.generator import flops_per_pixel

    by_form = {count.form: count for count in counts(512, 2)}
    whole = flops_per_pixel(GeneratorConfig(channels=512, levels=10))
    assert 9 * by_form["eager"].flops == pytest.approx(whole, rel=0.02)  # but for level 0 and the colors
    assert by_form["a kernel a level"].bytes == 2048
    sizes = [count.bytes for count in counts(512, 2)]
    assert sizes == sorted(sizes, reverse=True)


def test_bytes_a_feature_are_those_that_the_docs_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from launches import level_bytes

    from polyinr_core.models.layers import LevelFunction

    docs = (BENCHMARKS.parent / "docs" / "speed.md").read_text()
    forms = {"step by step": LevelFunction}
    if importlib.util.find_spec("triton"):
        from polyinr_core.models.level_triton import FusedLevelFunction

        forms["kernels between products"] = FusedLevelFunction
    for form, function in forms.items():
        moved = level_bytes(function)
        assert f"| {form} | {moved['forward']:g} | {moved['backward']:g} |" in docs


@pytest.mark.slow
def test_launches_are_those_that_the_docs_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the version of PyTorch that counted them; another one may split operations otherwise."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    from launches import iteration_launches

    from polyinr_core.models.layers import LevelFunction

    counts = [iteration_launches(), iteration_launches(LevelFunction)]
    docs = (BENCHMARKS.parent / "docs" / "speed.md").read_text()
    stated = [int(number) for number in re.search(r"literal form (\d+), step by step (\d+)", docs).groups()]
    assert counts == pytest.approx(stated, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="would run for nine minutes")
def test_everything_in_one_command(tmp_path: Path) -> None:
    """benchmarks/gpu_run.sh without a GPU and without data: its log says why, and it says that it failed."""
    environment = os.environ | {"PYTHON": sys.executable, "TEST_SECONDS": "0"}
    command = ["bash", BENCHMARKS / "gpu_run.sh", tmp_path / "out"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no GPU is here" in ended.stdout
    assert (tmp_path / "out" / "run.log").read_text() == ended.stdout
