"""LPIPS-VGG from random weights of the right shape: the same distance as the lpips package's own."""

import hashlib
from pathlib import Path

import lpips
import pytest
import torch
import torchvision

from polyinr_core.errors import WeightsError
from polyinr_core.inversion.loss import PerceptualDistance
from polyinr_core.metrics.image_similarity import Vgg16Features, cached_vgg16, load_heads, load_lpips

WIDTHS = [64, 128, 256, 512, 512]


@pytest.fixture(scope="module")
def vgg16() -> dict[str, torch.Tensor]:
    """Random weights under torchvision's names, the classifier left out."""
    with torch.device("meta"):
        layers = torchvision.models.vgg16(weights=None).features
    rng = torch.Generator().manual_seed(0)
    state = {}
    for key, value in layers.state_dict().items():
        size = value.shape[1:].numel() if value.dim() == 4 else 100
        state[f"features.{key}"] = torch.randn(value.shape, generator=rng) * (2 / size) ** 0.5
    return state


def test_distance_equals_that_of_the_lpips_package(vgg16: dict[str, torch.Tensor], tmp_path: Path):
    file = tmp_path / "vgg16.pth"
    torch.save(vgg16, file)
    network, heads = load_lpips(file)
    theirs = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    layers = torchvision.models.vgg16(weights=None).features
    layers.load_state_dict({key.removeprefix("features."): value for key, value in vgg16.items()})
    for part in range(1, 6):  # they cut the same layers into five slices and keep the numbers as names
        for name, layer in getattr(theirs.net, f"slice{part}").named_children():
            layer.load_state_dict(layers[int(name)].state_dict())
    rng = torch.Generator().manual_seed(1)
    one, two = torch.rand(2, 1, 3, 64, 70, generator=rng) * 2 - 1
    ours = PerceptualDistance(network, heads)
    with torch.no_grad():
        expected = float(theirs(one, two))
        assert float(ours.distance(ours.features(one), ours.features(two))) == pytest.approx(expected, rel=1e-4)


def test_heads_of_the_lpips_package():
    assert [len(head) for head in load_heads()] == WIDTHS
    assert all(bool((head >= 0).all()) for head in load_heads())


def test_vgg16_from_the_hub_cache_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert cached_vgg16() is None
    with pytest.raises(WeightsError, match="--vgg16"):
        load_lpips()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"something else")
    assert cached_vgg16() is not None
    with pytest.raises(WeightsError, match=f"SHA-256 {hashlib.sha256(b'something else').hexdigest()[:8]}"):
        load_lpips()


def test_weights_of_another_network_are_refused(vgg16: dict[str, torch.Tensor]):
    with pytest.raises(WeightsError, match=r"features\.0\.weight is missing"):
        Vgg16Features({})
    with pytest.raises(WeightsError, match="VGG16 needs"):
        Vgg16Features(vgg16 | {"features.2.weight": torch.zeros(3)})
