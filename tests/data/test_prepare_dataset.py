"""Preparation: the same bytes for the same input, taken up after a stop, odd images listed with the reason."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import encoded, noise, stylegan_names, write_dataset, write_folder, write_zip
from torchvision.datasets import FakeData

from polyinr_core.data import prepare as preparation
from polyinr_core.data.prepare import prepare
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError, RequestError

FILES = {f"{kind}/{index}.png": encoded(noise(16, index)) for index, kind in enumerate(["cat", "dog"] * 3)}


@pytest.fixture
def folder(tmp_path):
    """Six images of 16 px in two classes."""
    return write_folder(tmp_path / "photos", FILES)


def left(path: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(file.name for file in path.iterdir())


def test_a_folder_becomes_a_dataset(folder, tmp_path):
    steps = []
    output = tmp_path / "out" / "a.zip"
    report = prepare([folder], output, resolution=8, progress=lambda done, total: steps.append((done, total)))
    assert (report.found, report.kept, report.skipped, report.resumed) == (6, 6, (), 0)
    assert (report.classes, report.class_names) == (2, ("cat", "dog"))
    assert steps == [(done, 6) for done in range(7)]
    assert left(tmp_path / "out") == ["a.zip"]
    with ZipDataset.open(output) as dataset:
        assert dataset.names == stylegan_names(6)
        assert dataset.resolution == 8
        assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
        for index, name in enumerate(sorted(FILES)):
            expected = Image.open(folder / name).resize((8, 8), Image.Resampling.LANCZOS)
            assert np.array_equal(dataset.read(index), np.asarray(expected))


def test_a_dataset_of_torchvision_and_a_path_as_text(tmp_path):
    fake = FakeData(size=9, image_size=(3, 12, 10), num_classes=2)
    report = prepare(fake, str(tmp_path / "a.zip"), resolution=10, background="black")
    assert (report.kept, report.classes) == (9, 2)
    with ZipDataset.open(tmp_path / "a.zip") as dataset:
        assert dataset.labels.tolist() == [int(label) for _, label in fake]
        assert dataset.provenance["sources"] == [{"name": "FakeData", "kind": "dataset", "images": 9}]
        assert np.array_equal(dataset.read(3), np.asarray(fake[3][0])[1:11])
    assert prepare(str(tmp_path / "a.zip"), tmp_path / "b.zip", resolution=10).kept == 9


def test_the_zip_is_stored_and_stylegan_s_reader_finds_its_way(folder, tmp_path):
    prepare([folder], tmp_path / "a.zip", resolution=8)
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        assert {member.compress_type for member in zipped.infolist()} == {zipfile.ZIP_STORED}
        assert {member.date_time for member in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        facts = json.loads(zipped.read("dataset.json"))
        assert facts["labels"] == [[name, index // 3] for index, name in enumerate(stylegan_names(6))]
        image = Image.open(zipped.open("00000/img00000000.png"))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))


def test_the_same_input_gives_the_same_bytes(tmp_path):
    files = {f"{index % 3}/{index:03d}.png": encoded(noise(12, index)) for index in range(40)}
    made = []
    for run, workers in enumerate([1, 2, 1]):
        folder = write_folder(tmp_path / str(run) / "photos", dict(reversed(files.items())) if run else files)
        output = tmp_path / f"{run}.zip"
        prepare([folder], output, resolution=8, workers=workers)
        made.append(output.read_bytes())
    assert made[0] == made[1] == made[2]
    for secret in (str(tmp_path), tmp_path.name, time.strftime("%Y-%m-%d")):
        assert secret.encode() not in made[0]


def test_provenance_tells_how_it_was_made(folder, tmp_path):
    (folder / "cat" / "broken.png").write_bytes(b"x")
    prepare([folder], tmp_path / "a.zip", resolution=8, crop="pad", resize="box", background=(255, 0, 128))
    facts = ZipDataset.open(tmp_path / "a.zip").provenance
    assert facts.pop("made_by").startswith("polyinr ")
    assert facts == {
        "sources": [{"name": "photos", "kind": "folder", "images": 7}],
        "resolution": 8,
        "crop": "pad",
        "resize": "box",
        "background": "#ff0080",
        "labels": "auto",
        "counts": {"found": 7, "kept": 6, "skipped": 1},
        "skipped": [["cat/broken.png", "is not an image of a known format"]],
    }


def test_each_choice_changes_the_images(tmp_path):
    image = np.concatenate([noise(16, 0), noise(16, 1)], 1)  # twice as wide as high
    folder = write_folder(tmp_path / "p", {"a.png": encoded(image)})
    choices = [{}, {"crop": "pad"}, {"crop": "none"}, {"resize": "box"}, {"resize": "bicubic"}]
    choices += [{"resize": "bilinear"}, {"crop": "pad", "background": (0, 0, 0)}]
    seen = set()
    for index, choice in enumerate(choices):
        prepare([folder], tmp_path / f"{index}.zip", resolution=8, **choice)
        seen.add(ZipDataset.open(tmp_path / f"{index}.zip").read(0).tobytes())
    assert len(seen) == len(choices)


def test_labels_none_leaves_them_out(folder, tmp_path):
    report = prepare([folder], tmp_path / "a.zip", resolution=8, labels="none")
    assert report.classes == 0
    assert ZipDataset.open(tmp_path / "a.zip").labels is None


def bomb() -> bytes:
    """A bitmap that declares 10^10 pixels."""
    data = bytearray(encoded(noise(16), "BMP"))
    data[18:26] = (100_000).to_bytes(4, "little") * 2
    return bytes(data)


ODD = {
    "broken.jpg": (b"no image", "is not an image of a known format"),
    "empty.png": (b"", "is empty"),
    "truncated.png": (encoded(noise(64))[:2000], "cannot be decoded"),
    "small.png": (encoded(noise(7)), "is too small (7x7, 8 is needed)"),
    "bomb.bmp": (bomb(), "pixels"),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_odd_images_are_skipped_and_listed(folder, tmp_path, workers):
    write_folder(folder / "cat", {name: data for name, (data, _) in ODD.items()})
    report = prepare([folder], tmp_path / "a.zip", resolution=8, workers=workers)
    assert (report.found, report.kept) == (11, 6)
    reasons = dict(report.skipped)
    assert sorted(reasons) == sorted(f"cat/{name}" for name in ODD)
    for name, (_, reason) in ODD.items():
        assert reason in reasons[f"cat/{name}"]
    with ZipDataset.open(tmp_path / "a.zip") as dataset:
        assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert [dataset.read(index).shape for index in range(6)] == [(8, 8, 3)] * 6


@pytest.mark.parametrize("name", ODD)
def test_strict_makes_them_an_error(folder, tmp_path, name):
    write_folder(folder / "cat", {name: ODD[name][0]})
    with pytest.raises(FileError, match=f"photos: the image 'cat/{name}' .*--strict"):
        prepare([folder], tmp_path / "a.zip", resolution=8, strict=True)
    assert left(tmp_path) == ["photos"]


def test_nothing_usable_is_an_error_that_leaves_nothing(folder, tmp_path):
    with pytest.raises(DatasetError, match=r"none of its 6 images can be used .*is too small .16x16, 32"):
        prepare([folder], tmp_path / "a.zip", resolution=32)
    assert left(tmp_path) == ["photos"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_image_is_skipped(folder, tmp_path):
    (folder / "cat" / "0.png").chmod(0)
    report = prepare([folder], tmp_path / "a.zip", resolution=8)
    assert report.skipped == (("cat/0.png", "cannot be read (permission denied)"),)


def test_a_damaged_zip_entry_is_skipped(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"a.png": encoded(noise(16)), "b.png": encoded(noise(16, 1))})
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    report = prepare([path], tmp_path / "a.zip", resolution=8)
    assert report.skipped == (("a.png", "cannot be read, the zip is damaged there"),)


def test_a_stylega_dataset_as_source_keeps_labels_names_and_license(tmp_path):
    names = ["x", "y", "z", "none of these"]
    source = write_dataset(tmp_path / "s.zip", side=16, class_names=names, license="MIT")
    report = prepare([source], tmp_path / "a.zip", resolution=8)
    assert report.class_names == tuple(names)
    dataset = ZipDataset.open(tmp_path / "a.zip")
    assert dataset.labels.tolist() == [0, 1, 2] * 2
    assert dataset.provenance["sources"][0]["provenance"] == {"license": "MIT"}
    again = prepare([tmp_path / "a.zip"], tmp_path / "b.zip", resolution=8)
    assert again.kept == 6
    assert np.array_equal(ZipDataset.open(tmp_path / "b.zip").read(3), dataset.read(3))


def test_several_sources_join_their_classes(tmp_path):
    one = write_folder(tmp_path / "one", {"dog/1.png": encoded(noise(8)), "cat/1.png": encoded(noise(8, 1))})
    two = write_zip(tmp_path / "two.zip", {"ape/1.png": encoded(noise(8, 2)), "ape/2.png": b"broken"})
    report = prepare([one, two], tmp_path / "a.zip", resolution=8)
    assert report.class_names == ("ape", "cat", "dog")
    assert report.skipped == (("two.zip/ape/2.png", "is not an image of a known format"),)
    assert ZipDataset.open(tmp_path / "a.zip").labels.tolist() == [1, 2, 0]


def test_one_class_or_a_image_without_class_means_no_labels(tmp_path):
    one = write_folder(tmp_path / "one", {"cat/1.png": encoded(noise(8)), "cat/2.png": encoded(noise(8, 1))})
    bare = write_folder(tmp_path / "bare", {"1.png": encoded(noise(8))})
    both = write_folder(tmp_path / "both", {"cat/1.png": encoded(noise(8)), "dog/2.png": encoded(noise(8, 1))})
    for index, sources in enumerate([[one], [bare], [both, bare]]):
        assert prepare(sources, tmp_path / f"{index}.zip", resolution=8).classes == 0


def test_named_and_numbered_classes_do_not_mix(tmp_path, folder):
    numbered = write_dataset(tmp_path / "n.zip", side=16)
    with pytest.raises(RequestError, match="give --labels none"):
        prepare([folder, numbered], tmp_path / "a.zip", resolution=8)
    assert prepare([folder, numbered], tmp_path / "a.zip", resolution=8, labels="none").kept == 12


class Stopped(BaseException):
    """Stands for Ctrl-C at a certain image."""


def stop_at(count: int):
    def progress(done: int, total: int) -> None:
        if done == count:
            raise Stopped

    return progress


def test_an_interruption_leaves_no_dataset_and_is_taken_up(folder, tmp_path, monkeypatch):
    whole = tmp_path / "whole.zip"
    prepare([folder], whole, resolution=8)
    output = tmp_path / "a.zip"
    with pytest.raises(Stopped):
        prepare([folder], output, resolution=8, progress=stop_at(4))
    assert left(tmp_path) == ["a.zip.part", "photos", "whole.zip"]
    worked = []
    made = preparation.make_image
    monkeypatch.setattr(preparation, "make_image", lambda p, request: worked.append(p.name) or made(p, request=request))
    report = prepare([folder], output, resolution=8)
    assert report.resumed == 4
    assert worked == ["3.png", "5.png"]  # only the two that were missing
    assert output.read_bytes() == whole.read_bytes()
    assert left(tmp_path) == ["a.zip", "photos", "whole.zip"]


@pytest.mark.parametrize("change", ["resolution", "files", "background"])
def test_another_request_starts_anew(folder, tmp_path, change):
    with pytest.raises(Stopped):
        prepare([folder], tmp_path / "a.zip", resolution=8, progress=stop_at(4))
    if change == "files":
        os.utime(folder / "cat/0.png", ns=(1, 1))
    options = {"resolution": 4} if change == "resolution" else {"resolution": 8}
    if change == "background":
        options["background"] = (0, 0, 0)
    assert prepare([folder], tmp_path / "a.zip", **options).resumed == 0


@pytest.mark.parametrize("file", ["images.bin", "journal.jsonl"])
@pytest.mark.parametrize("damage", ["cut", "flip", "append"])
def test_a_damaged_work_folder_is_used_as_far_as_it_is_whole(folder, tmp_path, file, damage):
    whole = tmp_path / "whole.zip"
    prepare([folder], whole, resolution=8)
    with pytest.raises(Stopped):
        prepare([folder], tmp_path / "a.zip", resolution=8, progress=stop_at(4))
    path = tmp_path / "a.zip.part" / file
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[-5:]
    elif damage == "flip":
        data[len(data) // 2] = 0x81
    else:
        data += b'{"name"'
    path.write_bytes(data)
    report = prepare([folder], tmp_path / "a.zip", resolution=8)
    assert report.resumed == 4 if damage == "append" else report.resumed < 4
    assert (tmp_path / "a.zip").read_bytes() == whole.read_bytes()


def test_a_stranger_in_the_place_of_the_work_folder_is_left_alone(folder, tmp_path):
    write_folder(tmp_path / "a.zip.part", {"mine.txt": b"x"})
    with pytest.raises(FileError, match=r"a\.zip\.part: is not a work folder of polyinr"):
        prepare([folder], tmp_path / "a.zip", resolution=8)
    assert left(tmp_path / "a.zip.part") == ["mine.txt"]


def test_two_at_once_do_not_mix(folder, tmp_path):
    def second(done: int, total: int) -> None:
        if done == 2:
            with pytest.raises(FileError, match="another `polyinr prepare` is running here"):
                prepare([folder], tmp_path / "a.zip", resolution=8)

    assert prepare([folder], tmp_path / "a.zip", resolution=8, progress=second).kept == 6


def test_requests_that_make_no_sense(folder, tmp_path):
    for resolution in (0, -1, 10**9):
        with pytest.raises(RequestError, match=f"resolution {resolution} is outside 1-8192"):
            prepare([folder], tmp_path / "a.zip", resolution=resolution)
    with pytest.raises(RequestError, match="no source"):
        prepare([], tmp_path / "a.zip", resolution=8)
    with pytest.raises(RequestError, match=r"does not end in \.zip"):
        prepare([folder], tmp_path / "a.tar", resolution=8)
    (tmp_path / "b.zip").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        prepare([folder], tmp_path / "b.zip", resolution=8, overwrite=True)
    assert left(tmp_path) == ["b.zip", "photos"]


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    output = tmp_path / "a.zip"
    prepare([folder], output, resolution=8)
    before = output.read_bytes()
    with pytest.raises(FileError, match="exists already"):
        prepare([folder], output, resolution=4)
    assert output.read_bytes() == before
    with pytest.raises(RequestError, match="is a source as well"):
        prepare([output], output, resolution=4, overwrite=True)
    prepare([folder], output, resolution=4, overwrite=True)
    assert ZipDataset.open(output).resolution == 4


def test_a_full_disk_is_one_line_and_no_dataset(folder, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(FileError, match=r"a\.zip: no space left on the disk"):
        prepare([folder], tmp_path / "a.zip", resolution=8)
    assert left(tmp_path) == ["a.zip.part", "photos"]  # what is done waits for a second try
    monkeypatch.undo()
    assert prepare([folder], tmp_path / "a.zip", resolution=8).resumed == 6


SCRIPT = """
import sys
from pathlib import Path
from polyinr_core.data import prepare
if __name__ == "__main__":
    source, output = map(Path, sys.argv[1:])
    prepare.MAX_AT_ONCE = 2  # so that much is left to do after the first
    prepare.prepare([source], output, resolution=64, workers=2, progress=lambda d, t: print(d, flush=True))
"""


@pytest.mark.slow
def test_a_killed_run_with_workers_is_taken_up(tmp_path):
    """SIGKILL in the middle, SIGINT in the middle, then to the end: the bytes of an undisturbed run."""
    data = encoded(noise(400), compress_level=1)
    files = {f"{index:03d}.png": data for index in range(80)}
    folder = write_folder(tmp_path / "photos", files)
    output, script = tmp_path / "a.zip", tmp_path / "script.py"
    script.write_text(SCRIPT)
    for kill in (signal.SIGKILL, signal.SIGINT):
        run = subprocess.Popen(
            [sys.executable, script, folder, output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        first = int(run.stdout.readline())
        for line in run.stdout:
            if int(line) >= first + 10:
                break
        run.send_signal(kill)
        run.communicate(timeout=60)
        assert not output.exists()
    report = prepare([folder], output, resolution=64, workers=1)
    assert report.resumed >= 20
    prepare([folder], tmp_path / "whole.zip", resolution=64, workers=1)
    assert output.read_bytes() == (tmp_path / "whole.zip").read_bytes()


def test_the_bundled_dataset_says_how_it_was_made():
    from polyinr_core.data.dataset import bundled_dataset

    facts = ZipDataset.open(bundled_dataset()).provenance
    assert facts["counts"] == {"found": 2000, "kept": 2000, "skipped": 0}
    assert facts["resize"] == "box"
