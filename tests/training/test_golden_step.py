"""Two whole training iterations against the release's own, in float64, by the release's conventions."""

import json
from pathlib import Path

import pytest
import torch
from released_disc import our_name, probed_lite0, released_disc
from safetensors.torch import load_file
from torch import Tensor, nn

from polyinr_core.checkpoints.official import load_official_checkpoint
from polyinr_core.models.coordinates import homogeneous
from polyinr_core.models.generator import Generator
from polyinr_core.training.state import TrainingState
from polyinr_core.training.step import Batch, StepOptions, ema_beta, train_step

pytestmark = pytest.mark.slow  # float64 through EfficientNet at 224 px

TOLERANCE = 1e-9
BATCH, MICRO_BATCH, START = 8, 4, 260_000


class GridLearner(Generator):
    """The release's generator, whose grid is one more parameter."""

    def learn_grid(self, coordinates: Tensor) -> None:
        self.coordinates = nn.Parameter(coordinates)
        self.synthesis.forward = self.draw_at_own_grid

    def draw_at_own_grid(self, affine: Tensor, points: Tensor) -> Tensor:
        return type(self.synthesis).forward(self.synthesis, affine, homogeneous(self.coordinates))


def released_grid_learner(path: Path) -> GridLearner:
    """Return the golden generator with its grid as a parameter, in float64."""
    checkpoint = load_official_checkpoint(path)
    generator = GridLearner(checkpoint.generator.config)
    generator.load_state_dict(checkpoint.generator.state_dict())
    generator.learn_grid(checkpoint.learned_grid)
    return generator.double().requires_grad_(True)


def sum_over_samples(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Make the gradients of the mean over a batch those of the sum, as in the release; exact, as BATCH is 2^3."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.mul_(BATCH)


@pytest.fixture(scope="module")
def trained(reference: Path) -> TrainingState:
    """The networks after the two iterations."""
    generator = released_grid_learner(reference / "generator_small.safetensors")
    ema = released_grid_learner(reference / "generator_small.safetensors").requires_grad_(False)
    discriminator, _ = released_disc("projected_discriminator_cond_small", probed_lite0())
    recipe = json.loads((reference / "train_step_small.json").read_text())["recipe"]
    networks = TrainingState(
        generator,
        ema,
        discriminator,
        torch.optim.Adam(generator.parameters(), **recipe["optimiser_G"]),
        torch.optim.Adam(discriminator.head_parameters(), **recipe["optimiser_D"]),
    )
    for optimizer in (networks.g_optimizer, networks.d_optimizer):
        optimizer.register_step_pre_hook(sum_over_samples)
    vectors = load_file(reference / "train_step_small.safetensors")
    own_grid = torch.ones(32 * 32, 3, dtype=torch.float64)  # replaced by the learned one
    options = StepOptions(own_grid, micro_batch=MICRO_BATCH)
    for i in range(2):
        given = {key.partition(f"input.it{i}.")[2]: value for key, value in vectors.items()}
        images = START + i * BATCH
        train_step(
            networks,
            options,
            reals=Batch(given["real_uint8"].double() / 127.5 - 1, given["real_class"]),
            g_fakes=Batch(given["z_per_phase"][0], given["class_per_phase"][0]),
            d_fakes=Batch(given["z_per_phase"][2], given["class_per_phase"][2]),
            ema_beta=ema_beta(batch=BATCH, images=images, half_life=BATCH * 10 / 32 * 1000),
        )
    return networks


def released_tensors(generator: GridLearner) -> dict[str, Tensor]:
    """Turn our tensors back into the release's, under its names."""
    n, tensors = generator.config.channels, {"mapping.w_avg": generator.mapping.w_avg}
    tensors["gridt"] = generator.coordinates.flip(-1).unsqueeze(0)  # (x, y) to (row, column)
    tensors["mapping.embed.weight"] = generator.mapping.table.weight
    layers = {"mapping.embed_proj": generator.mapping.label_proj, "synthesis.to_rgb": generator.synthesis.to_rgb}
    layers |= {f"mapping.fc{i}": layer for i, layer in enumerate(generator.mapping.layers)}
    pairs = zip(generator.affine.levels, generator.synthesis.products, strict=True)
    for i, (level, product) in enumerate(pairs):
        at = f"synthesis.fb{i}" if i else "synthesis"
        layers[f"{at}.fb0.fc1" if i else f"{at}.fc0_0"] = product
        if level.style is not None:
            layers[f"{at}.fc0_5"] = level.style
        for kind in ("weight", "bias"):
            own, chain = getattr(level.map, kind), getattr(level.chain, kind)
            tensors[f"{at}.fc0_1.{kind}"] = torch.cat([own[n : 2 * n], own[:n]])
            tensors[f"{at}.fc0_2.{kind}"] = own[2 * n :]
            tensors[f"{at}.fc0_3.{kind}"] = chain[:4].flip(0)
            tensors[f"{at}.fc0_4.{kind}"] = chain[4:].flip(0)
    for name, layer in layers.items():
        tensors |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    return {name: tensor.detach() for name, tensor in tensors.items()}


@pytest.mark.parametrize("which", ["G", "G_ema"])
def test_generators(trained: TrainingState, reference: Path, which: str) -> None:
    """Every released tensor's L2 norm, and the stored tensors element by element."""
    tensors = released_tensors(trained.generator if which == "G" else trained.ema)
    norms = json.loads((reference / "train_step_small.json").read_text())[f"{which}_param_l2"]
    norms.pop("synthesis.grid")  # the same parameter as gridt
    assert norms.keys() == tensors.keys()
    for name, norm in norms.items():
        assert float(tensors[name].norm()) == pytest.approx(norm, rel=TOLERANCE, abs=TOLERANCE), name
    compared = 0
    for key, expected in load_file(reference / "train_step_small.safetensors").items():
        if not key.startswith(f"output.{which}."):
            continue
        name = key.removeprefix(f"output.{which}.")
        rows = name.endswith("_first10")
        tensor = tensors[name.removesuffix("_first10")]
        tensor = tensor[:10] if rows else tensor.reshape(expected.shape)
        torch.testing.assert_close(tensor, expected, atol=TOLERANCE, rtol=0, msg=name)
        compared += 1
    assert compared >= 8


def test_disc(trained: TrainingState, reference: Path) -> None:
    own = trained.discriminator.compact_state()
    norms = json.loads((reference / "train_step_small.json").read_text())["D_state_l2"]
    for name, norm in norms.items():
        assert float(own[our_name(name)].norm()) == pytest.approx(norm, rel=TOLERANCE, abs=TOLERANCE), name
    for key, expected in load_file(reference / "train_step_small.safetensors").items():
        if key.startswith("output.D."):
            name = our_name(key.removeprefix("output.D."))
            torch.testing.assert_close(own[name], expected, atol=TOLERANCE, rtol=0, msg=name)


def test_averaging_weight(reference: Path) -> None:
    """The release's own schedule."""
    values = json.loads((reference / "loss_golden.json").read_text())["ema_schedule"]["values"]
    for row in values:
        beta = ema_beta(batch=row["batch"], images=row["cur_nimg_before_step"], half_life=row["batch"] * 10 / 32 * 1000)
        assert beta == pytest.approx(row["beta"], rel=1e-12, abs=1e-300)
    assert len(values) > 5
