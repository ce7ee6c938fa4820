"""CIFAR-10's batches: real ones come out, anything else is refused in one line and nothing runs."""

import os
import pickle
import struct
import subprocess

import numpy as np
import pytest
from specimens import write_tar

from polyinr_core.data import import_sources as cifar
from polyinr_core.data.import_sources import batch_of, open_cifar, open_source, read_dictionary
from polyinr_core.errors import ArchiveError


def cifar_files(count: int = 6, protocol: int = 2) -> dict[str, bytes]:
    """CIFAR-10's layout: batches of `count` images."""
    meta = {"label_names": [f"k{i}" for i in range(10)]}
    files = {"cifar-10-batches-py/batches.meta": pickle.dumps(meta, protocol)}
    for batch in (2, 1):
        data = np.random.default_rng(batch).integers(0, 256, (count, 3072), dtype=np.uint8)
        facts = {b"data": data, b"labels": [(batch + i) % 10 for i in range(count)], b"batch_label": b"x"}
        files[f"cifar-10-batches-py/data_batch_{batch}"] = pickle.dumps(facts, protocol)
    files["cifar-10-batches-py/test_batch"] = b"not looked at"
    return files


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("count", [6, 60])  # a short and a long text of protocol 2
def test_cifar_10(tmp_path, count, protocol):
    files = cifar_files(count, protocol)
    source = open_source(write_tar(tmp_path / "cifar-10-python.tar.gz", files, "w:gz"))
    assert source.kind == "cifar-10"
    assert source.names[:2] == ("data_batch_1/00000", "data_batch_1/00001")
    assert source.facts.labels.tolist() == [(batch + i) % 10 for batch in (1, 2) for i in range(count)]
    assert source.facts.class_names == tuple(f"k{i}" for i in range(10))
    rows = np.random.default_rng(1).integers(0, 256, (count, 3072), dtype=np.uint8)
    first = next(source.payloads(0))
    assert first.shape == (32, 32, 3)
    assert first[5, 7].tolist() == [rows[0, 5 * 32 + 7], rows[0, 1024 + 5 * 32 + 7], rows[0, 2048 + 5 * 32 + 7]]
    assert len(list(source.payloads(count + 3))) == count - 3


def test_a_batch_as_python_2_wrote_it():
    """Oracle: the opcodes of the published batches, put together by hand."""
    raw = bytes(range(256)) * 24
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08"
        b"(K\x01K\x02M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\x09U\x02u1K\x00K\x01\x87Rq\x0a(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    stream = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04" + array + b"u."
    images, labels = batch_of(read_dictionary(stream))
    assert labels.tolist() == [6, 9]
    assert images.transpose(0, 3, 1, 2).tobytes() == raw


class Runs:
    """Would run something when unpickled."""

    def __init__(self, call: object, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


HOSTILE = {
    "os.system": pickle.dumps(Runs(os.system, "touch RAN"), 2),
    "eval": pickle.dumps(Runs(eval, "open('RAN', 'w')"), 4),
    "popen": pickle.dumps(Runs(subprocess.Popen, ["touch", "RAN"]), 4),
    "protocol 0": pickle.dumps(Runs(os.system, "touch RAN"), 0),
    "inst": b"(S'touch RAN'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nU\x09touch RANo.",
    "extension": b"\x80\x02\x82\x01.",
    "a text that poses as a name": b"\x80\x02U\x0dnumpy ndarrayK\x00\x85R.",
    "numpy loads": b"\x80\x02cnumpy\nload\nU\x03RAN\x85R.",
    "object array": pickle.dumps(np.array([object, 1], dtype=object), 2),
    "float array": pickle.dumps(np.zeros(3), 2),
    "build into a name": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb0N.",
    "persistent": b"\x80\x02U\x01aQ.",
    "memo bomb": b"\x80\x02Nr\xff\xff\xff\x7f" + b"h\x07.",
    "truncated": pickle.dumps({"data": np.zeros(100, np.uint8)}, 2)[:-30],
    "no stop": b"\x80\x02}",
    "empty": b"",
    "object array inside": pickle.dumps({"data": np.array([[object, 1]], dtype=object), "labels": [1]}, 2),
    "float array inside": pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}, 2),
    "empty stack": b"\x80\x02.",
    "tuple of nothing": b"\x80\x02t.",
    "fills a number": b"\x80\x02K\x01K\x02a.",
    "odd items": b"\x80\x02}(K\x01u.",
    "blob of 2^60": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "shape of 2^60": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01\x8a\x08"
    + struct.pack("<q", 2**60)
    + b"\x85"
    b"cnumpy\ndtype\nU\x02u1\x85R\x89U\x01xtb.",
    "unhashable key": b"\x80\x02}]K\x01s.",
    "long number": b"\x80\x02\x8b\xff\xff\xff\x7fx.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused_and_nothing_runs(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_tar(tmp_path / "c.tar", {"data_batch_1": HOSTILE[case]})
    with pytest.raises(ArchiveError, match="is no CIFAR-10 batch") as caught:
        open_cifar(path)
    assert str(caught.value).isprintable()
    assert [file.name for file in tmp_path.iterdir()] == ["c.tar"]


BATCH = {"data": np.zeros((1, 3072), np.uint8), "labels": [1]}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (
            pickle.dumps(Runs(os.system, "touch RAN"), 2),
            "'set/data_batch_1' is no CIFAR-10 batch .byte 16: asks for .*system, ",
        ),
        (pickle.dumps([1], 2), "holds no dictionary"),
        (pickle.dumps({"labels": [1]}, 2), "holds no images of 32x32"),
        (pickle.dumps(BATCH | {"labels": [1, 2]}, 2), "one label for each"),
        (pickle.dumps(BATCH | {"labels": None}, 2), "one label for each"),
        (pickle.dumps(BATCH | {"labels": [-1]}, 2), "no classes"),
        (pickle.dumps(BATCH, 2).replace(b"K\x01M\0\x0c", b"K\x02M\0\x0c"), "more or fewer images"),
        (b"", "no pickle of protocol 2 to 5"),
    ],
)
def test_hostile_and_broken_batches(tmp_path, batch, message):
    path = write_tar(tmp_path / "c.tar", {"set/data_batch_1": batch})
    with pytest.raises(ArchiveError, match=message):
        open_source(path)


def test_too_large_an_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MAX_CIFAR_BYTES", 10_000)
    with pytest.raises(ArchiveError, match="too large"):
        open_cifar(write_tar(tmp_path / "c.tar", cifar_files()))
