"""One iteration: what stops it, and that asking the discriminator changes nothing."""

import copy
import math
from dataclasses import asdict, replace

import pytest
import torch

from polyinr_core.discriminator.config import DiscriminatorConfig
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.errors import TrainingError
from polyinr_core.models.config import GeneratorConfig
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator, render_checkpointed
from polyinr_core.runtime.distributed import DistributedContext
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training import step
from polyinr_core.training.state import TrainingState
from polyinr_core.training.step import (
    Batch,
    StepOptions,
    mean_logit,
    render_fakes,
    train_generator,
    train_step,
)
from polyinr_core.training.step_stats import raise_failure, read_stats, step_optimizer

SIDE = 8


@pytest.fixture
def state() -> TrainingState:
    return small_state()


def small_state() -> TrainingState:
    torch.manual_seed(0)
    config = GeneratorConfig(levels=3, channels=8, z_dim=4, w_dim=8, classes=2, table_dim=6)
    generator, ema = Generator(config), Generator(config).requires_grad_(False)
    sizes = {"resolution": 64, "channels": 8, "head_divisor": 16, "head_resolution": 128}
    discriminator = ProjectedDiscriminator(
        DiscriminatorConfig(classes=2, **sizes), {"lite0": load_pretrained("lite0")}
    ).train()
    optimizers = (torch.optim.Adam(part.parameters(), lr=1e-3) for part in (generator, discriminator.heads))
    return TrainingState(generator, ema, discriminator, *optimizers)


def options(**changes: object) -> StepOptions:
    coordinates = RegularGrid(SIDE, SIDE).coordinates()
    given = {"micro_batch": 4, "blur_sigma": 1.0, "augment_rng": lambda name, part: generator_for(name, part)}
    return StepOptions(coordinates, **(given | changes))


def latents() -> Batch:
    return Batch(torch.randn(4, 4, generator=generator_for("z")), torch.tensor([0, 1, 1, 0]))


def reals() -> Batch:
    images = torch.rand(4, 3, SIDE, SIDE, generator=generator_for("reals")) * 2 - 1
    return Batch(images, torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_that_is_no_number_is_named(state: TrainingState, fused: bool) -> None:
    """Nothing moves, neither then nor later: not the weights, nor the moments, nor the count of steps."""
    network = state.generator
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0, fused=fused)
    loss = network(latents().data, options().coordinates, latents().label).sum()
    loss.backward()
    step_optimizer(state, network, optimizer)
    before = copy.deepcopy((network.state_dict(), optimizer.state_dict()))
    assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), state.ema.parameters(), strict=True))
    network.synthesis.products[1].weight.grad[0, 0] = float("inf")
    words = r"gradient of synthesis\.products\.1\.weight \(generator\) is not finite"
    if fused:
        step_optimizer(state, network, optimizer)
        network.synthesis.products[1].weight.grad[0, 0] = 1.0
        network.synthesis.to_rgb.bias.grad[0] = float("nan")
        step_optimizer(state, network, optimizer)
        with pytest.raises(TrainingError, match=words):
            raise_failure(state, int(state.failure))
    else:
        with pytest.raises(TrainingError, match=words):
            step_optimizer(state, network, optimizer)
    after = network.state_dict(), optimizer.state_dict()
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in after[0].items())
    for index, moments in after[1]["state"].items():
        assert all(torch.equal(value, before[1]["state"][index][name]) for name, value in moments.items())


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ("generator.mapping.layers.0.weight", r"loss is not finite, generator\.mapping\.layers\.0\.weight first"),
        ("generator.synthesis.products.1.bias", r"generator\.synthesis\.products\.1\.bias first"),
        ("discriminator.heads.lite0.1.out.weight", r"discriminator\.heads\.lite0\.1\.out\.weight first"),
        ("reals", "loss is not finite, the images first"),
    ],
)
def test_what_is_not_finite_is_named_iterations_later(state: TrainingState, tensor: str, words: str) -> None:
    """With fused optimizers, that are never asked: the first failure is found at the first read, here after three."""
    state.g_optimizer = torch.optim.Adam(state.generator.parameters(), lr=1e-3, fused=True)
    state.d_optimizer = torch.optim.Adam(state.discriminator.heads.parameters(), lr=1e-3, fused=True)
    batches = {"reals": reals(), "g_fakes": latents(), "d_fakes": latents()}
    pending = [train_step(state, options(), **batches, ema_beta=0.5)]
    if tensor == "reals":
        batches["reals"] = Batch(reals().data * float("nan"), reals().label)
    else:
        network, _, name = tensor.partition(".")
        getattr(state, network).get_parameter(name).data.flatten()[0] = float("nan")
    weights = {name: p.clone() for name, p in state.generator.named_parameters()}
    pending += [train_step(state, options(), **batches, ema_beta=0.5) for _ in range(3)]
    with pytest.raises(TrainingError, match=words):
        read_stats(pending)
    if tensor != "reals":  # which the generator does not see
        for name, parameter in state.generator.named_parameters():
            torch.testing.assert_close(parameter, weights[name], atol=0, rtol=0, equal_nan=True)
    assert state.failure is None


def test_a_guide_that_goes_wrong_is_noticed(state: TrainingState) -> None:
    broken = options(classifier=lambda images, label: images.sum() * float("nan"), guidance=1.0)
    with pytest.raises(TrainingError, match="the loss is not finite"):
        train_generator(state, broken, latents())


def test_the_guide_s_loss_is_returned_and_weighs(state: TrainingState) -> None:
    """A guide that wants images to be bright."""
    weight = state.generator.synthesis.to_rgb.bias
    returned = train_generator(state, options(classifier=lambda x, label: -100 * x.mean(), guidance=1000.0), latents())
    assert torch.isfinite(returned).all()
    assert returned[1] != 0
    assert (weight.grad < -1e4).all()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_guide_computes_in_the_dtype_of_the_products(state: TrainingState, dtype: torch.dtype | None) -> None:
    state.generator.synthesis.product_dtype = dtype
    seen = []

    def guide(images: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        seen.append((images.flatten(1) @ images.flatten(1).T).dtype)
        return images.mean()

    train_generator(state, options(classifier=guide, guidance=1.0), latents())
    assert seen == [dtype or torch.float32]


def test_asking_the_discriminator_changes_nothing(state: TrainingState) -> None:
    before = {name: tensor.clone() for name, tensor in state.discriminator.state_dict().items()}
    first, again = (mean_logit(state, options(), reals(), name="held out") for _ in range(2))
    assert first == again
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.discriminator.state_dict().items())


def gradients_of(state: TrainingState, **changes: object) -> torch.Tensor:
    """Return the generator's gradients after its step, as one vector; `state` stay as they are."""
    state = copy.deepcopy(state)
    train_generator(state, options(**changes), latents())
    return torch.cat([p.grad.flatten() for p in state.generator.parameters() if p.grad is not None])


def test_the_chunk_changes_rounding_only(state: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the length of the gradient: float32 in another order, through the kinks of 50 layers."""
    plain = gradients_of(state)
    with monkeypatch.context() as patch:
        chunks: list[int] = []
        patch.setattr(
            step, "render_checkpointed", lambda *a, chunk: chunks.append(chunk) or render_checkpointed(*a, chunk=chunk)
        )
        replayed = gradients_of(state, chunk=24)
    assert chunks == [24]
    assert (replayed - plain).norm() < 1e-3 * plain.norm()


def test_a_step_in_bfloat16_is_close(state: TrainingState) -> None:
    """Images within a hundredth; weights stay float32. Gradients pass the kinks of 50 layers in 8 bits."""
    plain, image = gradients_of(state), render_fakes(state.generator, options(), latents()).data
    state.generator.synthesis.product_dtype = torch.bfloat16
    narrow, drawn = gradients_of(state), render_fakes(state.generator, options(), latents()).data
    assert 0 < (drawn - image).norm() < 1e-2 * image.norm()
    assert torch.cosine_similarity(narrow, plain, dim=0) > 0.5
    losses = train_step(state, options(), reals=reals(), g_fakes=latents(), d_fakes=latents(), ema_beta=0.5).read()
    assert all(math.isfinite(value) for value in asdict(losses).values())
    assert all(p.dtype == torch.float32 for p in state.generator.parameters())


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_where_memory_runs_out_a_step_is_taken_again_in_smaller_chunks(
    player: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a forward pass that has moved batch statistics, power iterations and the mean of w; to the last bit."""
    monkeypatch.setattr(step, "MIN_CHUNK", 16)
    backward, failures = step.backward, []

    def run(state: TrainingState) -> list[torch.Tensor]:
        for _ in range(2):
            train_step(state, options(), reals=reals(), g_fakes=latents(), d_fakes=latents(), ema_beta=0.5)
        networks = (state.generator, state.ema, state.discriminator)
        return [tensor for network in networks for tensor in network.state_dict().values()]

    def fail(loss: torch.Tensor, network: torch.nn.Module, *given: object, **more: bool) -> None:
        is_generator = isinstance(network, Generator)
        if not failures and is_generator is (player == "generator"):
            failures.append(player)
            raise torch.OutOfMemoryError("CUDA out of memory")
        backward(loss, network, *given, **more)

    monkeypatch.setattr(step, "backward", fail)
    found, state = small_state(), small_state()
    after = run(found)
    assert failures == [player]
    assert found.max_chunk == 128  # half of four images of 64 pixels
    assert caplog.messages == ["the GPU's memory ran out: continuing in chunks of 128 pixels"]
    monkeypatch.setattr(step, "backward", backward)
    if player == "generator":
        state.max_chunk = 128
        expected = run(state)
    else:  # the generator's first step was taken at once
        train = step.train_discriminator

        def chunked(state: TrainingState, given: StepOptions, **more: object) -> torch.Tensor:
            state.max_chunk = 128
            return train(state, replace(given, chunk=128), **more)

        monkeypatch.setattr(step, "train_discriminator", chunked)
        expected = run(state)
    assert all(torch.equal(*pair) for pair in zip(after, expected, strict=True))


@pytest.mark.parametrize("changes", [{}, {"dist": DistributedContext(0, 2), "micro_batch": 8}])
def test_chunks_that_cannot_become_smaller(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one of several ranks begin its iteration again while the others wait in it."""

    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if changes:
        monkeypatch.setattr(step, "MIN_CHUNK", 16)
    monkeypatch.setattr(step, "render_fakes", fail)
    with pytest.raises(TrainingError, match=r"memory ran out in chunks of 256 pixels; .* smaller --micro-batch"):
        train_step(small_state(), options(**changes), reals=reals(), g_fakes=latents(), d_fakes=latents(), ema_beta=0.5)
