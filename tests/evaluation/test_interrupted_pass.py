"""An interrupted pass resumes from its saved state to the same bits, and from no other state."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_checkpoint
from evaluation_inputs import CPU, LinearExtractor, evaluated, write_images
from torch import Tensor

from polyinr_core.checkpoints.checkpoint import load_checkpoint
from polyinr_core.evaluation.image_sources import DatasetImages, GeneratedImages
from polyinr_core.latents.latents import LabelDistribution
from polyinr_core.metrics import feature_pass
from polyinr_core.metrics.feature_pass import PassInterrupted
from polyinr_core.metrics.feature_statistics import Accumulator, Requirements


class Interrupted(LinearExtractor):
    """A feature extractor that raises an error after `last` images."""

    def __init__(self, last: int, error: type[BaseException]) -> None:
        super().__init__()
        self.last, self.error = last, error

    def forward(self, pixels: Tensor) -> Tensor:
        if self.seen >= self.last:
            raise self.error("cut short")
        return super().forward(pixels)


@pytest.fixture
def reals(tmp_path: Path) -> Path:
    return write_images(tmp_path / "reals", 24, resolution=16)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_checkpoint(tmp_path / "m.safetensors", classes=4)


def metrics_of(
    folder: Path,
    model: Path,
    extractor: LinearExtractor,
    cache: Path | None,
    *,
    batch: int = 6,
    count: int = 40,
    **how: Any,
) -> dict[str, Any]:
    fakes = GeneratedImages(load_checkpoint(model), name="m", count=count, **how)
    reals = DatasetImages(folder, resolution=how.get("resolution"))
    names = ("fd-lite2", "pr-lite2")  # by moments, and by features
    return evaluated(reals, fakes, names, extractor=extractor, batch=batch, cache=cache)["metrics"]


@pytest.mark.parametrize(("last", "said"), [(12, "12 of 24 images of .*reals"), (42, "18 of 40 images of m")])
def test_resuming_after_ctrl_c_gives_the_same_bits(
    reals: Path, model: Path, tmp_path: Path, last: int, said: str
) -> None:
    expected = metrics_of(reals, model, LinearExtractor(), None)
    cache = tmp_path / "kept"
    with pytest.raises(PassInterrupted, match=said) as stopped:
        metrics_of(reals, model, Interrupted(last, KeyboardInterrupt), cache)
    assert stopped.value.exit_code == 130
    assert str(cache) in str(stopped.value)
    extractor = LinearExtractor()
    assert metrics_of(reals, model, extractor, cache) == expected
    assert extractor.seen == 64 - last
    assert len(list(cache.iterdir())) == 2  # of reals and fakes, and no state any more


def test_resuming_after_an_error_from_the_last_state(
    reals: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_pass, "SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(feature_pass, "SAVE_COST_RATIO", 0)
    expected = metrics_of(reals, model, LinearExtractor(), None)
    with pytest.raises(MemoryError):
        metrics_of(reals, model, Interrupted(42, MemoryError), tmp_path / "kept")
    extractor = LinearExtractor()
    assert metrics_of(reals, model, extractor, tmp_path / "kept") == expected
    assert extractor.seen == 64 - 42


def test_states_are_saved_at_intervals(
    reals: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr(feature_pass.PassCheckpoint, "save", lambda self, accumulators: kept.append(1))
    metrics_of(reals, model, LinearExtractor(), tmp_path / "kept")
    assert not kept  # within the first half minute


def test_without_a_cache_nothing_is_saved(reals: Path, model: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        metrics_of(reals, model, Interrupted(12, KeyboardInterrupt), None)
    assert set(tmp_path.rglob("*")) == before


def test_an_interruption_before_the_first_batch_saves_nothing(reals: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        metrics_of(reals, model, Interrupted(0, KeyboardInterrupt), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "change", [{"psi": 0.5}, {"labels": LabelDistribution(label=1)}, {"resolution": 8}, {"count": 38}, {"batch": 7}]
)
def test_a_state_of_other_settings_is_not_used(
    reals: Path, model: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    with pytest.raises(PassInterrupted):
        metrics_of(reals, model, Interrupted(42, KeyboardInterrupt), tmp_path / "kept")
    extractor = LinearExtractor()
    found = metrics_of(reals, model, extractor, tmp_path / "kept", **change)
    for name, row in metrics_of(reals, model, LinearExtractor(), None, **change).items():
        assert found[name] == pytest.approx(row, rel=1e-9)
    fakes = change.get("count", 40)
    assert extractor.seen == fakes + (24 if "resolution" in change else 0)


def test_a_state_of_another_model_is_not_used(reals: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PassInterrupted):
        metrics_of(reals, model, Interrupted(42, KeyboardInterrupt), tmp_path / "kept")
    other, extractor = small_checkpoint(tmp_path / "other.safetensors", classes=3), LinearExtractor()
    assert metrics_of(reals, other, extractor, tmp_path / "kept") == metrics_of(reals, other, LinearExtractor(), None)
    assert extractor.seen == 40


def test_a_state_includes_the_inception_score() -> None:
    probabilities = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    takers = [Accumulator(Requirements(True, True, True), range(40), 40, CPU) for _ in range(2)]
    for part in probabilities[:24].split(8):
        takers[0].add(part)
    state = {name: tensor.clone() for name, tensor in takers[0].state().items()}
    takers[1].restore(state, 24)
    for taker in takers:
        for part in probabilities[24:].split(8):
            taker.add(part)
    one, two = (taker.result() for taker in takers)
    assert one.inception_score == two.inception_score
    assert torch.equal(one.features, two.features)
    assert torch.equal(one.moments.scatter, two.moments.scatter)
