"""Which model a command uses, and that it says so."""

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Run, refused

from polyinr_cli.rendering import VARIABLE
from polyinr_core.checkpoints import locate
from polyinr_core.checkpoints.checkpoint import load_checkpoint, save_checkpoint


def drawn_with(polyinr: Run, *arguments: str) -> tuple[str, str]:
    """Draw an image; return (the hash of the model that drew it, stderr)."""
    ran = polyinr("sample", "--seeds", "1", "-o", "-", *arguments)
    assert ran.code == 0, ran.stderr
    ran = polyinr("sample", "--seeds", "1", "-o", "x.png", "--overwrite", "--json", *arguments)
    return ran.lines[0]["model"], ran.stderr


def test_the_order_of_the_search(
    polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """Named, then $POLYINR_MODEL, then the newest below ./runs; all but the first are said aloud."""
    for age, run in enumerate(("new", "old")):
        folder = Path("runs") / run / "checkpoints"
        folder.mkdir(parents=True)
        shutil.copy(tiny_checkpoint if run == "new" else tiny_class_checkpoint, folder / "000001.safetensors")
        os.utime(folder / "000001.safetensors", (1000 - age, 1000 - age))
    (Path("runs") / "new" / "kept.safetensors").write_text("not a checkpoint's place")
    plain, said = drawn_with(polyinr)
    assert (
        said
        == "polyinr: model runs/new/checkpoints/000001.safetensors (the newest below ./runs; trained on 1.5 kimg)\n"
    )
    os.utime("runs/old/checkpoints/000001.safetensors", (2000, 2000))
    conditional, said = drawn_with(polyinr)
    assert "runs/old" in said
    assert conditional != plain
    assert drawn_with(polyinr, "-q")[1] == ""
    monkeypatch.setenv(VARIABLE, str(tiny_checkpoint))
    assert drawn_with(polyinr)[0] == plain
    assert "$POLYINR_MODEL" in drawn_with(polyinr)[1]
    assert drawn_with(polyinr, "-m", str(tiny_class_checkpoint)) == (conditional, "")


def test_a_folder_stands_for_its_newest_checkpoint(
    polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run folder, one above it, its checkpoints; what stands beside a `checkpoints` folder does not count."""
    for age, (name, model) in enumerate(
        [
            ("all/run/checkpoints/2", tiny_checkpoint),
            ("all/old/checkpoints/1", tiny_class_checkpoint),
            ("all/run/0", None),
        ]
    ):
        path = Path(f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, path) if model else path.write_text("not a checkpoint's place")
        os.utime(path, (1000 - age, 1000 - age))
    newest, _ = drawn_with(polyinr, "-m", "all/run/checkpoints/2.safetensors")
    for folder in ("all", "all/run", "all/run/checkpoints", "all/run/"):
        model, said = drawn_with(polyinr, "-m", folder)
        assert model == newest
        shown = folder.rstrip("/")
        named = f"(the newest below {shown}, named by -m; trained on 1.5 kimg)"
        assert said == f"polyinr: model all/run/checkpoints/2.safetensors {named}\n"
    assert drawn_with(polyinr, "-m", "all", "-q")[1] == ""
    assert drawn_with(polyinr, "-m", "all/old")[0] != newest
    monkeypatch.setenv(VARIABLE, "all")
    assert drawn_with(polyinr)[0] == newest
    assert "named by $POLYINR_MODEL" in drawn_with(polyinr)[1]


def test_a_folder_without_checkpoints(polyinr: Run, tiny_checkpoint: Path):
    Path("run").mkdir()
    shutil.copy(tiny_checkpoint, "run/kept.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-m", "run", "-o", "x.png"), "run: holds no checkpoint", code=1)


def test_a_disk_is_not_searched(polyinr: Run, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not deeper than runs lie, not through links, not beyond so many entries."""
    run = Path("all", *"abcd")
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(tiny_checkpoint, run / "checkpoints" / "1.safetensors")
    assert locate.newest_checkpoint(Path("all")) == run / "checkpoints" / "1.safetensors"
    Path("above").mkdir()
    Path("all").rename("above/all")
    draw = ("sample", "--seeds", "1", "-o", "x.png", "-m")
    refused(polyinr(*draw, "above"), "above: holds no checkpoint", "at most 4 folders down", code=1)
    Path("linked").mkdir()
    Path("linked/run").symlink_to(Path("above/all/a/b/c/d").absolute())
    refused(polyinr(*draw, "linked"), "linked: holds no checkpoint", code=1)
    assert polyinr(*draw, "linked/run").code == 0
    Path("x.png").unlink()
    monkeypatch.setattr(locate, "MAX_ENTRIES", 3)
    refused(polyinr(*draw, "above"), "above: holds too many", "name a run", code=1)


def test_the_images_of_a_run_are_not_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("runs/one/checkpoints", "runs/one/images", "runs/.hidden/checkpoints"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(9):
        (tmp_path / f"runs/one/images/{number}.png").touch()
    monkeypatch.setattr(locate, "MAX_ENTRIES", 2)
    assert locate.checkpoint_folders(tmp_path / "runs") == [tmp_path / "runs/one/checkpoints"]


def test_a_variable_that_names_nothing(polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "nowhere.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-o", "x.png"), "$POLYINR_MODEL", "nowhere", code=1)


def test_no_model_at_all(polyinr: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locate, "BUNDLED_FILE", "nowhere.safetensors")
    refused(polyinr("sample", "--seeds", "1", "-o", "x.png"), "polyinr train", "polyinr convert", "-m", code=1)


def test_the_bundled_one_comes_last(
    polyinr: Run, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tmp_path: Path
):
    (tmp_path / "package" / "assets").mkdir(parents=True)
    shutil.copy(tiny_checkpoint, tmp_path / "package" / "assets" / locate.BUNDLED_FILE)
    monkeypatch.setattr(locate.resources, "files", lambda _: tmp_path / "package")
    assert "the bundled one" in drawn_with(polyinr)[1]


def test_the_bundled_one_by_its_name(polyinr: Run):
    """What draws an image again works where no other model lies: the line that `info` prints, word for word."""
    drawn = polyinr("sample", "--seeds", "3", "--res", "8", "-o", "one.png")
    assert drawn.code == 0, drawn.stderr
    command = json.loads(polyinr("info", "one.png", "--json").stdout)["command"]
    again = polyinr(*shlex.split(command)[1:])
    assert again.code == 0, again.stderr
    assert Path("one-again.png").read_bytes() == Path("one.png").read_bytes()


def test_the_best_is_not_the_newest(polyinr: Run, tiny_checkpoint: Path, tiny_class_checkpoint: Path):
    """A run's best.safetensors counts where it is the run's only model, or when it is named."""
    for name, model, time in (
        ("one/checkpoints/000001", tiny_checkpoint, 1000),
        ("one/checkpoints/best", tiny_class_checkpoint, 2000),
    ):
        path = Path("runs", f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, path)
        os.utime(path, (time, time))
    numbered, said = drawn_with(polyinr)
    assert "runs/one/checkpoints/000001.safetensors" in said
    best, _ = drawn_with(polyinr, "-m", "runs/one/checkpoints/best.safetensors")
    assert best != numbered
    Path("runs/two/checkpoints").mkdir(parents=True)
    shutil.copy("runs/one/checkpoints/best.safetensors", "runs/two/checkpoints/best.safetensors")
    for arguments in ([], ["-m", "runs/two"]):
        model, said = drawn_with(polyinr, *arguments)
        assert model == best
        assert "runs/two/checkpoints/best.safetensors" in said


def checkpoint_at(path: str, model: Path, *, kimg: float, time: int) -> Path:
    """Write a checkpoint of a run, after so many images, at a moment."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, replace(load_checkpoint(model), kimg=kimg, origin={"stages": "16:9"}))
    os.utime(path, (time, time))
    return Path(path)


def test_an_untrained_model_is_never_chosen(polyinr: Run, tiny_checkpoint: Path):
    """Not below ./runs, though it is the newest file; not of a run that has no other."""
    trained = checkpoint_at("runs/a/checkpoints/000002000.safetensors", tiny_checkpoint, kimg=2, time=1000)
    checkpoint_at("runs/b/checkpoints/000000000.safetensors", tiny_checkpoint, kimg=0, time=2000)
    _, said = drawn_with(polyinr)
    assert said == f"polyinr: model {trained} (the newest below ./runs; trained on 2 kimg)\n"
    ran = polyinr("sample", "--seeds", "1", "-m", "runs/b", "-o", "y.png")
    refused(ran, "only an untrained", "name runs/b/checkpoints/000000000.safetensors", code=1)


def test_the_newest_has_seen_the_most_images(polyinr: Run, tiny_checkpoint: Path):
    """Within a run the time of a file says nothing; among runs that of each one's newest decides."""
    for kimg, time in ((9, 1000), (10, 500)):
        checkpoint_at(f"runs/a/checkpoints/{kimg:06d}000.safetensors", tiny_checkpoint, kimg=kimg, time=time)
    assert "runs/a/checkpoints/000010000.safetensors" in drawn_with(polyinr)[1]
    checkpoint_at("runs/b/checkpoints/000001000.safetensors", tiny_checkpoint, kimg=1, time=600)
    assert "runs/b/checkpoints/000001000.safetensors" in drawn_with(polyinr)[1]


def test_training_starts_from_a_run_folder_s_newest(polyinr: Run, tiny_class_checkpoint: Path):
    """--init-from takes a folder as -m does. That the model has no table of training's says that it was read."""
    Path("run/checkpoints").mkdir(parents=True)
    shutil.copy(tiny_class_checkpoint, "run/checkpoints/000001.safetensors")
    ran = polyinr("train", "--preset", "tiny", "--run-dir", "tuned", "--init-from", "run")
    said, refusal = ran.stderr.splitlines()
    named = "(the newest below run, named by --init-from; trained on 1.5 kimg)"
    assert said == f"polyinr: model run/checkpoints/000001.safetensors {named}"
    assert (ran.code, "table_dim 6" in refusal) == (2, True)


def test_a_plus_joins_a_model_and_its_deltas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file of the very name wins; else the pieces that exist decide where the name is cut."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "b+c.safetensors", "d.safetensors", "e+f.safetensors", "a+e.safetensors"):
        Path(name).touch()

    def pieces(text: str) -> list[str]:
        return [str(path) for path in locate.split_deltas(Path(text))]

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


def test_a_delta_that_is_not_there(polyinr: Run, tiny_checkpoint: Path):
    ran = polyinr("sample", "--seeds", "1", "-m", f"{tiny_checkpoint}+nowhere.safetensors", "-o", "x.png")
    refused(ran, "nowhere.safetensors: no such file", code=1)
