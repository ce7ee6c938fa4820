"""Precision, recall, density, coverage, realism, nearest neighbors, against StyleGAN's code and plain loops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.metrics.prdc import Manifold, compute_prdc, manifold, nearest, realism


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Tensor]:
    return load_file(reference / "metrics_golden.safetensors")


@pytest.fixture(scope="module")
def expected(reference: Path) -> dict[str, float]:
    return json.loads((reference / "metrics_golden.json").read_text())["expected"]


def cloud(count: int, *, seed: int, shift: float = 0.0, dim: int = 8) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def manifolds(golden: dict[str, Tensor], *, half: bool = False, block: int = 4096) -> tuple[Manifold, Manifold]:
    """Fakes, reals."""
    return tuple(manifold(golden[f"input.{kind}_features"], half=half, block=block) for kind in ("gen", "real"))


@pytest.mark.parametrize("block", [33, 4096])
@pytest.mark.parametrize(("half", "name"), [(True, "fp16"), (False, "fp32"), (False, "fp64")])
def test_golden_values(
    golden: dict[str, Tensor], expected: dict[str, float], half: bool, name: str, block: int
) -> None:
    """The same counts; the golden values are float32."""
    found = compute_prdc(*manifolds(golden, half=half, block=block), block=block)
    assert np.float32(found.precision) == np.float32(expected[f"precision_{name}"])
    assert np.float32(found.recall) == np.float32(expected[f"recall_{name}"])


def test_block_size_does_not_change_the_values(golden: dict[str, Tensor]) -> None:
    fakes, reals = golden["input.gen_features"], golden["input.real_features"]
    whole, parts = manifold(reals), manifold(reals, block=7)
    close = {"rtol": 1e-6, "atol": 0}  # float64, rounded to float32: to either of two neighbors
    torch.testing.assert_close(whole.squares, parts.squares, **close)
    assert compute_prdc(manifold(fakes), whole) == compute_prdc(manifold(fakes, block=11), parts, block=13)
    torch.testing.assert_close(realism(fakes, whole), realism(fakes, whole, block=7), **close)
    (near, whose), (near_in_parts, whose_in_parts) = nearest(fakes, reals, 3), nearest(fakes, reals, 3, block=7)
    torch.testing.assert_close(near, near_in_parts, **close)
    assert torch.equal(whose, whose_in_parts)


def test_swapping_the_sets_swaps_precision_and_recall(golden: dict[str, Tensor]) -> None:
    fakes, reals = manifolds(golden)
    one, other = compute_prdc(fakes, reals), compute_prdc(reals, fakes)
    assert (one.precision, one.recall) == (other.recall, other.precision)
    assert one.precision != one.recall


def test_density_and_coverage_by_definition() -> None:
    """Oracle: their definition, in loops over float64."""
    fakes, reals, k = cloud(40, seed=1, shift=1.0), cloud(30, seed=2), 5
    between = np.linalg.norm(fakes.double().numpy()[:, None] - reals.double().numpy()[None], axis=2)
    within = np.linalg.norm(reals.double().numpy()[:, None] - reals.double().numpy()[None], axis=2)
    radii = np.sort(within, axis=1)[:, k]
    found = compute_prdc(manifold(fakes), manifold(reals), k_density=k)
    inside = between <= radii
    assert found.density == pytest.approx(inside.sum() / (k * 40), rel=1e-12)
    assert found.coverage == inside.any(axis=0).mean()
    assert 0 < found.coverage < 1


def test_equal_and_distant_sets() -> None:
    reals = cloud(50, seed=1)
    same = compute_prdc(manifold(reals), manifold(reals))
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    apart = compute_prdc(manifold(reals + 100), manifold(reals))
    assert (apart.precision, apart.recall, apart.density, apart.coverage) == (0, 0, 0, 0)


def test_a_ball_includes_its_boundary() -> None:
    """Reals at 0 and 1: the ball about 1 reaches 2, where the fakes are."""
    reals, fakes = manifold(torch.tensor([[0.0], [1.0]]), k=1), manifold(torch.tensor([[2.0], [2.0]]), k=1)
    found = compute_prdc(fakes, reals, k=1, k_density=1)
    assert (found.precision, found.recall, found.density, found.coverage) == (1, 0, 1, 0.5)


def test_copies_have_distance_zero() -> None:
    """Far from the origin too, where squares of 1e8 cancel; and balls of no size hold what is in their center."""
    reals = cloud(20, seed=1, shift=1e3, dim=301)
    distances, numbers = nearest(reals, reals)
    assert distances.max() == 0
    assert numbers.flatten().tolist() == list(range(20))
    copies = reals[:1].repeat(12, 1)
    assert manifold(copies).radii(3).max() == 0
    assert compute_prdc(manifold(copies), manifold(reals)).precision == 1
    assert compute_prdc(manifold(copies), manifold(reals)).recall == 1 / 20


def test_nearest_neighbors_equal_a_sort() -> None:
    """Oracle: NumPy's sort. 1e-6: the distances are float32."""
    fakes, reals = cloud(15, seed=1), cloud(40, seed=2)
    plain = np.linalg.norm(fakes.double().numpy()[:, None] - reals.double().numpy()[None], axis=2)
    distances, numbers = nearest(fakes, reals, 4)
    np.testing.assert_array_equal(numbers, np.argsort(plain, axis=1)[:, :4])
    np.testing.assert_allclose(distances, np.sort(plain, axis=1)[:, :4], rtol=1e-6)


def test_realism_falls_with_distance() -> None:
    """Oracle: equation 6 in NumPy; further out is less real; in a ball means more than 1."""
    reals = manifold(cloud(60, seed=1))
    radii = reals.radii(3).double().numpy()
    fakes = torch.stack([reals.features.mean(dim=0) + step for step in range(6)])
    found = realism(fakes, reals)
    centers, small = reals.features.double().numpy(), radii <= np.sort(radii)[29]
    away = np.linalg.norm(fakes.double().numpy()[:, None] - centers[None], axis=2)
    np.testing.assert_allclose(found, (radii / away)[:, small].max(axis=1), rtol=1e-5)
    assert found.diff().max() < 0
    assert realism(reals.features[small.argmax() : small.argmax() + 1], reals) == torch.inf


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: manifold(cloud(5, seed=1)), "needs 6 images or more, not 5"),
        (lambda: manifold(cloud(9, seed=1) * torch.nan), "NaN or Inf"),
        (lambda: realism(cloud(9, seed=1) * torch.nan, manifold(cloud(9, seed=1))), "NaN or Inf"),
        (lambda: manifold(cloud(9, seed=1), k=3).radii(4), "neighbor 4 is out of range 1-3"),
        (lambda: nearest(cloud(2, seed=1), cloud(3, seed=1), 4), "4 neighbors are more than 3"),
        (lambda: nearest(cloud(2, seed=1), cloud(3, seed=1, dim=4)), "8 and 4 come from different"),
    ],
)
def test_invalid_features_are_refused(wrong, message: str) -> None:
    with pytest.raises(PolyinrError, match=message):
        wrong()
