"""What learns, what rests, what flows: the behavior of the whole discriminator."""

import pytest
import torch
from released_disc import probed_lite0
from rounding import assert_rounded
from torch import Tensor, nn

from polyinr_core.discriminator.backbones import DeitFeatures, Lite0Features
from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.discriminator.diffaugment import draw_augmentation
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.discriminator.heads import Head, SpectralConv2d
from polyinr_core.discriminator.losses import hinge_disc_fake
from polyinr_core.errors import ConfigError, LabelError
from polyinr_core.runtime.pretrained import load_pretrained

SMALL = {"resolution": 128, "channels": 4, "head_divisor": 32}


@pytest.fixture(scope="module")
def lite0() -> dict[str, Tensor]:
    return load_pretrained("lite0")


def disc_of(lite0: dict[str, Tensor], *, seed: int = 0, **values: object) -> ProjectedDiscriminator:
    return ProjectedDiscriminator(DiscriminatorConfig(**{**SMALL, **values}), {"lite0": lite0}, seed=seed)


def test_only_heads_learn_and_the_rest_stays_in_eval_mode(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0).train()
    learning = {id(p) for p in discriminator.parameters() if p.requires_grad}
    assert learning == {id(p) for p in discriminator.head_parameters()}
    assert all(module.training for module in discriminator.heads.modules())
    frozen = (discriminator.features["lite0"], discriminator.projections["lite0"])
    assert not any(module.training for network in frozen for module in network.modules())


def test_features_record_nothing_unless_the_image_needs_a_gradient(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0)
    x = torch.randn(2, 3, 128, 128)
    assert not any(tap.requires_grad for tap in discriminator.features["lite0"](x))
    hinge_disc_fake(discriminator(x)).backward()
    assert all(p.grad is not None for p in discriminator.head_parameters())
    discriminator.heads.requires_grad_(False)
    x.requires_grad_()
    hinge_disc_fake(discriminator(x)).backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


@pytest.mark.parametrize(("size", "logits"), [(128, 4), (224, 64), (256, 100)])
def test_logits_grow_with_the_image(lite0: dict[str, Tensor], size: int, logits: int) -> None:
    """Four heads of 1 x 1, 4 x 4, 5 x 5: the counts measured on the release."""
    discriminator = disc_of(lite0, resolution=None)
    with torch.no_grad():
        assert [rows.shape for rows in discriminator(torch.randn(2, 3, size, size))] == [(2, logits)]


def test_fewer_taps_mean_fewer_heads(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0, taps=2)
    assert len(discriminator.heads["lite0"]) == 2
    assert discriminator(torch.randn(2, 3, 32, 32))[0].shape == (2, 2)


def test_the_seed_decides_and_the_global_generator_rests(lite0: dict[str, Tensor]) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (disc_of(lite0, seed=seed).compact_state() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["heads.lite0.0.out.weight"], other["heads.lite0.0.out.weight"])


def test_own_state_carries_all_but_the_backbone(lite0: dict[str, Tensor]) -> None:
    one, two = disc_of(lite0, seed=1).eval(), disc_of(lite0, seed=2).eval()
    state = one.compact_state()
    assert sum(value.numel() for value in state.values()) < 200_000
    two.load_compact_state(state)
    x = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(one(x)[0], two(x)[0])
    with pytest.raises(ConfigError, match="another configuration"):
        disc_of(lite0, taps=2).load_compact_state(state)


def test_augmentation_and_blur_take_effect_and_follow_their_arguments(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = discriminator(x)[0]
        blurred = discriminator(x, sigma=1.0)[0]
        seeds = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
        one, same, other = (discriminator(x, draws=[draw_augmentation(2, 32, rng)])[0] for rng in seeds)
    assert not torch.allclose(plain, blurred)
    assert not torch.allclose(plain, one)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other)


def test_the_label_matters_to_a_conditional_disc(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0, classes=3).eval()
    x = torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1)
    with torch.no_grad():
        logits = discriminator(x, torch.tensor([0, 2]))[0]
    assert not torch.allclose(logits[0], logits[1])
    with pytest.raises(LabelError, match="label"):
        discriminator(x)


def test_class_tables_start_where_given(lite0: dict[str, Tensor]) -> None:
    discriminator = disc_of(lite0, classes=3, table_rows=5)
    table = torch.randn(3, 320)
    discriminator.init_class_tables(table)
    for head in discriminator.heads["lite0"]:
        assert torch.equal(head.table.weight[:3], table)
    with pytest.raises(ConfigError, match="does not fit"):
        discriminator.init_class_tables(torch.zeros(6, 320))
    with pytest.raises(ConfigError, match="does not fit"):
        disc_of(lite0).init_class_tables(table)


def test_weights_of_every_backbone_are_needed(lite0: dict[str, Tensor]) -> None:
    with pytest.raises(ConfigError, match="no weights for deit-tiny"):
        ProjectedDiscriminator(DiscriminatorConfig(backbones=("lite0", "deit-tiny")), {"lite0": lite0})


@pytest.mark.parametrize(
    ("side", "widths"),
    [(128, [64, 64, 128, 256, 512]), (64, [64, 128, 256, 512]), (32, [128, 256, 512]), (16, [256, 512])],
)
def test_heads_have_the_release_s_widths(side: int, widths: list[int]) -> None:
    head = Head(widths[0], side)
    assert [block.conv.out_channels for block in head.blocks] == widths[1:]


def test_spectral_norm_settles_on_the_largest_singular_value() -> None:
    """Oracle: a singular value decomposition; 1e-3 is what a hundred power iterations reach here."""
    torch.manual_seed(0)
    conv = SpectralConv2d(3, 5)
    for _ in range(100):
        conv(torch.zeros(1, 3, 4, 4))
    rows = conv.weight.detach().flatten(1)
    assert float(conv.u @ rows @ conv.v) == pytest.approx(float(torch.linalg.svdvals(rows)[0]), rel=1e-3)
    u = conv.u.clone()
    conv.eval()(torch.zeros(1, 3, 4, 4))
    assert torch.equal(conv.u, u)


def test_frozen_statistics_are_those_given() -> None:
    """The probed statistics change what the backbone sees, so they are read, not recomputed."""
    x = torch.randn(1, 3, 64, 64)
    given, plain = Lite0Features(probed_lite0()), Lite0Features(load_pretrained("lite0"))
    assert not torch.allclose(given(x)[3], plain(x)[3], rtol=0.05)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())


def test_deit_resizes_its_positions_only_where_needed() -> None:
    """Oracle: bilinear resizing keeps a linear ramp, away from the border."""
    import timm

    network = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False)
    features = DeitFeatures("deit-tiny", network.state_dict())
    embedding = features.network.pos_embed
    assert features.positions(14, 14) is embedding
    embedding[:, 2:] = torch.arange(14.0).repeat(14)[None, :, None]
    resized = features.positions(8, 8)
    assert torch.equal(resized[:, :2], embedding[:, :2])
    ramp = (torch.arange(8) + 0.5) * 14 / 8 - 0.5
    assert_rounded(resized[0, 2:, 0].reshape(8, 8)[3, 1:-1], ramp[1:-1], terms=8)
    assert [tap.shape[1:] for tap in features(torch.randn(1, 3, 128, 128))] == [
        (24, 32, 32),
        (48, 16, 16),
        (96, 8, 8),
        (192, 4, 4),
    ]
