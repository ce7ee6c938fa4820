"""Spectral normalization and heads on several parts at once, against the definition, in float64."""

import copy

import torch

from polyinr_core.discriminator.heads import Head, Sigma, SpectralConv2d


def test_gradient_of_sigma() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    u, v = torch.randn(2, 4, dtype=torch.float64), torch.randn(2, 48, dtype=torch.float64)
    plain = ((u @ weight.flatten(1)) * v).sum(dim=1)
    grad = torch.randn(2, dtype=torch.float64)
    (found,) = torch.autograd.grad(Sigma.apply(weight, u, v, plain.detach()), weight, grad)
    (expected,) = torch.autograd.grad(plain, weight, grad)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)


def test_the_weight_is_divided_by_its_estimate() -> None:
    torch.manual_seed(0)
    conv, x = SpectralConv2d(3, 5).double(), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    found = conv(x)
    weight = conv.weight / (conv.u @ conv.weight.flatten(1) @ conv.v)  # the pass has moved u and v
    torch.testing.assert_close(found, torch.conv2d(x, weight, conv.bias), atol=1e-12, rtol=0)
    grad = torch.randn_like(found)
    (ours,) = torch.autograd.grad(found, conv.weight, grad)
    (plain,) = torch.autograd.grad(torch.conv2d(x, weight, conv.bias), conv.weight, grad)
    torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-12)


def test_parts_are_passes_of_their_own() -> None:
    """Logits, gradients, statistics and singular vectors of one pass over two parts, and of two passes."""
    torch.manual_seed(0)
    at_once = Head(3, 16, divisor=64, table_rows=2, table_dim=4, label_dim=3).double()
    in_turn = copy.deepcopy(at_once)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    label = torch.tensor([0, 1, 1, 0])
    found = at_once(x, label, 2)
    expected = torch.cat([in_turn(x[part], label[part]) for part in (slice(0, 2), slice(2, 4))])
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert not torch.allclose(found, copy.deepcopy(in_turn)(x, label))
    weigh = torch.randn_like(found)
    (found * weigh).sum().backward()
    (expected * weigh).sum().backward()
    for name, tensor in in_turn.state_dict().items():
        torch.testing.assert_close(at_once.state_dict()[name], tensor, atol=1e-12, rtol=0)
    for own, plain in zip(at_once.parameters(), in_turn.parameters(), strict=True):
        torch.testing.assert_close(own.grad, plain.grad, atol=1e-11, rtol=1e-11)


def test_perturbed_copies_are_normalized_as_the_images_themselves() -> None:
    """The first copy is as without others; equal copies have equal logits; statistics and vectors move once."""
    torch.manual_seed(0)
    head = Head(3, 16, divisor=64, table_rows=2, table_dim=4, label_dim=3).double()
    alone = copy.deepcopy(head)
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    label = torch.tensor([0, 1, 1, 0])
    expected = alone(x, label, 2)
    found = head(torch.cat([x, x]), label.repeat(2), 2, 2)
    torch.testing.assert_close(found, expected.repeat(2, 1), atol=1e-11, rtol=0)
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(head.state_dict()[name], tensor, atol=1e-12, rtol=0)


def test_a_perturbed_image_changes_its_own_logits_only() -> None:
    """With batch statistics of its own a copy would change those of its neighbors, too."""
    torch.manual_seed(0)
    head = Head(3, 16, divisor=64).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    perturbed = x.clone()
    perturbed[1] += 0.1
    first, second = head(torch.cat([x, perturbed]), None, 1, 2).chunk(2)
    changed = (first - second).abs().amax(dim=1) > 1e-9
    assert changed.tolist() == [False, True, False, False]


def test_finite_differences_are_the_derivative() -> None:
    """Against autograd's directional derivative with the statistics held still, in float64: R1's oracle."""
    torch.manual_seed(0)
    head = Head(3, 16, divisor=64, table_rows=2, table_dim=4, label_dim=3).double()
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    noise, label, sigma = torch.randn_like(x), torch.tensor([0, 1, 1, 0]), 1e-7

    def logits(copies: torch.Tensor) -> torch.Tensor:
        return copy.deepcopy(head)(torch.cat([x, copies]), label.repeat(2), 1, 2)[4:]  # x's statistics, for both

    first, second = logits(x), logits(x + sigma * noise)
    _, derivative = torch.autograd.functional.jvp(logits, x, noise)
    torch.testing.assert_close((second - first) / sigma, derivative, atol=1e-4, rtol=1e-4)
    # and R1 itself: the mean over patches of the squared gradients is the mean over directions
    gradients = torch.autograd.functional.jacobian(lambda y: logits(y).sum(dim=0), x)  # [patches, *x]
    r1 = gradients.square().flatten(2).sum(dim=2)  # [patches, images]
    directions = torch.randn(400, *x.shape, dtype=torch.float64)
    along = torch.einsum("kncij,dncij->dkn", gradients, directions).square().mean(dim=0)
    torch.testing.assert_close(along, r1, atol=0, rtol=5 * (2 / 400) ** 0.5)
