"""Two processes that talk over Gloo: what stops one of them stops both, each with the right words; no rank waits."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from polyinr_core.errors import DistributedError
from polyinr_core.runtime.distributed import DistributedContext

BEGIN = f"""
import os
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
import torch
import torch.distributed as dist
from polyinr_core.errors import PolyinrError
from polyinr_core.runtime.distributed import DistributedContext
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
ranks = DistributedContext(rank, 2)
"""
CASES = [(rank, name) for rank in (0, 1) for name in ("fakes", "reals")]  # whose batch is not finite, and which
NOT_FINITE = f"""
from test_step import latents, options, reals, small_state
from polyinr_core.training.step import train_step
own = options(dist=ranks, micro_batch=8)
for broken, name in {CASES}:
    batches = {{"fakes": latents(), "reals": reals()}}
    if rank == broken:
        batches[name].data[0] = torch.nan
    fakes = batches["fakes"]
    try:
        train_step(small_state(), own, reals=batches["reals"], g_fakes=fakes, d_fakes=fakes, ema_beta=0.5)
        print("no error")
    except PolyinrError as error:
        print(type(error).__name__, error)
"""
WAITS = """
from test_host_sync import KINDS, counted, fused_state, iterate
from test_step import options
state = fused_state(ranks.device)
state.discriminator.share_statistics(ranks)
for kind in ("hinge, two micro-batches", "every option"):
    own = options(**KINDS[kind], dist=ranks)
    own = replace(own, micro_batch=2 * own.micro_batch)
    iterate(state, own, ranks.device)
    with counted() as found:
        stats = iterate(state, own, ranks.device)
    print(kind, dict(found), stats.read().loss_d > 0)
"""
GONE = """
ranks.all_reduce(torch.ones(1))
if rank == 0:
    try:
        ranks.all_reduce(torch.ones(1))
    except PolyinrError as error:
        print(type(error).__name__, error, flush=True)
        os._exit(0)  # as `polyinr` ends: Gloo's threads may abort a regular exit
"""


def both(tmp_path: Path, script: str) -> list[str]:
    """Run a script in two processes, and return what each wrote."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN + script, str(rank), str(tmp_path / "meet")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=600) for process in started]
    assert all(process.returncode == 0 for process in started), ended
    return [out.strip() for out, _ in ended]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """What the two ranks write for each of CASES, one after the other in the same two processes."""
    first, second = both(tmp_path_factory.mktemp("ranks"), NOT_FINITE)
    return list(zip(first.splitlines(), second.splitlines(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{name}-{rank}" for rank, name in CASES])
def test_a_loss_that_is_not_finite_on_one_rank_stops_both(failures: list[tuple[str, str]], case: int) -> None:
    assert len(failures) == len(CASES)
    first, second = failures[case]
    assert first == second
    assert first.startswith("TrainingError the loss is not finite, the images first; ")


@pytest.mark.slow
def test_an_iteration_of_two_processes_reads_no_value(tmp_path: Path) -> None:
    """Gradients, statistics, batch statistics and the mean of w are exchanged on the device alone."""
    first, second = both(tmp_path, WAITS)
    assert first == second == "hinge, two micro-batches {} True\nevery option {} True"


@pytest.mark.slow
def test_a_process_that_has_ended_is_said_by_the_other(tmp_path: Path) -> None:
    first, second = both(tmp_path, GONE)
    assert first.startswith("DistributedError rank 0 of 2: another process of this job has exited (")
    assert second == ""


@pytest.mark.parametrize(
    "error",
    [
        torch.distributed.DistBackendError("NCCL error: remote process exited"),
        torch.distributed.DistNetworkError("The client socket has timed out"),
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"),
        RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation"),
    ],
)
def test_a_lost_connection_is_distinguished_from_other_errors(error: RuntimeError) -> None:
    def fail(*_: object) -> None:
        raise error

    with pytest.raises(DistributedError, match="rank 1 of 2: another process of this job has exited"):
        DistributedContext(1, 2).call(fail)


@pytest.mark.parametrize("words", ["The size of tensor a (3) must match the size of tensor b (4)", "", "out of memory"])
def test_an_error_of_ones_own_stays_what_it_is(words: str) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(words)

    with pytest.raises(RuntimeError, match=r"^" + words.replace("(", r"\(").replace(")", r"\)")) as caught:
        DistributedContext(1, 2).call(fail)
    assert type(caught.value) is RuntimeError
