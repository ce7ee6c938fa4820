"""Metrics of a model: path length, inversion, speed, parameters, each against a slower form; upsampling."""

import numpy as np
import pytest
import torch
from conftest import small_checkpoint
from given_images import Given
from PIL import Image
from rounding import assert_rounded, terms_of
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.evaluation import model_metrics as model_figures
from polyinr_core.evaluation.evaluate import add_model_metrics
from polyinr_core.evaluation.image_sources import GeneratedImages, render_images, sample_w
from polyinr_core.evaluation.model_metrics import (
    FILTERS,
    TIMED_IMAGES,
    PerceptualNetworks,
    UpsampledExtractor,
    check_resolutions,
    describe_rule,
    get_model_metric,
    inversion_estimates,
    invert_images,
    load_perceptual,
    native_name,
    parameter_counts,
    ppl_estimate,
    sample_path_lengths,
    speed_estimate,
    upsample,
)
from polyinr_core.evaluation.tables import published
from polyinr_core.images.grid import to_uint8
from polyinr_core.inversion import loss as inversion_loss
from polyinr_core.inversion.loss import InversionLoss
from polyinr_core.latents.latents import LabelDistribution
from polyinr_core.metrics.image_similarity import PerceptualMetric, load_perceptual_metric, psnr, ssim
from polyinr_core.metrics.ppl import path_length
from polyinr_core.metrics.registry import base_of, family_of
from polyinr_core.rendering.render import render_rows


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load_checkpoint(small_checkpoint(tmp_path_factory.mktemp("m") / "m.safetensors", classes=4))


def plain() -> PerceptualMetric:
    """The images themselves as features, with a channel that is never zero."""
    return PerceptualMetric("plain", lambda x: [torch.cat([x, torch.ones_like(x[:, :1])], dim=1)])


# Path length


def test_images_equal_those_rendered_in_rows(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for float32 products of other shapes."""
    w = sample_w(checkpoint, range(3), psi=0.7, label_seeds=range(3))
    whole, terms = render_images(checkpoint, w, resolution=20), terms_of(checkpoint.generator.config)
    for maps, image in zip(checkpoint.generator.affine_each(w), whole, strict=True):
        bands = torch.cat(list(render_rows(checkpoint.generator.synthesis, maps, checkpoint.grid(20, 20))))
        assert_rounded(image.permute(1, 2, 0), bands, terms=terms)
    monkeypatch.setattr("polyinr_core.rendering.render.CPU_BATCH_PIXELS", 100)
    assert_rounded(render_images(checkpoint, w, resolution=20), whole, terms=terms)


def test_path_lengths_equal_single_pairs(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the step's two images in float64, one path at a time. 1e-2: float32 and a step of 1e-4."""
    found = sample_path_lengths(GeneratedImages(checkpoint, name="m", count=5, resolution=16, psi=0.8), plain())
    wide = load_checkpoint_in_float64(checkpoint)
    for i in range(5):
        pair = [
            sample_w(wide, range(2 * i + j, 2 * i + j + 1), psi=0.8, label_seeds=range(2 * i, 2 * i + 1))
            for j in range(2)
        ]
        step = torch.lerp(*pair, 1e-4)
        length = plain()(render_images(wide, pair[0], resolution=16), render_images(wide, step, resolution=16)) / 1e-8
        assert float(found[i]) == pytest.approx(float(length), rel=1e-2)
    monkeypatch.setattr("polyinr_core.rendering.render.CPU_BATCH_PIXELS", 16 * 16 * 4)
    again = sample_path_lengths(GeneratedImages(checkpoint, name="m", count=5, resolution=16, psi=0.8), plain())
    assert again.numpy() == pytest.approx(found.numpy(), rel=1e-2)


def load_checkpoint_in_float64(checkpoint: Checkpoint) -> Checkpoint:
    import copy
    from dataclasses import replace

    return replace(checkpoint, generator=copy.deepcopy(checkpoint.generator).double())


def test_ppl_of_one_class_with_an_interval(checkpoint: Checkpoint) -> None:
    lengths = sample_path_lengths(GeneratedImages(checkpoint, name="m", count=20, resolution=8), plain())
    other = sample_path_lengths(
        GeneratedImages(checkpoint, name="m", count=20, resolution=8, labels=LabelDistribution(label=1)), plain()
    )
    assert not torch.equal(lengths, other)
    row = ppl_estimate(lengths, resamples=10)
    assert row["value"] == ppl_estimate(lengths)["value"] == path_length(lengths)
    assert row["low"] < row["value"] < row["high"]
    assert row["resamples"] == 10


def test_lite2_perceptual_metric() -> None:
    """Nothing differs from itself; what differs more is farther. Its network is that of fd-lite2."""
    distance = load_perceptual_metric("lite2")
    assert distance.sha256.startswith("9656183e")
    rng = torch.Generator().manual_seed(0)
    one = torch.rand(2, 3, 40, 40, generator=rng) * 2 - 1
    near = one + 0.05 * torch.randn(one.shape, generator=rng)
    same, small, large = (distance(one, other) for other in (one, near, one.flip(0)))
    assert same.abs().max() == 0
    assert bool((small > 0).all())
    assert bool((large > small).all())


def test_missing_lpips_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polyinr_core.metrics.image_similarity.cached_vgg16", lambda: None)
    with pytest.raises(WeightsError, match=r"vgg16-397923af\.pth.*--weights lpips=.*ppl-lite2 needs no file"):
        load_perceptual_metric("lpips")


def test_images_too_small_for_lpips() -> None:
    distance = PerceptualMetric("lpips", lambda x: [x], min_resolution=16)
    with pytest.raises(RequestError, match="16 pixels or more, not 8"):
        distance(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def test_heads_weight_channels_as_lpips_does() -> None:
    """Oracle: the objective of inversion, one pair at a time."""
    heads = (torch.tensor([0.5, 2.0, 0.1]), torch.tensor([1.0, 0.0, 3.0]))
    rng = torch.Generator().manual_seed(0)

    def features(x: Tensor) -> list[Tensor]:
        return [x, x[:, :, ::2, ::2].square()]

    one, two = torch.rand(2, 3, 3, 64, 64, generator=rng) * 2 - 1
    theirs = inversion_loss.PerceptualDistance(features, heads)
    pairs = [(theirs.features(a[None]), theirs.features(b[None])) for a, b in zip(one, two, strict=True)]
    expected = [float(theirs.distance(*pair)) for pair in pairs]
    assert PerceptualMetric("lpips", features, heads)(one, two).tolist() == pytest.approx(expected, rel=1e-5)


def test_resolution_too_small_for_lpips(checkpoint: Checkpoint) -> None:
    means = PerceptualNetworks({"lpips": PerceptualMetric("lpips", lambda x: [x], min_resolution=32)})
    with pytest.raises(RequestError, match=r"ppl needs images of 32 px or more, not 16: give --res"):
        check_resolutions({"ppl": get_model_metric("ppl")}, GeneratedImages(checkpoint, name="m", count=2), means)


# Inversion


def test_inversion_finds_images_of_the_model(checkpoint: Checkpoint) -> None:
    w = sample_w(checkpoint, range(2), psi=0.5, label_seeds=range(2))
    drawn = [to_uint8(colors.permute(1, 2, 0)) for colors in render_images(checkpoint, w, resolution=16)]
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    reported = []
    found = invert_images(
        Given(pixels),
        checkpoint,
        InversionLoss("pixels"),
        steps=8,
        lpips=plain(),
        progress=lambda done, total: reported.append((done, total)),
    )
    assert reported == [(1, 2), (2, 2)]
    assert min(one["psnr"] for one in found) > 15
    rows = inversion_estimates(found, resamples=4)
    assert set(rows) == {"inversion/psnr", "inversion/ssim", "inversion/lpips"}
    assert rows["inversion/psnr"]["value"] == pytest.approx(np.mean([one["psnr"] for one in found]))
    assert rows["inversion/psnr"]["low"] <= rows["inversion/psnr"]["value"]
    gray = torch.full((1, 3, 16, 16), 90, dtype=torch.uint8)
    (flat,) = invert_images(Given(gray), checkpoint, InversionLoss("pixels"), steps=2)
    assert set(flat) == {"psnr", "ssim"}


def test_inversion_measures_the_pixels() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    found = [{"psnr": psnr(one, two), "ssim": ssim(one, two)}, {"psnr": 30.0, "ssim": None}]
    rows = inversion_estimates(found)
    assert rows == {"inversion/psnr": {"value": pytest.approx((psnr(one, two) + 30) / 2)}}


# UpsampledExtractor


@pytest.mark.parametrize("filter", FILTERS)
def test_upsampling_equals_pillow(filter: str) -> None:
    pixels = torch.randint(0, 256, (2, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    larger = upsample(pixels, 10, filter)
    for enlarged, expected in zip(larger, pixels, strict=True):
        image = Image.fromarray(expected.permute(1, 2, 0).numpy()).resize((10, 10), Image.Resampling[filter.upper()])
        np.testing.assert_array_equal(enlarged.permute(1, 2, 0), np.asarray(image))

    class LinearExtractor:
        dim, name, sha256 = 300, "extractor", "cd" * 32

        def __call__(self, pixels: Tensor) -> Tensor:
            return pixels.flatten(1).float()

    assert torch.equal(UpsampledExtractor(LinearExtractor(), filter, resolution=10)(pixels), larger.flatten(1).float())


def test_upsampling_names_in_results() -> None:
    """As they are called here, results compare them, and set them beside the paper's of the same name."""
    rows = published("upsampling").rows
    for stem in ("upsampling", "upsampling-lite2", "upsampling-inception"):
        names = {native_name(stem), *(f"{stem}/{filter}" for filter in FILTERS)}
        assert {family_of(name) for name in names} == {"upsampling"}
        assert {base_of(name) for name in names} == {stem}
    assert all(row.metrics.keys() == names for row in rows)


@pytest.mark.parametrize("name", ["upsampling", "upsampling-timm:x/y"])
def test_card_of_upsampling(name: str) -> None:
    card = {"protocols": {native_name(name): {}, "fd-lite2": {}}, "fakes": {}}
    joined = add_model_metrics(
        {"metrics": {}, "card": card}, {}, {}, {"protocols": {name: {"rule": ""}}}, has_count=True
    )
    assert joined["card"]["protocols"].keys() == {name, "fd-lite2"}


# Speed and size


def test_speed_and_parameter_counts(checkpoint: Checkpoint) -> None:
    reported = []
    row = speed_estimate(
        GeneratedImages(checkpoint, name="m", count=1), progress=lambda done, total: reported.append(done)
    )
    assert 0 < row["min"] <= row["value"] <= row["max"]
    assert (row["repeats"], reported[-1]) == (TIMED_IMAGES, TIMED_IMAGES + 2)
    rows = parameter_counts(checkpoint)
    whole = sum(parameter.numel() for parameter in checkpoint.generator.parameters())
    assert rows.pop("params") == {"value": whole}
    assert sum(row["value"] for row in rows.values()) == whole
    assert rows["params/synthesis"]["value"] == sum(p.numel() for p in checkpoint.generator.synthesis.parameters())


# Names


def test_names_of_model_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {name: get_model_metric(name) for name in ("ppl", "ppl-lite2", "upsampling", "upsampling-timm:x")}
    assert [figure.network for figure in kinds.values()] == ["lpips", "lite2", "lite2", "timm:x"]
    for name in ("ppl-", "ppl-inception", "upsampling-", "upsampling-lite3", "fid", "speeds", ""):
        assert get_model_metric(name) is None
    monkeypatch.setattr(model_figures, "cached_vgg16", lambda: None)
    figure = get_model_metric("inversion")
    means = load_perceptual([figure], {})
    assert means.distances == {}
    assert "EfficientNet-lite0" in describe_rule(figure, means, steps=7)
    assert "7 steps" in describe_rule(figure, means, steps=7)
