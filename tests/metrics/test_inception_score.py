"""The inception score, against StyleGAN's metric code."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.metrics.inception import InceptionScore


@pytest.fixture(scope="module")
def probabilities(reference: Path) -> Tensor:
    return load_file(reference / "metrics_golden.safetensors")["input.gen_probs"]


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, float]:
    return json.loads((reference / "metrics_golden.json").read_text())["expected"]


def score(probabilities: Tensor, *, splits: int, batch: int = 64, backwards: bool = False) -> tuple[float, float]:
    taken = InceptionScore(len(probabilities), probabilities.shape[1], splits=splits)
    starts = range(0, len(probabilities), batch)
    for start in reversed(starts) if backwards else starts:
        taken.add(probabilities[start : start + batch], first=start)
    return taken.result()


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_golden_score(probabilities: Tensor, expected: dict[str, float], splits: int) -> None:
    """1e-5: theirs is in float32."""
    mean, deviation = score(probabilities, splits=splits)
    assert mean == pytest.approx(expected[f"is_mean_splits{splits}"], rel=1e-5)
    assert deviation == pytest.approx(expected[f"is_std_splits{splits}"], rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_batches_in_any_order(probabilities: Tensor, batch: int) -> None:
    plain = score(probabilities, splits=7)
    assert score(probabilities, splits=7, batch=batch, backwards=True) == pytest.approx(plain, rel=1e-11)


def test_smallest_and_largest_score() -> None:
    """Certain of a class each: as many as there are classes. Always unsure: 1. No logarithm of 0."""
    assert score(torch.eye(5).repeat(4, 1), splits=2) == pytest.approx((5, 0))
    assert score(torch.full((20, 5), 0.2), splits=2) == pytest.approx((1, 0), abs=1e-7)


def test_invalid_probabilities_are_refused() -> None:
    with pytest.raises(PolyinrError, match="3 images are too few for 10 splits"):
        InceptionScore(3, 5)
    taken = InceptionScore(4, 5, splits=2)
    for wrong in (torch.full((2, 5), 1.0), torch.full((2, 5), torch.nan)):
        with pytest.raises(PolyinrError, match="pass the softmax, not the logits"):
            taken.add(wrong, first=0)
    with pytest.raises(PolyinrError, match="images 3 to 4 are not among 4"):
        taken.add(torch.full((2, 5), 0.2), first=3)
    taken.add(torch.full((2, 5), 0.2), first=1)
    with pytest.raises(PolyinrError, match="2 of 4 images were added"):
        taken.result()
