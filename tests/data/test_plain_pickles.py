"""The reader of plain pickles: real batches come out, anything else is refused and nothing runs."""

import os
import pickle
import struct
import subprocess

import numpy as np
import pytest

from polyinr_core.data import plain_pickles
from polyinr_core.data.plain_pickles import read_plain_pickle


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_of_any_protocol(protocol):
    data = np.arange(12, dtype=np.uint8).reshape(2, 6)
    batch = {
        b"data": data,
        "labels": [3, 1000, 70_000],
        "filenames": ["a", b"b"],
        "more": (1, (2,), None, True, {}),
    }
    found = read_plain_pickle(pickle.dumps(batch, protocol=protocol))
    assert np.array_equal(found.pop(b"data"), data)
    assert found == {key: value for key, value in batch.items() if key != b"data"}


def test_a_batch_as_python_2_wrote_it():
    """Oracle: the opcodes of the published batches, put together by hand."""
    raw = bytes(range(200, 206))
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85U\x01b\x87Rq\x08(K\x01K\x02K\x03\x86"
        b"cnumpy\ndtype\nq\x09U\x02u1K\x00K\x01\x87Rq\x0a(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )
    stream = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04" + array + b"u."
    found = read_plain_pickle(stream)
    assert found["labels"] == [6, 9]
    assert found["data"].tolist() == [[200, 201, 202], [203, 204, 205]]


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
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        read_plain_pickle(HOSTILE[case])
    assert list(tmp_path.iterdir()) == []


def test_too_many_steps_are_refused(monkeypatch):
    monkeypatch.setattr(plain_pickles, "MAX_STEPS", 1000)
    with pytest.raises(ValueError, match="too many steps"):
        read_plain_pickle(b"\x80\x02" + b"]" * 2000)
