"""What is measured on a GPU: its logic on a CPU, and its counts on paper."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.mark.slow
def test_every_part_is_measured_and_written(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "benchmarks/gpu.py",
        "--device",
        "cpu",
        "--quick",
        "--output",
        tmp_path / "gpu.json",
    ]
    subprocess.run(command, cwd=BENCHMARKS.parent, check=True, capture_output=True)
    figures = json.loads((tmp_path / "gpu.json").read_text())["figures"]
    assert figures["ceilings"]["product_flops_a_second"] > 0
    assert all(row["off"] < 1e-4 for row in figures["correct"])
    rendered = {row["form"]: row for row in figures["sampling"]}
    assert {"baseline float32", "eager float32", "eager bfloat16", "chosen bfloat16, in parts"} <= set(rendered)
    assert rendered["chosen float32"]["relative"] < 1e-5
    assert {row["form"] for row in figures["training"]} > {"baseline float32", "ours bfloat16, in chunks"}
    assert not [row for part in ("correct", "sampling", "training") for row in figures[part] if "failed" in row]


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
