"""The order: every image once an epoch, held-out ones never, files by files where a window is given."""

import pytest
import torch

from polyinr_core.data.loader import InfiniteSampler
from polyinr_core.errors import ConfigError


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
