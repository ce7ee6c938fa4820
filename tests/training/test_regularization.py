"""What keeps the discriminator in check: each option in a step against its formula, in a run, and across a stop."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_run import SMALL, make_archive, run
from test_step import latents, options, reals, small_state
from torch import Tensor, nn

from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import ConfigError
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training.config import Stage, TrainingConfig, make_config
from polyinr_core.training.diagnostics import Diagnostics, class_share
from polyinr_core.training.init import center_rows
from polyinr_core.training.state import TrainingState
from polyinr_core.training.step import (
    Batch,
    Penalty,
    StepOptions,
    perturb,
    render_fakes,
    train_discriminator,
    train_generator,
)

PENALTY = Penalty(weight=0.3, sigma=0.05, rng=lambda name, index: generator_for("penalty", name, index))
HEALTHY = {"relativistic": True, "penalty": PENALTY, "lecam": 0.2, "augment_p": 0.5}


@pytest.fixture(scope="module")
def weights() -> dict:
    return {"lite0": load_pretrained("lite0")}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> ZipDataset:
    return ZipDataset.open(make_archive(tmp_path_factory.mktemp("data") / "noise.zip"))


def events_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def state() -> TrainingState:
    """Networks in float64, so that two orders of the same sums agree to many digits."""
    made = small_state()
    for network in (made.generator, made.ema, made.discriminator):
        network.double()
    made.logit_means = torch.tensor([0.4, -0.6], dtype=torch.float64)
    return made


def wide(batch: Batch) -> Batch:
    return Batch(batch.data.double(), batch.label)


def wide_options(**changes: object) -> StepOptions:
    made = options(**changes)
    return replace(made, coordinates=made.coordinates.double())


def softplus(x: Tensor) -> Tensor:
    return torch.log1p(torch.exp(x))


def literal_loss_d(state: TrainingState, options: StepOptions) -> Tensor:
    """Return the discriminator's loss written out: one forward pass a micro-batch, formulas in plain PyTorch."""
    disc, micro_losses = state.discriminator, []
    for index, (z, real) in enumerate(
        zip(wide(latents()).split(options.micro_batch), wide(reals()).split(options.micro_batch), strict=True)
    ):
        fake = render_fakes(state.generator, options, z).data.detach()
        x = torch.cat([fake, real.data])
        label = torch.cat([z.label, real.label])
        noise = [torch.randn(real.data.shape, generator=PENALTY.rng(name, index)) for name in ("fake", "real")]
        x = torch.cat([x, x + PENALTY.sigma * torch.cat(noise).double()])
        (logits,) = disc(x, label.repeat(2), sigma=options.blur_sigma, parts=2, copies=2)
        fakes, real_logits, fakes_noisy, reals_noisy = logits.chunk(4)
        micro_losses.append(
            softplus(fakes - real_logits).mean()
            + PENALTY.weight * ((fakes - fakes_noisy) ** 2).mean() / PENALTY.sigma**2
            + PENALTY.weight * ((real_logits - reals_noisy) ** 2).mean() / PENALTY.sigma**2
            + 0.2 * ((real_logits + 0.6) ** 2).mean()
            + 0.2 * ((fakes - 0.4) ** 2).mean()
        )
    return torch.stack(micro_losses).mean()


def gradients(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("micro_batch", [4, 2])
def test_the_discriminator_s_step_is_its_formula(state: TrainingState, micro_batch: int) -> None:
    """Gradients of all heads, in one pass and accumulated over two micro-batches, each of whole pairs."""
    given = wide_options(**{**HEALTHY, "augment_rng": None, "augment_p": None}, micro_batch=micro_batch)
    twin = copy.deepcopy(state)
    literal_loss_d(twin, given).backward()
    train_discriminator(state, given, fakes=wide(latents()), reals=wide(reals()))
    found, expected = gradients(state.discriminator.heads), gradients(twin.discriminator.heads)
    assert expected.norm() > 0
    torch.testing.assert_close(found, expected, atol=1e-9 * float(expected.abs().max()), rtol=1e-7)


@pytest.mark.parametrize("chunk", [0, 24])
@pytest.mark.parametrize("micro_batch", [4, 2])
def test_the_generator_s_step_is_its_formula(state: TrainingState, micro_batch: int, chunk: int) -> None:
    given = wide_options(relativistic=True, augment_rng=None, micro_batch=micro_batch, chunk=chunk)
    twin = copy.deepcopy(state)
    losses = []
    for z, real in zip(wide(latents()).split(micro_batch), wide(reals()).split(micro_batch), strict=True):
        fake = render_fakes(twin.generator, replace(given, chunk=0), z).data
        (fakes,) = twin.discriminator(fake, z.label, sigma=given.blur_sigma)
        (others,) = twin.discriminator(real.data, real.label, sigma=given.blur_sigma)
        losses.append(softplus(others.detach() - fakes).mean())
    torch.stack(losses).mean().backward()
    train_generator(state, given, wide(latents()), reals=wide(reals()))
    found, expected = gradients(state.generator), gradients(twin.generator)
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_shared_features_of_reals_change_nothing(state: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the backbones see once for both players gives the losses and gradients of looking twice."""
    from polyinr_core.training import step

    given = wide_options(relativistic=True, augment_p=0.5)
    twin = copy.deepcopy(state)
    batches = {"reals": wide(reals()), "g_fakes": wide(latents()), "d_fakes": wide(latents())}
    shared = step.train_step(state, given, **batches, ema_beta=0.5).read()
    original = step.train_generator
    monkeypatch.setattr(step, "train_generator", lambda *a, real_maps, **k: original(*a, **k))
    original_d = step.train_discriminator
    monkeypatch.setattr(step, "train_discriminator", lambda *a, real_maps, **k: original_d(*a, **k))
    apart = step.train_step(twin, given, **batches, ema_beta=0.5).read()
    assert shared.loss_d == pytest.approx(apart.loss_d, rel=1e-6)
    assert shared.loss_g == pytest.approx(apart.loss_g, rel=1e-6)
    found, expected = gradients(state.discriminator.heads), gradients(twin.discriminator.heads)
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_the_perturbation_is_the_ranks_parts_of_one_draw() -> None:
    whole = perturb(Batch(torch.zeros(8, 3, 4, 4), None), PENALTY, index=0, dist=SINGLE_PROCESS).data
    ranks = [DistributedContext(rank, 2) for rank in range(2)]
    parts = [perturb(Batch(torch.zeros(4, 3, 4, 4), None), PENALTY, index=0, dist=dist).data for dist in ranks]
    assert torch.equal(torch.cat([parts[0][:2], parts[1][:2], parts[0][2:], parts[1][2:]]), whole)


CONFIG = replace(
    SMALL, loss="relativistic", penalty=0.01, penalty_every=2, lecam=0.01, augment="adaptive", schedule="cosine"
)


@pytest.mark.parametrize("stops", [[1, 2], [3]])
def test_resuming_is_exact_with_every_option(
    archive: ZipDataset,
    weights: dict,
    tmp_path: Path,
    stops: list[int],
) -> None:
    assert run(CONFIG, archive, tmp_path / "whole", weights)
    for iterations in stops:
        assert not run(CONFIG, archive, tmp_path / "run", weights, stop_after=iterations)
    assert run(CONFIG, archive, tmp_path / "run", weights)
    last = [load_file(max((tmp_path / name / "state").glob("*.safetensors"))) for name in ("whole", "run")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    manifests = [max((tmp_path / name / "state").glob("*.json")).read_text() for name in ("whole", "run")]
    counters = [text.partition('"counters"')[2] for text in manifests]
    assert counters[0] == counters[1]
    assert "logit_means" in counters[0]


@pytest.mark.no_numbers
def test_each_option_changes_a_run_and_is_logged(
    archive: ZipDataset,
    weights: dict,
    tmp_path: Path,
) -> None:
    """One stage each. A run whose options were ignored would end in the plain run's weights."""
    base = replace(SMALL, stages=(Stage(8, 0.012),))
    ends = {}
    for name, changes in {
        "plain": {},
        "relativistic": {"loss": "relativistic"},
        "penalty": {"penalty": 0.1, "penalty_every": 1},
        "lecam": {"lecam": 0.1},
        "adaptive": {"augment": "adaptive"},
        "none": {"augment": "none"},
        "cosine": {"schedule": "cosine"},
        "centered": {"class_centering": 0.5},
    }.items():
        assert run(replace(base, **changes), archive, tmp_path / name, weights)
        ends[name] = load_file(max((tmp_path / name / "state").glob("*.safetensors")))
    key = "ema/synthesis.to_rgb.weight"
    values = [tuple(end[key].flatten().tolist()) for end in ends.values()]
    assert len(set(values)) == len(ends)
    losses = [event for event in events_in(tmp_path / "penalty") if "loss_penalty" in event]
    assert losses
    assert all(event["loss_penalty"] > 0 for event in losses)
    assert all("class_share" in event for event in events_in(tmp_path / "plain") if "diversity" in event)


def test_learning_rates_blur_and_penalty_follow_the_schedule() -> None:
    stage = Stage(32, 10)
    constant, cosine = TrainingConfig(blur_kimg=10.0), TrainingConfig(blur_kimg=10.0, schedule="cosine")
    assert [constant.scheduled(0.1, images, stage) for images in (0, 5000, 10_000)] == [1.0, 1.0, 1.0]
    assert [cosine.scheduled(0.1, images, stage) for images in (0, 5000, 10_000)] == pytest.approx([1.0, 0.55, 0.1])
    assert cosine.scheduled(2.0, 5000, stage) == pytest.approx(1.5)
    assert [cosine.blur_at(images, stage) for images in (0, 2500, 5000, 10_000)] == pytest.approx(
        [2.0, 1 + math.cos(math.pi / 4), 1.0, 0.0]
    )
    assert constant.blur_at(2500, stage) == 1.5


@pytest.mark.parametrize("held_out", [True, False])
def test_the_augmentation_follows_the_overfitting(held_out: bool) -> None:
    """Grows while held-out images are rated as fakes (or signs are saturated), and shrinks otherwise."""

    def fed(*, bad: bool) -> Diagnostics:
        made = Diagnostics()
        if held_out:
            made.update_logits(training=1.0, held_out=0.0 if bad else 1.0, fakes=-1.0)
        else:
            made.update_signs(fake=-1.0, real=1.0 if bad else -0.5, images=32, stage_images=32)
        return made

    assert fed(bad=True).augment_sign() == 1
    assert fed(bad=False).augment_sign() == -1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "wgan"}, "loss 'wgan' is unknown; choose from hinge, relativistic"),
        ({"augment": "ada"}, "augment 'ada' is unknown"),
        ({"schedule": "linear"}, "schedule 'linear' is unknown"),
        ({"penalty": -1.0}, "penalty -1 is outside"),
        ({"penalty": math.nan}, "penalty nan is outside"),
        ({"penalty_every": 0}, "penalty_every 0 is outside"),
        ({"lecam": math.inf}, "lecam inf is outside"),
        ({"class_centering": 1.5}, "class_centering 1.5 is outside 0-1"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config("tiny", **changes)


def test_a_penalty_works_with_a_batch_of_two(archive: ZipDataset, weights: dict, tmp_path: Path) -> None:
    config = replace(CONFIG, batch=2, stages=(Stage(8, 0.006),), held_out=0)
    assert run(config, archive, tmp_path / "run", weights)
    events = events_in(tmp_path / "run")
    assert all(math.isfinite(event["loss_d"]) for event in events if "loss_d" in event)


def test_centered_rows_point_apart_and_keep_their_length() -> None:
    rng = torch.Generator().manual_seed(0)
    table = 5.0 + torch.randn(8, 320, generator=rng)
    centered = center_rows(table, 1.0)
    assert float(centered.norm()) == pytest.approx(float(table.norm()), rel=1e-5)
    assert float(centered.mean(dim=0).abs().max()) < 1e-5
    cosine = nn.functional.cosine_similarity(centered[:, None], centered[None], dim=2)
    assert float((cosine.sum() - 8) / 56) < 0.0  # of rows whose sum is 0
    assert torch.equal(center_rows(table, 0.0), table)
    alike = torch.ones(3, 4)
    assert torch.equal(center_rows(alike, 1.0), alike)


def test_centering_lets_the_class_matter_from_the_start(weights: dict) -> None:
    """Two classes whose features are nearly parallel, as real ones are (mean cosine 0.94 of eight of animals)."""
    from polyinr_core.training.state import create_generator

    config = make_config("tiny")
    rng = torch.Generator().manual_seed(0)
    mean = torch.randn(320, generator=rng)
    table = mean + 0.2 * torch.randn(2, 320, generator=rng)
    shares = [class_share(create_generator(config, 2, center_rows(table, amount))) for amount in (0.0, 1.0)]
    assert shares[0] < 0.1
    assert shares[1] > 0.3
