"""Features are cached, and a stale or damaged file is not used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_inputs import CPU, LinearExtractor, evaluated, values, write_images
from PIL import Image

from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.evaluation.set_metrics import cache_key
from polyinr_core.metrics.feature_pass import FeatureCache, extract_features
from polyinr_core.metrics.feature_statistics import FeatureStatistics, Requirements


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24)


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    return write_images(tmp_path / "fakes", 20, seed=1)


def test_the_cache_is_used_and_a_stale_one_is_not(tmp_path: Path, reals: Path, fakes: Path) -> None:

    def shown() -> tuple[int, dict]:
        extractor = LinearExtractor()
        result = evaluated(reals, fakes, extractor=extractor, cache=tmp_path / "cache")
        return extractor.seen, result["metrics"]

    first, figures = shown()
    again, cached = shown()
    assert (first, again) == (44, 0)
    assert cached == figures
    with Image.open(reals / "000.png") as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(reals / "000.png")
    changed, other = shown()
    assert changed == 24
    assert other != figures


def filled_cache(folder: Path, reals: Path) -> tuple[FeatureCache, dict, FeatureStatistics]:
    """Return a cache with the statistics of the reals, its key and these."""
    images, extractor = DatasetImages(reals), LinearExtractor()
    feature_key = ("lite2", "pooled")
    seen = extract_features(
        images, {"lite2": extractor}, {feature_key: Requirements(moments=True, features=True)}, device=CPU
    )[feature_key]
    cache, key = FeatureCache(folder), cache_key(images, feature_key, {"lite2": extractor}, CPU)
    assert cache.load(key) is None
    cache.store(key, seen.count, seen.to_tensors())
    return cache, key, seen


def test_cached_statistics_equal_the_extracted_ones(tmp_path: Path, reals: Path) -> None:
    cache, key, seen = filled_cache(tmp_path / "cache", reals)
    count, tensors = cache.load(key)
    again = FeatureStatistics.from_tensors(tensors, count, device=CPU)
    assert torch.equal(again.features, seen.features)
    assert torch.equal(again.moments.scatter, seen.moments.scatter)
    assert again.count == again.moments.count == 24


def test_a_damaged_or_renamed_file_is_not_used(tmp_path: Path, reals: Path) -> None:
    cache, key, _ = filled_cache(tmp_path / "cache", reals)
    other = {**key, "tap": "spatial"}
    path = cache.path_for(key)
    cache.path_for(other).write_bytes(path.read_bytes())
    assert cache.load(other) is None
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert cache.load(key) is None
    path.write_bytes(data[:100])
    assert cache.load(key) is None


def test_cached_moments_do_not_replace_features(reals: Path, fakes: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    values(reals, fakes, ("fd-lite2",), cache=cache)
    both = ("fd-lite2", "kd-lite2")
    assert values(reals, fakes, both, cache=cache) == values(reals, fakes, both)
