"""The pickle machine: every value of a plain pickle, and calls that stay records."""

import pickle
from collections import OrderedDict

import pytest
import torch
from forging import Calls, named, pickled, storage_blob, stored

from polyinr_core.snapshots.names import is_released_name
from polyinr_core.snapshots.pickles import Made, Name, PickleProblem, read_pickle
from polyinr_core.snapshots.storages import StoredTensor, read_storage


def read(data: bytes) -> object:
    value, end = read_pickle(memoryview(data), known=is_released_name)
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
def test_a_call_is_recorded_not_made(protocol):
    function = named("training.networks_gmgan", "explode")
    made = read(pickled(Calls(function, 1, "two"), function, protocol=protocol))
    assert isinstance(made, Made)
    assert str(made.function) == "training.networks_gmgan.explode"
    assert made.arguments == (1, "two")


def test_an_ordered_dict_keeps_its_items():
    made = read(pickle.dumps(OrderedDict(a=1, b=2)))
    assert str(made.function) == "collections.OrderedDict"
    assert made.items == {"a": 1, "b": 2}


def test_sets_and_slots_are_stepped_over():
    value = read(pickle.dumps({"set": {1, 2, 3}, "frozen": frozenset({4}), "x": 1}))
    assert value["x"] == 1
    assert isinstance(value["set"], Made)


def test_self_reference_is_only_a_reference():
    value: list = []
    value.append(value)
    found = read(pickle.dumps(value))
    assert found[0] is found


def test_dills_spelling_of_a_global_is_that_global():
    module = Calls(named("dill._dill", "_import_module"), "numpy.core._multiarray_umath")
    get = named("dill._dill", "_get_attr")
    found = read(pickled(Calls(get, module, "scalar"), module.function, get))
    assert isinstance(found, Name)
    assert str(found) == "numpy.core._multiarray_umath.scalar"


def test_the_same_file_gives_steps_up_to_the_bound_only():
    data = memoryview(pickle.dumps(list(range(1000))))
    read_pickle(data, known=is_released_name, most_steps=3000)
    with pytest.raises(PickleProblem, match="more than 100 steps"):
        read_pickle(data, known=is_released_name, most_steps=100)


@pytest.mark.parametrize(
    ("module", "name", "known"),
    [
        ("collections", "OrderedDict", True),
        ("torch.nn.modules.linear", "Linear", True),
        ("torch.nn.functional", "leaky_relu", True),
        ("feature_networks.vit", "__dict__", True),
        ("__builtin__", "set", True),
        ("builtins", "eval", False),
        ("builtins", "getattr", False),
        ("os", "system", False),
        ("posix", "system", False),
        ("torch", "load", False),
        ("torch.hub", "load", False),
        ("timm.models.helpers", "load_checkpoint", False),
        ("numpy.testing._private.utils", "runstring", False),
        ("training", "x.os.system", False),
        ("training.", "x", False),
        ("training", "", False),
        ("", "", False),
    ],
)
def test_known_names(module, name, known):
    assert is_released_name(module, name) is known


@pytest.mark.parametrize("numbers", [torch.randn(7), torch.arange(5)])
def test_a_storage_is_read_to_the_bit(numbers):
    # oracle: torch's own writer
    assert (read_storage(memoryview(storage_blob(numbers))) == numbers.numpy()).all()


def test_a_strided_view_of_a_storage():
    numbers = torch.arange(12.0)
    made = read(pickle.dumps(stored(storage_blob(numbers), (2, 3), (1, 4), 1)))
    found = StoredTensor("t", made).numbers()
    assert found.equal(numbers.as_strided((2, 3), (1, 4), 1))
    assert found.is_contiguous()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.uint8])
def test_other_storages_are_refused(kind):
    with pytest.raises(PickleProblem, match="Storage"):
        read_storage(memoryview(storage_blob(torch.zeros(3, dtype=kind))))
