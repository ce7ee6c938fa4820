"""The generator: mapping, affine and synthesis networks, and gradient checkpointing over pixels."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from polyinr_core.errors import ConfigError, LabelError

from .config import GeneratorConfig
from .layers import (
    SLOPE,
    AlignedLinear,
    EqualizedLinear,
    aligned,
    batch_invariant,
    chunk_slices,
    rms_normalize,
    select_coordinates,
    select_level,
)

W_AVG_BETA = 0.998


class Mapping(nn.Module):
    """Map z [N, z_dim] and, in a conditional model, label [N] to w [N, w_dim]. Paper, section 3."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        in_dim = config.z_dim
        if config.table_rows:
            self.table = nn.Embedding(config.table_rows, config.table_dim)
        if config.classes:
            self.label_proj = EqualizedLinear(config.table_dim, config.z_dim)
            in_dim += config.z_dim
        widths = [in_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.ModuleList(EqualizedLinear(a, b, lr_multiplier=0.1) for a, b in pairwise(widths))
        shape = (config.classes, config.w_dim) if config.classes else (config.w_dim,)
        self.register_buffer("w_avg", torch.zeros(shape))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """Return w [N, w_dim]. Raises LabelError without a label in a conditional model, or with one in another.

        The values of `label` are not looked at, for which the host would wait: see `check_label`.
        """
        check_has_label(label, classes=self.config.classes)
        h = rms_normalize(z)
        if label is not None:
            h = torch.cat([h, rms_normalize(self.label_proj(self.table(label)))], dim=-1)  # [N, 2 z_dim]
        for layer in self.layers:
            h = layer(h)
        return h

    def w_avg_for(self, label: Tensor | None) -> Tensor:
        """Return the mean of w, in a conditional model that of each label: [N, w_dim] or [w_dim]."""
        return self.w_avg if label is None else self.w_avg[label]

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, label: Tensor | None, *, beta: float = W_AVG_BETA) -> None:
        """Update the moving average w_avg with w [N, w_dim]: with the batch mean, or each class sample by sample.

        Unless all of w is finite it stays as it is, so that what is not finite keeps its place as the first.
        """
        w = w.detach().to(self.w_avg.dtype)
        is_finite = w.isfinite().all()
        if label is None:
            self.w_avg.copy_(torch.where(is_finite, w.mean(dim=0).lerp(self.w_avg, beta), self.w_avg))
            return
        # one moving average after another: a sample's weight falls by beta with each later one of its class
        is_member = label == torch.arange(self.config.classes, device=label.device)[:, None]  # [classes, N]
        later = is_member.flip(1).cumsum(dim=1).flip(1) - 1
        weights = torch.where(is_member, (1 - beta) * beta ** later.to(w.dtype), 0.0)
        decay = beta ** is_member.sum(dim=1, keepdim=True).to(w.dtype)
        self.w_avg.copy_(torch.where(is_finite, torch.addmm(self.w_avg * decay, weights, w), self.w_avg))


def check_label(label: Tensor | None, *, classes: int) -> None:
    """Raise LabelError unless `label` is valid in a model of that many classes. Waits for the label's device."""
    check_has_label(label, classes=classes)
    if label is not None and label.numel() and not (0 <= int(label.min()) and int(label.max()) < classes):
        raise LabelError(f"label {label.tolist()} is outside 0-{classes - 1}")


def check_has_label(label: Tensor | None, *, classes: int) -> None:
    """Raise LabelError unless there is a label exactly if there are classes."""
    if classes and label is None:
        raise LabelError(f"the model is class-conditional: give a label in 0-{classes - 1}")
    if not classes and label is not None:
        raise LabelError("the model has no classes: leave the label out")


def truncate(w: Tensor, w_avg: Tensor, psi: float, *, cutoff: int | None = None) -> Tensor:
    """Return w_avg + psi (w - w_avg) for w [N, L, w_dim], in the first `cutoff` levels (None: in all)."""
    if psi == 1.0:
        return w
    center = w_avg.unsqueeze(-2)  # [N or 1, 1, w_dim]
    truncated = center + psi * (w - center)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)


class LevelAffine(nn.Module):
    """The affine layers of one level.

    `map` gives the level's own 3 x n matrix, with rows for x, y and 1. The release's form has two more: `style`, a
    layer before the others (levels above 0), and `chain`, a 2 x 2 matrix A and an offset b, through which each level
    transforms the coordinates of the level before.
    """

    def __init__(self, config: GeneratorConfig, level: int) -> None:
        super().__init__()
        release = config.form == "release"
        in_dim = config.w_dim
        self.style = EqualizedLinear(config.w_dim, config.channels) if release and level > 0 else None
        if self.style is not None:
            in_dim = config.channels
        self.map = AlignedLinear(in_dim, 3 * config.channels)
        self.chain = AlignedLinear(in_dim, 6) if release else None

    def forward(self, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """Map w [N, w_dim] to the level's own matrix [N, 3, n] and its coordinate transform [N, 3, 2] or None."""
        f = w if self.style is None else self.style(w)
        own = self.map(f).unflatten(-1, (3, -1))
        return own, None if self.chain is None else self.chain(f).unflatten(-1, (3, 2))


class AffineNetwork(nn.Module):
    """Map w [N, L, w_dim] to affine parameters [N, L, 3, n], with rows for x, y and 1. Paper, Eq. 3.

    The release transforms the coordinates from level to level, each time by A and b. Both the chain and the projection
    after it are affine in (x, y, 1), so they collapse exactly into one matrix a level: with g = (x, y, 1) C, the
    level's (g, 1) M equals (x, y, 1) [C | e3] M.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelAffine(config, level) for level in range(config.levels))

    def forward(self, w: Tensor) -> Tensor:
        chain = w.new_zeros(len(w), 3, 3)  # coordinates as a function of (x, y, 1), itself homogeneous
        chain[:] = torch.eye(3, dtype=w.dtype, device=w.device)
        matrices = []
        for level, row in zip(self.levels, w.unbind(dim=1), strict=True):
            own, step = level(row)
            if step is None:
                matrices.append(own)
                continue
            last = chain[:, :, 2:]  # the constant 1 is not transformed
            chain = torch.cat([chain @ step, last], dim=-1)  # [N, 3, 3]
            matrices.append(chain @ own)
        return torch.stack(matrices, dim=1)  # [N, L, 3, n]


class Synthesis(nn.Module):
    """Evaluate an image's colors at coordinates, given its affine parameters. Paper, Eq. 3.

    x_0 = lrelu(U_0 (A_0 p) + u_0) and x_i = lrelu(U_i (x_{i-1} * m_i) + u_i) for coordinates p = (x, y, 1), where
    m_i is A_i p in the paper's form and lrelu(A_i p) in the release's, which also clamps every x_i.
    Level 0 is linear before its activation, so U_0 A_0 is folded into one 3 x n matrix.

    `product_dtype` is the dtype of the n x n products alone (None: that of the weights), for training in bfloat16
    with float32 weights. Coordinates and affine parameters keep theirs: 8 bits do not resolve the pixels of a row.
    """

    product_dtype: torch.dtype | None = None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        n = config.channels
        self.products = nn.ModuleList(nn.Linear(n, n) for _ in range(config.levels))
        self.to_rgb = nn.Linear(n, 3)

    def forward(self, affine: Tensor, coordinates: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and coordinates [P, 3] or [N, P, 3] to colors [N, P, 3], about [-1, 1].

        A blend of K images takes their affine parameters stacked, [N, L, 3 K, n], and the coordinates [P, 3 K] of a
        BlendGrid.
        """
        for h in self.features(affine, coordinates):  # noqa: B007  only the last level's are used
            pass
        return self.to_rgb(h.to(affine.dtype))  # products in bfloat16 leave features in bfloat16

    def features(self, affine: Tensor, coordinates: Tensor) -> Iterator[Tensor]:
        """Yield the features [N, P, n] of each level."""
        first, *others = affine.unbind(dim=1)  # each [N, 3, n]
        h = self.activate(torch.matmul(coordinates, self.fold_first(first)))  # [N, P, n]
        yield h
        for product, matrix in zip(list(self.products)[1:], others, strict=True):
            h = self.level(product, h, matrix, coordinates)
            yield h

    def level(self, product: nn.Module, h: Tensor, matrix: Tensor, coordinates: Tensor) -> Tensor:
        """Return the features [N, P, n] after a level above 0."""
        plain = torch.is_autocast_enabled(h.device.type) or coordinates.requires_grad
        trains_on_gpu = self.product_dtype is not None and h.device.type == "cuda"  # then without gradients, too
        if (torch.is_grad_enabled() or trains_on_gpu) and isinstance(product, nn.Linear) and not plain:
            options = self.config.form == "release", self.config.clamp, self.product_dtype
            function = select_level(h, matrix, product.weight, *options)
            return cast(Tensor, function.apply(h, matrix, coordinates, product.weight, product.bias, *options))
        return self.activate(self.multiply(product, h * self.modulation(matrix, coordinates)))

    def multiply(self, product: nn.Module, h: Tensor) -> Tensor:
        """Return the product of a level, in `product_dtype`."""
        dtype = self.product_dtype
        if dtype is None:
            return product(h)
        weight, bias = cast(nn.Linear, product).weight, cast(nn.Linear, product).bias
        return functional.linear(h.to(dtype), weight.to(dtype), bias.to(dtype))

    def fold_first(self, matrix: Tensor) -> Tensor:
        """Fold level 0's affine parameters [N, 3, n], product and bias into one [N, 3, n]; a blend's likewise."""
        product = cast(nn.Linear, self.products[0])
        folded = (matrix @ aligned(product.weight).T).unflatten(1, (-1, 3))  # [N, K, 3, n]
        constant = folded[:, :, 2:] + product.bias
        return torch.cat([folded[:, :, :2], constant], dim=2).flatten(1, 2)

    def modulation(self, matrix: Tensor, coordinates: Tensor) -> Tensor:
        """Return the factors [N, P, n] that the features of a level are multiplied by."""
        m = torch.matmul(coordinates, matrix)
        return functional.leaky_relu_(m, SLOPE) if self.config.form == "release" else m  # absent from Eq. 3

    def activate(self, h: Tensor) -> Tensor:
        """LeakyReLU and, in the release's form, the clamp; `h` is overwritten."""
        h = functional.leaky_relu_(h, SLOPE)
        limit = self.config.clamp
        if limit is None:
            return h
        return h.clamp(-limit, limit) if h.requires_grad else h.clamp_(-limit, limit)


def flops_per_pixel(config: GeneratorConfig) -> int:
    """Return the multiplications and additions per pixel: 2 n^2 a level after level 0, and terms linear in n."""
    n, levels = config.channels, config.levels
    return (levels - 1) * (2 * n * n + n) + levels * 6 * n + 6 * n


class Generator(nn.Module):
    """Poly-INR: z and a label to w, w to affine parameters, affine parameters and coordinates to colors.

    Initial weights are the release's: N(0, 1) for the equalized layers, PyTorch's defaults for the others.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.affine = AffineNetwork(config)
        self.synthesis = Synthesis(config)

    def w(self, z: Tensor, label: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map z [N, z_dim] and label [N] to w [N, L, w_dim], truncated by psi. Raises LabelError."""
        check_label(label, classes=self.config.classes)
        w = self.mapping(z, label).unsqueeze(1).repeat(1, self.config.levels, 1)
        return truncate(w, self.mapping.w_avg_for(label), psi, cutoff=cutoff)

    def w_each(self, z: Tensor, label: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """Map as `w` does, without gradients; each image's w is bit-identical in any batch."""
        check_label(label, classes=self.config.classes)
        return batch_invariant(lambda z, label: self.w(z, label, psi=psi), z, label)

    def affine_each(self, w: Tensor) -> Tensor:
        """Map w to affine parameters as `affine` does, without gradients, bit-identical in any batch."""
        return batch_invariant(self.affine, w)

    def forward(self, z: Tensor, coordinates: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the colors [N, P, 3] at coordinates [P, 3] of the images of z [N, z_dim] and label [N]."""
        return self.synthesis(self.affine(self.w(z, label)), coordinates)


def count_parameters(generator: Generator) -> dict[str, int]:
    """Return the number of parameters in total and of each part."""
    parts = {"table": 0, "mapping": 0, "affine": 0, "synthesis": 0}
    for name, parameter in generator.named_parameters():
        part = "table" if name.startswith("mapping.table.") else name.partition(".")[0]
        parts[part] += parameter.numel()
    return {"total": sum(parts.values()), **parts}


def render_checkpointed(synthesis: Synthesis, affine: Tensor, coordinates: Tensor, *, chunk: int) -> Tensor:
    """Return `synthesis(affine, coordinates)`, [N, P, 3], with gradient checkpointing over chunks of pixels.

    Pixels are independent, so the gradient of the loss with respect to the image is all that the backward pass needs:
    it evaluates each chunk of at most `chunk` pixels again, now with a graph, and adds up the gradients with respect to
    affine parameters and weights. They are exact but for the order of the sums. Raises ConfigError.
    """
    if chunk < 1:
        raise ConfigError(f"a chunk of {chunk} pixels is empty; at least 1 is needed")
    if coordinates.requires_grad:
        raise ConfigError("coordinates have no gradient in chunks; call the synthesis network itself")
    colors: Tensor = CheckpointedSynthesis.apply(synthesis, chunk, affine, coordinates, *synthesis.parameters())
    return colors


class CheckpointedSynthesis(torch.autograd.Function):
    """Forward without a graph, backward with the graph of one chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any, synthesis: Synthesis, chunk: int, affine: Tensor, coordinates: Tensor, *weights: Tensor
    ) -> Tensor:
        device = affine.device.type
        ctx.synthesis, ctx.chunk = synthesis, chunk
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(affine, coordinates, *weights)
        colors = [
            synthesis(affine[images], select_coordinates(coordinates, images, pixels)).flatten(0, 1)
            for images, pixels in chunk_slices(len(affine), coordinates.shape[-2], chunk)
        ]
        return torch.cat(colors).unflatten(0, (len(affine), -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        affine, coordinates, *weights = ctx.saved_tensors
        needed = [ctx.needs_input_grad[2], *ctx.needs_input_grad[4:]]  # coordinates are never learned in chunks
        inputs = [affine, *weights]
        totals = [torch.zeros_like(t) if wanted else t for t, wanted in zip(inputs, needed, strict=True)]
        for images, pixels in chunk_slices(len(affine), coordinates.shape[-2], ctx.chunk):
            leaves = [affine[images].detach(), *weights]
            sums = [totals[0][images], *totals[1:]]
            asked = [leaf.requires_grad_() for leaf, wanted in zip(leaves, needed, strict=True) if wanted]
            with torch.enable_grad(), torch.autocast(ctx.autocast[0], *ctx.autocast[1:]):
                colors = ctx.synthesis(leaves[0], select_coordinates(coordinates, images, pixels).detach())
            gradients = iter(torch.autograd.grad(colors, asked, grad[images, pixels]))
            for total, wanted in zip(sums, needed, strict=True):
                if wanted:
                    total += next(gradients)
        of_affine, *of_weights = (total if wanted else None for total, wanted in zip(totals, needed, strict=True))
        return None, None, of_affine, None, *of_weights
