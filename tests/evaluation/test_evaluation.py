"""Evaluation: figures equal those of the metrics' own functions, however pictures come in; the cache."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import small_snapshot
from inception_stand_in import write_inception_graph
from PIL import Image
from torch import Tensor

from polyinr_core.errors import FileError, PolyinrError, RequestError, WeightsError
from polyinr_core.evaluation.cache import Cache
from polyinr_core.evaluation.inputs import DrawnPictures, open_pictures
from polyinr_core.evaluation.looking import Need, look, rebatched
from polyinr_core.evaluation.measure import Settings, evaluate, key_of
from polyinr_core.evaluation.protocols import load_networks
from polyinr_core.metrics.confidence import bootstrap, frechet_to
from polyinr_core.metrics.gaussian import FeatureStatistics, frechet_distance
from polyinr_core.metrics.inception import InceptionTaps
from polyinr_core.metrics.kernel import KernelReference
from polyinr_core.metrics.neighbours import manifold, overlap
from polyinr_core.metrics.networks import load_network
from polyinr_core.metrics.rules import metric_named, metrics_named, networks_of
from polyinr_core.metrics.scores import InceptionScore
from polyinr_core.snapshots.snapshot import load_snapshot

CPU = torch.device("cpu")
NAMES = ("fd-lite2", "kd-lite2", "pr-lite2", "dc-lite2")


class Eyes(torch.nn.Module):
    """A judge of 6 features; `seen` counts the pictures that it was shown."""

    dim, name, sha256, side = 6, "lite2", "cd" * 32, 8

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(0)).double()
        self.seen = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        small = torch.nn.functional.adaptive_avg_pool2d(pixels.double(), 4)
        return ((small.flatten(1) / 255) @ self.matrix).float()


def write_pictures(folder: Path, count: int, *, side: int = 8, seed: int = 0, backwards: bool = False) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{count - i if backwards else i:03d}.png")
    return folder


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "reals", 24)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "fakes", 20, seed=1)


def values(reals: Path, fakes: Path, names: tuple[str, ...] = NAMES, **settings: object) -> dict[str, float]:
    metrics = metrics_named(names)
    result = evaluate(
        open_pictures(reals),
        open_pictures(fakes),
        metrics,
        {"lite2": Eyes()},
        device=CPU,
        settings=Settings(**settings),
    )
    return {name: row["value"] for name, row in result["figures"].items()}


def features_of(path: Path, network: torch.nn.Module | None = None) -> Tensor:
    return (network or Eyes())(torch.cat(list(open_pictures(path).passes())))


def statistics_of(features: Tensor) -> FeatureStatistics:
    statistics = FeatureStatistics(features.shape[1])
    statistics.add(features)
    return statistics


def test_figures_are_those_of_the_metrics_themselves(reals: Path, fakes: Path) -> None:
    x, y = features_of(fakes), features_of(reals)
    found = values(reals, fakes)
    shared = overlap(manifold(x), manifold(y))
    expected = {
        "fd-lite2": frechet_distance(statistics_of(x).gaussian(), statistics_of(y).gaussian()),
        "kd-lite2": KernelReference(y, len(x)).distance(x),
        "pr-lite2/precision": shared.precision,
        "pr-lite2/recall": shared.recall,
        "dc-lite2/density": shared.density,
        "dc-lite2/coverage": shared.coverage,
    }
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_batch_changes_nothing(reals: Path, fakes: Path, batch: int) -> None:
    assert values(reals, fakes, batch=batch) == pytest.approx(values(reals, fakes), rel=1e-6)


def test_the_order_changes_nothing(tmp_path: Path, reals: Path, fakes: Path) -> None:
    there = write_pictures(tmp_path / "backwards", 24, backwards=True)
    names = ("fd-lite2", "pr-lite2", "dc-lite2")
    assert values(there, fakes, names) == pytest.approx(values(reals, fakes, names), rel=1e-6)


def test_each_picture_is_looked_at_once(reals: Path, fakes: Path) -> None:
    eyes = Eyes()
    metrics = metrics_named(NAMES)
    evaluate(open_pictures(reals), open_pictures(fakes), metrics, {"lite2": eyes}, device=CPU)
    assert eyes.seen == 24 + 20


def test_intervals_are_those_of_the_bootstrap(reals: Path, fakes: Path) -> None:
    metrics = metrics_named(NAMES)
    result = evaluate(
        open_pictures(reals),
        open_pictures(fakes),
        metrics,
        {"lite2": Eyes()},
        device=CPU,
        settings=Settings(bootstrap=5),
    )
    rows = result["figures"]
    figure = frechet_to(statistics_of(features_of(reals)).gaussian())
    interval = bootstrap(figure, features_of(fakes), repeats=5)
    assert rows["fd-lite2"]["low"] == pytest.approx(interval.low, rel=1e-9)
    assert rows["fd-lite2"]["bias"] > 0
    assert all(row["resamples"] == 5 for row in rows.values())


def test_sets_of_one_picture_again_and_again_have_no_distance(tmp_path: Path) -> None:
    grey = tmp_path / "grey"
    grey.mkdir()
    for i in range(8):
        Image.new("RGB", (8, 8), (90, 90, 90)).save(grey / f"{i}.png")
    found = values(grey, grey)
    assert found["fd-lite2"] == pytest.approx(0, abs=1e-9)
    assert found["kd-lite2"] == pytest.approx(0, abs=1e-9)


def test_batches_are_cut_anew() -> None:
    parts = [torch.arange(0, 5), torch.arange(5, 6), torch.arange(6, 17)]
    batches = list(rebatched(parts, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 1]
    assert torch.equal(torch.cat(batches), torch.arange(17))


# What a model draws


def test_a_model_draws_the_same_whatever_the_batch(tmp_path: Path) -> None:
    snapshot = load_snapshot(small_snapshot(tmp_path / "m.safetensors", classes=4))
    drawn = DrawnPictures(snapshot, name="m", count=70, side=16, psi=0.7)
    pixels = torch.cat(list(drawn.passes()))
    assert pixels.shape == (70, 3, 16, 16)
    assert pixels.dtype == torch.uint8
    assert drawn.facts["labels"] == "uniform by seed"
    assert drawn.facts["seeds"] == "0-69"
    large = torch.cat(list(DrawnPictures(snapshot, name="m", count=2, side=160, psi=0.7).passes()))
    assert large.shape == (2, 3, 160, 160)


def test_psi_and_label_matter(tmp_path: Path) -> None:
    snapshot = load_snapshot(small_snapshot(tmp_path / "m.safetensors", classes=4))

    def drawn(**options: float) -> Tensor:
        return torch.cat(list(DrawnPictures(snapshot, name="m", count=6, **options).passes()))

    assert not torch.equal(drawn(), drawn(psi=0.5))
    assert not torch.equal(drawn(label=0), drawn(label=1))
    still = drawn(psi=0.0, label=2)
    assert torch.equal(still[0], still[5])


def test_pictures_are_reduced_by_area_and_chosen_once(reals: Path) -> None:
    whole = torch.cat(list(open_pictures(reals).passes()))
    halves = torch.cat(list(open_pictures(reals, side=4).passes()))
    means = whole.double().unflatten(2, (4, 2)).unflatten(4, (4, 2)).mean(dim=(3, 5))
    assert (halves.double() - means).abs().max() <= 0.5 + 1e-6
    some = open_pictures(reals, count=5)
    assert some.order == open_pictures(reals, count=5).order
    assert len(torch.cat(list(some.passes()))) == 5


# The cache


def test_the_cache_is_used_and_a_stale_one_is_not(tmp_path: Path, reals: Path, fakes: Path) -> None:
    metrics = metrics_named(NAMES)
    settings = Settings(cache=tmp_path / "cache")

    def shown() -> tuple[int, dict]:
        eyes = Eyes()
        result = evaluate(
            open_pictures(reals),
            open_pictures(fakes),
            metrics,
            {"lite2": eyes},
            device=CPU,
            settings=settings,
        )
        return eyes.seen, result["figures"]

    first, figures = shown()
    again, cached = shown()
    assert (first, again) == (44, 20)
    assert cached == figures
    with Image.open(reals / "000.png") as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(reals / "000.png")
    changed, other = shown()
    assert changed == 44
    assert other != figures


def test_a_damaged_or_renamed_cache_is_not_used(tmp_path: Path, reals: Path) -> None:
    pictures, eyes = open_pictures(reals), Eyes()
    need = Need(statistics=True, features=True)
    sense = ("lite2", "pooled")
    seen = look(pictures, {"lite2": eyes}, {sense: need}, device=CPU)[sense]
    key = key_of(pictures, sense, {"lite2": eyes})
    cache = Cache(tmp_path / "cache")
    assert cache.load(key, need, device=CPU) is None
    cache.store(key, seen)
    kept = cache.load(key, need, device=CPU)
    assert kept is not None
    assert torch.equal(kept.features, seen.features)
    assert torch.equal(kept.statistics.scatter, seen.statistics.scatter)
    other = {**key, "network_sha256": "ef" * 32}
    path = cache.path(key)
    cache.path(other).write_bytes(path.read_bytes())
    assert cache.load(other, need, device=CPU) is None
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert cache.load(key, need, device=CPU) is None
    path.write_bytes(data[:100])
    assert cache.load(key, need, device=CPU) is None


def test_kept_statistics_do_not_stand_for_features(tmp_path: Path, reals: Path) -> None:
    pictures, eyes = open_pictures(reals), Eyes()
    sense = ("lite2", "pooled")
    seen = look(pictures, {"lite2": eyes}, {sense: Need(statistics=True)}, device=CPU)[sense]
    cache, key = Cache(tmp_path / "cache"), key_of(pictures, sense, {"lite2": eyes})
    cache.store(key, seen)
    assert cache.load(key, Need(statistics=True), device=CPU) is not None
    assert cache.load(key, Need(statistics=True, features=True), device=CPU) is None


# Protocols


@pytest.mark.slow  # symmetric solvers at 2048
def test_inception_s_metrics_share_one_pass(tmp_path: Path, reals: Path, fakes: Path) -> None:
    file = write_inception_graph(tmp_path / "inception.pt")
    names = ("fid", "sfid", "is", "kid", "pr-adm")
    metrics = metrics_named(names)
    networks = load_networks(networks_of(metrics.values()), {"inception": file})
    assert list(networks) == ["inception"]
    result = evaluate(open_pictures(reals), open_pictures(fakes), metrics, networks, device=CPU)
    taps = InceptionTaps(load_network("inception", file=file))
    x, y = (taps(torch.cat(list(open_pictures(path).passes()))) for path in (fakes, reals))
    fid = frechet_distance(
        statistics_of(x.pooled).gaussian(unbiased=False), statistics_of(y.pooled).gaussian(unbiased=False)
    )
    sfid = frechet_distance(statistics_of(x.spatial).gaussian(), statistics_of(y.spatial).gaussian())
    score = InceptionScore(20, 1008)
    score.add(x.probabilities, first=0)
    rows = result["figures"]
    assert rows["fid"]["value"] == pytest.approx(fid, rel=1e-5)
    assert rows["sfid"]["value"] == pytest.approx(sfid, rel=1e-5)
    assert rows["is"]["value"] == pytest.approx(score.result()[0], rel=1e-5)
    assert result["card"]["protocols"]["fid"]["rule"].endswith("covariance by N, float64")
    assert result["card"]["networks"]["inception"]["sha256"] == networks["inception"].sha256


def test_what_is_no_metric_is_refused_with_the_list() -> None:
    for name in ("fdi", "fd-", "fd-lite3", "fd-timm:", "", "xx-lite2"):
        with pytest.raises(RequestError, match="choose from fid, fid-clean"):
            metric_named(name)
    assert metric_named("fd-timm:resnet18").network == "timm:resnet18"


def test_pr_says_which_file_it_needs() -> None:
    with pytest.raises(WeightsError, match="vgg16"):
        load_networks(["vgg16"], {})
    with pytest.raises(RequestError, match="dinov2"):
        load_networks([], {"dinov2": Path("x")})


# What cannot be evaluated


def test_too_few_pictures_are_refused(tmp_path: Path, fakes: Path) -> None:
    few = write_pictures(tmp_path / "few", 3)
    with pytest.raises(RequestError, match="pr-lite2 needs 4 reals or more"):
        values(few, fakes, ("pr-lite2",))
    with pytest.raises(RequestError, match="dc-lite2 needs 6 fakes or more"):
        values(fakes, few, ("dc-lite2",))
    with pytest.raises(RequestError, match="with intervals needs 4 fakes"):
        values(fakes, few, ("fd-lite2",), bootstrap=2)


def test_other_sizes_are_refused_and_named(tmp_path: Path, reals: Path) -> None:
    large = write_pictures(tmp_path / "large", 6, side=12)
    with pytest.raises(RequestError, match=r"reals of 8 px.*fakes of 12 px.*--res 8"):
        values(reals, large)
    with pytest.raises(FileError, match="none is enlarged"):
        open_pictures(reals, side=9)
    Image.new("RGB", (9, 9)).save(reals / "999.png")
    with pytest.raises(FileError, match=r"999.png: is 9 px"):
        list(open_pictures(reals).passes())


def test_features_that_are_no_numbers_are_refused(reals: Path, fakes: Path) -> None:
    class Blind(Eyes):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * torch.nan

    with pytest.raises(PolyinrError, match=r"lite2 gives features that are no finite numbers.*reals"):
        evaluate(
            open_pictures(reals),
            open_pictures(fakes),
            metrics_named(["fd-lite2"]),
            {"lite2": Blind()},
            device=CPU,
        )
