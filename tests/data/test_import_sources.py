"""Sources: each kind lists its images and labels; broken ones get one clear line."""

import gzip
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import encoded, labels_of, noise, write_dataset, write_folder, write_tar, write_zip
from torchvision.datasets import FakeData

from polyinr_core.data.import_sources import Source, open_source
from polyinr_core.data.labels import class_folders
from polyinr_core.errors import DatasetError, FileError, ImageError

A, B, C = (encoded(noise(8, seed)) for seed in range(3))


def contents(source: Source) -> list[bytes]:
    """The bytes or pixels of all images."""
    found = []
    for payload in source.payloads(0):
        assert not isinstance(payload, ImageError)
        found.append(payload.read_bytes() if hasattr(payload, "read_bytes") else bytes(payload))
    assert len(list(source.payloads(1))) == len(found) - 1  # resuming starts in the middle
    return found


def class_count(source: Source) -> list[str] | list[int] | None:
    """The class of each image, by name if it has one."""
    facts = labels_of(source)
    if facts.labels is None:
        return None
    return [facts.class_names[label] if facts.class_names else int(label) for label in facts.labels]


CLASS_FILES = {"dog/1.png": B, "cat/2.PNG": C, "cat/1.png": A, "readme.txt": b"x", "dog/.hidden.png": b"x"}


def test_class_sub_folders_are_labels(tmp_path):
    source = open_source(write_folder(tmp_path / "set", CLASS_FILES))
    assert source.kind == "folder"
    assert source.names == ("cat/1.png", "cat/2.PNG", "dog/1.png")
    assert class_count(source) == ["cat", "cat", "dog"]
    assert contents(source) == [A, C, B]


def test_images_beside_class_folders_mean_no_labels(tmp_path):
    source = open_source(write_folder(tmp_path / "set", CLASS_FILES | {"stray.png": A}))
    assert class_count(source) is None
    assert len(source.names) == 4


def test_class_folders_below_what_all_share():
    assert class_folders(["set/cat", "set/dog"]) == ["cat", "dog"]
    assert class_folders(["set/train/cat/deep", "set/train/dog"]) == ["cat", "dog"]
    assert class_folders(["cat"]) == class_folders(["set/cat"]) == ["cat"]
    assert class_folders([""]) is None
    assert class_folders(["", "cat"]) is None
    assert class_folders(["set", "set/cat", "set/dog"]) is None
    assert class_folders(["set-1/cat", "set-1/dog", "set/cat"]) == ["set-1", "set-1", "set"]


def test_a_stylegan_folder_has_its_own_labels(tmp_path):
    labels = [["00000/a.png", 2], ["00001/b.png", 0]]
    files = {"00000/a.png": A, "00001/b.png": B, "dataset.json": json.dumps({"labels": labels}).encode()}
    assert class_count(open_source(write_folder(tmp_path / "set", files))) == [2, 0]
    files["dataset.json"] = b'{"labels": null}'
    assert class_count(open_source(write_folder(tmp_path / "bare", files))) is None


def test_a_zip_with_class_folders(tmp_path):
    source = open_source(write_zip(tmp_path / "set.zip", CLASS_FILES, zipfile.ZIP_DEFLATED))
    assert source.kind == "zip"
    assert class_count(source) == ["cat", "cat", "dog"]
    assert contents(source) == [A, C, B]


def test_a_stylegan_zip_keeps_its_labels(tmp_path):
    source = open_source(write_dataset(tmp_path / "a.zip", class_names=["x", "y", "z"], license="MIT"))
    assert class_count(source) == ["x", "y", "z"] * 2
    assert labels_of(source).provenance == {"license": "MIT"}
    assert class_count(open_source(write_dataset(tmp_path / "b.zip"))) == [0, 1, 2] * 2
    assert class_count(open_source(write_dataset(tmp_path / "c.zip", labels=None))) is None


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_compressed_or_not(tmp_path, mode):
    path = write_tar(tmp_path / "set.tar", CLASS_FILES, mode)
    with tarfile.open(path, "r:*") as tar:
        assert len(tar.getnames()) == 5
    source = open_source(path)
    assert source.kind == "tar"
    assert class_count(source) == ["dog", "cat", "cat"]  # a tar keeps its own order, being read from the front
    assert contents(source) == [B, C, A]


def test_a_tar_of_the_current_folder(tmp_path):
    source = open_source(write_tar(tmp_path / "set.tar", {f"./{name}": data for name, data in CLASS_FILES.items()}))
    assert class_count(source) == ["dog", "cat", "cat"]


def test_a_shard_with_cls_files(tmp_path):
    files = {"0001.png": A, "0001.cls": b"7\n", "0002.cls": b"3", "0002.png": B}
    assert class_count(open_source(write_tar(tmp_path / "0.tar", files))) == [7, 3]
    del files["0002.cls"]
    with pytest.raises(DatasetError, match=r"1 of 2 images have no label \(first '0002.png'\).*--labels none"):
        class_count(open_source(write_tar(tmp_path / "1.tar", files)))


def test_a_single_image(tmp_path):
    source = open_source(write_folder(tmp_path, {"one.png": A}) / "one.png")
    assert (source.names, contents(source)) == (("one.png",), [A])


def test_a_dataset_of_torchvision():
    dataset = FakeData(size=70, image_size=(3, 9, 8), num_classes=4)
    source = open_source(dataset)
    assert (source.path.name, source.kind, len(source.names)) == ("FakeData", "dataset", 70)
    assert labels_of(source).labels.tolist() == [int(dataset[i][1]) for i in range(70)]
    assert labels_of(source).class_names == ()
    found = list(source.payloads(68))
    assert np.array_equal(found[1], np.asarray(dataset[69][0]))
    assert found[0].shape == (9, 8, 3)
    assert open_source(dataset).fingerprint == source.fingerprint != open_source(FakeData(70, (3, 9, 8), 3)).fingerprint


class Items(list):
    """A dataset of given items, with the attributes that torchvision's have."""

    def __init__(self, items, **attributes):
        super().__init__(items)
        self.__dict__ |= attributes


GRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("image", [GRAY, GRAY[..., None], Image.fromarray(GRAY), torch.from_numpy(GRAY)[None]])
def test_images_of_a_dataset(image):
    (pixels,) = open_source(Items([image])).payloads(0)
    assert np.array_equal(pixels, np.repeat(GRAY[..., None], 3, 2))


def test_a_color_tensor_and_targets():
    tensor = torch.randint(0, 256, (3, 5, 6), dtype=torch.uint8)
    items = Items([(tensor, 1), (tensor, 0)], targets=torch.tensor([1, 0]), classes=["cat", "dog"])
    source = open_source(items)
    assert class_count(source) == ["dog", "cat"]
    assert np.array_equal(next(source.payloads(1)), tensor.permute(1, 2, 0))


@pytest.mark.parametrize("image", [torch.zeros(3, 4, 4), np.zeros((4, 4, 2), np.uint8), "image.png", None])
def test_items_that_are_no_images(image):
    (problem,) = open_source(Items([image])).payloads(0)
    assert isinstance(problem, ImageError)
    assert "give uint8 or Pillow images" in str(problem)


@pytest.mark.parametrize("targets", [[0], [0, -1], [0.0, 1.0], ["a", "b"], [[0, 1], [1, 0]]])
def test_targets_that_are_no_labels(targets):
    with pytest.raises(DatasetError, match="one integer label"):
        open_source(Items([GRAY, GRAY], targets=targets))


NOT_IMAGES = {
    "empty.tar": (b"", "is empty"),
    "words.txt": (b"hello", "is not a folder, zip, tar, parquet, .npy, .npz or image file"),
    "short.zip": (b"PK\3\4 and nothing", "is not a whole zip file"),
    "short.gz": (gzip.compress(os.urandom(2000))[:100], "is a damaged gzip file"),
    "none.tar": (b"", "holds no images"),
    "cut.tar": (b"", "is not a whole tar file"),
    "cut.tar.gz": (b"", "is not a whole tar file"),
    "up.tar": (b"", "leads out of the archive"),
    "root.tar": (b"", "leads out of the archive"),
}


@pytest.mark.parametrize("name", NOT_IMAGES)
def test_what_is_no_source_gets_one_clear_line(tmp_path, name):
    data, message = NOT_IMAGES[name]
    path = tmp_path / name
    path.write_bytes(data)
    if name.endswith((".tar", ".tar.gz")) and name != "empty.tar":
        files = {"none.tar": {"a.txt": b"x"}, "up.tar": {"../a.png": A}, "root.tar": {"/a.png": A}}
        mode = "w:gz" if name.endswith("gz") else "w"
        write_tar(path, files.get(name, {f"{i}.png": os.urandom(3000) for i in range(9)}), mode)
        if name.startswith("cut"):
            path.write_bytes(path.read_bytes()[:8000])
    with pytest.raises(FileError, match=message) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)


def test_empty_folders_and_nothing_at_all(tmp_path):
    with pytest.raises(DatasetError, match="holds no images"):
        open_source(tmp_path)
    with pytest.raises(FileError, match="no such file or folder"):
        open_source(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder(tmp_path):
    write_folder(tmp_path / "set", CLASS_FILES)
    (tmp_path / "set" / "cat").chmod(0)
    with pytest.raises(FileError, match="permission denied"):
        open_source(tmp_path / "set")


def test_the_stamp_changes_with_the_files(tmp_path):
    folder = write_folder(tmp_path / "set", CLASS_FILES)
    before = open_source(folder).fingerprint
    assert open_source(folder).fingerprint == before
    os.utime(folder / "cat/1.png", ns=(1, 1))
    assert open_source(folder).fingerprint != before
