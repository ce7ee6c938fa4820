"""Reading a run folder: its parts, its model and results, other and damaged folders."""

import json
from pathlib import Path

import pytest
from run_stand_in import make_run

from polyinr_core.errors import FileError
from polyinr_core.report.page import sample_grids, stage_rows
from polyinr_core.report.run_reader import read_run

RESULT = {"format": 2, "metrics": {"fd-lite2": {"value": 1.5}}, "card": {"device": "cpu"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run(tmp_path / "a run")


def test_read_run(folder: Path) -> None:
    run = read_run(folder)
    assert (run.name, run.data["name"], run.metrics) == ("a run", "images.zip", ("fd-lite2",))
    assert [(kimg, path.name) for kimg, path in run.grids] == [
        (0.0, "fakes-000000000.png"),
        (4.0, "fakes-000004000.png"),
    ]
    first, second = stage_rows(run)
    assert (first.resolution, first.kimg, first.settings) == (16, 2.0, {})
    assert second.span is not None
    assert (second.settings, second.span.start, second.span.end) == ({"batch": 8}, 2.0, 4.0)


def test_best_checkpoint_is_preferred_to_the_newest(folder: Path) -> None:
    for name in ("000000100", "000000020", "mine"):
        (folder / "checkpoints" / f"{name}.safetensors").touch()
    assert read_run(folder).model == folder / "checkpoints" / "best.safetensors"
    (folder / "checkpoints" / "best.safetensors").unlink()
    assert read_run(folder).model == folder / "checkpoints" / "000000100.safetensors"
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    assert read_run(folder).model is None


def test_latest_and_best_measurement(folder: Path) -> None:
    """One measurement is no best; those of the stage before and of the untrained model do not count."""
    assert read_run(folder).measured == ("fd-lite2", [(4.0, 700.0)])
    with (folder / "log.jsonl").open("a") as log:
        for kimg, value in ((5, 650.0), (6, 660.0)):
            log.write(json.dumps({"kimg": kimg, "stage": 1, "resolution": 32, "fd-lite2": value}) + "\n")
    assert read_run(folder).measured == ("fd-lite2", [(6.0, 660.0), (5.0, 650.0)])


def test_results_among_other_files(folder: Path) -> None:
    for name, facts in {"b": RESULT, "a": RESULT, "other": {"x": 1}, "newer": RESULT | {"format": 9}}.items():
        (folder / f"{name}.json").write_text(json.dumps(facts))
    (folder / "torn.json").write_text("{")
    run = read_run(folder)
    assert [result.name for result in run.results()] == ["a", "b"]
    assert [result.name for result in run.results(exclude=[folder / ".." / folder.name / "a.json"])] == ["b"]


def test_many_and_damaged_grids(folder: Path) -> None:
    whole = (folder / "samples" / "reals.png").read_bytes()
    for i in range(40):
        (folder / "samples" / f"fakes-{i:09d}.png").write_bytes(whole if i else b"")
    (folder / "samples" / "fakes-old.png").write_bytes(whole)
    sheets = sample_grids(read_run(folder))
    assert (len(sheets), sheets[0].image, sheets[-1].kimg) == (12, None, 4.0)
    assert all(sheet.image for sheet in sheets[1:])


def test_stages_from_the_log(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["training"]["stages"] = "what?"
    (folder / "config.json").write_text(json.dumps(config))
    assert [(row.number, row.resolution, row.kimg) for row in stage_rows(read_run(folder))] == [
        (1, 16, None),
        (2, 32, None),
    ]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "format 2"),
        ('{"format": 3}', "format 2"),
        ('{"format": 2, "training": {}, "data": 3}', "missing"),
    ],
)
def test_a_damaged_configuration_is_refused(folder: Path, config: str, said: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(FileError, match=said):
        read_run(folder)


def test_other_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, said in {
        "nowhere": "no such folder",
        "empty": "not a run folder",
        "a run/log.jsonl": "is a file",
    }.items():
        with pytest.raises(FileError, match=said):
            read_run(tmp_path / path)
    (folder / "log.jsonl").unlink()
    with pytest.raises(FileError, match=r"log\.jsonl: no such file"):
        read_run(folder)
