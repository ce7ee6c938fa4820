"""EfficientNet-lite2 from its package, Inception from a user's file."""

import hashlib
import warnings
from pathlib import Path

import pytest
import timm
import torch
from stand_ins import write_inception

from polyinr_core.errors import FileError, WeightsError
from polyinr_core.metrics import inception
from polyinr_core.metrics.extractors import Lite2Features
from polyinr_core.metrics.inception import load_inception
from polyinr_core.runtime.pretrained import load_pretrained


def test_lite2_equals_timm() -> None:
    """1e-3 of the largest: the folded BatchNorms round elsewhere in float32, through 80 layers."""
    weights = load_pretrained("lite2")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    plain = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    plain.load_state_dict(weights)
    plain.reset_classifier(0)
    with torch.no_grad():
        expected = plain.eval()(pixels / 127.5 - 1)
    features = Lite2Features(weights, resolution=64)(pixels)
    assert features.shape == (2, Lite2Features.dim)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-3 * float(expected.max()))


def test_resolution_changes_lite2_features() -> None:
    weights = load_pretrained("lite2")
    pixels = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8)
    small, large = (Lite2Features(weights, resolution=resolution)(pixels) for resolution in (32, 128))
    assert small.shape == large.shape
    assert not torch.allclose(small, large, atol=1e-3)


def test_inception_from_a_file(tmp_path: Path) -> None:
    file = write_inception(tmp_path / "inception.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = load_inception(file)
    assert features.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert features(torch.zeros(3, 3, 8, 8, dtype=torch.uint8)).shape == (3, features.dim)


def test_inception_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "cached_inception", lambda: None)
    with pytest.raises(WeightsError, match=r"inception-2015-12-05\.pt.*--weights inception=.*fd-lite2"):
        load_inception(None)


@pytest.mark.parametrize("width", [10, None])
def test_a_network_of_another_form_is_refused(tmp_path: Path, width: int | None) -> None:
    """One that gives other features, and one that cannot be called so."""
    with pytest.raises(WeightsError, match="give inception-2015-12-05"):
        load_inception(write_inception(tmp_path / "other.pt", width=width))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a network"])
def test_a_file_that_is_not_torchscript_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="not a TorchScript network"):
        load_inception(tmp_path / "broken.pt")


def test_a_missing_inception_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_inception(tmp_path / "inception.pt")
