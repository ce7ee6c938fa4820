"""The dry run: exact where it counts, measured on the real training step, and it writes nothing."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.discriminator.discriminator import ProjectedDiscriminator
from polyinr_core.errors import ConfigError
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.training import dry_run, loop
from polyinr_core.training.config import PRESETS, make_config, parse_stages
from polyinr_core.training.dry_run import Cost, Plan, make_plan, random_weights
from polyinr_core.training.loop import Trainer
from polyinr_core.training.state import TrainingState
from polyinr_core.training.step import StepOptions, train_step

CPU = torch.device("cpu")
SMALL = replace(
    PRESETS["tiny"],
    stages=parse_stages("16:0.1,32:0.05:batch=4:mirror=yes:guidance=2"),
    disc_channels=8,
    head_divisor=16,
)


@pytest.fixture(scope="module")
def animals() -> ZipDataset:
    return ZipDataset.open(bundled_dataset())


@pytest.fixture(scope="module")
def weights() -> dict:
    return {"lite0": load_pretrained("lite0"), "lite2": load_pretrained("lite2")}


@pytest.fixture(scope="module")
def plan(animals: ZipDataset, weights: dict) -> Plan:
    return make_plan(SMALL, animals, weights, device=CPU)


@pytest.mark.no_numbers
def test_what_is_known_is_exact(plan: Plan, weights: dict) -> None:
    first, second = plan.stages
    assert (first.iterations, second.iterations) == (13, 13)  # 100 / 8 and 50 / 4, in whole batches
    assert (first.batch, second.batch) == (8, 4)
    assert (first.mirror, second.mirror) == (False, True)
    assert (first.guidance, second.guidance) == (0.0, 2.0)
    assert first.blur == SMALL.blur_sigma
    assert plan.data == {
        "name": "animals-64.zip",
        "images": 2000,
        "resolution": 64,
        "classes": 8,
        "held_out": SMALL.held_out_count(2000),
    }
    generator = sum(p.numel() for p in Generator(SMALL.generator(8)).parameters())
    heads = sum(p.numel() for p in ProjectedDiscriminator(SMALL.discriminator(8), weights).head_parameters())
    assert (plan.parameters["generator"], plan.parameters["discriminator"]) == (generator, heads)
    assert plan.parameters["backbones"] > 0 < plan.parameters["classifier"]
    assert plan.notes == ()


@pytest.mark.no_numbers
def test_what_is_measured_is_of_the_right_kind(plan: Plan) -> None:
    for stage in plan.stages:
        assert stage.seconds == stage.iterations * stage.seconds_per_iteration > 0
        assert stage.memory > 20 * plan.parameters["generator"]
    assert plan.seconds == sum(stage.seconds for stage in plan.stages)
    assert plan.memory == max(stage.memory for stage in plan.stages)


@pytest.mark.no_numbers
def test_the_real_step_is_measured(
    animals: ZipDataset, weights: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three iterations of two images and of the whole batch, as the run makes them; nothing is written."""
    seen: list[tuple[int, int, StepOptions]] = []

    def record(state: TrainingState, options: StepOptions, **batches: object) -> object:
        seen.append((len(batches["reals"].data), options.micro_batch, options))
        return train_step(state, options, **batches)

    monkeypatch.setattr(loop, "train_step", record)
    monkeypatch.chdir(tmp_path)
    config = replace(SMALL, chunk=256, stages=parse_stages("16:0.1:guidance=2"))
    plan = make_plan(config, animals, weights, device=CPU)
    once = 1 + dry_run.ITERATIONS  # without a penalty, then with one
    assert [sizes[:2] for sizes in seen] == [(2, 2)] * 2 * once + [(8, 8)] * 2 * once
    assert {len(options.coordinates) for _, _, options in seen} == {16**2}
    assert {(options.chunk, options.guidance) for _, _, options in seen} == {(256, 2.0)}
    assert all(options.classifier is not None and options.augment_rng is not None for _, _, options in seen)
    assert plan.stages[0].chunk == 256
    assert list(tmp_path.iterdir()) == []


def measured(monkeypatch: pytest.MonkeyPatch, costs: dict[int, Cost]) -> list[int]:
    """Let iterations cost what is given, by their images; return the list of the sizes that are measured."""
    sizes: list[int] = []

    def measure_iteration(trainer: Trainer, state: TrainingState, *, images: int) -> Cost:
        sizes.append(images)
        return costs[images]

    monkeypatch.setattr(dry_run, "measure_iteration", measure_iteration)
    return sizes


def test_a_large_batch_is_extrapolated(animals: ZipDataset, weights: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the line through two sizes. Of micro-batches, times add up and memory does not."""
    sizes = measured(monkeypatch, {2: Cost(4.0, 100.0), 4: Cost(6.0, 120.0)})
    config = replace(SMALL, batch=32, micro_batch=16, stages=parse_stages("16:0.1"))
    (stage,) = make_plan(config, animals, weights, device=CPU).stages
    assert sizes == [2, 4]
    assert stage.seconds_per_iteration == 2 * (6.0 + 6 * 2.0)
    assert stage.memory == 120 + 6 * 20


def test_a_stage_that_would_take_long_is_extrapolated(
    animals: ZipDataset, weights: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the pixels and half the batch of one whose smallest iteration takes ten seconds."""
    sizes = measured(monkeypatch, {2: Cost(10.0, 100.0), 4: Cost(14.0, 120.0)})
    config = replace(SMALL, batch=4, stages=parse_stages("16:0.1,32:0.1:batch=2"))
    first, second = (plan := make_plan(config, animals, weights, device=CPU)).stages
    assert sizes == [2, 4]
    assert (first.seconds_per_iteration, second.seconds_per_iteration) == (14.0, 28.0)
    assert "32 px was not measured" in plan.notes[0]


@pytest.mark.no_numbers
def test_missing_weights_are_measured_all_the_same(animals: ZipDataset) -> None:
    config = replace(SMALL, stages=parse_stages("16:1"))
    plan = make_plan(config, animals, {}, device=CPU)
    assert plan.stages[0].seconds > 0
    assert "lite0" in plan.notes[0]


@pytest.mark.parametrize("name", ["lite0", "deit-small"])
def test_random_weights_have_the_shapes_of_the_network(name: str) -> None:
    assert all(tensor.isfinite().all() for tensor in random_weights(name).values())
    if name == "lite0":
        real = load_pretrained(name)
        assert {key: tensor.shape for key, tensor in random_weights(name).items()} == {
            key: tensor.shape for key, tensor in real.items()
        }


def test_what_the_run_refuses_the_plan_refuses(animals: ZipDataset, weights: dict) -> None:
    with pytest.raises(ConfigError, match="guide"):
        make_plan(replace(SMALL, cond=False), animals, weights, device=CPU)


def test_a_penalty_that_is_seldom_due_counts_as_often(animals: ZipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a step that takes 3 seconds with a penalty and 1 without: every fourth iteration, 1.5 in the mean."""
    clock, iterations = [0.0], []

    class Timed(Trainer):
        def train_iteration(self, state: object, data: object, reals: object) -> None:
            iterations.append(self.config.penalty)
            clock[0] += 3.0 if self.config.penalty else 1.0

    monkeypatch.setattr(dry_run.time, "perf_counter", lambda: clock[0])
    config = make_config("tiny", stages="16:1", penalty=0.5, penalty_every=4)
    trainer = Timed(config, animals, weights={})
    trainer.__dict__["classifier"] = None
    state = SimpleNamespace(stage=0)
    assert dry_run.measure_iteration(trainer, state, images=2).seconds == pytest.approx(1.5)
    assert set(iterations) == {0.0, 0.5}
    trainer.config = make_config("tiny", stages="16:1", penalty=0.0)
    assert dry_run.measure_iteration(trainer, state, images=2).seconds == pytest.approx(1.0)
