"""The plan of a run: exact where it counts, near the truth where it estimates, and it writes nothing."""

from dataclasses import replace

import pytest
import torch

from polyinr_core.data.dataset import bundled_images
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.errors import ConfigError
from polyinr_core.models.coordinates import RegularGrid
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training import dry_run as probe
from polyinr_core.training.config import PRESETS, parse_stages
from polyinr_core.training.dry_run import Plan, cost_of, make_plan, probe_drawing, stand_in

CPU = torch.device("cpu")
SMALL = replace(
    PRESETS["tiny"],
    stages=parse_stages("16:0.1,32:0.05:batch=4:mirror=yes:guidance=2"),
    disc_channels=8,
    head_divisor=16,
)


@pytest.fixture(scope="module")
def emoji() -> ZipDataset:
    return ZipDataset.open(bundled_images())


@pytest.fixture(scope="module")
def weights() -> dict:
    return {"lite0": load_pretrained("lite0"), "lite2": load_pretrained("lite2")}


@pytest.fixture(scope="module")
def plan(emoji: ZipDataset, weights: dict) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "LONG_ENOUGH", 0.02)
        return make_plan(SMALL, emoji, weights, device=CPU)


def test_what_is_known_is_exact(plan: Plan, weights: dict) -> None:
    first, second = plan.stages
    assert (first.iterations, second.iterations) == (13, 13)  # 100 / 8 and 50 / 4, in whole batches
    assert (first.batch, second.batch) == (8, 4)
    assert (first.mirror, second.mirror) == (False, True)
    assert (first.guidance, second.guidance) == (0.0, 2.0)
    assert first.blur == SMALL.blur_sigma
    assert plan.data == {
        "name": "emoji-64.zip",
        "images": 1562,
        "resolution": 64,
        "classes": 8,
        "held_out": SMALL.held_out_of(1562),
    }
    generator = sum(p.numel() for p in Generator(SMALL.generator(8)).parameters())
    heads = sum(p.numel() for p in ProjectedDiscriminator(SMALL.discriminator(8), weights).head_parameters())
    assert (plan.parameters["generator"], plan.parameters["discriminator"]) == (generator, heads)
    assert plan.notes == ()


def test_what_is_estimated_is_of_the_right_kind(plan: Plan) -> None:
    for stage in plan.stages:
        assert stage.seconds == stage.iterations * stage.seconds_per_iteration > 0
        assert stage.memory > 20 * plan.parameters["generator"]
    assert plan.seconds == sum(stage.seconds for stage in plan.stages)
    assert plan.memory == max(stage.memory for stage in plan.stages)


def test_kept_bytes_are_counted() -> None:
    """Oracle: y = x w keeps x, of 4 bytes a value; the weights are not counted, nor is x a second time."""
    layer = torch.nn.Linear(8, 8, bias=False)

    def step(count: int) -> torch.Tensor:
        x = torch.zeros(count, 8)
        return layer(x).sum() + layer(x).sum()

    cost = cost_of(step, start=2, most=1024, device=CPU, known=layer)
    assert cost.bytes == 32
    assert cost.fixed == 0


def test_a_pixel_s_bytes_are_those_that_autograd_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one whole pass of 2 x 32 x 32 pixels, counted apart: within a tenth."""
    monkeypatch.setattr(probe, "LONG_ENOUGH", 60.0)  # so that it measures twice on the slowest machine
    generator = Generator(SMALL.generator(0))
    kept: dict[int, int] = {}
    own = {parameter.data_ptr() for parameter in generator.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    points = RegularGrid(32, 32).points(0, 1024, dtype=torch.float32, device=CPU)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        colors = generator(torch.ones(2, 64), points)
    total = sum(count for pointer, count in kept.items() if pointer not in own)
    _, learned = probe_drawing(generator, most=4096)
    assert colors.requires_grad
    assert learned.fixed + 2048 * learned.bytes == pytest.approx(total, rel=0.1)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_chunks_take_less_memory(emoji: ZipDataset, weights: dict, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LONG_ENOUGH", 0.02)
    chunked = make_plan(replace(SMALL, chunk=256), emoji, weights, device=CPU)
    assert [stage.chunk for stage in chunked.stages] == [256, 256]
    assert all(a.memory < b.memory for a, b in zip(chunked.stages, plan.stages, strict=True))


def test_missing_weights_are_measured_all_the_same(emoji: ZipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "LONG_ENOUGH", 0.01)
    config = replace(SMALL, stages=parse_stages("16:1"))
    plan = make_plan(config, emoji, {}, device=CPU)
    assert plan.stages[0].seconds > 0
    assert "lite0" in plan.notes[0]


@pytest.mark.parametrize("name", ["lite0", "deit-small"])
def test_a_stand_in_has_the_shapes_of_the_network(name: str) -> None:
    assert all(tensor.isfinite().all() for tensor in stand_in(name).values())
    if name == "lite0":
        real = load_pretrained(name)
        assert {key: tensor.shape for key, tensor in stand_in(name).items()} == {
            key: tensor.shape for key, tensor in real.items()
        }


def test_what_the_run_refuses_the_plan_refuses(emoji: ZipDataset, weights: dict) -> None:
    with pytest.raises(ConfigError, match="guide"):
        make_plan(replace(SMALL, cond=False), emoji, weights, device=CPU)
