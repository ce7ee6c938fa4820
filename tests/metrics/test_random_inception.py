"""The Inception of seeded weights."""

import pytest
import torch

from polyinr_core.metrics.extractors import load_extractor
from polyinr_core.metrics.inception import RandomInception


@pytest.fixture(scope="module")
def network() -> RandomInception:
    return RandomInception()


def test_random_inception_preserves_the_variance(network: RandomInception) -> None:
    """Images differ in their features by as much as the features are large, though 94 layers lie between."""
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[1] //= 8
    features = network(pixels)
    assert features.shape == (2, network.dim)
    assert 0.01 < float(features.std()) < 100
    assert float((features[0] - features[1]).std() / features.std()) > 0.05


def test_seed_determines_the_weights(network: RandomInception) -> None:
    other = load_extractor("rfid-seed1")
    assert (network.name, other.name) == ("rfid-seed0", "rfid-seed1")
    assert network.sha256 == load_extractor("rfid-seed0").sha256 != other.sha256
    assert not network.network.training
