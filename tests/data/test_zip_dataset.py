"""Archives: StyleGAN's open as they are, broken ones get one clear line."""

import json
import multiprocessing
import pickle
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from specimens import encoded, noise, stylegan_names, write_dataset, write_zip

from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError
from polyinr_core.runtime.atomic_io import sha256_of

NAMES = stylegan_names(3)
IMAGE = encoded(noise())


def test_a_stylega_dataset_opens_as_it_is(tmp_path):
    path = write_dataset(tmp_path / "a.zip")
    with ZipDataset.open(path) as dataset:
        assert (len(dataset), dataset.resolution, dataset.classes, dataset.class_names) == (6, 8, 3, ())
        assert dataset.labels.dtype == np.int64
        assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert dataset.sha256 == sha256_of(path)
        for index in range(6):
            assert np.array_equal(dataset.read(index), noise(8, index))


def test_one_hot_vectors_are_classes(tmp_path):
    labels = [[name, [1.0 * (k == index) for k in range(5)]] for index, name in enumerate(NAMES)]
    dataset = ZipDataset.open(write_dataset(tmp_path / "a.zip", count=3, labels=labels))
    assert dataset.labels.tolist() == [0, 1, 2]
    assert dataset.classes == 5


@pytest.mark.parametrize("facts", [b'{"labels": null}', b"{}", None])
def test_without_labels(tmp_path, facts):
    files = {"b.png": IMAGE, "a.png": encoded(noise(8, 1))} | ({"dataset.json": facts} if facts else {})
    dataset = ZipDataset.open(write_zip(tmp_path / "a.zip", files))
    assert dataset.labels is None
    assert dataset.classes == 0
    assert dataset.names == ["a.png", "b.png"]  # sorted, whatever the order in the file


def test_our_additions_and_a_license_are_kept(tmp_path):
    path = write_dataset(
        tmp_path / "a.zip", class_names=["x", "y", "z", "empty"], provenance={"crop": "pad"}, license="MIT"
    )
    dataset = ZipDataset.open(path)
    assert dataset.class_names == ("x", "y", "z", "empty")
    assert dataset.classes == 4
    assert dataset.provenance == {"crop": "pad", "license": "MIT"}


def test_gray_jpeg_palette_and_deflated_images_are_rgb(tmp_path):
    gray = noise()[..., 0]
    files = {"a.png": encoded(gray), "b.jpg": encoded(noise(), "JPEG"), "c.gif": encoded(gray, "GIF")}
    dataset = ZipDataset.open(write_zip(tmp_path / "a.zip", files, zipfile.ZIP_DEFLATED))
    assert [dataset.read(i).shape for i in range(3)] == [(8, 8, 3)] * 3
    assert np.array_equal(dataset.read(0), np.repeat(gray[..., None], 3, 2))


def test_hidden_and_other_files_are_no_images(tmp_path):
    files = {"a.png": IMAGE, "._a.png": b"x", "__MACOSX/a.png": b"x", "LICENSE.txt": b"x", "sub/": b""}
    assert ZipDataset.open(write_zip(tmp_path / "a.zip", files)).names == ["a.png"]


def test_opening_decodes_the_first_image_only(tmp_path):
    dataset = ZipDataset.open(write_zip(tmp_path / "a.zip", {"a.png": IMAGE, "b.png": b"broken"}))
    with pytest.raises(DatasetError, match=r"a\.zip: the image 'b\.png' is not an image of a known format"):
        dataset.read(1)


def test_another_size_is_found_when_read(tmp_path):
    dataset = ZipDataset.open(write_zip(tmp_path / "a.zip", {"a.png": IMAGE, "b.png": encoded(noise(4))}))
    with pytest.raises(DatasetError, match=r"'b\.png' is 4x4, not 8x8 as the first"):
        dataset.read(1)


def labeled(labels: object, **facts: object) -> dict[str, bytes]:
    """Three images with these labels."""
    return dict.fromkeys(NAMES, IMAGE) | {"dataset.json": json.dumps({"labels": labels, **facts}).encode()}


CLASSES = [[name, 0] for name in NAMES]
BROKEN = {
    "no images": ({"readme.txt": b"x"}, "holds no images"),
    "json": (labeled([]) | {"dataset.json": b"{"}, "no JSON"),
    "deep json": (labeled([]) | {"dataset.json": b"[" * 200_000}, "no JSON"),
    "json list": (labeled([]) | {"dataset.json": b"[]"}, "no object"),
    "labels no list": (labeled({"a": 1}), "labels in its dataset.json is no list"),
    "no pairs": (labeled([["a"]]), "pairs"),
    "missing entry": (labeled(CLASSES[:2]), "no label for 1 of 3 images .first '00000/img00000002.png'"),
    "entry that is not there": (labeled([*CLASSES, ["x.png", 1]]), "labels 1 images that are not there .*x.png"),
    "double entry": (labeled([*CLASSES, CLASSES[0]]), "labels '00000/img00000000.png' twice"),
    "float": (labeled([[n, 0.5] for n in NAMES]), "is 0.5; a whole number or a one-hot vector"),
    "not a number": (labeled([[n, float("nan")] for n in NAMES]), "is NaN; a whole number"),
    "soft vector": (labeled([[n, [0.5, 0.5]] for n in NAMES]), "not one-hot"),
    "two hot": (labeled([[n, [1, 1]] for n in NAMES]), "not one-hot"),
    "other lengths": (labeled([[NAMES[0], [1, 0]], *CLASSES[1:]]), "several forms or lengths"),
    "text label": (labeled([[n, "cat"] for n in NAMES]), '"cat"; a whole number'),
    "truth label": (labeled([[n, True] for n in NAMES]), "true; a whole number"),
    "null label": (labeled([[n, None] for n in NAMES]), "null; a whole number"),
    "negative": (labeled([[n, -1] for n in NAMES]), "is -1, outside"),
    "absurd class": (labeled([[n, 10**12] for n in NAMES]), "outside 0-999999"),
    "few names": (labeled([[n, 3] for n in NAMES], class_names=["a"]), "names 1 classes, its labels need 4"),
    "odd names": (labeled(CLASSES, class_names=[1]), "no list of texts"),
    "upwards": ({"../a.png": IMAGE}, "leads out"),
    "upwards backslash": ({"x\\..\\..\\a.png": IMAGE}, "leads out"),
    "absolute": ({"/etc/a.png": IMAGE}, "leads out"),
    "drive": ({"C:/a.png": IMAGE}, "leads out"),
    "not square": ({"a.png": encoded(noise()[:4])}, "'a.png' is 8x4, not square; use `polyinr prepare`"),
    "broken first": ({"a.png": b"GIF89a"}, "'a.png'"),
    "empty image": ({"a.png": b""}, "'a.png' is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_datasets_get_one_clear_line(tmp_path, case):
    files, message = BROKEN[case]
    path = write_zip(tmp_path / "a.zip", files)
    with pytest.raises(DatasetError, match=message) as caught:
        ZipDataset.open(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_double_name_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.png", IMAGE)
        zipped.writestr("a.png", IMAGE)
    with pytest.raises(DatasetError, match=r"'a\.png' twice"):
        ZipDataset.open(tmp_path / "a.zip")


def patched_directory(path, *, field: int, form: str, value: int):
    """Change a number in the first entry of a zip's table of contents."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.index(b"PK\1\2") + field, value)
    path.write_bytes(data)
    return path


def test_an_encrypted_image_is_refused(tmp_path):
    path = patched_directory(write_dataset(tmp_path / "a.zip"), field=8, form="<H", value=1)
    with pytest.raises(DatasetError, match="is encrypted"):
        ZipDataset.open(path)


def test_absurd_declared_sizes_are_refused(tmp_path):
    path = patched_directory(write_dataset(tmp_path / "a.zip"), field=24, form="<I", value=2**32 - 2)
    with pytest.raises(DatasetError, match=r"declares 4294967294 bytes, more than"):
        ZipDataset.open(path)


def test_overlapping_entries_are_refused(tmp_path):
    path = patched_directory(write_dataset(tmp_path / "a.zip"), field=20, form="<I", value=2**27)
    with pytest.raises(DatasetError, match="claim more bytes than the file has"):
        ZipDataset.open(path)


def test_a_image_that_declares_absurd_pixels_is_refused(tmp_path):
    bomb = bytearray(encoded(noise(), "BMP"))
    struct.pack_into("<ii", bomb, 18, 100_000, 100_000)
    with pytest.raises(DatasetError, match=r"'a\.bmp' declares"):
        ZipDataset.open(write_zip(tmp_path / "a.zip", {"a.bmp": bytes(bomb)}))


@pytest.mark.parametrize("keep", [0, 1, 100, 1000, -1])
def test_a_truncated_or_foreign_file_is_refused(tmp_path, keep):
    path = write_dataset(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"is empty|is not a whole zip"):
        ZipDataset.open(path)


def test_damage_inside_is_found_when_read(tmp_path):
    path = write_dataset(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="the file is damaged"):
        ZipDataset.open(path)


def test_a_folder_and_nothing(tmp_path):
    with pytest.raises(DatasetError, match="is a folder; make a dataset of it with `polyinr prepare`"):
        ZipDataset.open(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        ZipDataset.open(tmp_path / "none.zip")


def read_all(dataset: ZipDataset) -> list[int]:
    return [int(dataset.read(index).sum()) for index in range(len(dataset))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_and_threads_read_one_dataset(tmp_path, method):
    dataset = ZipDataset.open(write_dataset(tmp_path / "a.zip", count=40))
    expected = read_all(dataset)
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(read_all, [dataset] * 4) == [expected] * 4
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read_all, [dataset] * 8)) == [expected] * 8
    assert read_all(pickle.loads(pickle.dumps(dataset))) == expected


def test_the_bundled_images_open():
    with ZipDataset.open(bundled_dataset()) as archive:
        assert (len(archive), archive.resolution, archive.classes) == (2000, 64, 8)
        assert archive.class_names == ("cat", "dog", "deer", "fox", "puppy", "bear", "goat", "stag")
        assert np.bincount(archive.labels).tolist() == [250] * 8
        assert "MIT" in archive.provenance["sources"][0]["provenance"]["license"]
        assert Image.fromarray(archive.read(0)).size == (64, 64)
    notice = (bundled_dataset().parent / "NOTICE.txt").read_text()
    assert "Copyright (c) 2021 Roman Lukashik" in notice
    assert "Permission is hereby granted" in notice
