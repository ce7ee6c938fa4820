"""A drawer that fails: one line, and the plain one from then on."""

import pytest
import torch
from torch import Tensor

from polyinr_core.rendering import backends
from polyinr_core.rendering.backends import MAX_REASON, Fallback


@pytest.fixture(autouse=True)
def _nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "FAILED", set())


def plain(affine: Tensor, points: Tensor) -> Tensor:
    return points + affine


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __call__(self, affine: Tensor, points: Tensor) -> Tensor:
        self.calls += 1
        raise self.error


def test_a_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(RuntimeError("\n\nno compiler\nand a long story"))
    drawer = Fallback(failing, plain, name="torch.compile")
    one = torch.ones(1)
    assert [float(drawer(one, one)) for _ in range(2)] == [2, 2]
    assert float(Fallback(failing, plain, name="torch.compile")(one, one)) == 2  # nor by another drawer
    assert failing.calls == 1
    assert caplog.messages == ["torch.compile does not work here (RuntimeError: no compiler); continuing without it"]


def test_another_compiler_is_still_tried(caplog: pytest.LogCaptureFixture) -> None:
    one = torch.ones(1)
    for name in ("torch.compile", "Triton"):
        assert Fallback(Failing(RuntimeError("no")), plain, name=name)(one, one) == 2
    assert len(caplog.messages) == 2


def test_what_is_wrong_itself_is_not_blamed_on_the_compiler(caplog: pytest.LogCaptureFixture) -> None:
    drawer = Fallback(lambda affine, points: affine @ points, plain, name="Triton")
    with pytest.raises(RuntimeError, match="size of tensor"):
        drawer(torch.ones(2), torch.ones(3))
    assert caplog.messages == []
    assert drawer(torch.ones(2), torch.ones(2)) == 2  # still the fast one's


def test_a_long_reason_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    Fallback(Failing(ValueError("x" * 999)), plain, name="Triton")(torch.ones(1), torch.ones(1))
    assert len(caplog.messages[0]) < MAX_REASON + 60


def test_what_works_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert Fallback(lambda affine, points: affine, plain, name="Triton")(torch.ones(1), torch.ones(1)) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_too_little_memory_is_no_reason_to_go_on(error: Exception) -> None:
    with pytest.raises(type(error)):
        Fallback(Failing(error), plain, name="Triton")(torch.ones(1), torch.ones(1))
