"""Fine-tuning: what a checkpoint draws stays as far as the new data allows, and everything learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rounding import assert_rounded, terms_of, terms_to_affine
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint
from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.errors import ConfigError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.generator import Generator
from polyinr_core.models.layers import rms_normalize
from polyinr_core.training.config import PRESETS
from polyinr_core.training.init import adopt, describe_start, generator_from, kept_rows

NAMES = ("ant", "bee", "cat")
CONFIG = GeneratorConfig(levels=3, channels=16, z_dim=8, w_dim=12, classes=3, table_rows=7, table_dim=6)
POINTS = torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
Z = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))


def make_checkpoint(config: GeneratorConfig, *, class_names: tuple[str, ...] = ()) -> Checkpoint:
    torch.manual_seed(3)
    generator = Generator(config).eval().requires_grad_(False)
    for parameter in generator.parameters():
        parameter += 0.3 * torch.randn_like(parameter)  # biases too: as a trained model
    generator.mapping.w_avg.normal_()
    return Checkpoint(generator=generator, class_names=class_names, resolution=16, sha256="ab" * 32)


@pytest.fixture
def conditional() -> Checkpoint:
    return make_checkpoint(CONFIG, class_names=NAMES)


@pytest.fixture
def unconditional() -> Checkpoint:
    return make_checkpoint(replace(CONFIG, classes=0, table_rows=0))


def draw(generator: Generator, label: int | None = None) -> Tensor:
    labels = None if label is None else torch.full((len(Z),), label)
    return generator(Z, POINTS, labels)


def assert_same_images(found: Tensor, expected: Tensor, config: GeneratorConfig = CONFIG) -> None:
    """Whose weights are the same, but stand elsewhere in memory, which may change the order of sums."""
    assert_rounded(found, expected, terms=terms_to_affine(config) + terms_of(config))


def test_with_the_same_classes_the_images_are_the_checkpoint_s(conditional: Checkpoint) -> None:
    start = generator_from(conditional, classes=3, class_names=NAMES, table=torch.randn(3, 6))
    assert start.config == replace(CONFIG, table_rows=3)
    for label in range(3):
        assert_same_images(draw(start, label), draw(conditional.generator, label))
    assert torch.equal(start.mapping.w_avg, conditional.generator.mapping.w_avg)


def test_without_classes_the_images_are_the_checkpoint_s(unconditional: Checkpoint) -> None:
    start = generator_from(unconditional, classes=0)
    assert_same_images(draw(start), draw(unconditional.generator))
    assert torch.equal(start.mapping.w_avg, unconditional.generator.mapping.w_avg)


def test_classes_are_known_by_their_names(conditional: Checkpoint) -> None:
    """Bee and ant stay what they were, wherever they stand now; the dog is new."""
    table = torch.randn(3, 6)
    names = ("dog", "bee", "ant")
    start = generator_from(conditional, classes=3, class_names=names, table=table)
    old, new = conditional.generator, start
    assert_same_images(draw(new, 1), draw(old, 1))
    assert_same_images(draw(new, 2), draw(old, 0))
    assert torch.equal(new.mapping.table.weight[0], table[0])
    assert torch.equal(new.mapping.w_avg[0], old.mapping.w_avg.mean(dim=0))
    assert torch.equal(new.mapping.w_avg[2], old.mapping.w_avg[0])
    assert draw(new, 0).isfinite().all()


def test_nameless_classes_are_known_by_their_number(conditional: Checkpoint) -> None:
    nameless = replace(conditional, class_names=())
    assert kept_rows(conditional, 3, ()) == kept_rows(nameless, 3, NAMES) == [0, 1, 2]
    assert kept_rows(nameless, 4, ()) == [None] * 4


def test_more_classes(conditional: Checkpoint) -> None:
    table = torch.randn(5, 6)
    start = generator_from(conditional, classes=5, class_names=tuple("vwxyz"), table=table)
    assert torch.equal(start.mapping.table.weight, table)
    assert start.mapping.w_avg.shape == (5, 12)
    assert all(draw(start, label).isfinite().all() for label in range(5))
    assert not torch.allclose(draw(start, 0), draw(start, 1))


def test_unconditional_to_conditional_starts_from_the_same_images(unconditional: Checkpoint) -> None:
    """Up to the rounding of sqrt(2): the layer divides by the root of twice as many inputs."""
    start = generator_from(unconditional, classes=2, table=torch.randn(2, 6))
    for label in range(2):
        assert_same_images(draw(start, label), draw(unconditional.generator))
    assert torch.equal(start.mapping.w_avg, unconditional.generator.mapping.w_avg.expand(2, -1))


def test_conditional_to_unconditional_keeps_z_and_the_classes_mean(conditional: Checkpoint) -> None:
    """Oracle: the old first layer before its activation, its class inputs averaged over the classes."""
    start = generator_from(conditional, classes=0)
    old, new = conditional.generator.mapping, start.mapping
    h = rms_normalize(Z)
    seen = rms_normalize(old.label_proj(old.table(torch.arange(3)))).mean(dim=0).expand(len(Z), -1)
    expected = old.layers[0](torch.cat([h, seen], dim=1))
    assert_rounded(new.layers[0](h), expected, terms=terms_to_affine(CONFIG))
    assert_rounded(new.w_avg, old.w_avg.mean(dim=0), terms=3)
    assert draw(start).isfinite().all()


def test_one_class_becomes_none_without_a_change() -> None:
    """With a single class its mean is the class itself: the same images."""
    single = make_checkpoint(replace(CONFIG, classes=1))
    start = generator_from(single, classes=0)
    assert_same_images(draw(start), draw(single.generator, 0))


@pytest.mark.parametrize(("before", "after"), [(3, 3), (3, 5), (3, 0), (0, 0), (0, 2)])
def test_everything_learns(before: int, after: int) -> None:
    """Every parameter gets a gradient; the layers before a class's new weights do after the first step."""
    checkpoint = make_checkpoint(replace(CONFIG, classes=before, table_rows=before))
    start = generator_from(checkpoint, classes=after, table=torch.randn(after, 6) if after else None)
    optimizer = torch.optim.SGD(start.parameters(), lr=1e-3)
    label = torch.arange(5) % after if after else None
    for _ in range(2):
        optimizer.zero_grad()
        start(Z, POINTS, label).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in start.parameters())
    assert not any(p.requires_grad for p in checkpoint.generator.parameters())


def test_the_start_is_the_same_every_time(unconditional: Checkpoint) -> None:
    table = torch.randn(2, 6)
    one, two = (generator_from(unconditional, classes=2, table=table).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("name", ["official_like", "official_like_full"])
def test_a_released_conditional_file(reference: Path, name: str) -> None:
    """Ten classes in a table of 1000 or 12 rows; its learned grid is left out, and said to be."""
    checkpoint = load_official_checkpoint(reference / f"{name}.pkl")
    config = adopt(PRESETS["small"], checkpoint, set())
    start = generator_from(checkpoint, classes=10, class_names=tuple("abcdefghij"), table=torch.randn(10, 320))
    assert start.config == config.generator(10)
    z, label = torch.randn(4, 64), torch.tensor([0, 3, 9, 3])
    assert_same_images(start(z, POINTS, label), checkpoint.generator(z, POINTS, label), start.config)
    assert "grid" in " ".join(describe_start(checkpoint, 10, ()))
    other = generator_from(checkpoint, classes=2, table=torch.randn(2, 320))
    assert other(z, POINTS, label % 2).isfinite().all()


def test_a_released_unconditional_file(reference: Path) -> None:
    checkpoint = load_official_checkpoint(reference / "official_like_uncond.pkl")
    z = torch.randn(4, 64)
    start = generator_from(checkpoint, classes=0)
    assert start.config == adopt(PRESETS["small"], checkpoint, set()).generator(0)
    assert_same_images(start(z, POINTS), checkpoint.generator(z, POINTS), start.config)
    conditional = generator_from(checkpoint, classes=2, table=torch.randn(2, 320))
    assert_same_images(conditional(z, POINTS, torch.tensor([0, 1, 1, 0])), start(z, POINTS), start.config)


def test_the_configuration_follows_the_checkpoint(conditional: Checkpoint) -> None:
    unfit = replace(CONFIG, table_dim=320)
    checkpoint = make_checkpoint(unfit)
    config = adopt(PRESETS["small"], checkpoint, {"batch"})
    assert (config.levels, config.channels, config.z_dim, config.w_dim) == (3, 16, 8, 12)
    assert config.batch == PRESETS["small"].batch
    assert config.init_from == "ab" * 32
    assert adopt(replace(PRESETS["small"], channels=16), checkpoint, {"channels"}).channels == 16
    with pytest.raises(ConfigError, match=r"channels 128 contradicts .* 16"):
        adopt(PRESETS["small"], checkpoint, {"channels"})
    with pytest.raises(ConfigError, match="table_dim 6"):
        adopt(PRESETS["small"], conditional, set())
    with pytest.raises(ConfigError, match="mapping_layers 3"):
        adopt(PRESETS["small"], make_checkpoint(replace(unfit, mapping_layers=3)), set())


def test_what_does_not_fit_is_refused(conditional: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="4 rows does not fit 5"):
        generator_from(conditional, classes=5, table=torch.randn(4, 6))
    with pytest.raises(ConfigError, match="width 9"):
        generator_from(conditional, classes=5, table=torch.randn(5, 9))
    with pytest.raises(ConfigError, match="class means"):
        generator_from(conditional, classes=5)


def test_what_is_new_is_said(conditional: Checkpoint, unconditional: Checkpoint) -> None:
    assert describe_start(conditional, 3, NAMES) == []
    assert "2 of 3" in describe_start(conditional, 3, ("dog", "bee", "emu"))[0]
    assert "no classes" in describe_start(unconditional, 3, NAMES)[0]
    assert "mean" in describe_start(conditional, 0, ())[0]
