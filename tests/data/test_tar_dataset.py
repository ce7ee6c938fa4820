"""TarDataset: what the webdataset library writes is read as it reads it; broken ones get one clear line."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
import webdataset
from specimens import encoded, noise, write_dataset, write_tar

from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.tar_dataset import TarDataset
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import DatasetError, FileError

A, B = encoded(noise(8, 0)), encoded(noise(8, 1))


def write_shards(folder, *, count=10, each=4, side=8, label="cls"):
    """TarDataset as the library writes them, of noise, with the labels 0, 1, 2, 0, ..."""
    folder.mkdir(exist_ok=True)
    with webdataset.ShardWriter(f"{folder}/set-%03d.tar", maxcount=each, verbose=0) as writer:
        for index in range(count):
            fields = {
                "cls": {"cls": index % 3},
                "json": {"json": {"label": index % 3, "caption": "none"}},
                "none": {"txt": "a caption"},
            }
            writer.write({"__key__": f"{index:05d}", "png": encoded(noise(side, index)), **fields[label]})
    return folder


@pytest.mark.parametrize("label", ["cls", "json", "none"])
def test_shards_of_the_library_are_read_as_it_reads_them(tmp_path, label):
    folder = write_shards(tmp_path / "set", label=label)
    reported = []
    data = open_dataset(folder, progress=lambda done, of: reported.append((done, of)))
    assert isinstance(data, TarDataset)
    assert reported == [(1, 3), (2, 3), (3, 3)]
    oracle = webdataset.WebDataset(
        sorted(str(path) for path in folder.glob("*.tar")), shardshuffle=False, empty_check=False
    ).decode("rgb8")
    samples = list(oracle)
    assert len(data) == len(samples) == 10
    assert data.resolution == 8
    for index, sample in enumerate(samples):
        assert np.array_equal(data.read(index), sample["png"])
    if label == "none":
        assert (data.labels, data.classes) == (None, 0)
        return
    assert data.labels.tolist() == [s["cls"] if label == "cls" else s["json"]["label"] for s in samples]
    assert data.labels.dtype == np.int64
    assert data.classes == 3
    assert data.shard_of.tolist() == [0] * 4 + [1] * 4 + [2] * 2


def test_the_ways_to_name_shards(tmp_path, monkeypatch):
    write_shards(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert len(open_dataset("set")) == 10
    assert len(open_dataset("set/set-000.tar")) == 4
    assert len(open_dataset("set/set-{000..001}.tar")) == 8
    assert len(open_dataset("set/set-*.tar")) == 10
    assert len(open_dataset("set/set-00[12].tar")) == 6
    with pytest.raises(FileError, match=r"set-003\.tar: no such file"):
        open_dataset("set/set-{000..003}.tar")
    with pytest.raises(DatasetError, match="no file has such a name"):
        open_dataset("set/other-*.tar")
    with pytest.raises(DatasetError, match="is no pattern"):
        open_dataset("set/set-{000..001.tar")
    with pytest.raises(FileError, match="no such file"):
        open_dataset("none.tar")


def test_other_data_is_a_dataset(tmp_path):
    assert isinstance(open_dataset(write_dataset(tmp_path / "a.zip")), ZipDataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="is a folder; make a dataset of it with `polyinr prepare`"):
        open_dataset(tmp_path / "empty")


def test_class_names_beside_the_shards(tmp_path):
    folder = write_shards(tmp_path / "set")
    facts = {"class_names": ["x", "y", "z", "none"], "provenance": {"source": "here"}}
    (folder / "dataset.json").write_text(json.dumps(facts))
    data = open_dataset(folder)
    assert (data.class_names, data.classes, data.provenance) == (("x", "y", "z", "none"), 4, {"source": "here"})
    (folder / "dataset.json").write_text(json.dumps({"class_names": ["x"]}))
    with pytest.raises(DatasetError, match="names 1 classes, its labels need 3"):
        open_dataset(folder)


def test_gray_and_jpeg_are_rgb_and_deep_folders_are_fine(tmp_path):
    files = {"./a.b/1.png": encoded(noise()[..., 0]), "./a.b/1.cls": b"1\n", "./a.b/2.JPG": encoded(noise(), "JPEG")}
    files |= {"./a.b/2.cls": b"0", "readme.txt": b"x", "._1.png": b"x"}
    data = open_dataset(write_tar(tmp_path / "0.tar", files))
    assert np.array_equal(data.read(0), np.repeat(noise()[..., :1], 3, 2))
    assert data.read(1).shape == (8, 8, 3)
    assert data.labels.tolist() == [1, 0]


def test_the_index_is_kept_and_verified(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "set")
    cache = tmp_path / "cache"
    before = open_dataset(folder, index=cache)
    (kept,) = cache.iterdir()

    def fail(file, beside):
        raise AssertionError("scanned again")

    with monkeypatch.context() as patch:
        patch.setattr("polyinr_core.data.tar_dataset.scan_shard", fail)
        after = open_dataset(folder, index=cache)
        for name in ("labels", "shard_of"):
            assert np.array_equal(getattr(before, name), getattr(after, name))
        assert all(np.array_equal(before.read(index), after.read(index)) for index in range(10))
        assert before.sha256 == after.sha256
        os.utime(folder / "set-001.tar", ns=(1, 1))
        with pytest.raises(AssertionError):
            open_dataset(folder, index=cache)  # another time: not trusted
    write_shards(folder, count=9)
    assert len(open_dataset(folder, index=cache)) == 9
    kept.write_bytes(kept.read_bytes()[:50])
    assert len(open_dataset(folder, index=cache)) == 9  # damaged: made anew
    assert len(list(cache.iterdir())) == 1
    assert not list((folder).glob("*.safetensors"))


def test_the_digest_follows_labels_and_names_not_the_clock(tmp_path):
    folder = write_shards(tmp_path / "set")
    digest = open_dataset(folder).sha256
    os.utime(folder / "set-001.tar", ns=(1, 1))
    assert open_dataset(folder).sha256 == digest
    assert open_dataset(write_shards(tmp_path / "other")).sha256 == digest
    assert open_dataset(write_shards(tmp_path / "none", label="none")).sha256 != digest
    assert open_dataset(write_shards(tmp_path / "more", count=11)).sha256 != digest


def test_shards_are_small_to_send_and_read_after(tmp_path):
    data = open_dataset(write_shards(tmp_path / "set"))
    again = pickle.loads(pickle.dumps(data))
    assert np.array_equal(again.read(7), data.read(7))


def sparse_tar(path):
    """A tar with an image stored with holes, in GNU's old form."""
    info = tarfile.TarInfo("a.png")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    path.write_bytes(bytes(header) + bytes(1024))


BROKEN = {
    "no images": ({"a.txt": b"x", "a.cls": b"1"}, "holds no images"),
    "label missing": ({"a.png": A, "a.cls": b"1", "b.png": B}, r"1 of 2 images have no label .first in 0\.tar"),
    "label text": ({"a.png": A, "a.cls": b"cat"}, "the label of 'a.cls' is \"cat\"; a whole number"),
    "label below 0": ({"a.png": A, "a.cls": b"-1"}, "is -1, outside 0-999999"),
    "label absurd": ({"a.png": A, "a.cls": b"9" * 99}, "9, outside 0-999999"),
    "label float": ({"a.png": A, "a.json": b'{"label": 0.5}'}, "is 0.5; a whole number"),
    "label soft": ({"a.png": A, "a.json": b'{"label": [0.5, 0.5]}'}, "not one-hot"),
    "no json": ({"a.png": A, "a.json": b"{"}, r"'a\.json' is no JSON"),
    "large label": ({"a.png": A, "a.cls": b"1" * 2**21}, "too large for a label"),
    "two images": ({"a.png": A, "a.jpg": B}, "the sample 'a' holds 2 images"),
    "upwards": ({"../a.png": A}, "leads out"),
    "not square": ({"a.png": encoded(noise()[:4])}, r"'a\.png' is 8x4, not square; use `polyinr prepare`"),
    "no image": ({"a.png": b"GIF89a"}, r"the image 'a\.png'"),
    "empty image": ({"a.png": b""}, r"the image 'a\.png' is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_shards_get_one_clear_line(tmp_path, case):
    files, message = BROKEN[case]
    with pytest.raises(DatasetError, match=message) as caught:
        open_dataset(write_tar(tmp_path / "0.tar", files))
    assert str(caught.value).startswith(f"{tmp_path / '0.tar'}: ")
    assert "\n" not in str(caught.value)


def test_a_name_twice_is_refused(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for data in (A, B):
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(DatasetError, match="holds one name twice"):
        open_dataset(tmp_path / "0.tar")


def test_every_cut_is_noticed(tmp_path):
    """At any of its blocks and in the midst of them, save for the padding of zeros at the end."""
    path = write_tar(tmp_path / "0.tar", {"a.png": A, "a.cls": b"1", "b.png": B, "b.cls": b"2"})
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for length in [*range(0, end + 512, 256), 1, 511, 513]:
        path.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"is empty|is not a whole tar file"):
            open_dataset(path)
    path.write_bytes(whole[:1024] + b"x" * 512 + whole[1536:])
    with pytest.raises(DatasetError):
        open_dataset(path)


def test_compressed_and_sparse_tars_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="is a compressed tar"):
        open_dataset(write_tar(tmp_path / "0.tar", {"a.png": A}, "w:gz"))
    sparse_tar(tmp_path / "1.tar")
    with pytest.raises(DatasetError, match="stored with holes"):
        open_dataset(tmp_path / "1.tar")


def test_what_is_wrong_in_the_midst_is_found_when_read(tmp_path):
    files = {"a.png": A, "b.png": b"broken", "c.png": encoded(noise(4))}
    data = open_dataset(write_tar(tmp_path / "0.tar", files))
    with pytest.raises(DatasetError, match=r"0\.tar: the image 'b\.png' is not an image of a known format"):
        data.read(1)
    with pytest.raises(DatasetError, match=r"'c\.png' is 4x4, not 8x8 as the first"):
        data.read(2)
    os.truncate(tmp_path / "0.tar", 1000)
    with pytest.raises(DatasetError, match="has become shorter"):
        data.read(2)
    (tmp_path / "0.tar").unlink()
    with pytest.raises(FileError, match="no such file"):
        data.read(0)


def test_errors_come_whole_from_another_process():
    error = pickle.loads(pickle.dumps(DatasetError("a.zip", "is broken")))
    assert (type(error), str(error), error.path) == (DatasetError, "a.zip: is broken", "a.zip")
