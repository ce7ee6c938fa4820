"""Distances of images: nought for the same, as LPIPS for known features, of any size."""

import numpy as np
import pytest
import torch
from torch import Tensor

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.inversion.loss import (
    MAX_FEATURE_SIDE,
    MIN_FEATURE_SIDE,
    InversionLoss,
    PerceptualDistance,
    TargetImage,
    load_loss,
)


def plain(x: Tensor) -> list[Tensor]:
    """Two depths: the colors, and their sums."""
    return [x, torch.cat([x.sum(dim=1, keepdim=True), torch.ones_like(x[:, :1])], dim=1)]


def test_features_that_have_nothing_in_common_are_two_apart():
    perceptual = PerceptualDistance(lambda x: [x])
    red, green = torch.zeros(2, 1, 3, 64, 64)
    red[:, 0], green[:, 1] = 0.3, 0.8
    features = [perceptual.features(x) for x in (red, green)]
    assert float(perceptual.distance(*features)) == pytest.approx(2.0)
    assert float(perceptual.distance(features[0], features[0])) == 0.0


def test_heads_weigh_channels_and_depths_are_summed():
    weights = (torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0]))
    perceptual = PerceptualDistance(plain, weights)
    rng = torch.Generator().manual_seed(0)
    one, two = (torch.rand(1, 3, 64, 66, generator=rng) for _ in range(2))
    expected = 0.0
    for a, b, weight in zip(plain(one), plain(two), weights, strict=True):
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        expected += float(((a - b) ** 2 * weight[:, None, None]).sum(dim=1).mean())
    found = perceptual.distance(perceptual.features(one), perceptual.features(two))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (16, 16), (600, 700)])
def test_features_see_sizes_that_they_can_work_with(shape: tuple[int, int]):
    seen: list[int] = []

    def features(x: Tensor) -> list[Tensor]:
        seen.append(min(x.shape[-2:]))
        return [x]

    target_loss = InversionLoss("own", PerceptualDistance(features)).for_target(torch.rand(1, 3, *shape))
    terms = target_loss(torch.rand(1, 3, *shape).requires_grad_())
    terms.loss.backward()
    assert bool(torch.isfinite(terms.loss.detach()))
    assert set(seen) <= {MIN_FEATURE_SIDE, MAX_FEATURE_SIDE}


def test_which_objective_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert load_loss("pixels").perceptual is None
    found = load_loss("auto")
    assert found.name == "lite0"
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    terms = found.for_target(image)(image)
    assert float(terms.loss) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(WeightsError, match="VGG16 is not on this machine"):
        load_loss("lpips")
    with pytest.raises(RequestError, match="--vgg16 is for LPIPS"):
        load_loss("pixels", vgg16=tmp_path / "vgg16.pth")


def test_beyond_the_ends_of_a_photo_s_colors_nothing_is_wrong():
    """White and black end at 1 and -1; elsewhere what is drawn too bright is counted, with a gradient."""
    target = torch.tensor([1.0, -1.0, 0.5]).expand(1, 3, 2, 3).contiguous()
    drawn = torch.tensor([1.7, -3.0, 1.5]).expand(1, 3, 2, 3).clone().requires_grad_()
    terms = InversionLoss("pixels").for_target(target)(drawn)
    assert float(terms.pixels.detach()) == pytest.approx(1 / 3)
    (grad,) = torch.autograd.grad(terms.loss, drawn)
    assert grad[..., :2].abs().max() == 0
    assert (grad[..., 2] > 0).all()


@pytest.mark.parametrize(("level", "beyond"), [(0, -3.0), (255, 2.0)])
def test_black_and_white_of_a_file_end_the_same(level: int, beyond: float):
    """What is left is half a step of 8 bits; one step within the ends, a color beyond them is wrong."""
    for value, clipped in ((level, True), (abs(level - 1), False)):
        pixels = np.full((2, 2, 3), value, dtype=np.uint8)
        target = TargetImage("flat", pixels, 2, 2).colors(torch.zeros(()))
        terms = InversionLoss("pixels").for_target(target)(torch.full_like(target, beyond))
        difference = 0.5 / 127.5 if clipped else beyond - ((value + 0.5) / 127.5 - 1)
        assert float(terms.pixels) == pytest.approx(difference**2, rel=1e-4)
