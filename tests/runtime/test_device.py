"""Copies that nobody waits for, cuDNN's choice of algorithms, and gradients sent in buckets."""

from typing import Any

import pytest
import torch
from torch import Tensor

from polyinr_core.runtime import distributed
from polyinr_core.runtime.device import measure_convolutions, to_device
from polyinr_core.runtime.distributed import DistributedContext, GradientSum


def test_a_copy_to_a_gpu_goes_through_pinned_memory_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU by what is asked of PyTorch."""
    asked: list[Any] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: asked.append("pinned") or self)
    monkeypatch.setattr(Tensor, "to", lambda self, *args, **options: asked.append((args, options)) or self)
    gpu = torch.device("cuda", 1)
    to_device(torch.ones(2), gpu, torch.float64)
    assert asked == ["pinned", ((gpu, torch.float64), {"non_blocking": True})]


def test_on_a_cpu_nothing_is_copied() -> None:
    x = torch.ones(2)
    assert to_device(x, torch.device("cpu")) is x
    assert to_device(x, torch.device("cpu"), torch.float64).dtype == torch.float64


@pytest.mark.parametrize(("name", "measured"), [("cpu", False), ("cuda", True)])
def test_cudnn_measures_on_a_gpu_alone(monkeypatch: pytest.MonkeyPatch, name: str, measured: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    measure_convolutions(torch.device(name))
    assert torch.backends.cudnn.benchmark is measured


class Sum:
    """Stands for the message of a sum over two equal ranks, which arrives when it is waited for."""

    def __init__(self, flat: Tensor) -> None:
        self.flat, self.is_waited = flat, False

    def wait(self) -> None:
        self.is_waited = True
        self.flat.mul_(2)


def test_gradients_travel_in_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are under way before the first is waited for; each has its sum, whatever its shape, dtype and layout."""
    messages: list[Sum] = []

    def all_reduce(flat: Tensor, *, async_op: bool) -> Sum:
        assert async_op
        assert not any(message.is_waited for message in messages)
        messages.append(Sum(flat))
        return messages[-1]

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 100)
    rng = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,), (40,), (), (2, 3, 2), (7,))
    tensors = [torch.randn(shape, generator=rng) for shape in shapes]
    tensors += [torch.randn(4, 3, generator=rng).T, torch.randn(6, dtype=torch.float64, generator=rng)]
    parameters = [torch.nn.Parameter(tensor) for tensor in (*tensors, torch.ones(99))]  # the last one is not used
    x = torch.ones((), requires_grad=True)
    for parameter in parameters[:-1]:
        x = x * (parameter**2).sum().float()
    for _ in range(2):  # as two micro-batches
        messages.clear()
        with GradientSum(parameters, DistributedContext(0, 2)):
            (x / x.detach()).backward(retain_graph=True)
    expected = torch.autograd.grad(x / x.detach(), parameters[:-1])
    for parameter, gradient in zip(parameters, expected, strict=False):
        assert torch.allclose(parameter.grad, 6 * gradient)  # (2 g + g) of two ranks
    assert parameters[-1].grad is None
    sizes = [message.flat.numel() * message.flat.element_size() for message in messages]
    assert sorted(sizes)[-1] == 160  # a tensor above the limit travels alone
    assert all(size <= 100 for size in sorted(sizes)[:-1])
    assert len(sizes) < len(tensors)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in parameters)


def test_messages_start_before_the_backward_pass_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat, **_: order.append("sent") or Sum(flat))
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 8)
    first, last = (torch.nn.Parameter(torch.full((2,), 3.0)) for _ in range(2))
    middle = (first * 2).clone()
    middle.register_hook(lambda grad: order.append("first layer"))
    with GradientSum([first, last], DistributedContext(0, 2)):
        (middle * last).sum().backward()
    assert order == ["sent", "first layer", "sent"]
    assert first.grad.tolist() == [12.0, 12.0]


def test_a_failed_pass_leaves_no_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flat, **_: pytest.fail("a message was sent"))
    weight = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(MemoryError), GradientSum([weight], DistributedContext(0, 2)):
        raise MemoryError
    weight.sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]
