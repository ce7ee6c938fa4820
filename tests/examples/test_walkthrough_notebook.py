"""examples/walkthrough.ipynb: it runs from top to bottom, and is committed without its outputs."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "walkthrough.ipynb"
SECONDS = "SECONDS = 60"  # of training
TIMEOUT = 1200  # seconds a cell may take on a busy machine


def test_it_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 10
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    assert NOTEBOOK.stat().st_size < 2**15


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", NOTEBOOK.read_text())
    assert len(targets) > 5
    assert [name for name in targets if not (NOTEBOOK.parent / name).exists()] == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    """In its own kernel and an empty folder, with a few seconds of training."""
    nbformat = pytest.importorskip("nbformat", reason="no nbformat here (pip install nbformat)")
    nbclient = pytest.importorskip("nbclient", reason="no nbclient here (pip install nbclient)")
    pytest.importorskip("ipykernel", reason="no ipykernel here (pip install ipykernel)")
    notebook = nbformat.read(NOTEBOOK, 4)
    (training,) = (cell for cell in notebook.cells if SECONDS in cell.source)
    training.source = training.source.replace(SECONDS, "SECONDS = 5")
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    images = sum("image/png" in output.get("data", {}) for cell in outputs for output in cell)
    assert images >= 10
    assert not list(tmp_path.iterdir())  # it writes into a folder of its own
