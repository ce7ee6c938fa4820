"""One pass over images: batches, made ahead of the look, shared by ranks; errors and interruptions cross it."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from eyes import CPU, NAMES, Eyes, write_images
from thread_ranks import as_ranks
from torch import Tensor

from polyinr_core.errors import FileError, PolyinrError
from polyinr_core.evaluation.image_sources import open_images
from polyinr_core.evaluation.set_metrics import Settings, evaluate
from polyinr_core.metrics.feature_pass import AHEAD, look, rebatched, span_of
from polyinr_core.metrics.feature_statistics import Need, Taker
from polyinr_core.metrics.registry import metrics_named
from polyinr_core.runtime.distributed import DistributedContext

ALL = {("lite2", "pooled"): Need(statistics=True, features=True)}


def busy() -> list[str]:
    """The threads of ours that still run."""
    ours = ("prefetch", "decoding", "taking in")
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(ours)]


def test_batches_are_cut_anew() -> None:
    parts = [torch.arange(0, 5), torch.arange(5, 6), torch.arange(6, 17)]
    batches = list(rebatched(parts, 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 1]
    assert torch.equal(torch.cat(batches), torch.arange(17))


# Several processes


@pytest.mark.parametrize("count", [2, 3, 8])
def test_ranks_give_the_figures_of_one(tmp_path: Path, count: int) -> None:
    """1e-9: features are the same bit for bit, sums are in another order. Of 8 ranks some have no image."""
    reals, fakes = write_images(tmp_path / "reals", 24), write_images(tmp_path / "fakes", 20, seed=1)
    metrics, kept = metrics_named(NAMES), []

    def measured(ranks: DistributedContext) -> dict[str, Any]:
        return evaluate(
            open_images(reals),
            open_images(fakes),
            metrics,
            {"lite2": Eyes()},
            device=CPU,
            settings=Settings(batch=4, bootstrap=3),
            ranks=ranks,
            keep_reals=kept.append,
        )

    alone = measured(DistributedContext())
    together = as_ranks(measured, count)
    assert all(result == together[0] for result in together)
    assert together[0]["card"] == alone["card"]
    for name, row in alone["figures"].items():
        assert together[0]["figures"][name] == pytest.approx(row, rel=1e-9), name
    assert len(kept) == 2


def test_ranks_with_a_cache_give_the_figures_of_one(tmp_path: Path) -> None:
    reals, fakes = write_images(tmp_path / "reals", 24), write_images(tmp_path / "fakes", 20, seed=1)
    metrics, shown = metrics_named(NAMES), []

    def measured(ranks: DistributedContext) -> dict[str, Any]:
        eyes = Eyes()
        settings = Settings(batch=4, cache=tmp_path / f"cache {ranks.rank}")
        sides = open_images(reals), open_images(fakes)
        found = evaluate(*sides, metrics, {"lite2": eyes}, device=CPU, settings=settings, ranks=ranks)
        shown.append(eyes.seen)
        return found

    first, again = as_ranks(measured, 2), as_ranks(measured, 2)
    assert sum(shown[:2]) == 44
    assert shown[2:] == [0, 0]
    assert first[0] == first[1] == again[0] == again[1]
    assert not list((tmp_path / "cache 1").glob("*.safetensors"))


def test_ranks_take_whole_batches() -> None:
    spans = [span_of(22, 4, DistributedContext(rank, 3)) for rank in range(3)]
    assert [*spans[0], *spans[1], *spans[2]] == list(range(22))
    assert all(span.start % 4 == 0 for span in spans)


def test_a_score_of_ranks_is_that_of_one() -> None:
    probabilities = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)

    def scored(ranks: DistributedContext) -> tuple[float, float] | None:
        span = span_of(40, 8, ranks)
        taker = Taker(Need(score=True), span, 40, CPU)
        for part in probabilities[span.start : span.stop].split(8):
            taker.add(part)
        return taker.seen(ranks).score

    alone = scored(DistributedContext())
    assert as_ranks(scored, 2) == [pytest.approx(alone, rel=1e-12)] * 2


# Ahead of the look


class Recorded:
    """Images that note who makes them and how many are made before they are looked at."""

    name, side, sha256 = "recorded", 8, "00"

    def __init__(self, count: int, eyes: Eyes) -> None:
        self.count, self.eyes = count, eyes
        self.facts: dict[str, Any] = {}
        self.makers: set[str] = set()
        self.waiting = 0

    def __len__(self) -> int:
        return self.count

    def passes(self, span: range | None = None) -> Iterator[Tensor]:
        for number in span or range(self.count):
            self.makers.add(threading.current_thread().name)
            self.waiting = max(self.waiting, number - self.eyes.seen)
            yield torch.full((1, 3, 8, 8), number, dtype=torch.uint8)


def test_images_are_made_beside_the_look_and_not_too_many() -> None:
    eyes = Eyes()
    images = Recorded(40, eyes)
    seen = look(images, {"lite2": eyes}, ALL, batch=4, device=CPU)["lite2", "pooled"]
    assert seen.count == eyes.seen == 40
    assert all(name.startswith("prefetch") for name in images.makers)
    assert images.waiting <= 4 * (AHEAD + 2)
    assert not busy()


def test_a_damaged_image_stops_the_pass(tmp_path: Path) -> None:
    reals = write_images(tmp_path / "reals", 24)
    (reals / "021.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(FileError, match=r"021\.png"):
        look(open_images(reals), {"lite2": Eyes()}, ALL, batch=4, device=CPU)
    assert not busy()


def test_features_that_are_no_numbers_stop_the_pass(tmp_path: Path) -> None:
    class Blind(Eyes):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels) * torch.nan

    reals = open_images(write_images(tmp_path / "reals", 8))
    with pytest.raises(PolyinrError, match=r"lite2 gives features that are no finite numbers.*reals"):
        look(reals, {"lite2": Blind()}, ALL, device=CPU)
    assert not busy()


def test_an_interruption_leaves_no_thread(tmp_path: Path) -> None:
    class Stopped(Eyes):
        def forward(self, pixels: Tensor) -> Tensor:
            if self.seen >= 8:
                raise KeyboardInterrupt
            return super().forward(pixels)

    reals = open_images(write_images(tmp_path / "reals", 24))
    with pytest.raises(KeyboardInterrupt):
        look(reals, {"lite2": Stopped()}, ALL, batch=4, device=CPU)
    assert not busy()
