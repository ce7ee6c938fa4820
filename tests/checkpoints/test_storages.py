"""What of a released pickle becomes tensors: the names it may hold, and torch's old storage blobs."""

import pickle

import pytest
import torch
from forging import storage_blob, stored

from polyinr_core.checkpoints.official_pickle import PickledTensor, is_allowed_name, read_storage
from polyinr_core.checkpoints.safe_unpickler import PickleProblem, read_pickle


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
    assert is_allowed_name(module, name) is known


@pytest.mark.parametrize("numbers", [torch.randn(7), torch.arange(5)])
def test_a_storage_is_read_to_the_bit(numbers):
    # oracle: torch's own writer
    assert (read_storage(memoryview(storage_blob(numbers))) == numbers.numpy()).all()


def test_a_strided_view_of_a_storage():
    numbers = torch.arange(12.0)
    data = pickle.dumps(stored(storage_blob(numbers), (2, 3), (1, 4), 1))
    made, _ = read_pickle(memoryview(data), known=is_allowed_name)
    found = PickledTensor("t", made).read()
    assert found.equal(numbers.as_strided((2, 3), (1, 4), 1))
    assert found.is_contiguous()


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.uint8])
def test_other_storages_are_refused(kind):
    with pytest.raises(PickleProblem, match="Storage"):
        read_storage(memoryview(storage_blob(torch.zeros(3, dtype=kind))))
