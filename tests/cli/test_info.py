"""`polyinr info`: models, data sets, images, latents."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, refused
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from run_stand_in import make_run

from polyinr_core.checkpoints.checkpoint import load_checkpoint


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """100 images of 8 px in two classes; image i is gray level i."""
    path = tmp_path / "data.zip"
    labels = []
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(100):
            name = f"00000/img{index:08d}.png"
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), index, dtype=np.uint8)).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
            labels.append([name, int(index >= 70)])
        facts = {"labels": labels, "class_names": ["dark", "light"], "provenance": {"filter": "lanczos"}}
        archive.writestr("dataset.json", json.dumps(facts))
    return path


def test_a_model(polyinr: Run, tiny_class_checkpoint: Path):
    """Oracle: the generator's own parameters, counted here."""
    (facts,) = polyinr("info", tiny_class_checkpoint, "--json").lines
    generator = load_checkpoint(tiny_class_checkpoint).generator
    assert facts["parameters"]["total"] == sum(p.numel() for p in generator.parameters())
    assert (facts["form"], facts["channels"], facts["levels"], facts["classes"]) == ("release", 16, 3, 4)
    assert (facts["resolution"], facts["kimg"]) == (16, 1.5)
    assert facts["class_names"] == ["class a", "class b", "class c", "class d"]
    assert facts["flops_per_pixel"] > 2 * 2 * 16 * 16
    shown = polyinr("info", tiny_class_checkpoint).stdout.decode()
    for words in ("release", "class a, class b", "table 24", "1.5", facts["sha256"]):
        assert words in shown


def test_a_data_set(polyinr: Run, data_set: Path):
    (facts,) = polyinr("info", data_set, "--json").lines
    assert (facts["count"], facts["resolution"], facts["classes"]) == (100, 8, 2)
    assert facts["images_of_class"] == {"dark": 70, "light": 30}
    assert facts["provenance"] == {"filter": "lanczos"}
    assert "dark 70, light 30" in polyinr("info", data_set).stdout.decode()


def test_shards(polyinr: Run, data_set: Path, tmp_path: Path):
    """The images of the archive, its first 60 in one tar, the others in a second."""
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(data_set) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        for shard, part in enumerate((names[:60], names[60:])):
            with tarfile.open(tmp_path / "set" / f"{shard}.tar", "w") as tar:
                for name in part:
                    label = str(int(names.index(name) >= 70)).encode()
                    for member, content in ((name, archive.read(name)), (name[:-3] + "cls", label)):
                        entry = tarfile.TarInfo(member)
                        entry.size = len(content)
                        tar.addfile(entry, io.BytesIO(content))
    for path in ("set", "set/{0..1}.tar", "set/*.tar"):
        (facts,) = polyinr("info", path, "--json").lines
        assert (facts["count"], facts["shards"], facts["resolution"], facts["classes"]) == (100, 2, 8, 2)
        assert facts["images_of_class"] == {"0": 70, "1": 30}
    assert polyinr("info", "set/1.tar", "--json").lines[0]["count"] == 40
    assert polyinr("info", "set", "-o", "sheet.png").code == 0
    assert polyinr("info", data_set, "-o", "same.png").code == 0
    assert np.array_equal(np.asarray(Image.open("sheet.png")), np.asarray(Image.open("same.png")))


def test_a_contact_sheet(polyinr: Run, data_set: Path):
    ran = polyinr("info", data_set, "-o", "sheet.png")
    assert ran.code == 0
    assert b"lanczos" in ran.stdout
    page = np.asarray(Image.open("sheet.png"))
    assert page.shape == (8 * 8 + 7 * 2, 8 * 8 + 7 * 2, 3)
    assert page[0, 0, 0] == 0
    assert page[-1, -1, 0] == 99
    refused_again = polyinr("info", data_set, "-o", "sheet.png")
    assert (refused_again.code, "--overwrite" in refused_again.stderr) == (1, True)
    assert polyinr("info", data_set, "-o", "sheet.png", "--overwrite").code == 0
    piped = polyinr("info", data_set, "-o", "-")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(piped.stdout))), page)


def test_latents(polyinr: Run, tiny_class_checkpoint: Path):
    polyinr("sample", "--seeds", "4-6", "--psi", "0.5", "-m", tiny_class_checkpoint, "-o", "x.safetensors")
    (facts,) = polyinr("info", "x.safetensors", "--json").lines
    assert (facts["kind"], facts["count"], facts["seeds"], facts["psi"]) == ("latents", 3, [4, 5, 6], 0.5)
    assert facts["tensors"]["affine"] == [3, 3, 3, 16]
    assert len(facts["labels"]) == 3


def test_directions(polyinr: Run, tiny_checkpoint: Path):
    polyinr("directions", "--samples", "20", "--count", "3", "-m", tiny_checkpoint, "-o", "d.safetensors")
    (facts,) = polyinr("info", "d.safetensors", "--json").lines
    assert (facts["kind"], facts["count"], facts["space"], facts["samples"]) == ("directions", 3, "w", 20)
    assert facts["shape"] == [3, 12]
    assert facts["shares"] == sorted(facts["shares"], reverse=True)
    assert b"directions" in polyinr("info", "d.safetensors").stdout


def test_a_image(polyinr: Run, tiny_checkpoint: Path):
    polyinr("sample", "--seeds", "4", "-m", tiny_checkpoint, "-o", "x.png")
    shown = polyinr("info", "x.png").stdout.decode()
    assert "command" in shown
    assert "polyinr sample --seeds 4 --psi 1.0 --size 16x16 --grid 0.0:1.0" in shown


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif"])
def test_a_image_from_elsewhere(polyinr: Run, name: str):
    Image.new("RGB", (3, 3)).save(name)
    ran = polyinr("info", name)
    assert ran.code == 0
    assert b"none" in ran.stdout


@pytest.mark.parametrize(
    "note",
    [
        "{}",
        "[1]",
        "nonsense",
        '{"polyinr": 1}',
        '{"polyinr": 1, "seed": "x", "size": 3}',
        '{"polyinr": null, "seeds": 5}',
    ],
)
def test_damaged_notes_are_one_line_at_most(polyinr: Run, note: str):
    info = PngInfo()
    info.add_text("polyinr", note)
    Image.new("RGB", (3, 3)).save("x.png", pnginfo=info)
    ran = polyinr("info", "x.png")
    assert ran.code in (0, 1)
    assert len(ran.stderr.splitlines()) == ran.code


def test_a_folder_of_images(polyinr: Run, tmp_path: Path):
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        Image.new("RGB", (8, 9)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "cat" / "a.heic").write_bytes(b"x")
    ran = polyinr("info", "photos", "--json")
    (facts,) = ran.lines
    assert (facts["kind"], facts["count"]) == ("folder of images", 2)
    assert facts["images_of_class"] == {"cat": 1, "dog": 1}
    assert ran.stderr == "polyinr: photos: ignored: 1 file of other types (1 .heic)\n"
    (tmp_path / "photos" / "cover.png").write_bytes(b"broken")
    ran = polyinr("info", "photos", "--json")
    assert (ran.lines[0]["count"], ran.lines[0]["classes"]) == (2, 2)  # as `prepare` has it, which skips it
    assert "skipped: 'cover.png' cannot be decoded" in ran.stderr
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "cover.png")
    ran = polyinr("info", "photos", "--json")
    assert ran.lines[0]["classes"] == 0
    assert "no labels: 'cover.png' lies in no class folder" in ran.stderr
    assert "-o writes a grid of a dataset" in polyinr("info", "photos", "-o", "x.png").stderr


def test_a_compressed_tar_is_named_as_such(polyinr: Run, tmp_path: Path):
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as tar:
        Image.new("RGB", (8, 8)).save("a.png")
        tar.add("a.png")
    refused(polyinr("info", "set.tgz"), "is a compressed tar", code=1)


def test_a_header_whose_length_begins_as_a_pickle_does(polyinr, tiny_checkpoint):
    """One length in 32 does: it is a multiple of 8, and its first byte may be 0x80."""
    data = tiny_checkpoint.read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = length + (0x80 - length) % 256
    header = data[8 : 8 + length].ljust(padded)
    Path("model.safetensors").write_bytes(padded.to_bytes(8, "little") + header + data[8 + length :])
    (facts,) = polyinr("info", "model.safetensors", "--json").lines
    assert facts["kind"] == "model"


def test_a_run_folder(polyinr: Run, tmp_path: Path):
    make_run(tmp_path / "run")
    (facts,) = polyinr("info", "run", "--json").lines
    assert (facts["kind"], facts["kimg"], facts["planned_kimg"], facts["stage"]) == ("run", 4, 10, "2 of 2, 32 px")
    assert facts["metric"] == "fd-lite2 latest 700 at 4 kimg"
    assert facts["command"] == "polyinr sample -m run --seeds 0-7 -o images/"
    assert "best checkpoint    run/checkpoints/best.safetensors" in polyinr("info", "run").stdout.decode()


def test_the_bundled_model_by_name(polyinr: Run):
    """Its card is laid out in lines of a readable length; what is nested deeply is only named."""
    ran = polyinr("info", "bundled")
    assert ran.code == 0, ran.stderr
    lines = ran.stdout.decode().splitlines()
    assert 15 < len(lines) < 80
    assert max(map(len, lines)) <= 110
    assert polyinr("info", "bundled", "--json").lines[0]["origin"]["card"]
