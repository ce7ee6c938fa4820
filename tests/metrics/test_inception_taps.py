"""Inception's taps, on a stand-in of its graph with random weights."""

import warnings
from pathlib import Path

import pytest
import torch
from inception_stand_in import InceptionStandIn, write_inception_graph
from torch import Tensor

from polyinr_core.errors import WeightsError
from polyinr_core.metrics import inception
from polyinr_core.metrics.extractors import load_extractor
from polyinr_core.metrics.inception import (
    InceptionTaps,
    Taps,
    cached_inception,
    clean_resize,
    corner_resize,
    load_inception,
)
from polyinr_core.runtime.atomic_io import sha256_of


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception_graph(tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt")


@pytest.fixture(scope="module")
def plain() -> InceptionStandIn:
    """The same network as plain PyTorch, which knows hooks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InceptionStandIn().eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 3, 24, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def taps(file: Path, pixels: Tensor) -> Taps:
    return InceptionTaps(load_inception(file))(pixels)


def test_spatial_tap_equals_a_forward_hook(plain: InceptionStandIn, taps: Taps, pixels: Tensor) -> None:
    """1e-4 of the largest: the two resize in float32 by other formulas."""
    seen = []
    plain.layers.mixed_6.conv.register_forward_hook(lambda module, given, made: seen.append(made))
    with torch.no_grad():
        plain(pixels, return_features=True)
    assert seen[0].shape[2:] == (17, 17)
    assert taps.spatial.shape == (2, 2023)
    expected = seen[0][:, :7].reshape(2, -1)
    torch.testing.assert_close(taps.spatial, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_pooled_and_probabilities_equal_the_network(plain: InceptionStandIn, taps: Taps, pixels: Tensor) -> None:
    with torch.no_grad():
        pooled, free = plain(pixels, return_features=True), plain(pixels, no_output_bias=True)
        biased = plain(pixels)
    torch.testing.assert_close(taps.pooled, pooled, rtol=0, atol=1e-4 * float(pooled.abs().max()))
    torch.testing.assert_close(taps.probabilities, free, rtol=0, atol=1e-4 * float(free.max()))
    assert not torch.allclose(taps.probabilities, biased, atol=1e-4)


def test_clean_fid_inception(file: Path, plain: InceptionStandIn, pixels: Tensor) -> None:
    """Resized outside, the layers called on (x - 128) / 128, as clean-fid's wrapper does."""
    network = load_extractor("inception-clean", file=file)
    with torch.no_grad():
        expected = plain.layers((clean_resize(pixels) - 128) / 128).flatten(1)
    assert (network.name, network.sha256) == ("inception-clean", sha256_of(file))
    torch.testing.assert_close(network(pixels), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(expected, load_inception(file)(pixels), rtol=1e-2)


def test_corner_resize(plain: InceptionStandIn, pixels: Tensor) -> None:
    """299 px are left as they are; of fewer, pixel 0 is pixel 0. 0.01 of 255: positions in float32."""
    same = torch.randint(0, 256, (1, 3, 299, 299), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(corner_resize(same), same.float(), rtol=0, atol=0.01)
    small = corner_resize(pixels)
    torch.testing.assert_close(small[..., 0, 0], pixels[..., 0, 0].float(), rtol=0, atol=0.01)


def test_a_network_with_another_resize_is_refused(tmp_path: Path) -> None:
    other = load_inception(write_inception_graph(tmp_path / "other.pt", corner=False))
    with pytest.raises(WeightsError, match="do not give its output; give inception-2015-12-05"):
        InceptionTaps(other)


def test_a_network_without_the_block_is_refused(tmp_path: Path) -> None:
    """mixed_6 is left out: mixed_7 has the same shape, and the rest runs."""
    other = load_inception(write_inception_graph(tmp_path / "other.pt", without="mixed_6"))
    with pytest.raises(WeightsError, match="its layers or its output do not have Inception's names"):
        InceptionTaps(other)


def test_only_the_published_file_is_used_from_a_cache(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(inception.tempfile, "gettempdir", lambda: str(file.parent))
    assert cached_inception() is None
    monkeypatch.setattr(inception, "SHA256", sha256_of(file))
    assert cached_inception() == file
    assert load_inception(None).published


def test_loading_warns_of_nothing(file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InceptionTaps(load_inception(file))
