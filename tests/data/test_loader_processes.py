"""The stream: the same to the last bit however it is read and shared, and no trace of it when it is closed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import islice

import pytest
import torch
from specimens import write_dataset
from test_tar_dataset import write_shards

from polyinr_core.data.dataset import open_dataset
from polyinr_core.data.loader import TrainLoader
from polyinr_core.errors import ConfigError, DatasetError, PolyinrError
from polyinr_core.runtime.distributed import DistributedContext


@pytest.fixture
def data(tmp_path):
    return open_dataset(write_dataset(tmp_path / "a.zip", count=10))


def taken(loader, count, position=0, **how):
    """The first items of a stream, and then it is closed."""
    with closing(loader.batches(position, **({"batch": 6, "micro_batch": 6} | how))) as stream:
        return list(islice(stream, count))


def children() -> set[int]:
    """The processes that multiprocessing has started and that have not gone."""
    return {process.pid for process in multiprocessing.active_children()}


@pytest.mark.parametrize("cache_bytes", [2**30, 0])
@pytest.mark.parametrize("resolution", [8, 5])
def test_the_stream_is_the_batches_in_their_order(data, cache_bytes, resolution):
    loader = TrainLoader(data, resolution=resolution, seed=5, mirror=True, held_out=2, cache_bytes=cache_bytes)
    assert (loader.cache is None) == (cache_bytes == 0)
    for start in (0, 13):
        for index, (images, labels) in enumerate(taken(loader, 7, start)):
            expected = loader.batch(start + 6 * index, 6)
            assert torch.equal(images, expected[0])
            assert torch.equal(labels, expected[1])


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("micro_batch", [6, 12])
def test_ranks_share_each_micro_batch(data, count, micro_batch):
    loader = TrainLoader(data, resolution=8, seed=5, mirror=True)
    whole = taken(loader, 3, batch=12, micro_batch=12)
    parts = [
        taken(loader, 3, batch=12, micro_batch=micro_batch, dist=DistributedContext(rank, count))
        for rank in range(count)
    ]
    for index, (images, labels) in enumerate(whole):
        pieces = [[part[index][kind].split(micro_batch // count) for part in parts] for kind in (0, 1)]
        micro_batches = range(12 // micro_batch)
        assert torch.equal(torch.cat([p[m] for m in micro_batches for p in pieces[0]]), images)
        assert torch.equal(torch.cat([p[m] for m in micro_batches for p in pieces[1]]), labels)


def test_held_out_images_never_come(data):
    loader = TrainLoader(data, resolution=8, seed=0, held_out=3)
    assert len(loader) == 7
    apart, labels = loader.held_out(3)
    assert apart.shape == (3, 3, 8, 8)
    assert labels.tolist() == data.labels[loader.sampler.held_out].tolist()
    assert torch.equal(loader.held_out(2)[0], apart[:2])
    seen = torch.cat([images for images, _ in taken(loader, 5)])
    assert len(torch.unique(seen, dim=0)) == 7
    assert not any(torch.equal(one, other) for one in seen for other in apart)
    kept = set(range(10)) - set(loader.sampler.held_out.tolist())
    only = TrainLoader(data, resolution=8, seed=0, held_out=9)
    (last,) = set(range(10)) - set(only.sampler.held_out.tolist())
    assert set(only.sample_labels(torch.Generator(), 50).tolist()) == {int(data.labels[last])}
    assert len(kept) == 7
    with pytest.raises(ConfigError, match="4 held-out images are asked for, 3 are held out"):
        loader.held_out(4)


def test_impossible_numbers_are_refused(data):
    with pytest.raises(ConfigError, match="micro-batch 4 does not divide the batch of 6"):
        TrainLoader(data, resolution=8, seed=0).batches(0, batch=6, micro_batch=4)
    with pytest.raises(ConfigError, match="-1 workers"):
        TrainLoader(data, resolution=8, seed=0, workers=-1)


def test_workers_are_started_by_need(data):
    assert TrainLoader(data, resolution=8, seed=0, workers=2).workers == 0  # all in memory
    assert TrainLoader(data, resolution=8, seed=0, workers=2, cache_bytes=0).workers == 2
    found = TrainLoader(data, resolution=8, seed=0, workers=None, cache_bytes=0).workers
    assert found == min(4, (os.cpu_count() or 1) - 1)


def test_what_fits_is_judged_at_the_resolution_of_the_loader(data):
    room = 10 * 3 * 2 * 2 * 4  # ten averages of 2 px in float32
    assert TrainLoader(data, resolution=2, seed=0, cache_bytes=room).cache is not None
    assert TrainLoader(data, resolution=2, seed=0, cache_bytes=room - 1).cache is None
    assert TrainLoader(data, resolution=8, seed=0, cache_bytes=10 * 3 * 64).cache is not None


def test_the_next_batches_are_read_while_the_last_one_is_at_work(data, monkeypatch):
    read = []
    loader = TrainLoader(data, resolution=8, seed=0, cache_bytes=0)
    plain = loader.load

    def shown(places):
        read.append(threading.current_thread().name)
        return plain(places)

    monkeypatch.setattr(loader, "load", shown)
    with closing(loader.batches(0, batch=2, micro_batch=2)) as stream:
        next(stream)
        deadline = time.monotonic() + 10
        while len(read) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(read) == 3  # this one and two in advance, no more
    assert all(name.startswith("prefetch") for name in read)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_stream_closed_before_its_first_item_or_dropped_leaves_nothing(data):
    loader = TrainLoader(data, resolution=8, seed=0, cache_bytes=0, workers=2)
    loader.batches(0, batch=2, micro_batch=2).close()
    stream = TrainLoader(data, resolution=8, seed=0).batches(0, batch=2, micro_batch=2)
    next(stream)
    del stream
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    assert not children()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_image_is_a_clear_error_in_its_turn(tmp_path, workers):
    path = write_dataset(tmp_path / "a.zip", count=10)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"IDAT") + 20] ^= 0xFF
    path.write_bytes(raw)
    loader = TrainLoader(open_dataset(path), resolution=4, seed=0, cache_bytes=0, workers=workers)
    with pytest.raises(DatasetError, match=r"a\.zip: .*damaged") as caught:
        taken(loader, 5, batch=2, micro_batch=2)
    assert type(caught.value) is DatasetError
    assert "\n" not in str(caught.value)
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "workers"), [("archive", 1), ("shards", 2)])
def test_worker_processes_read_the_same_stream(tmp_path, kind, workers):
    path = write_shards(tmp_path / "set") if kind == "shards" else write_dataset(tmp_path / "a.zip", count=10)
    data = open_dataset(path)
    how = {"resolution": 5, "seed": 5, "mirror": True, "held_out": 1, "window": 2, "cache_bytes": 0}
    expected = taken(TrainLoader(data, **how), 12, 3, batch=4, micro_batch=2, dist=DistributedContext(1, 2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = taken(
        TrainLoader(data, **how, workers=workers), 12, 3, batch=4, micro_batch=2, dist=DistributedContext(1, 2)
    )
    for (images, labels), (others, their_labels) in zip(expected, found, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, their_labels)
    assert not children()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.slow
def test_dead_workers_are_replaced_and_their_images_not_lost(data):
    loader = TrainLoader(data, resolution=8, seed=5, cache_bytes=0, workers=2)
    found = []
    with closing(loader.batches(0, batch=6, micro_batch=6)) as stream:
        for index in range(24):
            found.append(next(stream))
            if index == 2:
                for pid in children():
                    os.kill(pid, signal.SIGKILL)
    for index, (images, _) in enumerate(found):
        assert torch.equal(images, loader.batch(6 * index, 6)[0])
    assert not children()


class Fatal:
    """An image set that ends the process that reads it, unless it is `home`."""

    def __init__(self, data):
        self.data, self.home = data, os.getpid()
        self.path, self.resolution, self.labels, self.shard_of = data.path, data.resolution, None, None

    def __len__(self):
        return len(self.data)

    def read(self, index):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data.read(index)


@pytest.mark.slow
def test_workers_that_die_at_once_are_a_clear_error(data):
    loader = TrainLoader(Fatal(data), resolution=8, seed=5, cache_bytes=0, workers=1)
    with (
        closing(loader.batches(0, batch=2, micro_batch=2)) as stream,
        pytest.raises(PolyinrError, match=r"the processes that read images died.*use fewer --workers"),
    ):
        next(stream)
    assert not children()


SCRIPT = """
import signal, sys, time
from contextlib import closing
from polyinr_core.data.loader import TrainLoader
from polyinr_core.data.dataset import open_dataset

def main():
    loader = TrainLoader(open_dataset(sys.argv[1]), resolution=8, seed=0, cache_bytes=0, workers=2)
    stream = loader.batches(0, batch=2, micro_batch=2)
    next(stream)
    try:
        print("here", flush=True)
        if sys.argv[2] == "wait":
            time.sleep(60)
    except KeyboardInterrupt:
        for _ in range(9):
            next(stream)  # Ctrl-C is ours to answer: the workers go on
        stream.close()
        print("closed", flush=True)

if __name__ == "__main__":
    main()
"""


def group_members(group: int) -> list[str]:
    listing = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "-g", str(group)], capture_output=True, text=True, check=False
    )
    return [line for line in listing.stdout.splitlines() if "Z" not in line.split()[1]]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["left open", "interrupt", "kill"])
def test_every_end_of_the_process_ends_the_workers_quietly(tmp_path, end):
    """A script that never closes its stream; Ctrl-C at a terminal, which all processes get; SIGKILL."""
    path = write_dataset(tmp_path / "a.zip", count=10)
    (tmp_path / "script.py").write_text(SCRIPT)
    run = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", path, "leave" if end == "left open" else "wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout.readline() == "here\n"
    if end == "interrupt":
        os.killpg(run.pid, signal.SIGINT)
    elif end == "kill":
        run.kill()
    stdout, stderr = run.communicate(timeout=60)
    if end != "kill":  # then multiprocessing's keeper tells what it clears away
        assert (stdout, stderr) == ("closed\n" if end == "interrupt" else "", "")
        assert run.returncode == 0
    deadline = time.monotonic() + 10
    while group_members(run.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not group_members(run.pid)
