"""The quick forms of a frozen network's convolutions against the network as it stands."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from polyinr_core.discriminator.backbones import HalvingConv2d, PixelwiseConv2d, replace_convolutions
from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.runtime.pretrained import load_pretrained


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 7)])
def test_quick_forms_compute_the_same(size: tuple[int, int], channels_last: bool) -> None:
    """Oracle: timm's own layers, forward and backward, in float64, where only the order of sums differs."""
    torch.manual_seed(0)
    plain = nn.Sequential(
        Conv2dSame(3, 6, 3, stride=2),
        nn.Conv2d(6, 10, 1, bias=False),
        nn.ReLU6(inplace=True),
        Conv2dSame(10, 10, 5, stride=2, groups=10),
    )
    plain = plain.double().requires_grad_(False)
    quick = nn.Sequential(*plain)
    replace_convolutions(quick)
    assert [type(layer) for layer in quick] == [HalvingConv2d, PixelwiseConv2d, nn.Identity, HalvingConv2d]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    found, expected = quick(x), plain(x)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    grad = torch.randn_like(expected)
    (ours,), (theirs,) = (torch.autograd.grad(y, x, grad) for y in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_pretrained_networks_stored_for_autocast() -> None:
    """Oracle: autocast itself, which rounds the same weights; sums of 8 bits in another order, through 22 blocks."""
    sizes = {"resolution": 64, "channels": 8, "head_divisor": 16, "head_resolution": 128}
    disc = ProjectedDiscriminator(DiscriminatorConfig(**sizes), {"lite0": load_pretrained("lite0")}).eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    kept = {name: tensor.clone() for name, tensor in disc.compact_state().items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (before,) = disc(x)
        disc.store_pretrained(torch.bfloat16)
        (after,) = disc(x)
    assert (after - before).norm() < 0.05 * before.norm()
    convolutions = [layer for layer in disc.features.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) > 40
    assert {layer.weight.dtype for layer in convolutions} == {torch.bfloat16}
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in convolutions)
    assert all(tensor.dtype == kept[name].dtype for name, tensor in disc.compact_state().items())
