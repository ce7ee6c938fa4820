"""The projected discriminator: frozen backbones, random projections of their features, and trainable heads."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.errors import ConfigError, LabelError
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.rng import seeded_init

from .backbones import Frozen, PixelwiseConv2d, make_backbone, store_weights
from .config import DiscriminatorConfig
from .diffaugment import Draws, augment, blur
from .heads import Head, SharedBatchNorm


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
        self.across_channels = nn.ModuleList(PixelwiseConv2d(*pair, 1) for pair in zip(tap_widths, mixed, strict=True))
        self.across_scales = nn.ModuleList(PixelwiseConv2d(*pair, 1) for pair in zip(mixed, self.widths, strict=True))
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


Weights = Mapping[str, Mapping[str, Tensor]]


class ProjectedDiscriminator(nn.Module):
    """Map images to patch logits by heads on pretrained features. Sauer et al., "StyleGAN-XL", sections 3.1-3.3.

    `weights` holds for each backbone of the configuration its state dict under timm's names (see
    `load_pretrained`). Random projections and heads depend on `seed` alone. Only the heads learn; everything
    else is frozen and stays in eval mode. Raises ConfigError.
    """

    def __init__(self, config: DiscriminatorConfig, weights: Weights, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        if missing := [name for name in config.backbones if name not in weights]:
            raise ConfigError(f"the discriminator has no weights for {', '.join(missing)}")
        with seeded_init("critic", seed):
            features = {name: make_backbone(name, weights[name], taps=config.taps) for name in config.backbones}
            projections = {
                name: Projection(network.widths[: config.taps], channels=config.channels)
                for name, network in features.items()
            }
            heads = {name: self.heads_on(projection) for name, projection in projections.items()}
        self.features = nn.ModuleDict(features)
        self.projections = nn.ModuleDict(projections)
        self.heads = nn.ModuleDict(heads)

    def heads_on(self, projection: Projection) -> nn.ModuleList:
        """Make one head for each map of a projection."""
        config = self.config
        return nn.ModuleList(
            Head(
                width,
                config.head_input(tap),
                divisor=config.head_divisor,
                table_rows=(config.table_rows or 0) if config.classes else 0,
                table_dim=config.table_dim,
                label_dim=config.head_dim,
            )
            for tap, width in enumerate(projection.widths)
        )

    def forward(
        self,
        x: Tensor,
        label: Tensor | None = None,
        *,
        draws: Sequence[Draws] | None = None,
        sigma: float = 0.0,
        parts: int = 1,
        copies: int = 1,
    ) -> list[Tensor]:
        """Map images x [N, 3, S, S] about [-1, 1] to patch logits, one [N, K] for each backbone.

        Raises LabelError without a label, ConfigError for a size that the backbones cannot take.

        Args:
            label: Classes [N]: needed by a conditional discriminator, ignored by others.
            draws: Random numbers of DiffAugment for N images, for each backbone. None: no augmentation.
            sigma: Width of the blur in pixels.
            parts: Of several, equally large, each is seen as in a pass of its own, one after the other: each has its
                own batch statistics and power iterations.
            copies: Of several versions of all parts, one after another, the later ones are normalized by the batch
                statistics and weights of the first (for `finite_difference_penalty`).
        """
        return self.logits(self.project(x, draws=draws, sigma=sigma), label, parts=parts, copies=copies)

    def project(self, x: Tensor, *, draws: Sequence[Draws] | None = None, sigma: float = 0.0) -> list[list[Tensor]]:
        """Return what the heads of each backbone read of images x [N, 3, S, S]: the frozen part of `forward`."""
        with torch.autocast(x.device.type, enabled=False):  # images stay float32, blurred or not
            x = blur(x, sigma)
        inputs = [x if draws is None else augment(x, draws[i]) for i in range(len(self.config.backbones))]
        named = zip(self.config.backbones, inputs, strict=True)
        return [self.projections[name](self.features[name](self.resized(name, view))) for name, view in named]

    def logits(
        self, maps: Sequence[Sequence[Tensor]], label: Tensor | None = None, *, parts: int = 1, copies: int = 1
    ) -> list[Tensor]:
        """Return the logits [N, K] of each backbone's heads, from the finest scale to the deepest (see `forward`)."""
        if self.config.classes and label is None:
            raise LabelError("a conditional discriminator needs the label of each image")
        rows = []
        for name, scales in zip(self.config.backbones, maps, strict=True):
            heads = zip(self.heads[name], scales, strict=True)  # type: ignore[call-overload]
            rows.append(torch.cat([head(x, label, parts, copies) for head, x in heads], dim=1))
        return rows

    def resized(self, name: str, x: Tensor) -> Tensor:
        """Resize images to the input resolution of a backbone."""
        size = self.config.input_resolution(name, x.shape[-1])
        if size != x.shape[-1]:
            x = functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        if x.dtype == torch.float64:  # its convolutions are not oneDNN's, and twice as slow in channels_last
            return x
        return x.contiguous(memory_format=torch.channels_last)  # measured: a generator's step costs a fifth less

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Return the trainable parameters, for the optimizer."""
        return self.heads.parameters()

    def init_class_tables(self, table: Tensor) -> None:
        """Copy `table` [at most table_rows, table_dim] into the first rows of every head's class table.

        Raises ConfigError if it does not fit.
        """
        config = self.config
        if not config.classes or len(table) > (config.table_rows or 0) or table.shape[1:] != (config.table_dim,):
            raise ConfigError(
                f"a class table of shape {tuple(table.shape)} does not fit the discriminator's "
                f"({config.table_rows}, {config.table_dim})"
            )
        for head in self.heads.modules():
            if isinstance(head, Head) and head.table is not None:
                head.table.weight.data[: len(table)] = table.to(head.table.weight)

    def store_pretrained(self, dtype: torch.dtype) -> None:
        """Store the weights of the pretrained networks for autocast to `dtype` (`store_weights`).

        The random projections, which are part of a training state, keep theirs.
        """
        for features in self.features.values():
            store_weights(features.network, dtype)  # type: ignore[arg-type]

    def share_statistics(self, dist: DistributedContext) -> None:
        """Let every BatchNorm take its statistics over the images that all `dist` see together."""
        for layer in self.heads.modules():
            if isinstance(layer, SharedBatchNorm):
                layer.dist = dist

    def compact_state(self) -> dict[str, Tensor]:
        """Return the state dict without the pretrained networks, which are loaded from their source."""
        return {key: value for key, value in self.state_dict().items() if ".network." not in key}

    def load_compact_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `compact_state` returned. Raises ConfigError if the configurations differ."""
        own = self.compact_state()
        if state.keys() != own.keys() or any(state[key].shape != own[key].shape for key in own):
            raise ConfigError("the stored discriminator has another configuration than this one")
        self.load_state_dict(dict(state), strict=False)
