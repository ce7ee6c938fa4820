"""The resizing rules of the protocols; they change the distances."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

INCEPTION_RESOLUTION = 299


def clean_resize(pixels: Tensor) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, 299, 299] in 0 .. 255, on the same device, as clean-fid does.

    By clean-fid's own function: Pillow's bicubic filter on float channels, clipped, not rounded. Parmar et al.,
    "On Aliased Resizing and Surprising Subtleties in GAN Evaluation" (2022).
    """
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    images = pixels.permute(0, 2, 3, 1).cpu().numpy()
    resized = np.empty((len(images), INCEPTION_RESOLUTION, INCEPTION_RESOLUTION, 3), dtype=np.float32)
    for index, image in enumerate(images):
        resized[index] = resize(image)
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(pixels.device)


def corner_resize(pixels: Tensor) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, 299, 299] in 0 .. 255, as the 2015 Inception does inside.

    Bilinear without a filter, and with the grids' top left corners on one another: pixel i is taken from
    i * H / 299, as TensorFlow 1 did. Pixel centers are at i + 1/2 in the grid here, hence the shift.
    """
    count, channels, height, width = pixels.shape
    x = pixels.float()
    shift = torch.tensor([[1, 0, 1 / width], [0, 1, 1 / height]], dtype=torch.float32, device=x.device)
    shift[:, 2] -= 1 / INCEPTION_RESOLUTION
    size = [count, channels, INCEPTION_RESOLUTION, INCEPTION_RESOLUTION]
    grid = functional.affine_grid(shift.expand(count, 2, 3), size, align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def smooth_resize(pixels: Tensor, resolution: int, *, interpolation: str) -> Tensor:
    """Resize uint8 [N, 3, H, W] to float32 [N, 3, resolution, resolution] in 0 .. 255; "bilinear" or "bicubic".

    The filter widens where images shrink, as Pillow's does, on the device that the images are on: what
    clean-fid's rule gives, but for rounding. Images of that size are left alone.
    """
    x = pixels.float()
    if x.shape[-2:] == (resolution, resolution):
        return x
    x = functional.interpolate(
        x, size=(resolution, resolution), mode=interpolation, align_corners=False, antialias=True
    )
    return x.clamp(0, 255)
