"""The pickle machine: every value of a plain pickle, and calls that stay records."""

import pickle
from collections import OrderedDict

import pytest
from pickling import Calls, named, present

from polyinr_core.checkpoints.safe_unpickler import Name, PickleProblem, Record, bytes_of, read_pickle, text_of

KNOWN = {
    "_codecs.encode",
    "builtins.set",
    "collections.OrderedDict",
    "dill._dill._get_attr",
    "dill._dill._import_module",
    "some.module.explode",
}


def is_known(module: str, name: str) -> bool:
    return f"{module}.{name}" in KNOWN


def read(data: bytes) -> object:
    value, end = read_pickle(memoryview(data), known=is_known)
    assert end == len(data)
    return value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_equal_those_of_the_standard_pickle(protocol):
    # oracle: pickle itself; the lists hold 1000s to bring APPENDS in batches, the text one of each width
    value = {
        "none": None,
        "truths": [True, False],
        "integers": [0, 255, 256, 65535, 65536, -1, 2**31, -(2**63), 2**70],
        "floats": (0.0, -1.5, 1e300, float("inf")),
        "texts": ["", "ascii", "é", "漢字", "🙂", "\ud800"],
        "nested": {"a": {"b": (1, (2, (3, (4, 5, 6, 7))))}},
        "long": list(range(3000)),
        "many": {str(i): i for i in range(3000)},
        "empty": ((), [], {}),
    }
    value["again"] = value["nested"]
    assert read(pickle.dumps(value, protocol=protocol)) == value


def test_bytes_stay_views_of_the_file():
    assert read(pickle.dumps({"b": b"abc"}))["b"] == b"abc"
    assert isinstance(read(pickle.dumps(b"abc" * 1000)), memoryview)
    assert read(pickle.dumps(bytearray(b"abc"), protocol=5)) == b"abc"


def test_a_long_text_stays_undecoded():
    assert bytes(read(pickle.dumps("é" * 100_000))) == "é".encode() * 100_000


def test_only_texts_are_keys():
    # integers can be chosen so that their hashes collide: nobody looks them up, so they are dropped
    assert read(pickle.dumps({1: "a", (2, 3): "b", "c": 4, None: 5})) == {"c": 4}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_few_bytes_are_a_text_too(protocol):
    # Python 2's texts are bytes, and protocol 2 has no bytes: it calls for them
    found = read(pickle.dumps({b"caf\xe9": b"caf\xe9", b"x" * 1000: 2}, protocol))
    assert list(found) == ["café"]
    assert text_of(found["café"]) == "café"
    assert bytes_of(found["café"], max_bytes=4) == b"caf\xe9"
    with pytest.raises(PickleProblem, match="far more"):
        bytes_of(found["café"], max_bytes=3)
    with pytest.raises(PickleProblem, match="no sequence of bytes"):
        text_of(None)


def test_texts_of_python_2_are_bytes():
    assert read(b"\x80\x02}(U\x01aU\x02\xff\xfeU\x01bT\x01\0\0\0cu.") == {"a": b"\xff\xfe", "b": b"c"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_call_is_recorded_not_made(protocol):
    function = named("some.module", "explode")
    with present(function):
        data = pickle.dumps(Calls(function, 1, "two"), protocol)
    made = read(data)
    assert isinstance(made, Record)
    assert str(made.function) == "some.module.explode"
    assert made.arguments == (1, "two")


def test_an_ordered_dict_keeps_its_items():
    made = read(pickle.dumps(OrderedDict(a=1, b=2)))
    assert str(made.function) == "collections.OrderedDict"
    assert made.items == {"a": 1, "b": 2}


def test_sets_and_slots_are_stepped_over():
    value = read(pickle.dumps({"set": {1, 2, 3}, "frozen": frozenset({4}), "x": 1}))
    assert value["x"] == 1
    assert isinstance(value["set"], Record)


def test_self_reference_is_only_a_reference():
    value: list = []
    value.append(value)
    found = read(pickle.dumps(value))
    assert found[0] is found


def test_dills_spelling_of_a_global_is_that_global():
    module = Calls(named("dill._dill", "_import_module"), "some.module")
    get = named("dill._dill", "_get_attr")
    with present(module.function, get):
        data = pickle.dumps(Calls(get, module, "explode"))
    found = read(data)
    assert isinstance(found, Name)
    assert str(found) == "some.module.explode"


def test_the_same_file_gives_steps_up_to_the_bound_only():
    data = memoryview(pickle.dumps(list(range(1000))))
    read_pickle(data, known=is_known, max_steps=3000)
    with pytest.raises(PickleProblem, match="more than 100 steps"):
        read_pickle(data, known=is_known, max_steps=100)
