"""Warps: where in a window a pixel looks, for a picture seen through a lens, around a pole, or by a map."""

import math

import torch
from torch import Tensor

WIDEST = math.radians(85)  # of a lens: straight to the side there is no picture
LENS = math.radians(45)  # what a fisheye bends at the nearest border


def fisheye(frame: Tensor, aspect: Tensor) -> Tensor:
    """See the window [-1, 1]^2 through an equidistant fisheye lens: frame [P, 2] to frame [P, 2].

    The distance from the middle is an angle, 45 degrees at the nearer borders, and the window a flat wall.
    `aspect` [2] is the picture's sides over the shorter one, so that circles stay circles.
    """
    point = frame * aspect
    radius = point.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    reach = torch.tan((LENS * radius).clamp(max=WIDEST)) / math.tan(LENS)
    return point * (reach / radius) / aspect


def polar(frame: Tensor, aspect: Tensor) -> Tensor:
    """Bend the window around its middle: frame [P, 2] to frame [P, 2].

    The window's upper border becomes the middle, the lower one the largest circle, and the left and right ones
    meet straight below.
    """
    point = frame * aspect
    angle = torch.atan2(point[:, 0], -point[:, 1])  # 0 straight above, growing clockwise
    return torch.stack([angle / math.pi, 2 * point.norm(dim=-1) - 1], dim=-1)


def mapped(frame: Tensor, places: Tensor) -> Tensor:
    """Look up places [H, W, 2] at frame [P, 2] in [0, 1], bilinearly; beyond the border it goes on straight."""
    height, width, _ = places.shape
    where = frame * frame.new_tensor([width - 1, height - 1])
    last = torch.tensor([max(width - 2, 0), max(height - 2, 0)], device=frame.device)
    cell = where.floor().long().clamp(min=0).minimum(last)
    x, y = (where - cell).split(1, dim=-1)
    left, top = cell.unbind(dim=-1)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    upper = torch.lerp(places[top, left], places[top, right], x)
    lower = torch.lerp(places[bottom, left], places[bottom, right], x)
    return torch.lerp(upper, lower, y)
