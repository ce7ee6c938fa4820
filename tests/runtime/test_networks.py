"""Networks around pretrained weights: the same function, quicker."""

import timm
import torch
from torch import nn

from polyinr_core.runtime.pretrained import fold_batch_norms, load_pretrained, pretrained_network


def test_folding_keeps_the_function() -> None:
    """Oracle: timm's own network. 1e-9: float64, through 22 blocks."""
    weights = {name: value.double() for name, value in load_pretrained("lite2").items() if value.is_floating_point()}
    plain = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    plain.load_state_dict(load_pretrained("lite2"))
    network = pretrained_network("tf_efficientnet_lite2", {**load_pretrained("lite2"), **weights}).eval()
    fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(x), plain.double()(x), rtol=0, atol=1e-9)
