"""The whole generator: mapping, affine maps, synthesis."""

from torch import Tensor, nn

from .affine import AffineMaps
from .config import GeneratorConfig
from .layers import batch_invariant
from .mapping import Mapping, check_label, truncate
from .synthesis import Synthesis


class Generator(nn.Module):
    """Poly-INR: z and a class to w, w to affine maps, affine maps and points to colours.

    Start values are the release's: N(0, 1) for the equalised layers, PyTorch's own for the others.
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
        """Draw points [P, 3] of the pictures of z [N, z_dim] and label [N]: colours [N, P, 3]."""
        return self.synthesis(self.affine(self.w(z, label)), points)


def count_parameters(generator: Generator) -> dict[str, int]:
    """Count the parameters in total and by part."""
    parts = {"table": 0, "mapping": 0, "affine": 0, "synthesis": 0}
    for name, parameter in generator.named_parameters():
        part = "table" if name.startswith("mapping.table.") else name.partition(".")[0]
        parts[part] += parameter.numel()
    return {"total": sum(parts.values()), **parts}
