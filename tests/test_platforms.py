"""Without what only POSIX or Linux has, as on Windows: every module can be imported, and the main commands run."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_checkpoint
from PIL import Image

from polyinr_core.data.prepare_journal import WorkFolder
from polyinr_core.errors import FileError
from polyinr_core.models.coordinates import RegularGrid, coordinates_at
from polyinr_core.runtime import atomic_io

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).parent / "without_posix.py"


def without_posix(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess:
    """Run the script in a folder."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_every_module_can_be_imported(tmp_path: Path) -> None:
    ran = without_posix(folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    files = [
        path.relative_to(ROOT) for package in ("polyinr_core", "polyinr_cli") for path in (ROOT / package).rglob("*.py")
    ]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    assert set(ran.stdout.split()) == modules - {"polyinr_core", "polyinr_cli"}


@pytest.mark.slow
def test_sample_renders_the_same_image(tmp_path: Path) -> None:
    model = small_checkpoint(tmp_path / "model.safetensors")
    arguments = ["sample", "--seeds", "1,2", "-m", model, "--device", "cpu", "--precision", "float32", "-o"]
    ran = without_posix(*arguments, "strange", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    usual = [sys.executable, "-m", "polyinr_cli", *map(str, arguments), "usual"]
    subprocess.run(usual, cwd=tmp_path, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    names = sorted(path.name for path in (tmp_path / "usual").iterdir())
    assert len(names) == 2
    for name in names:
        pixels = [np.asarray(Image.open(tmp_path / folder / name)) for folder in ("usual", "strange")]
        np.testing.assert_array_equal(*pixels)


@pytest.mark.slow
def test_a_dataset_is_prepared_and_trained_on(tmp_path: Path) -> None:
    """By worker processes, too; a second call resumes."""
    rng = np.random.default_rng(0)
    for index in range(40):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    ran = without_posix("prepare", tmp_path, "-o", "d.zip", "--res", "16", "--workers", "2", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    train = [
        "train",
        "d.zip",
        "--preset",
        "tiny",
        "--run-dir",
        "run",
        "--batch",
        "8",
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    for stages, kimg in (("16:0.024", 0.024), ("16:0.048", 0.048)):
        ran = without_posix(*train, "--stages", stages, folder=tmp_path)
        assert ran.returncode == 0, ran.stderr
        log = (tmp_path / "run" / "log.jsonl").read_text()
        assert f'"kimg": {kimg}' in log
    assert '"resumed": true' in log
    assert (tmp_path / "run" / "checkpoints" / "000000048.safetensors").is_file()
    assert not list(tmp_path.rglob("*.part"))


def test_drafts_of_other_processes_stay_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the call that asks whether a process lives would end it."""
    monkeypatch.setattr(atomic_io, "WINDOWS", True)
    monkeypatch.setattr(atomic_io.os, "kill", lambda *_: pytest.fail("would end the process"))
    draft = tmp_path / f".x.png.{atomic_io._host()}.999999999.0a0a0a0a.part"
    draft.mkdir()
    with atomic_io.written_beside(tmp_path / "x.png") as path:
        path.write_bytes(b"x")
    assert draft.exists()
    assert (tmp_path / "x.png").read_bytes() == b"x"


def test_one_process_prepares_at_a_time(tmp_path: Path) -> None:
    with (
        WorkFolder(tmp_path / "a.zip", request="1"),
        pytest.raises(FileError, match="another `polyinr prepare` is running here"),
    ):
        WorkFolder(tmp_path / "a.zip", request="1")
    with WorkFolder(tmp_path / "a.zip", request="2") as work:
        work.add("x.png", b"png")
    with WorkFolder(tmp_path / "a.zip", request="2") as work:
        assert work.done == 1
        assert list(work.images()) == [b"png"]
        work.remove()
    assert list(tmp_path.iterdir()) == []


class OnMetal:
    """Stands for a tensor on Apple's GPU, which has no float64."""

    device = torch.device("mps")

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def cpu(self) -> torch.Tensor:
        return self.tensor


def test_coordinates_for_metal_are_computed_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)  # to where this machine has nothing
    grid, index = RegularGrid(3, 2), torch.arange(6)
    expected = torch.tensor([[0, 0, 1], [0.5, 0, 1], [1, 0, 1], [0, 1, 1], [0.5, 1, 1], [1, 1, 1]])
    found = coordinates_at(grid, OnMetal(index), dtype=torch.float32)  # type: ignore[arg-type]
    assert torch.equal(found.float(), expected)


def test_the_workflow_covers_the_systems_and_the_pythons() -> None:
    """And takes packages from where pip takes them."""
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    job = yaml.safe_load(text)["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name}
    assert set(matrix["python"]) >= named
    assert "://" not in text
    given = re.findall(r"tests/[\w./]+", " ".join(step.get("run", "") for step in job["steps"]))
    assert given
    assert all((ROOT / path).exists() for path in given)
