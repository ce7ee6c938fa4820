"""Which model a command uses, and that it says so."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import Run, refused

from polyinr_cli import models


def drawn_with(polyinr: Run, *arguments: str) -> tuple[str, str]:
    """Draw a picture; return (the hash of the model that drew it, stderr)."""
    ran = polyinr("sample", "--seeds", "1", "-o", "-", *arguments)
    assert ran.code == 0, ran.stderr
    ran = polyinr("sample", "--seeds", "1", "-o", "x.png", "--overwrite", "--json", *arguments)
    return ran.lines[0]["model"], ran.stderr


def test_the_order_of_the_search(
    polyinr: Run, tiny_snapshot: Path, tiny_class_snapshot: Path, monkeypatch: pytest.MonkeyPatch
):
    """Named, then $POLYINR_MODEL, then the newest below ./runs; all but the first are said aloud."""
    for age, run in enumerate(("new", "old")):
        folder = Path("runs") / run / "snapshots"
        folder.mkdir(parents=True)
        shutil.copy(tiny_snapshot if run == "new" else tiny_class_snapshot, folder / "000001.safetensors")
        os.utime(folder / "000001.safetensors", (1000 - age, 1000 - age))
    (Path("runs") / "new" / "kept.safetensors").write_text("not a snapshot's place")
    plain, said = drawn_with(polyinr)
    assert said == "polyinr: model runs/new/snapshots/000001.safetensors (the newest below ./runs)\n"
    os.utime("runs/old/snapshots/000001.safetensors", (2000, 2000))
    conditional, said = drawn_with(polyinr)
    assert "runs/old" in said
    assert conditional != plain
    assert drawn_with(polyinr, "-q")[1] == ""
    monkeypatch.setenv(models.VARIABLE, str(tiny_snapshot))
    assert drawn_with(polyinr)[0] == plain
    assert "$POLYINR_MODEL" in drawn_with(polyinr)[1]
    assert drawn_with(polyinr, "-m", str(tiny_class_snapshot)) == (conditional, "")


def test_a_folder_stands_for_its_newest_snapshot(
    polyinr: Run, tiny_snapshot: Path, tiny_class_snapshot: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run folder, one above it, its snapshots; what stands beside a `snapshots` folder does not count."""
    for age, (name, model) in enumerate(
        [
            ("all/run/snapshots/2", tiny_snapshot),
            ("all/old/snapshots/1", tiny_class_snapshot),
            ("all/run/0", None),
        ]
    ):
        path = Path(f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, path) if model else path.write_text("not a snapshot's place")
        os.utime(path, (1000 - age, 1000 - age))
    newest, _ = drawn_with(polyinr, "-m", "all/run/snapshots/2.safetensors")
    for folder in ("all", "all/run", "all/run/snapshots", "all/run/"):
        model, said = drawn_with(polyinr, "-m", folder)
        assert model == newest
        shown = folder.rstrip("/")
        assert said == f"polyinr: model all/run/snapshots/2.safetensors (the newest below {shown}, named by -m)\n"
    assert drawn_with(polyinr, "-m", "all", "-q")[1] == ""
    assert drawn_with(polyinr, "-m", "all/old")[0] != newest
    monkeypatch.setenv(models.VARIABLE, "all")
    assert drawn_with(polyinr)[0] == newest
    assert "named by $POLYINR_MODEL" in drawn_with(polyinr)[1]


def test_a_folder_without_snapshots(polyinr: Run, tiny_snapshot: Path):
    Path("run").mkdir()
    shutil.copy(tiny_snapshot, "run/kept.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-m", "run", "-o", "x.png"), "run: holds no snapshot", code=1)


def test_a_disk_is_not_searched(polyinr: Run, tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not deeper than runs lie, not through links, not beyond so many entries."""
    run = Path("all", *"abcd")
    (run / "snapshots").mkdir(parents=True)
    shutil.copy(tiny_snapshot, run / "snapshots" / "1.safetensors")
    assert models.newest_snapshot(Path("all")) == run / "snapshots" / "1.safetensors"
    Path("above").mkdir()
    Path("all").rename("above/all")
    draw = ("sample", "--seeds", "1", "-o", "x.png", "-m")
    refused(polyinr(*draw, "above"), "above: holds no snapshot", "4 folders down at most", code=1)
    Path("linked").mkdir()
    Path("linked/run").symlink_to(Path("above/all/a/b/c/d").absolute())
    refused(polyinr(*draw, "linked"), "linked: holds no snapshot", code=1)
    assert polyinr(*draw, "linked/run").code == 0
    Path("x.png").unlink()
    monkeypatch.setattr(models, "MOST_ENTRIES", 3)
    refused(polyinr(*draw, "above"), "above: holds too much", "name a run folder", code=1)


def test_the_pictures_of_a_run_are_not_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("runs/one/snapshots", "runs/one/pictures", "runs/.hidden/snapshots"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(9):
        (tmp_path / f"runs/one/pictures/{number}.png").touch()
    monkeypatch.setattr(models, "MOST_ENTRIES", 2)
    assert models.snapshot_folders(tmp_path / "runs") == [tmp_path / "runs/one/snapshots"]


def test_a_variable_that_names_nothing(polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(models.VARIABLE, "nowhere.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-o", "x.png"), "$POLYINR_MODEL", "nowhere", code=1)


def test_no_model_at_all(polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "BUNDLED", "nowhere.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-o", "x.png"), "polyinr train", "polyinr convert", "-m", code=1)


def test_the_bundled_one_comes_last(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, tiny_snapshot: Path, tmp_path: Path
):
    (tmp_path / "package" / "assets").mkdir(parents=True)
    shutil.copy(tiny_snapshot, tmp_path / "package" / "assets" / models.BUNDLED)
    monkeypatch.setattr(models.resources, "files", lambda _: tmp_path / "package")
    assert "the bundled one" in drawn_with(polyinr)[1]


def test_the_bundled_one_needs_no_naming(polyinr: Run):
    """What draws a picture again works where no other model lies: the line that `info` prints, word for word."""
    drawn = polyinr("sample", "--seeds", "3", "--res", "8", "-o", "one.png")
    assert drawn.code == 0, drawn.stderr
    command = json.loads(polyinr("info", "one.png", "--json").stdout)["command"]
    again = polyinr(*shlex.split(command)[1:])
    assert again.code == 0, again.stderr
    assert Path("one-again.png").read_bytes() == Path("one.png").read_bytes()


def test_the_best_is_not_the_newest(polyinr: Run, tiny_snapshot: Path, tiny_class_snapshot: Path):
    """A run's best.safetensors counts where it is the run's only model, or when it is named."""
    for name, model, time in (
        ("one/snapshots/000001", tiny_snapshot, 1000),
        ("one/snapshots/best", tiny_class_snapshot, 2000),
    ):
        path = Path("runs", f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, path)
        os.utime(path, (time, time))
    numbered, said = drawn_with(polyinr)
    assert "runs/one/snapshots/000001.safetensors" in said
    best, _ = drawn_with(polyinr, "-m", "runs/one/snapshots/best.safetensors")
    assert best != numbered
    Path("runs/two/snapshots").mkdir(parents=True)
    shutil.copy("runs/one/snapshots/best.safetensors", "runs/two/snapshots/best.safetensors")
    for arguments in ([], ["-m", "runs/two"]):
        model, said = drawn_with(polyinr, *arguments)
        assert model == best
        assert "runs/two/snapshots/best.safetensors" in said


def test_training_starts_from_a_run_folder_s_newest(polyinr: Run, tiny_class_snapshot: Path):
    """--init-from takes a folder as -m does. That the model has no table of training's says that it was read."""
    Path("run/snapshots").mkdir(parents=True)
    shutil.copy(tiny_class_snapshot, "run/snapshots/000001.safetensors")
    ran = polyinr("train", "--preset", "tiny", "--run-dir", "tuned", "--init-from", "run")
    said, refusal = ran.stderr.splitlines()
    assert said == "polyinr: model run/snapshots/000001.safetensors (the newest below run, named by --init-from)"
    assert (ran.code, "table_dim 6" in refusal) == (2, True)


def test_a_plus_joins_a_model_and_its_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file of the very name wins; else the pieces that exist decide where the name is cut."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "b+c.safetensors", "d.safetensors", "e+f.safetensors", "a+e.safetensors"):
        Path(name).touch()

    def pieces(text: str) -> list[str]:
        return [str(path) for path in models.split_deltas(Path(text))]

    assert pieces("a.safetensors") == ["a.safetensors"]
    assert pieces("a+e.safetensors") == ["a+e.safetensors"]
    assert pieces("b+c.safetensors+d.safetensors") == ["b+c.safetensors", "d.safetensors"]
    assert pieces("a.safetensors+e+f.safetensors") == ["a.safetensors", "e+f.safetensors"]
    assert pieces("a.safetensors+d.safetensors+e+f.safetensors") == [
        "a.safetensors",
        "d.safetensors",
        "e+f.safetensors",
    ]
    assert pieces("x.safetensors+y.safetensors") == ["x.safetensors", "y.safetensors"]


def test_a_delta_that_is_not_there(polyinr: Run, tiny_snapshot: Path):
    ran = polyinr("sample", "--seeds", "1", "-m", f"{tiny_snapshot}+nowhere.safetensors", "-o", "x.png")
    refused(ran, "nowhere.safetensors: no such file", code=1)
