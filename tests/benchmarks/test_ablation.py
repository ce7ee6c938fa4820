"""The ablation trains, measures, resumes and draws, on noise."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from processes import write_data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_variants_are_trained_once_and_measured(tmp_path: Path) -> None:
    write_data(tmp_path, images=64, side=32)
    command = [sys.executable, str(BENCHMARKS / "ablation.py"), "data.zip", "data.zip", "--kimg", "0.064", "--every"]
    command += ["0.032", "--count", "40", "--seeds", "0", "--variants", "0.1,+ relativistic"]
    command += ["--runs", "runs", "--output", "out.json", "--plot", "out.png"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> str:
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    first = run()
    shutil.rmtree(tmp_path / "runs")  # a later clone has the results, not the runs
    again = run()
    assert not (tmp_path / "runs").exists()
    assert again.splitlines()[-1].startswith("| + relativistic | ")
    assert first.endswith(again)
    runs = json.loads((tmp_path / "out.json").read_text())["runs"]
    points = {name: [point["kimg"] for point in run["points"]] for name, run in runs.items()}
    assert points == {"0.1, seed 0": [0.032, 0.064], "+ relativistic, seed 0": [0.032, 0.064]}
    assert (tmp_path / "out.png").stat().st_size > 10_000
