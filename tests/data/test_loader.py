"""Batches: every image once an epoch, a function of the seed and the position, exact area averages."""

import time

import numpy as np
import pytest
import torch
from specimens import write_dataset

from polyinr_core.data.loader import InfiniteSampler, TrainLoader
from polyinr_core.data.resample import area_average, area_weights
from polyinr_core.data.zip_dataset import ZipDataset
from polyinr_core.errors import ConfigError, DatasetError
from polyinr_core.runtime.rng import generator_for


@pytest.fixture
def dataset(tmp_path):
    return ZipDataset.open(write_dataset(tmp_path / "a.zip", count=10))


def test_native_resolution_is_the_release_s_scale(dataset):
    loader = TrainLoader(dataset, resolution=8, seed=1)
    images, labels = loader.batch(0, 10)
    assert images.shape == (10, 3, 8, 8)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    items = loader.sampler.indices(0, 10).tolist()
    expected = np.stack([dataset.read(item) for item in items]).astype(np.float32) / np.float32(127.5) - 1
    assert np.array_equal(images.numpy(), expected.transpose(0, 3, 1, 2))  # exact: the same two operations
    assert labels.tolist() == dataset.labels[items].tolist()


@pytest.mark.parametrize("mirror", [False, True])
def test_every_epoch_shows_every_image_once_in_another_order(dataset, mirror):
    loader = TrainLoader(dataset, resolution=4, seed=3, mirror=mirror)
    size = 20 if mirror else 10
    epochs = [loader.sampler.indices(epoch * size, size).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4
    other = TrainLoader(dataset, resolution=4, seed=4, mirror=mirror)
    assert other.sampler.indices(0, size).tolist() != epochs[0]


def test_mirror_doubles_the_epoch_by_flipped_images(dataset):
    loader = TrainLoader(dataset, resolution=8, seed=0, mirror=True)
    images, labels = loader.batch(0, 20)
    place = loader.sampler.indices(0, 20).tolist()
    for item in range(10):
        straight, flipped = place.index(item), place.index(item + 10)
        assert torch.equal(images[straight].flip(2), images[flipped])
        assert labels[straight] == labels[flipped]


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
@pytest.mark.parametrize("resolution", [8, 5, 4, 3, 1])
def test_a_batch_is_a_pure_function_of_its_position(dataset, resolution, cache_bytes):
    loader = TrainLoader(dataset, resolution=resolution, seed=5, mirror=True, cache_bytes=cache_bytes)
    whole, labels = TrainLoader(dataset, resolution=resolution, seed=5, mirror=True).batch(0, 70)
    for start, size in [(63, 7), (0, 1), (17, 30), (5, 3), (39, 2)]:  # any order, across epochs, any size
        images, some = loader.batch(start, size)
        assert torch.equal(images, whole[start : start + size])  # to the last bit
        assert torch.equal(some, labels[start : start + size])


@pytest.mark.parametrize(("fine", "coarse"), [(8, 4), (64, 32), (12, 3), (16, 1), (7, 3), (10, 4), (100, 64), (300, 7)])
def test_area_averages_against_a_slow_form_in_float64(fine, coarse):
    pixels = np.random.default_rng(0).integers(0, 256, (3, fine, fine), dtype=np.uint8)
    edges = np.arange(coarse + 1) * fine / coarse
    overlap = np.clip(
        np.minimum(edges[1:, None], np.arange(1, fine + 1)) - np.maximum(edges[:-1, None], np.arange(fine)), 0, None
    )
    expected = np.einsum("ay,bx,cyx->cab", overlap, overlap, pixels.astype(np.float64)) * (coarse / fine) ** 2
    found = area_average(torch.from_numpy(pixels), area_weights(fine, coarse)).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - (expected / 127.5 - 1)).max() < 3e-7  # float32's rounding: x / 127.5 up to 2, minus 1
    if fine % coarse == 0:
        side = fine // coarse
        blocks = pixels.reshape(3, coarse, side, coarse, side).mean((2, 4), dtype=np.float64)
        assert np.abs(found - (blocks / 127.5 - 1)).max() < 3e-7


def test_weights_are_exact_whole_numbers():
    assert area_weights(256, 32).dtype == torch.float32
    assert area_weights(1000, 3).dtype == torch.float64  # 255 * 1000 * 1000 is above 2^24
    weights = area_weights(10, 4)
    assert torch.equal(weights, weights.round())
    assert weights.sum(1).tolist() == [5] * 4


def test_fake_labels_follow_the_data(tmp_path):
    names = [f"00000/img{index:08d}.png" for index in range(10)]
    labels = [[name, int(index == 0)] for index, name in enumerate(names)]
    loader = TrainLoader(
        ZipDataset.open(write_dataset(tmp_path / "a.zip", count=10, labels=labels)), resolution=4, seed=0
    )
    drawn = loader.sample_labels(generator_for(0, "fakes"), 20_000)
    assert drawn.dtype == torch.int64
    assert abs(drawn.double().mean().item() - 0.1) < 0.01  # five standard deviations of 20 000 draws
    assert torch.equal(drawn, loader.sample_labels(generator_for(0, "fakes"), 20_000))


def test_no_labels_are_none(tmp_path):
    loader = TrainLoader(ZipDataset.open(write_dataset(tmp_path / "a.zip", labels=None)), resolution=4, seed=0)
    assert loader.batch(0, 2)[1] is None
    assert loader.sample_labels(generator_for(0), 2) is None


def test_enlarging_is_refused(dataset):
    with pytest.raises(DatasetError, match=r"images of 8 px, 16 px are asked for; train it with --stages 8:200, or"):
        TrainLoader(dataset, resolution=16, seed=0)
    with pytest.raises(ConfigError):
        TrainLoader(dataset, resolution=0, seed=0)


def test_a_cached_image_is_not_read_again(dataset, monkeypatch):
    loader = TrainLoader(dataset, resolution=4, seed=0)
    before = loader.batch(0, 10)[0]
    monkeypatch.setattr(ZipDataset, "read", None)
    assert torch.equal(loader.batch(0, 10)[0], before)


def test_a_damaged_image_is_a_clear_error(tmp_path):
    path = write_dataset(tmp_path / "a.zip", count=10)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        TrainLoader(ZipDataset.open(path), resolution=4, seed=0).batch(0, 10)


def test_a_batch_is_quick_once_cached(tmp_path):
    loader = TrainLoader(ZipDataset.open(write_dataset(tmp_path / "a.zip", count=32, side=64)), resolution=32, seed=0)
    loader.batch(0, 32)
    seconds = []
    for position in range(0, 160, 16):
        start = time.perf_counter()
        loader.batch(position, 16)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.01


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("held_out", [0, 3])
@pytest.mark.parametrize("window", [0, 2])
def test_every_epoch_has_every_place_once(mirror, held_out, window):
    shards = torch.arange(20) // 4
    order = InfiniteSampler(20, seed=3, mirror=mirror, held_out=held_out, shards=shards, window=window)
    kept = [item for item in range(20) if item not in order.held_out]
    expected = sorted(kept + [item + 20 for item in kept]) if mirror else kept
    assert len(kept) == 20 - held_out
    size = len(expected)
    assert order.epoch_size == size
    epochs = [order.indices(epoch * size, size).tolist() for epoch in range(4)]
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_any_stretch_is_cut_from_the_same_stream():
    order = InfiniteSampler(10, seed=1, mirror=True, held_out=2, shards=torch.arange(10) // 3, window=2)
    whole = InfiniteSampler(10, seed=1, mirror=True, held_out=2, shards=torch.arange(10) // 3, window=2).indices(0, 100)
    for start, size in [(90, 10), (0, 0), (15, 40), (3, 1), (47, 2)]:
        assert torch.equal(order.indices(start, size), whole[start : start + size])


def test_the_held_out_follow_from_the_seed_alone():
    first = InfiniteSampler(50, seed=1, held_out=8)
    assert torch.equal(first.held_out, InfiniteSampler(50, seed=1, held_out=8, mirror=True).held_out)
    assert torch.equal(first.held_out[:5], InfiniteSampler(50, seed=1, held_out=5).held_out)
    assert not torch.equal(first.held_out, InfiniteSampler(50, seed=2, held_out=8).held_out)


def test_a_window_keeps_shards_together():
    shards = torch.arange(600) // 60
    windowed = InfiniteSampler(600, seed=0, shards=shards, window=2)
    runs = [shards[windowed.epoch(epoch)].view(5, 120) for epoch in range(2)]
    for run in runs:
        assert all(len(stretch.unique()) == 2 for stretch in run)  # two shards at a time
        assert all((stretch.diff() != 0).sum() > 30 for stretch in run)  # and these well mixed
    assert not torch.equal(runs[0].sort(1).values, runs[1].sort(1).values)  # other pairs in the next epoch
    assert len(shards[InfiniteSampler(600, seed=0, shards=shards).epoch(0)][:120].unique()) == 10


@pytest.mark.parametrize(("held_out", "window"), [(10, 0), (11, 0), (-1, 0), (0, -1)])
def test_impossible_numbers_are_refused(held_out, window):
    with pytest.raises(ConfigError):
        InfiniteSampler(10, seed=0, held_out=held_out, window=window)
