"""Start values of the class tables: what EfficientNet-lite0 sees in each class, on average."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..critic.backbones import Lite0Features
from ..data.averaging import normalised
from ..data.picture_set import PictureSet
from ..data.reader import Reader

PICTURES_PER_CLASS = 32
SIDE = 128


@torch.no_grad()
def class_means(data: PictureSet, features: Lite0Features) -> Tensor:
    """Return [classes, 320]: the deepest tap averaged over space and over up to 32 pictures of each class.

    A class without pictures gets the mean of the others. The release starts every data set from such a table
    of ImageNet's classes, whose rows correlate with the class means of these features (docs/method.md, "Where
    paper and release differ"). Computed where `features` is, returned on the CPU.
    """
    device = next(features.parameters()).device
    reader = Reader(data, data.resolution)
    rows: list[Tensor | None] = []
    for label in range(data.classes):
        members = np.flatnonzero(data.labels == label)[:PICTURES_PER_CLASS]
        if not len(members):
            rows.append(None)
            continue
        pictures = normalised(reader.read(members.tolist()))
        resized = functional.interpolate(pictures, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        rows.append(features(resized.to(device))[-1].mean(dim=(0, 2, 3)).cpu())
    present = torch.stack([row for row in rows if row is not None]).mean(dim=0)
    return torch.stack([present if row is None else row for row in rows])
