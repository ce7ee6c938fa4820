"""The kernel distance, against StyleGAN's metric code and against the plain sums."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyinr_core.metrics import kid as kernel
from polyinr_core.metrics.kid import MAX_SUBSET_SIZE, SUBSETS, KernelReference, subset_sums, sums_by_full_kernel


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "metrics_golden.safetensors")


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, float]:
    return json.loads((reference / "metrics_golden.json").read_text())["expected"]


@pytest.mark.parametrize("block", [37, 1024])
def test_golden_distance(
    golden: dict[str, Tensor], expected: dict[str, float], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same subsets in the same order. 1e-5: theirs is in float32."""
    monkeypatch.setattr(kernel, "BLOCK", block)
    fakes, reals = golden["input.gen_features"], golden["input.real_features"]
    value = KernelReference(reals, len(fakes)).distance(fakes)
    assert value == pytest.approx(expected["kid_seed0_subsets100_max1000"], rel=1e-5)
    value = KernelReference(reals, len(fakes), subsets=20, max_size=50).distance(fakes)
    assert value == pytest.approx(expected["kid_seed0_subsets20_max50"], rel=1e-5)


def test_golden_subsets(golden: dict[str, Tensor]) -> None:
    reference = KernelReference(golden["input.real_features"], 300, max_size=50)
    for rows, name in ((reference.in_fakes, "gen"), (reference.in_reals, "real")):
        assert torch.equal(rows[0], golden[f"debug.kid_seed0_max50_first_{name}_choice"].long())


@pytest.mark.parametrize(("subsets", "most"), [(1, 60), (40, 30), (2, 9)])
def test_full_kernel_and_subsets_agree(
    golden: dict[str, Tensor], subsets: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All features once, in blocks that divide nothing, or subset by subset; oracle: the sums written out."""
    monkeypatch.setattr(kernel, "BLOCK", 37)
    x, y = golden["input.gen_features"], golden["input.real_features"]
    reference = KernelReference(y, len(x), subsets=subsets, max_size=most)
    arguments = x, reference.in_fakes, y, reference.in_reals
    expected = [
        ((x[own].double().numpy() @ y[other].double().numpy().T / x.shape[1] + 1) ** 3).sum()
        for own, other in zip(reference.in_fakes, reference.in_reals, strict=True)
    ]
    assert subset_sums(*arguments).tolist() == pytest.approx(expected, rel=1e-12)
    assert sums_by_full_kernel(*arguments).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [50, 400, 20_000])
def test_cost_is_bounded_by_the_subsets(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thrice as many as the subsets have pairs, whatever the sets, or as the sets have where that is less."""
    made: list[int] = []
    plain = kernel.kernel

    def counted(x: Tensor, y: Tensor) -> Tensor:
        made.append(len(x) * len(y))
        return plain(x, y)

    monkeypatch.setattr(kernel, "kernel", counted)
    features = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    KernelReference(features, count, subsets=10, max_size=40).distance(features + 1)
    assert sum(made) == 3 * min(count**2, 10 * 40**2)
    assert max(made) <= max(40**2, 50**2)
    assert (SUBSETS, MAX_SUBSET_SIZE) == (100, 1000)


def test_complete_sets_give_the_unbiased_estimate() -> None:
    """Sets no larger than a subset are compared as they are. Oracle: the sums over pairs, written out."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 5)), rng.normal(size=(9, 5)) + 0.5
    within = [
        np.mean([(a @ b / 5 + 1) ** 3 for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)
    ]
    across = np.mean([(a @ b / 5 + 1) ** 3 for a in x for b in y])
    reference = KernelReference(torch.from_numpy(y), 9)
    assert len(reference.in_fakes) == 1
    assert reference.distance(torch.from_numpy(x)) == pytest.approx(sum(within) - 2 * across, abs=1e-12 * across)


def test_seed_determines_the_subsets(golden: dict[str, Tensor]) -> None:
    fakes, reals = golden["input.gen_features"], golden["input.real_features"]
    references = [KernelReference(reals, len(fakes), subsets=2, max_size=20, seed=seed) for seed in (0, 0, 1)]
    one, again, other = (reference.distance(fakes) for reference in references)
    assert one == again != other
