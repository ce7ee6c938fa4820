"""Protocols and the metrics of Inception in one pass."""

from pathlib import Path

import pytest
import torch
from evaluation_inputs import evaluated, moments_from_tensors, write_images
from inception_stand_in import write_inception_graph
from stand_ins import write_inception

from polyinr_core.errors import RequestError, WeightsError
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.evaluation.protocols import load_extractors
from polyinr_core.metrics.extractors import load_extractor
from polyinr_core.metrics.frechet import frechet_distance
from polyinr_core.metrics.inception import InceptionScore, InceptionTaps
from polyinr_core.metrics.registry import get_metric, get_metrics, networks_of
from polyinr_core.runtime.atomic_io import sha256_of


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_images(tmp_path / "fakes", 20, seed=1)


@pytest.mark.slow  # symmetric solvers at 2048
def test_inception_metrics_share_one_pass(tmp_path: Path, reals: Path, fakes: Path) -> None:
    file = write_inception_graph(tmp_path / "inception.pt")
    names = ("fid", "sfid", "is", "kid", "pr-adm")
    metrics = get_metrics(names)
    networks = load_extractors(networks_of(metrics.values()), {"inception": file})
    assert list(networks) == ["inception"]
    result = evaluated(reals, fakes, names, networks=networks)
    taps = InceptionTaps(load_extractor("inception", file=file))
    x, y = (taps(torch.cat(list(DatasetImages(path).batches()))) for path in (fakes, reals))
    fid = frechet_distance(
        moments_from_tensors(x.pooled).gaussian(unbiased=False), moments_from_tensors(y.pooled).gaussian(unbiased=False)
    )
    sfid = frechet_distance(moments_from_tensors(x.spatial).gaussian(), moments_from_tensors(y.spatial).gaussian())
    score = InceptionScore(20, 1008)
    score.add(x.probabilities, first=0)
    rows = result["metrics"]
    assert rows["fid"]["value"] == pytest.approx(fid, rel=1e-4)
    assert rows["sfid"]["value"] == pytest.approx(sfid, rel=1e-4)
    assert rows["is"]["value"] == pytest.approx(score.result()[0], rel=1e-4)
    assert result["card"]["protocols"]["fid"]["rule"].endswith("covariance by N, float64")
    assert result["card"]["networks"]["inception"]["sha256"] == networks["inception"].sha256


def test_unknown_metrics_are_refused_with_the_list() -> None:
    for name in ("fdi", "fd-", "fd-lite3", "fd-timm:", "", "xx-lite2"):
        with pytest.raises(RequestError, match="choose from fid, fid-clean"):
            get_metric(name)
    assert get_metric("fd-timm:resnet18").network == "timm:resnet18"


@pytest.mark.parametrize(("metric", "network"), [("pr", "vgg16"), ("rfid", "rfid")])
def test_networks_from_user_files(tmp_path: Path, metric: str, network: str) -> None:
    names = networks_of([get_metric(metric)])
    with pytest.raises(WeightsError, match=f"{metric} needs .* --weights {network}="):
        load_extractors(names, {})
    file = write_inception(tmp_path / "any.pt", width=30)
    loaded = load_extractors(names, {network: file})[network]
    assert (loaded.dim, loaded.sha256) == (30, sha256_of(file))


def test_unused_weights_are_refused() -> None:
    with pytest.raises(RequestError, match="dinov2"):
        load_extractors([], {"dinov2": Path("x")})
