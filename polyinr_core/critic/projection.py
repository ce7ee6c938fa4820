"""Random mixing of the taps across channels (CCM) and scales (CSM); frozen as initialised."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from .backbones import Frozen
from .convolutions import PixelwiseConv2d


class Projection(Frozen):
    """Mix taps [N, C_i, H_i, W_i], each half the side of the one before, into one map for each head.

    CCM brings tap i to c 2^i channels; CSM walks from the deepest to the finest: add what came from below,
    upsample by two, mix down to c 2^(i-1) channels (c at the finest). No activation anywhere. Sauer et al.,
    "Projected GANs Converge Faster", section 3.2, with the release's widths and order; but mixing each pixel by
    itself commutes with bilinear upsampling, and is done before it, on a quarter of the pixels.
    """

    def __init__(self, tap_widths: Sequence[int], *, channels: int) -> None:
        super().__init__()
        mixed = [channels << i for i in range(len(tap_widths))]
        self.widths = [max(channels, width // 2) for width in mixed]
        self.across_channels = nn.ModuleList(
            PixelwiseConv2d(*pair, 1) for pair in zip(tap_widths, mixed, strict=True)
        )
        self.across_scales = nn.ModuleList(
            PixelwiseConv2d(*pair, 1) for pair in zip(mixed, self.widths, strict=True)
        )
        self.freeze()

    def forward(self, taps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps of twice the taps' sides, from the finest to the deepest."""
        maps: list[Tensor] = []
        for i in reversed(range(len(taps))):
            x = self.across_channels[i](taps[i])
            if maps:
                x = x + maps[-1]
            x = self.across_scales[i](x)
            maps.append(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        return maps[::-1]
