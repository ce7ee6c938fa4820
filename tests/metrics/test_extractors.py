"""Feature extractors by name: preprocessing, identity, refusals."""

import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from inception_stand_in import write_inception_graph
from PIL import Image
from safetensors.torch import save_file
from stand_ins import StandIn, write_inception
from torch import Tensor

from polyinr_core.errors import FileError, RequestError, WeightsError
from polyinr_core.metrics import extractors as networks
from polyinr_core.metrics.extractors import FeatureExtractor, load_extractor

TINY_VIT, TINY_CONV = "test_vit", "test_efficientnet"  # timm's own, for tests


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (2, 3, 20, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def write_timm(folder: Path, model: str) -> tuple[Path, torch.nn.Module]:
    """Write random weights of timm's `model`; return the file and the network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(model, pretrained=False).eval()
    path = folder / f"{model}.safetensors"
    save_file(network.state_dict(), path)
    return path, network


def assert_same_features(found: Tensor, expected: Tensor) -> None:
    """Some dozens of layers of some hundred products a number, in float32 and in another order."""
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))


def check(network: FeatureExtractor, pixels: Tensor, *, file: Path, name: str) -> Tensor:
    """Check the properties of every extractor; return its features."""
    features = network(pixels)
    assert features.shape == (len(pixels), network.dim)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    assert network.name == name
    assert network.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert_same_features(network(pixels[1:]), features[1:])
    return features


@pytest.mark.parametrize("model", [TINY_VIT, TINY_CONV])
def test_timm_preprocessing(folder: Path, pixels: Tensor, model: str) -> None:
    """Oracle: timm's own transform of a Pillow image of the network's size, where nothing is resized."""
    file, plain = write_timm(folder, model)
    network = load_extractor(f"timm:{model}", file=file)
    check(network, pixels, file=file, name=f"timm:{model}")
    rule = timm.data.resolve_model_data_config(plain)
    resolution = rule["input_size"][-1]
    assert network.resolution == resolution
    square = torch.randint(0, 256, (1, 3, resolution, resolution), dtype=torch.uint8)
    transform = timm.data.create_transform(**{**rule, "crop_pct": 1.0}, is_training=False)
    plain.reset_classifier(0)
    with torch.no_grad():
        expected = plain(transform(Image.fromarray(square[0].permute(1, 2, 0).numpy()))[None])
    assert_same_features(network(square), expected)


def test_resolution_of_a_timm_network(folder: Path, pixels: Tensor) -> None:
    """A transformer's position embedding is resampled; the resolution must be a multiple of the patch size."""
    name = f"timm:{TINY_VIT}"
    file, _ = write_timm(folder, TINY_VIT)
    own, small = (load_extractor(name, file=file, resolution=resolution) for resolution in (None, 64))
    assert small.resolution == 64 < own.resolution
    assert small.network.pos_embed.shape[1] < own.network.pos_embed.shape[1]
    assert not torch.allclose(own(pixels), small(pixels), atol=1e-4)
    with pytest.raises(RequestError, match="patches of 16 pixels; 60 is not a multiple"):
        load_extractor(name, file=file, resolution=60)
    name = f"timm:{TINY_CONV}"
    file, _ = write_timm(folder, TINY_CONV)
    check(load_extractor(name, file=file, resolution=40), pixels, file=file, name=name)


@pytest.mark.slow
def test_dinov2_at_224_px(folder: Path, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small one of its kind in the place of the large: trained at 518 px, its table of places resampled."""
    monkeypatch.setattr(networks, "DINOV2", "vit_small_patch14_dinov2.lvd142m")
    file, plain = write_timm(folder, "vit_small_patch14_dinov2")
    network = load_extractor("dinov2", file=file)
    check(network, pixels[:2], file=file, name="dinov2")
    assert (network.resolution, network.interpolation, network.dim) == (224, "bicubic", 384)
    assert network.network.pos_embed.shape[1] == 16 * 16 + 1
    assert plain.pos_embed.shape[1] == 37 * 37 + 1
    assert torch.equal(network.network.blocks[3].mlp.fc1.weight, plain.blocks[3].mlp.fc1.weight)


def test_weights_from_the_hub_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = write_timm(folder, TINY_VIT)
    asked = []

    def cached(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert load_extractor(f"timm:{TINY_VIT}").dim > 0
    assert asked == [("timm/test_vit.r160_in1k", "model.safetensors")]


def test_missing_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *asked: None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError, match=r"dinov2 weights are not on this machine.*lvd142m.*network lite2"):
        load_extractor("dinov2")
    with pytest.raises(FileError, match="no such file"):
        load_extractor(f"torchscript:{tmp_path / 'none.pt'}")


@pytest.mark.parametrize("spoil", ["missing", "shape"])
def test_weights_that_do_not_fit(folder: Path, spoil: str) -> None:
    """timm itself would go on with random ones."""
    _, plain = write_timm(folder, TINY_VIT)
    state = plain.state_dict()
    key = "blocks.0.attn.qkv.weight"
    if spoil == "missing":
        del state[key]
    else:
        state[key] = state[key][:2].clone()
    save_file(state, folder / "spoilt.safetensors")
    with pytest.raises(WeightsError, match=key):
        load_extractor(f"timm:{TINY_VIT}", file=folder / "spoilt.safetensors")


def test_torchscript_file(folder: Path, pixels: Tensor) -> None:
    """One that has features to return, and one that gives nothing else."""
    file = write_inception(folder / "any.pt", width=30)
    features = check(load_extractor(f"torchscript:{file}"), pixels, file=file, name=f"torchscript:{file}")
    assert_same_features(features, StandIn(30)(pixels, return_features=True))
    plain = write_inception(folder / "plain.pt", width=None)
    assert load_extractor(f"torchscript:{plain}").dim == 3 * networks.PROBE_SIZE**2


def test_inception_by_name(folder: Path, pixels: Tensor) -> None:
    file = write_inception_graph(folder / "inception.pt")
    check(load_extractor("inception", file=file), pixels, file=file, name="inception")


def test_lite2_by_name(pixels: Tensor) -> None:
    network = load_extractor("lite2", resolution=32)
    assert (network.name, network.dim, network.resolution) == ("lite2", 1280, 32)
    assert network.sha256.startswith("9656183e")
    assert network(pixels).shape == (2, 1280)


@pytest.mark.parametrize(
    ("name", "resolution", "message"),
    [
        ("lite3", None, "feature extractor 'lite3' is unknown; choose from lite2, inception"),
        ("timm:", None, "feature extractor 'timm:' is unknown"),
        ("timm:nonsense", None, "timm has no network 'nonsense'"),
        ("inception", 128, "fixed input size"),
    ],
)
def test_unknown_names_are_refused(name: str, resolution: int | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        load_extractor(name, resolution=resolution)


def test_a_file_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(WeightsError, match="not a TorchScript network from uint8"):
        load_extractor(f"torchscript:{tmp_path / 'text.pt'}")
