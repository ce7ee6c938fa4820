"""The ablation trains, measures, resumes and draws, on noise."""

import json
import os
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
    first, again = (
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )
    assert first.splitlines()[-1].startswith("| + relativistic | ")
    assert first == again
    results = json.loads((tmp_path / "out.json").read_text())["results"]
    points = {name: [point["kimg"] for point in seeds[0]] for name, seeds in results.items()}
    assert points == {"0.1": [0.032, 0.064], "+ relativistic": [0.032, 0.064]}
    assert (tmp_path / "out.png").stat().st_size > 10_000
