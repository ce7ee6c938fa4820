"""Classifier guidance: the fitted head knows the data's classes, and a generator learns from it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import ConfigError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training import classifier_guidance as guidance
from polyinr_core.training.classifier_guidance import Classifier, discriminant, fit_head, make_classifier, uses_guidance
from polyinr_core.training.config import PRESETS, parse_stages
from polyinr_core.training.init import balance

CPU = torch.device("cpu")
GUIDED = replace(PRESETS["tiny"], stages=parse_stages("16:1,32:1"), guidance=2.0)


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, Tensor]]:
    return {"lite2": load_pretrained("lite2")}


@pytest.fixture(scope="module")
def animals() -> ZipDataset:
    return ZipDataset.open(bundled_dataset())


@pytest.fixture(scope="module")
def guide(animals: ZipDataset, weights: dict) -> Classifier:
    """A guide whose head is fitted on fewer animals than usual, 24 of each class."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guidance, "MAX_OF_A_CLASS", 24)
        guide = make_classifier(GUIDED, animals, weights, device=CPU)
    assert guide is not None
    return guide


def noise(classes: int, *, resolution: int = 8, images: int = 20) -> SimpleNamespace:
    """A data set of noise in memory."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, resolution, resolution, 3), dtype=np.uint8)
    labels = np.arange(images) % classes if classes else None
    return SimpleNamespace(
        path=Path("noise.zip"),
        labels=labels,
        classes=classes,
        resolution=resolution,
        read=lambda index: pixels[index],
    )


def test_the_fitted_head_knows_animals_that_it_was_not_fitted_on(animals: ZipDataset, guide: Classifier) -> None:
    """Of 96 others at 32 px: over 45 % are right, three times the share of the largest class (about 15 %),
    and the cross-entropy is below that of the classes' shares."""
    rng = np.random.default_rng(0)
    chosen: list[int] = []
    for label in range(animals.classes):
        members = np.flatnonzero(animals.labels == label)
        fitted = np.linspace(0, len(members) - 1, 24).round().astype(int)
        chosen += rng.permutation(np.delete(members, fitted))[:12].tolist()
    pixels = torch.stack([torch.from_numpy(animals.read(index)) for index in chosen])
    x = functional.interpolate(pixels.permute(0, 3, 1, 2) / 127.5 - 1, size=(32, 32), mode="area")
    label = torch.from_numpy(animals.labels[chosen])
    with torch.no_grad():
        logits = guide.logits(x)
    assert (logits.argmax(dim=1) == label).float().mean() > 0.45
    assert functional.cross_entropy(logits, label) < 1.7  # log 8 is 2.08


def test_the_head_is_the_same_every_time(weights: dict) -> None:
    one, two = (make_classifier(GUIDED, noise(3), weights, device=CPU) for _ in range(2))  # type: ignore[arg-type]
    assert one is not None
    assert two is not None
    assert torch.equal(one.head.weight, two.head.weight)
    assert torch.equal(one.head.bias, two.head.bias)


def test_a_image_follows_the_gradient(guide: Classifier) -> None:
    """Steps against the gradient make gray images look more like their classes; the guide stays as it is."""
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    x, label = torch.zeros(2, 3, 16, 16, requires_grad=True), torch.tensor([0, 3])
    losses = []
    for _ in range(6):
        loss = guide(x, label)
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.abs().amax(dim=(1, 2, 3)).gt(0).all()
        x = (x - 0.02 * gradient.sign()).detach().requires_grad_()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(before[name], value) for name, value in guide.state_dict().items())


def test_a_generator_learns_what_the_guide_wants(guide: Classifier) -> None:
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(levels=3, channels=16, z_dim=8, w_dim=12, classes=8))
    balance(generator, torch.Generator().manual_seed(0))
    points = RegularGrid(16, 16).coordinates()
    z, label = torch.randn(4, 8), torch.tensor([0, 2, 3, 5])
    optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        images = generator(z, points, label).mT.unflatten(2, (16, 16))
        loss = guide(images, label)
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in generator.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_thousand_classes_are_imagenet_s(weights: dict) -> None:
    """The network's own head, no image looked at."""
    data = noise(1000)
    data.read = None
    guide = make_classifier(GUIDED, data, weights, device=CPU)  # type: ignore[arg-type]
    own = Classifier("lite2", weights["lite2"], side=GUIDED.disc_res)
    x = torch.rand(2, 3, 16, 16)
    assert guide is not None
    assert torch.equal(guide.logits(x), own.logits(x))


def test_no_weight_no_guide() -> None:
    off = replace(GUIDED, guidance=0.0)
    assert make_classifier(off, noise(3), {}, device=CPU) is None  # type: ignore[arg-type]
    assert uses_guidance(replace(off, stages=parse_stages("16:1,32:1:guidance=8")))
    assert not uses_guidance(replace(GUIDED, stages=parse_stages("16:1:guidance=0")))


def test_what_cannot_be_guided_is_refused(weights: dict) -> None:
    with pytest.raises(ConfigError, match="the data has no classes"):
        make_classifier(GUIDED, noise(0), weights, device=CPU)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the run is unconditional"):
        make_classifier(replace(GUIDED, cond=False), noise(3), weights, device=CPU)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no weights for deit-small"):
        make_classifier(replace(GUIDED, classifier="deit-small"), noise(3), weights, device=CPU)  # type: ignore[arg-type]


def test_few_images_and_larger_stages_are_enough(weights: dict) -> None:
    """One image in some classes, and a stage above the data's resolution, which the run itself refuses."""
    guide = make_classifier(GUIDED, noise(7, images=9), weights, device=CPU)  # type: ignore[arg-type]
    assert guide is not None
    assert guide.logits(torch.zeros(1, 3, 16, 16)).isfinite().all()


def test_the_head_is_calibrated_and_knows_the_shares() -> None:
    """Three classes in 50 axes, of which two tell them apart; the third is 8 times as frequent as the first.

    On fresh images the cross-entropy is between that of the true posterior and that of the shares alone,
    nearer than any head that is much more or less sure of itself; an image halfway between the means is
    taken for one of the frequent class.
    """
    rng = torch.Generator().manual_seed(0)
    means = torch.zeros(3, 50)
    means[0, 0] = means[1, 1] = 2.0
    shares = torch.tensor([100, 400, 800])

    def sample(count: int, of: Tensor) -> tuple[Tensor, Tensor]:
        label = of.repeat(count)
        return means[label] + torch.randn(len(label), 50, generator=rng), label

    head = fit_head(*sample(40, torch.arange(3)), shares)
    x, label = sample(200, torch.tensor([0, *[1] * 4, *[2] * 8]))
    prior = (shares / shares.sum()).log()
    true = functional.cross_entropy(x @ means.T - means.square().sum(dim=1) / 2 + prior, label)
    scores = head(x) - prior
    losses = [functional.cross_entropy(factor * scores + prior, label) for factor in (1, 2, 0.25, 0)]
    assert true < losses[0] < min(losses[1:]) - 0.02
    middle = head(means.mean(dim=0))
    assert (middle.argmax(), middle.argmin()) == (2, 0)


def test_the_discriminant_is_that_of_the_formula() -> None:
    """Oracle: the difference of two Gaussians' log densities of one covariance, computed in the plain way."""
    rng = torch.Generator().manual_seed(0)
    x, label = torch.randn(30, 4, generator=rng, dtype=torch.float64) + 5, torch.arange(30) % 2
    weight, bias = discriminant(x, label, classes=2)
    means = [x[label == c].mean(dim=0) for c in range(2)]
    within = torch.cat([x[label == c] - means[c] for c in range(2)])
    covariance = within.T @ within / 30
    covariance = 0.5 * covariance + 0.5 * covariance.trace() / 4 * torch.eye(4, dtype=torch.float64)
    densities = [torch.distributions.MultivariateNormal(mean, covariance).log_prob(x) for mean in means]
    scores = x @ weight.T + bias
    torch.testing.assert_close(scores[:, 1] - scores[:, 0], densities[1] - densities[0])
