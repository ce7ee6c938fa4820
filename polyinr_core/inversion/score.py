"""What a match is worth: the drawn picture against the photo, as a file would hold both."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..metrics.similarity import psnr, ssim
from ..model.synthesis import Synthesis
from ..pictures.pixels import to_uint8
from ..pictures.sheet import Pixels
from .canvas import Canvas
from .objective import Aim
from .photo import Photo


@dataclass(frozen=True)
class Score:
    """PSNR in dB (inf: the same picture), SSIM (None below 11 pixels a side), and a perceptual distance."""

    psnr: float
    ssim: float | None
    perceptual: float | None

    def facts(self) -> dict[str, Any]:
        """Return the figures as JSON holds them: a PSNR of infinity is null."""
        return {
            "psnr": self.psnr if math.isfinite(self.psnr) else None,
            "ssim": self.ssim,
            "perceptual": self.perceptual,
        }

    def __str__(self) -> str:
        words = [f"PSNR {self.psnr:.2f} dB"]
        words += [] if self.ssim is None else [f"SSIM {self.ssim:.4f}"]
        words += [] if self.perceptual is None else [f"perceptual {self.perceptual:.4f}"]
        return ", ".join(words)


@torch.no_grad()
def score(synthesis: Synthesis, affine: Tensor, photo: Photo, canvas: Canvas, aim: Aim) -> tuple[Score, Pixels]:
    """Draw affine maps [1, L, 3, n] and return their score and the picture's pixels [H, W, 3]."""
    drawn = canvas.draw(synthesis, affine)
    pixels = to_uint8(drawn[0].permute(1, 2, 0))
    distance = aim.terms(drawn.clamp(-1, 1)).perceptual
    found = Score(
        psnr(pixels, photo.pixels),
        ssim(pixels, photo.pixels),
        None if distance is None else float(distance),
    )
    return found, pixels
