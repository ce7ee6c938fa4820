"""A backend that fails or gives wrong colors: one line, and the plain one from then on."""

import pytest
import torch
from torch import Tensor

from polyinr_core.rendering import backends
from polyinr_core.rendering.backends import MAX_REASON, Fallback


@pytest.fixture(autouse=True)
def _nothing_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "FAILED", set())
    monkeypatch.setattr(backends, "CHECKED", set())


def plain(affine: Tensor, coordinates: Tensor) -> Tensor:
    return coordinates + affine


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error, self.calls = error, 0

    def __call__(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        self.calls += 1
        raise self.error


def test_a_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    failing = Failing(RuntimeError("\n\nno compiler\nand a long story"))
    backend = Fallback(failing, plain, name="torch.compile")
    one = torch.ones(1)
    assert [float(backend(one, one)) for _ in range(2)] == [2, 2]
    assert float(Fallback(failing, plain, name="torch.compile")(one, one)) == 2  # nor by another backend
    assert failing.calls == 1
    assert caplog.messages == ["torch.compile does not work here (RuntimeError: no compiler); continuing without it"]


def test_another_compiler_is_still_tried(caplog: pytest.LogCaptureFixture) -> None:
    one = torch.ones(1)
    for name in ("torch.compile", "Triton"):
        assert Fallback(Failing(RuntimeError("no")), plain, name=name)(one, one) == 2
    assert len(caplog.messages) == 2


def test_what_is_wrong_itself_is_not_blamed_on_the_compiler(caplog: pytest.LogCaptureFixture) -> None:
    backend = Fallback(lambda affine, coordinates: affine @ coordinates, plain, name="Triton")
    with pytest.raises(RuntimeError, match="size of tensor"):
        backend(torch.ones(2), torch.ones(3))
    assert caplog.messages == []
    assert backend(torch.ones(2), torch.ones(2)) == 2  # still the fast one's


def test_a_long_reason_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    Fallback(Failing(ValueError("x" * 999)), plain, name="Triton")(torch.ones(1), torch.ones(1))
    assert len(caplog.messages[0]) < MAX_REASON + 60


def test_what_works_is_used(caplog: pytest.LogCaptureFixture) -> None:
    assert Fallback(lambda affine, coordinates: affine, plain, name="Triton")(torch.ones(1), torch.ones(1)) == 1
    assert caplog.messages == []


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError()])
def test_too_little_memory_is_no_reason_to_go_on(error: Exception) -> None:
    with pytest.raises(type(error)):
        Fallback(Failing(error), plain, name="Triton")(torch.ones(1), torch.ones(1))


def colors(affine: Tensor, coordinates: Tensor) -> Tensor:
    return (affine.mean(dim=(1, 2, 3))[:, None, None] + coordinates).expand(len(affine), -1, -1)


def test_wrong_colors_are_noticed_at_the_first_use(caplog: pytest.LogCaptureFixture) -> None:
    affine, coordinates = torch.ones(2, 3, 3, 4), torch.rand(500, 3)
    backend = Fallback(lambda a, c: colors(a, c) * 1.2, colors, name="Triton", max_difference=0.1)
    assert torch.equal(backend(affine, coordinates), colors(affine, coordinates))
    assert caplog.messages == [
        "Triton does not work here (WrongColorsError: its colors differ from PyTorch's by 0.2 of their norm); "
        "continuing without it"
    ]


@pytest.mark.parametrize("per_image", [False, True])
def test_right_colors_are_checked_once_on_few_pixels(per_image: bool, caplog: pytest.LogCaptureFixture) -> None:
    affine, coordinates = torch.ones(2, 3, 3, 4), torch.rand(*([2] if per_image else []), 500, 3)
    sizes = {"fast": [], "plain": []}

    def counted(name: str):
        def evaluate(affine: Tensor, coordinates: Tensor) -> Tensor:
            found = colors(affine, coordinates)
            sizes[name].append(found.shape[0] * found.shape[1])
            return found

        return evaluate

    backend = Fallback(counted("fast"), counted("plain"), name="Triton", max_difference=0.1)
    for _ in range(2):
        assert torch.equal(backend(affine, coordinates), colors(affine, coordinates))
    assert sizes == {"fast": [backends.CHECK_PIXELS, 1000, 1000], "plain": [backends.CHECK_PIXELS]}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_nan_is_wrong_unless_the_plain_backend_gives_it_too() -> None:
    affine, coordinates = torch.ones(1, 3, 3, 4), torch.rand(5, 3)
    nan = lambda a, c: colors(a, c) * float("nan")  # noqa: E731
    assert Fallback(nan, nan, name="overflow", max_difference=0.1)(affine, coordinates).isnan().all()
    assert "overflow" not in backends.FAILED
    assert Fallback(nan, colors, name="Triton", max_difference=0.1)(affine, coordinates).isfinite().all()
    assert backends.FAILED == {"Triton"}


@pytest.mark.parametrize("per_image", [False, True])
def test_where_memory_runs_out_pixels_are_evaluated_in_halves(per_image: bool) -> None:
    """The plain backend's as well as the fast one's; below some pixels there is too little for anything."""
    affine, coordinates, sizes = torch.ones(2, 3, 3, 4), torch.rand(*([2] if per_image else []), 1001, 3), []

    def large(affine: Tensor, coordinates: Tensor) -> Tensor:
        sizes.append(coordinates.shape[-2])
        if coordinates.shape[-2] > 300:
            raise torch.OutOfMemoryError
        return colors(affine, coordinates)

    expected = colors(affine, coordinates)
    assert torch.equal(Fallback(large, colors, name="Triton")(affine, coordinates), expected)
    assert sizes == [1001, 501, 251, 250, 500, 250, 250]
    assert "Triton" not in backends.FAILED
    assert torch.equal(Fallback(Failing(ValueError()), large, name="Triton")(affine, coordinates), expected)
    with pytest.raises(torch.OutOfMemoryError):
        Fallback(Failing(torch.OutOfMemoryError()), colors, name="another")(affine, coordinates)
