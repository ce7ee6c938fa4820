"""From z and a class to w, and the mean of w that truncation pulls towards."""

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.errors import LabelError

from .config import GeneratorConfig
from .layers import SLOPE, AlignedLinear, EqualizedLinear, Level, aligned, batch_invariant, rms_normalize

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
        """Return w [N, w_dim]. Raises LabelError when the label does not fit the model."""
        check_label(label, classes=self.config.classes)
        h = rms_normalize(z)
        if label is not None:
            h = torch.cat([h, rms_normalize(self.label_proj(self.table(label)))], dim=-1)  # [N, 2 z_dim]
        for layer in self.layers:
            h = layer(h)
        return h

    def w_avg_for(self, label: Tensor | None) -> Tensor:
        """Return the mean of w, of each image's class where there are classes: [N, w_dim] or [w_dim]."""
        return self.w_avg if label is None else self.w_avg[label]

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, label: Tensor | None, *, beta: float = W_AVG_BETA) -> None:
        """Move w_avg towards w [N, w_dim]: by the batch's mean, or class by class, one sample after another."""
        w = w.detach().to(self.w_avg.dtype)
        if label is None:
            self.w_avg.copy_(w.mean(dim=0).lerp(self.w_avg, beta))
        else:
            for row, index in zip(w, label.tolist(), strict=True):
                self.w_avg[index] = row.lerp(self.w_avg[index], beta)


def check_label(label: Tensor | None, *, classes: int) -> None:
    """Raise LabelError unless `label` suits a model of that many classes."""
    if classes and label is None:
        raise LabelError(f"the model is class-conditional: give a label in 0-{classes - 1}")
    if not classes and label is not None:
        raise LabelError("the model has no classes: leave the label out")
    if label is not None and label.numel() and not (0 <= int(label.min()) and int(label.max()) < classes):
        raise LabelError(f"label {label.tolist()} is outside 0-{classes - 1}")


def truncate(w: Tensor, w_avg: Tensor, psi: float, *, cutoff: int | None = None) -> Tensor:
    """Return w_avg + psi (w - w_avg) for w [N, L, w_dim], in the first `cutoff` levels (default: all)."""
    if psi == 1.0:
        return w
    center = w_avg.unsqueeze(-2)  # [N or 1, 1, w_dim]
    truncated = center + psi * (w - center)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)


class LevelMap(nn.Module):
    """One level's heads.

    `map` gives the level's own 3 x n matrix, its rows for x, y and 1. The release's form has two more: `style`,
    a layer between w and the heads (levels above 0), and `chain`, a 2 x 2 matrix A and an offset b through
    which the level sees the coordinates that the level before left.
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
        """Map w [N, w_dim] to (own map [N, 3, n], step of the chain [N, 3, 2] or None)."""
        f = w if self.style is None else self.style(w)
        own = self.map(f).unflatten(-1, (3, -1))
        return own, None if self.chain is None else self.chain(f).unflatten(-1, (3, 2))


class AffineMaps(nn.Module):
    """Map w [N, L, w_dim] to the affine maps [N, L, 3, n], with rows for x, y and 1.

    The release hands coordinates from level to level, each time through A and b. That chain is affine in
    (x, y, 1), as is the projection that follows it, so both collapse exactly into one matrix a level: with
    g = (x, y, 1) C, the level's map (g, 1) M equals (x, y, 1) [C | e3] M. Paper, Eq. 3; the chain is the
    release's.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList(LevelMap(config, level) for level in range(config.levels))

    def forward(self, w: Tensor) -> Tensor:
        chain = w.new_zeros(len(w), 3, 3)  # coordinates as a function of (x, y, 1), itself homogeneous
        chain[:] = torch.eye(3, dtype=w.dtype, device=w.device)
        maps = []
        for level, row in zip(self.levels, w.unbind(dim=1), strict=True):
            own, step = level(row)
            if step is None:
                maps.append(own)
                continue
            last = chain[:, :, 2:]  # the constant stays the constant
            chain = torch.cat([chain @ step, last], dim=-1)  # [N, 3, 3]
            maps.append(chain @ own)
        return torch.stack(maps, dim=1)  # [N, L, 3, n]


class Synthesis(nn.Module):
    """Draw points of the plane from an image's affine maps. Paper, Eq. 3.

    x_0 = lrelu(U_0 (A_0 p) + u_0) and x_i = lrelu(U_i (x_{i-1} * m_i) + u_i) for a point p = (x, y, 1), where
    m_i is A_i p in the paper's form and lrelu(A_i p) in the release's, which also clamps every x_i.
    Level 0 is linear before its activation, so U_0 A_0 is folded into one 3 x n matrix.

    `product_dtype` is a format for the n x n products alone (None: the weights' own), for training in bfloat16
    with float32 weights. Points and affine maps stay as they are: 8 bits cannot tell the pixels of a row apart.
    """

    product_dtype: torch.dtype | None = None

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        n = config.channels
        self.products = nn.ModuleList(nn.Linear(n, n) for _ in range(config.levels))
        self.to_rgb = nn.Linear(n, 3)

    def forward(self, affine: Tensor, points: Tensor) -> Tensor:
        """Map affine [N, L, 3, n] and points [P, 3] or [N, P, 3] to colors [N, P, 3], about [-1, 1].

        A blend of K images is drawn from their maps one below the other, [N, L, 3 K, n], and points [P, 3 K]
        that hold (x, y, 1) times the K shares of each pixel (grid.Blend).
        """
        for h in self.features(affine, points):  # noqa: B007 - the last level's
            pass
        return self.to_rgb(h.to(affine.dtype))  # narrow products leave narrow features

    def features(self, affine: Tensor, points: Tensor) -> Iterator[Tensor]:
        """Yield the features [N, P, n] of level after level."""
        first, *others = affine.unbind(dim=1)  # each [N, 3, n]
        h = self.activate(torch.matmul(points, self.fold_first(first)))  # [N, P, n]
        yield h
        for product, matrix in zip(list(self.products)[1:], others, strict=True):
            h = self.level(product, h, matrix, points)
            yield h

    def level(self, product: nn.Module, h: Tensor, matrix: Tensor, points: Tensor) -> Tensor:
        """Return the features after a level above 0, [N, P, n]."""
        mixed = torch.is_autocast_enabled(h.device.type)
        if torch.is_grad_enabled() and isinstance(product, nn.Linear) and not mixed:
            manner = self.config.form == "release", self.config.clamp, self.product_dtype
            return Level.apply(h, matrix, points, product.weight, product.bias, *manner)
        return self.activate(self.multiply(product, h * self.modulation(matrix, points)))

    def multiply(self, product: nn.Module, h: Tensor) -> Tensor:
        """Return the product of a level, in its format."""
        kind = self.product_dtype
        if kind is None:
            return product(h)
        weight, bias = cast(nn.Linear, product).weight, cast(nn.Linear, product).bias
        return functional.linear(h.to(kind), weight.to(kind), bias.to(kind))

    def fold_first(self, matrix: Tensor) -> Tensor:
        """Fold level 0's affine map [N, 3, n], product and bias into one map [N, 3, n]; likewise a blend's."""
        product = cast(nn.Linear, self.products[0])
        folded = (matrix @ aligned(product.weight).T).unflatten(1, (-1, 3))  # [N, K, 3, n]
        constant = folded[:, :, 2:] + product.bias
        return torch.cat([folded[:, :, :2], constant], dim=2).flatten(1, 2)

    def modulation(self, matrix: Tensor, points: Tensor) -> Tensor:
        """Return what the features of a level are multiplied with, [N, P, n]."""
        m = torch.matmul(points, matrix)
        return functional.leaky_relu_(m, SLOPE) if self.config.form == "release" else m  # absent from Eq. 3

    def activate(self, h: Tensor) -> Tensor:
        """LeakyReLU and, in the release's form, the clamp; `h` is a product's fresh result and may be reused."""
        h = functional.leaky_relu_(h, SLOPE)
        limit = self.config.clamp
        if limit is None:
            return h
        return h.clamp(-limit, limit) if h.requires_grad else h.clamp_(-limit, limit)

    def extra_repr(self) -> str:
        return f"form={self.config.form}"


def flops_per_pixel(config: GeneratorConfig) -> int:
    """Count the multiplications and additions of a pixel: 2 n^2 a level after level 0, plus the small change."""
    n, levels = config.channels, config.levels
    return (levels - 1) * (2 * n * n + n) + levels * 6 * n + 6 * n


class Generator(nn.Module):
    """Poly-INR: z and a class to w, w to affine maps, affine maps and points to colors.

    Start values are the release's: N(0, 1) for the equalized layers, PyTorch's own for the others.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.affine = AffineMaps(config)
        self.synthesis = Synthesis(config)

    def w(self, z: Tensor, label: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Map z [N, z_dim] and label [N] to w [N, L, w_dim], truncated by psi. Raises LabelError."""
        w = self.mapping(z, label).unsqueeze(1).repeat(1, self.config.levels, 1)
        return truncate(w, self.mapping.w_avg_for(label), psi, cutoff=cutoff)

    def w_each(self, z: Tensor, label: Tensor | None = None, *, psi: float = 1.0) -> Tensor:
        """Map as `w` does, without gradients, each image's w the same to the last bit in any batch."""
        check_label(label, classes=self.config.classes)
        return batch_invariant(lambda z, label: self.w(z, label, psi=psi), z, label)

    def affine_each(self, w: Tensor) -> Tensor:
        """Map w to affine maps as `affine` does, without gradients, the same to the last bit in any batch."""
        return batch_invariant(self.affine, w)

    def forward(self, z: Tensor, points: Tensor, label: Tensor | None = None) -> Tensor:
        """Draw points [P, 3] of the images of z [N, z_dim] and label [N]: colors [N, P, 3]."""
        return self.synthesis(self.affine(self.w(z, label)), points)


def count_parameters(generator: Generator) -> dict[str, int]:
    """Count the parameters in total and by part."""
    parts = {"table": 0, "mapping": 0, "affine": 0, "synthesis": 0}
    for name, parameter in generator.named_parameters():
        part = "table" if name.startswith("mapping.table.") else name.partition(".")[0]
        parts[part] += parameter.numel()
    return {"total": sum(parts.values()), **parts}
