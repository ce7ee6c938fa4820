"""From w to the affine maps: one 3 x n matrix a level, all that a picture is made of."""

import torch
from torch import Tensor, nn

from .config import GeneratorConfig
from .layers import AlignedLinear, EqualizedLinear


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
