"""The guiding classifier: timm's own answers, gradients to the image alone, weights left as they are."""

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from polyinr_core.discriminator.backbones import store_weights
from polyinr_core.errors import ConfigError, WeightsError
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training.classifier_guidance import MODELS, Classifier

SIDE = 64


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return load_pretrained("lite2")


@pytest.fixture(scope="module")
def small_weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = timm.create_model(MODELS["deit-small"], pretrained=False).state_dict()
    return {key: value + 0.02 * torch.randn_like(value) for key, value in state.items()}


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(side)) * 2 - 1


def assert_same_logits(found: Tensor, expected: Tensor) -> None:
    """Some eighty layers of up to 1500 products a channel: 80 sqrt(1500) epsilon of float32 is 4e-4."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.detach().abs().max()))


def test_its_own_logits_are_timm_s(weights: dict[str, Tensor]) -> None:
    """Oracle: timm's network with its BatchNorms unfolded."""
    network = timm.create_model(MODELS["lite2"], pretrained=False).eval()
    network.load_state_dict(weights)
    x = images(SIDE)
    with torch.no_grad():
        assert_same_logits(Classifier("lite2", weights, side=SIDE).logits(x), network(x))


def test_the_transformer_averages_its_two_heads(small_weights: dict[str, Tensor]) -> None:
    """Oracle: timm's distilled network in eval mode on images normalized as ImageNet's."""
    network = timm.create_model(MODELS["deit-small"], pretrained=False).eval()
    network.load_state_dict(small_weights)
    x = images(224)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        logits = Classifier("deit-small", small_weights, side=SIDE).logits(x)
        assert_same_logits(logits, network(((x + 1) / 2 - mean) / std))
    assert logits.shape == (2, 1000)


@pytest.mark.parametrize("name", ["lite2", "deit-small"])
def test_weights_stored_for_autocast(name: str, weights: dict[str, Tensor], small_weights: dict[str, Tensor]) -> None:
    """Oracle: autocast itself, which rounds the same weights. Images are resized and normalized in float32 before."""
    classifier = Classifier(name, weights if name == "lite2" else small_weights, side=SIDE)
    x = images(100)
    seen = classifier.seen(x)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = classifier.logits(x)
        store_weights(classifier.network, torch.bfloat16)
        after = classifier.logits(x)
    assert torch.equal(classifier.seen(x), seen)
    assert seen.dtype == torch.float32
    assert (after - before).norm() < 0.05 * before.norm()


@pytest.mark.parametrize("side", [32, 100])
def test_images_are_resized(weights: dict[str, Tensor], side: int) -> None:
    x = images(side)
    classifier = Classifier("lite2", weights, side=SIDE)
    resized = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=side > SIDE)
    assert torch.equal(classifier.logits(x), classifier.logits(resized))


def test_the_gradient_reaches_the_image_and_nothing_else(weights: dict[str, Tensor]) -> None:
    classifier = Classifier("lite2", weights, side=SIDE, head=nn.Linear(1280, 3))
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    classifier.train()
    assert not any(module.training for module in classifier.modules())
    x = images(32).requires_grad_()
    loss = classifier(x, torch.tensor([0, 2]))
    loss.backward()
    assert loss.shape == ()
    assert x.grad is not None
    assert x.grad.abs().amax(dim=(1, 2, 3)).gt(0).all()
    assert all(parameter.grad is None for parameter in classifier.parameters())
    after = classifier.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_loss_is_the_mean_over_images(weights: dict[str, Tensor]) -> None:
    classifier = Classifier("lite2", weights, side=SIDE, head=nn.Linear(1280, 3))
    x, label = images(32), torch.tensor([0, 2])
    single = [classifier(x[i : i + 1], label[i : i + 1]) for i in range(2)]
    assert_same_logits(classifier(x, label), torch.stack(single).mean())


def test_it_computes_in_the_dtype_of_its_weights(weights: dict[str, Tensor]) -> None:
    double = {key: value.double() if value.is_floating_point() else value for key, value in weights.items()}
    assert Classifier("lite2", double, side=SIDE).logits(images(32)).dtype == torch.float64


def test_what_it_cannot_be_is_refused(small_weights: dict[str, Tensor]) -> None:
    headless = {key: value for key, value in small_weights.items() if not key.startswith("head")}
    with pytest.raises(WeightsError, match="deit-small weights have no head"):
        Classifier("deit-small", headless, side=SIDE)
    fitted = Classifier("deit-small", headless, side=SIDE, head=nn.Linear(384, 3))
    assert fitted.logits(images(32)).shape == (2, 3)
    with pytest.raises(ConfigError, match="vgg"):
        Classifier("vgg", {}, side=SIDE)
