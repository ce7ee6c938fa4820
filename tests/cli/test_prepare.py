"""`polyinr prepare`: every option takes effect, wrong ones are one line, stdout carries JSON alone."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import refused
from PIL import Image

from polyinr_core.data.zip_dataset import ZipDataset


def image(path: Path, size: tuple[int, int] = (24, 16), seed: int = 0, **options: object) -> Path:
    """Write an image of noise in a smooth frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Four images of two classes and one broken."""
    for index, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]):
        image(tmp_path / "photos" / name, seed=index)
    (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"no image")
    return tmp_path / "photos"


def test_a_folder_becomes_an_archive(polyinr, photos):
    ran = polyinr("prepare", photos, "-o", "a.zip", "--res", "8", "--json")
    assert ran.code == 0
    assert ran.lines == [
        {
            "output": "a.zip",
            "resolution": 8,
            "found": 5,
            "kept": 4,
            "resumed": 0,
            "classes": 2,
            "class_names": ["cat", "dog"],
            "skipped": [{"name": "dog/broken.png", "reason": "is not an image of a known format"}],
            "other_files": {},
            "second_images": {},
            "notes": [],
        }
    ]
    archive = ZipDataset.open("a.zip")
    assert (len(archive), archive.resolution, archive.labels.tolist()) == (4, 8, [0, 0, 1, 1])
    assert polyinr("info", "a.zip").code == 0


def test_a_log_says_what_was_skipped_too(polyinr, photos):
    ran = polyinr("prepare", photos, "-o", "a.zip", "--res", "8")
    assert (ran.code, ran.stdout) == (0, b"")
    assert ran.stderr.splitlines() == [
        "skipped: 'dog/broken.png' is not an image of a known format",
        "a.zip: 4 of 5 images at 8 px; 2 classes (cat, dog)",
    ]
    ran = polyinr("prepare", photos, "-o", "b.zip", "--res", "8", "-q")
    assert (ran.code, ran.stdout, ran.stderr) == (0, b"", "")


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("quiet", [False, True])
def test_a_message_says_what_was_skipped(photos, tmp_path, monkeypatch, quiet):
    from polyinr_cli.main import outcome

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal(io.BytesIO(), "utf-8"))
    assert outcome(["prepare", "photos", "-o", "a.zip", "--res", "8", *(["-q"] if quiet else [])]) == 0
    sys.stderr.flush()
    said = sys.stderr.buffer.getvalue().decode()
    assert ("skipped: 'dog/broken.png' is not an image" in said) == (not quiet)
    assert ("a.zip: 4 of 5 images at 8 px; 2 classes (cat, dog)" in said) == (not quiet)
    assert bool(said) == (not quiet)


@pytest.mark.parametrize(
    "options",
    [
        ["--crop", "pad"],
        ["--crop", "none"],
        ["--resize", "box"],
        ["--resize", "bicubic"],
        ["--resize", "bilinear"],
        ["--crop", "pad", "--background", "#102030"],
    ],
)
def test_each_option_changes_the_images_and_is_recorded(polyinr, photos, options):
    assert (
        polyinr("prepare", photos, "-o", "plain.zip", "--res", "8", "--crop", "center", "--resize", "lanczos").code == 0
    )
    assert polyinr("prepare", photos, "-o", "a.zip", "--res", "8", *options).code == 0
    archive = ZipDataset.open("a.zip")
    assert not np.array_equal(archive.read(0), ZipDataset.open("plain.zip").read(0))
    for option, value in zip(options[::2], options[1::2], strict=True):
        assert archive.provenance[option.strip("-")] == value


def test_labels_none(polyinr, photos):
    assert polyinr("prepare", photos, "-o", "a.zip", "--res", "8", "--labels", "none").code == 0
    assert ZipDataset.open("a.zip").labels is None


def test_workers_give_the_same_bytes(polyinr, photos):
    for workers in ("1", "2"):
        assert polyinr("prepare", photos, "-o", f"{workers}.zip", "--res", "8", "--workers", workers).code == 0
    assert Path("1.zip").read_bytes() == Path("2.zip").read_bytes()


def test_strict_and_overwrite(polyinr, photos):
    refused(
        polyinr("prepare", photos, "-o", "a.zip", "--res", "8", "--strict"),
        "'dog/broken.png'",
        "--strict",
        code=1,
    )
    (photos / "dog" / "broken.png").unlink()
    assert polyinr("prepare", photos, "-o", "a.zip", "--res", "8", "--strict").code == 0
    refused(polyinr("prepare", photos, "-o", "a.zip", "--res", "4"), "exists already", "--overwrite", code=1)
    assert polyinr("prepare", photos, "-o", "a.zip", "--res", "4", "--overwrite").code == 0
    assert ZipDataset.open("a.zip").resolution == 4


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(tmp_path, workers):
    data = image(tmp_path / "photos" / "0.png", (500, 500), compress_level=1).read_bytes()
    for index in range(1, 60):
        (tmp_path / "photos" / f"{index}.png").write_bytes(data)
    command = [sys.executable, "-c", "from polyinr_cli.main import run; run()"]
    command += ["prepare", "photos", "-o", "a.zip", "--res", "64", "--workers", workers, "--json"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "a.zip.part" / "journal.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 10):
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout, stderr) == (130, "", "polyinr: interrupted\n")
    assert not (tmp_path / "a.zip").exists()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert '"kept": 60, "resumed": ' in done.stdout
    assert '"resumed": 0' not in done.stdout
    assert not journal.exists()


def test_what_is_passed_over_and_lost_is_logged(polyinr, photos):
    (photos / "cat" / "a.heic").write_bytes(b"x")
    (photos / "ape").mkdir()
    (photos / "ape" / "broken.png").write_bytes(b"no image")
    command = ("prepare", photos, "-o", "a.zip", "--res", "8")
    ran = polyinr(*command, "--json")
    notes = [
        "ignored: 1 file of other types (1 .heic)",
        "lost: class 'ape': none of its 1 images can be used",
    ]
    assert ran.lines[0]["notes"] == notes
    assert ran.lines[0]["other_files"] == {".heic": 1}
    assert ran.stderr.splitlines()[2:] == [*notes, "a.zip: 4 of 6 images at 8 px; 2 classes (cat, dog)"]
    assert polyinr(*command, "--overwrite", "-q").stderr == ""
    refused(polyinr(*command, "--overwrite", "--strict"), "1 file of other types", "--strict", code=1)
    image(photos / "cover.png")
    assert "no labels: 'cover.png' lies in no class folder" in polyinr(*command, "--overwrite").stderr


def test_labels_from_a_table(polyinr, photos):
    Path("labels.csv").write_text("file_name,label\ncat/1.png,tabby\ncat/2.png,manx\ndog/1.png,corgi\n2.png,pug\n")
    ran = polyinr("prepare", photos, "-o", "a.zip", "--res", "8", "--labels", "labels.csv", "--json")
    assert ran.code == 0
    assert ran.lines[0]["class_names"] == ["corgi", "manx", "pug", "tabby"]
    with ZipDataset.open("a.zip") as dataset:
        assert dataset.labels.tolist() == [3, 1, 0, 2]
    command = ("prepare", photos, "-o", "b.zip", "--res", "8", "--labels")
    refused(polyinr(*command, "cats"), "'cats' is not auto, none or a", code=2)
    Path("labels.csv").write_text("file_name,label\n1.png,tabby\n")
    refused(polyinr(*command, "labels.csv"), "its labels.csv has no label for 3 of 5 images", code=1)
