"""One pass over images: prefetched batches, shared by ranks; errors and interruptions."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_inputs import CPU, LinearExtractor, evaluated, write_images
from thread_ranks import as_ranks
from torch import Tensor

from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.evaluation.image_sources import DatasetImages
from polyinr_core.metrics.feature_pass import PREFETCH, extract_features, rank_indices, rebatch
from polyinr_core.metrics.feature_statistics import Accumulator, Requirements
from polyinr_core.runtime.distributed import DistributedContext

ALL = {("lite2", "pooled"): Requirements(moments=True, features=True)}


def busy() -> list[str]:
    """The threads of ours that still run."""
    ours = ("prefetch", "decoding", "accumulate features")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]


def test_rebatch() -> None:
    parts = [torch.arange(0, 5), torch.arange(5, 6), torch.arange(6, 17)]
    batches = list(rebatch(parts, 4))
    assert [[len(part) for part in batch] for batch in batches] == [[4], [4], [4], [4], [1]]
    assert torch.equal(torch.cat([batch[0] for batch in batches]), torch.arange(17))


def test_rebatch_separates_sizes() -> None:
    parts = [torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 8, 4), torch.zeros(3, 3, 4, 4)]
    assert [[tuple(part.shape) for part in batch] for batch in rebatch(parts, 4)] == [
        [(3, 3, 4, 4), (1, 3, 8, 4)],
        [(1, 3, 8, 4), (3, 3, 4, 4)],
    ]


# Several processes


@pytest.mark.parametrize("count", [2, 3, 8])
def test_ranks_give_the_metrics_of_one_process(tmp_path: Path, count: int) -> None:
    """1e-9: features are the same bit for bit, sums are in another order. Of 8 ranks some have no image."""
    reals, fakes = write_images(tmp_path / "reals", 24), write_images(tmp_path / "fakes", 20, seed=1)

    def measured(ranks: DistributedContext) -> dict[str, Any]:
        file = tmp_path / f"{ranks.world_size}-{ranks.rank}.safetensors"
        return evaluated(reals, fakes, batch=4, bootstrap=3, ranks=ranks, save_statistics_to=file)

    alone = measured(DistributedContext())
    together = as_ranks(measured, count)
    assert all(result == together[0] for result in together)
    assert together[0]["card"] == alone["card"]
    for name, row in alone["metrics"].items():
        assert together[0]["metrics"][name] == pytest.approx(row, rel=1e-9), name
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {"1-0.safetensors", f"{count}-0.safetensors"}


def test_ranks_with_a_cache_give_the_metrics_of_one_process(tmp_path: Path) -> None:
    reals, fakes = write_images(tmp_path / "reals", 24), write_images(tmp_path / "fakes", 20, seed=1)
    shown = []

    def measured(ranks: DistributedContext) -> dict[str, Any]:
        extractor = LinearExtractor()
        found = evaluated(
            reals, fakes, extractor=extractor, batch=4, cache=tmp_path / f"cache {ranks.rank}", ranks=ranks
        )
        shown.append(extractor.seen)
        return found

    first, again = as_ranks(measured, 2), as_ranks(measured, 2)
    assert sum(shown[:2]) == 44
    assert shown[2:] == [0, 0]
    assert first[0] == first[1] == again[0] == again[1]
    assert not list((tmp_path / "cache 1").glob("*.safetensors"))


def test_ranks_process_complete_batches() -> None:
    spans = [rank_indices(22, 4, DistributedContext(rank, 3)) for rank in range(3)]
    assert [*spans[0], *spans[1], *spans[2]] == list(range(22))
    assert all(span.start % 4 == 0 for span in spans)


def test_inception_score_of_ranks_equals_one_process() -> None:
    probabilities = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)

    def scored(ranks: DistributedContext) -> tuple[float, float] | None:
        span = rank_indices(40, 8, ranks)
        taker = Accumulator(Requirements(inception_score=True), span, 40, CPU)
        for part in probabilities[span.start : span.stop].split(8):
            taker.add(part)
        return taker.result(ranks).inception_score

    alone = scored(DistributedContext())
    assert as_ranks(scored, 2) == [pytest.approx(alone, rel=1e-12)] * 2


# Prefetched


class Recorded:
    """Images that record which thread makes them and how many are made ahead."""

    name, resolution, sha256 = "recorded", 8, "00"

    def __init__(self, count: int, extractor: LinearExtractor) -> None:
        self.count, self.extractor = count, extractor
        self.provenance: dict[str, Any] = {}
        self.makers: set[str] = set()
        self.waiting = 0

    def __len__(self) -> int:
        return self.count

    def batches(self, span: range | None = None) -> Iterator[Tensor]:
        for number in span or range(self.count):
            self.makers.add(threading.current_thread().name)
            self.waiting = max(self.waiting, number - self.extractor.seen)
            yield torch.full((1, 3, 8, 8), number, dtype=torch.uint8)


def test_images_are_prefetched_in_a_thread() -> None:
    extractor = LinearExtractor()
    images = Recorded(40, extractor)
    seen = extract_features(images, {"lite2": extractor}, ALL, batch=4, device=CPU)["lite2", "pooled"]
    assert seen.count == extractor.seen == 40
    assert all(name.startswith("prefetch") for name in images.makers)
    assert images.waiting <= 4 * (PREFETCH + 2)
    assert not busy()


def test_a_damaged_image_stops_the_pass(tmp_path: Path) -> None:
    reals = write_images(tmp_path / "reals", 24)
    (reals / "021.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(FileError, match=r"021\.png"):
        extract_features(DatasetImages(reals), {"lite2": LinearExtractor()}, ALL, batch=4, device=CPU)
    assert not busy()


def test_nan_features_stop_the_pass(tmp_path: Path) -> None:
    class Blind(LinearExtractor):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * torch.nan

    reals = DatasetImages(write_images(tmp_path / "reals", 8))
    with pytest.raises(PolyinrError, match=r"lite2 gives NaN or Inf for images of .*reals"):
        extract_features(reals, {"lite2": Blind()}, ALL, device=CPU)
    assert not busy()


def test_an_interruption_leaves_no_thread(tmp_path: Path) -> None:
    class Stopped(LinearExtractor):
        def forward(self, pixels: Tensor) -> Tensor:
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().forward(pixels)

    reals = DatasetImages(write_images(tmp_path / "reals", 24))
    with pytest.raises(KeyboardInterrupt):
        extract_features(reals, {"lite2": Stopped()}, ALL, batch=4, device=CPU)
    assert not busy()
