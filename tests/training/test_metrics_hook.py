"""Metrics during training: what is compared, how often images are made, several processes."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import small_checkpoint
from rounding import assert_rounded
from stand_ins import NarrowInception, NarrowLite2

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.data.dataset import bundled_dataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.latents.latents import LabelDistribution
from polyinr_core.metrics.frechet import RunningMoments, frechet_distance
from polyinr_core.metrics.kid import KernelReference
from polyinr_core.models.generator import Generator
from polyinr_core.runtime.distributed import SINGLE_PROCESS, DistributedContext
from polyinr_core.runtime.pretrained import load_pretrained
from polyinr_core.runtime.rng import generator_for
from polyinr_core.training import metrics_hook
from polyinr_core.training.config import DISTANCES, SAMPLE_COUNTS, SampleCount, metric_networks
from polyinr_core.training.metrics_hook import Lite2Features, MetricsHook, quantize, render_uint8

CPU = torch.device("cpu")
FEW = {
    "lite2": SampleCount(reals=20, fakes=14, balanced=True),
    "inception": SampleCount(reals=24, fakes=30, balanced=False),
}
ALL = ("fd-lite2", "kd-lite2", "fid")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few images, in batches that divide none of the counts, and narrow networks."""
    monkeypatch.setattr(metrics_hook, "Lite2Features", NarrowLite2)
    monkeypatch.setattr(metrics_hook, "SAMPLE_COUNTS", FEW)
    monkeypatch.setattr(metrics_hook, "BATCH_SIZE", 4)


@pytest.fixture(scope="module")
def archive() -> ZipDataset:
    return ZipDataset.open(bundled_dataset())


@pytest.fixture(scope="module")
def six_of_eight(archive: ZipDataset) -> ZipDataset:
    """1500 images, none of them of the last two classes."""
    part = copy.copy(archive)
    part.names, part.labels = archive.names[:1500], archive.labels[:1500]
    assert np.bincount(part.labels, minlength=part.classes).tolist() == [250] * 6 + [0] * 2
    return part


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    return {"lite2": {}, "inception": NarrowInception()}


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load_checkpoint(tiny_checkpoint).generator


def hook(
    metrics: tuple[str, ...],
    weights: dict[str, Any],
    archive: ZipDataset,
    *,
    dist: DistributedContext = SINGLE_PROCESS,
    **feed: Any,
) -> MetricsHook:
    return MetricsHook(
        metrics,
        weights,
        TrainLoader(archive, **{"resolution": 64, "seed": 0, **feed}),
        device=CPU,
        dist=dist,
    )


def test_distances_equal_single_images(weights: dict[str, Any], archive: ZipDataset, generator: Generator) -> None:
    """Oracle: the archive's own pixels and single images. 1e-5: float32 features, in other batches."""
    measured = hook(ALL, weights, archive).distances(generator)
    chosen = torch.randperm(len(archive), generator=generator_for("reals")).tolist()
    reals = [torch.from_numpy(archive.read(item)).permute(2, 0, 1)[None] for item in chosen[:24]]
    fakes = [render_uint8(generator, [seed], resolution=64) for seed in range(30)]
    lite2, inception = NarrowLite2({}), weights["inception"]
    expected = {}
    for name, network, counts, unbiased in (
        ("fd-lite2", lite2, (14, 20), True),
        ("fid", inception, (30, 24), False),
    ):
        sides = []
        for images, count in zip((fakes, reals), counts, strict=True):
            statistics = RunningMoments(network.dim)
            statistics.add(torch.cat([network(image) for image in images[:count]]))
            sides.append(statistics.gaussian(unbiased=unbiased))
        expected[name] = frechet_distance(*sides)
    features = [torch.cat([lite2(image) for image in part]) for part in (fakes[:14], reals[:20])]
    expected["kd-lite2"] = KernelReference(features[1], 14).distance(features[0])
    assert measured == {name: pytest.approx(value, rel=1e-4) for name, value in expected.items()}


def test_logged_facts(weights: dict[str, Any], archive: ZipDataset, generator: Generator) -> None:
    """Flat, of JSON's kinds; the watched distance comes first, with six digits."""
    whole = hook(ALL, weights, archive)
    facts = whole.measure(generator)
    assert list(facts)[:3] == list(ALL)
    assert facts["fd-lite2"] == pytest.approx(whole.distances(generator)["fd-lite2"], rel=1e-5)
    assert len(f"{facts['fd-lite2']:.15g}".replace(".", "").strip("0")) <= 6
    seconds = facts.pop("seconds")
    assert seconds > 0
    assert {key: value for key, value in facts.items() if key not in ALL} == {
        "network_resolution": 128,
        "reals": 20,
        "fakes": 14,
        "fid-reals": 24,
        "fid-fakes": 30,
        "fid-network": weights["inception"].sha256,
    }
    assert json.loads(json.dumps(facts)) == facts


def test_sample_counts(weights: dict[str, Any], six_of_eight: ZipDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reals up to a limit; as many fakes for lite2, StyleGAN's 50 thousand for fid."""
    monkeypatch.setattr(metrics_hook, "SAMPLE_COUNTS", SAMPLE_COUNTS)
    whole = hook(("fd-lite2", "fid"), weights, six_of_eight)
    assert whole.reals == {"lite2": 1500, "inception": 1500}
    assert whole.fakes == {"lite2": 1500, "inception": 50_000}


def test_classes_are_drawn_from_the_data(weights: dict[str, Any], six_of_eight: ZipDataset, tmp_path: Path) -> None:
    """All images of the set count, the held-out ones too. Oracle: images in the classes that these draw."""
    conditional = load_checkpoint(small_checkpoint(tmp_path / "model.safetensors", classes=8)).generator
    measured = hook(("fid",), weights, six_of_eight, held_out=500, seed=3)
    counts = tuple(np.bincount(six_of_eight.labels, minlength=8).tolist())
    assert measured.labels.counts == counts
    expected, uniform = (
        frechet_distance(
            statistics_of(weights, conditional, labels).gaussian(unbiased=False), measured.references["fid"]
        )
        for labels in (LabelDistribution(counts=counts), LabelDistribution())
    )
    found = measured.measure(conditional)
    assert found["labels"] == "dataset"
    assert found["fid"] == pytest.approx(expected, rel=1e-5)
    assert found["fid"] != pytest.approx(uniform, rel=1e-3)


def statistics_of(weights: dict[str, Any], generator: Generator, labels: LabelDistribution) -> RunningMoments:
    """Return Inception's moments of 30 images with labels of this distribution."""
    statistics = RunningMoments(weights["inception"].dim)
    for seed in range(30):
        statistics.add(weights["inception"](render_uint8(generator, [seed], resolution=64, labels=labels)))
    return statistics


def test_mirroring_and_held_out_images_change_nothing(
    weights: dict[str, Any], archive: ZipDataset, generator: Generator
) -> None:
    """The reals are all images of the dataset, unmirrored, whatever training uses."""
    plain = hook(("fid",), weights, archive, resolution=16)
    other = hook(("fid",), weights, archive, resolution=16, mirror=True, held_out=100, seed=7)
    assert plain.distances(generator) == other.distances(generator)


def test_each_image_is_made_once_for_all_networks(
    weights: dict[str, Any], archive: ZipDataset, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For both networks together; a second measurement only renders."""
    shown, drawn = [], []
    show, plain = TrainLoader.load, metrics_hook.render_uint8
    monkeypatch.setattr(
        TrainLoader, "load", lambda self, places: (shown.extend(places.tolist()), show(self, places))[1]
    )
    monkeypatch.setattr(
        metrics_hook,
        "render_uint8",
        lambda model, seeds, **options: (drawn.extend(seeds), plain(model, seeds, **options))[1],
    )
    whole = hook(("fd-lite2", "fid"), weights, archive, resolution=16)
    first = whole.distances(generator)
    assert sorted(drawn) == list(range(30))
    assert len(shown) == len(set(shown)) == 24
    assert whole.distances(generator) == first
    assert sorted(drawn) == sorted([*range(30), *range(30)])
    assert len(shown) == 24


def test_measuring_changes_neither_generator_nor_rng(
    weights: dict[str, Any], archive: ZipDataset, generator: Generator
) -> None:
    """Neither in the generator nor in PyTorch's own randomness."""
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    state = torch.random.get_rng_state()
    hook(("fd-lite2",), weights, archive).measure(generator)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_quantize_inverts_scaling() -> None:
    levels = torch.arange(256)
    assert torch.equal(quantize(levels.float() / 127.5 - 1), levels.to(torch.uint8))
    assert quantize(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


@dataclass
class Recorded:
    """Ranks in one process, one after another: the first pass notes what each gives, the second adds it up."""

    rank: int
    world_size: int
    given: list[list[torch.Tensor]]
    asked: int = field(default=0)

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        self.given[self.rank][self.asked : self.asked + 1] = [tensor]
        parts = [given[self.asked] for given in self.given if len(given) > self.asked]
        self.asked += 1
        return torch.stack(parts).sum(dim=0)

    def all_gather_int(self, number: int) -> list[int]:
        return [int(self.all_reduce(torch.tensor(number)))]


def test_moments_of_ranks_merge() -> None:
    """Parts of any length, empty ones too, merge to the moments of all."""
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) * 3 + 20
    whole = RunningMoments(6)
    whole.add(features)
    parts = []
    for part in features.split([30, 0, 20]):
        parts.append(RunningMoments(6))
        parts[-1].add(part)
    given: list[list[torch.Tensor]] = [[], [], []]
    for _ in range(3):  # a total needs the count's total, a scatter the mean's
        merged = [part.merged(Recorded(rank, 3, given)) for rank, part in enumerate(parts)]
    for one in merged:
        assert one.count == 50
        assert_rounded(one.mean, whole.mean, terms=50)
        assert_rounded(one.scatter, whole.scatter, terms=50)


def measure_as(rank: int, count: int, folder: Path, model: Path) -> None:
    """Measure as one of the processes of a job, and write down what came out."""
    metrics_hook.SAMPLE_COUNTS, metrics_hook.BATCH_SIZE = FEW, 4
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    weights = {"lite2": load_pretrained("lite2"), "inception": NarrowInception()}
    with ZipDataset.open(bundled_dataset()) as archive:
        whole = hook(ALL, weights, archive, dist=DistributedContext(rank, count))
        facts = [whole.distances(load_checkpoint(model).generator), whole.measure(load_checkpoint(model).generator)]
    (folder / f"{rank}.json").write_text(json.dumps(facts))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_measure_as_one(
    archive: ZipDataset, generator: Generator, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the true lite2's features. 1e-9: they are the same, bit for bit; their sums are in another order."""
    monkeypatch.setattr(metrics_hook, "Lite2Features", Lite2Features)
    weights = {"lite2": load_pretrained("lite2"), "inception": NarrowInception()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # features must come from the same kernels
    alone = hook(ALL, weights, archive).distances(generator)
    torch.set_num_threads(threads)
    torch.multiprocessing.spawn(measure_as, (2, tmp_path, tiny_checkpoint), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first[0] == {name: pytest.approx(value, rel=1e-9) for name, value in alone.items()}


def test_metric_networks_distances() -> None:
    assert {metric.network for metric in DISTANCES.values()} == set(SAMPLE_COUNTS)
    assert metric_networks(("kd-lite2", "fid", "fd-lite2")) == ("lite2", "inception")
