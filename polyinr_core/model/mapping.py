"""From z and a class to w, and the mean of w that truncation pulls towards."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ..errors import LabelError
from .config import GeneratorConfig
from .layers import EqualizedLinear, rms_normalize

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
        """Return the mean of w, of each picture's class where there are classes: [N, w_dim] or [w_dim]."""
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
    centre = w_avg.unsqueeze(-2)  # [N or 1, 1, w_dim]
    truncated = centre + psi * (w - centre)
    if cutoff is None:
        return truncated
    return torch.cat([truncated[:, :cutoff], w[:, cutoff:]], dim=1)
