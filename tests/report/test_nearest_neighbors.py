"""Nearest reals of generated images: copies are found, distances and realism equal a plain computation."""

from typing import Any

import pytest
import torch
from given_images import Given, PixelExtractor, noise
from torch import Tensor

from polyinr_core.errors import PolyinrError
from polyinr_core.report.nearest_neighbors import NearestNeighbors, ThumbnailSource, find_neighbors, thumbnails_at
from polyinr_core.report.page import compare_with_reals


def neighbors_of(reals: Tensor, fakes: Tensor, **settings: Any) -> NearestNeighbors:
    return find_neighbors(
        Given(reals, "reals"),
        Given(fakes, "fakes"),
        PixelExtractor(),
        device=torch.device("cpu"),
        **settings,
    )


def test_neighbors_and_realism_equal_cdist() -> None:
    """Oracle: all distances by torch.cdist in float64."""
    reals, fakes = noise(13, 1), noise(7, 2)
    found = neighbors_of(reals, fakes)
    x, y = fakes.flatten(1).double(), reals.flatten(1).double()
    across, among = torch.cdist(x, y), torch.cdist(y, y)
    order = across.argsort(dim=1)[:, :5]
    assert torch.equal(found.indices, order)
    torch.testing.assert_close(found.distances.double(), across.gather(1, order), rtol=1e-6, atol=0)
    sorted_among = among.sort(dim=1).values
    torch.testing.assert_close(found.real_distances.double(), sorted_among[:, 1], rtol=1e-6, atol=0)
    radii = sorted_among[:, 3]
    small = radii <= radii.median()
    torch.testing.assert_close(found.realism.double(), (radii[small] / across[:, small]).amax(1), rtol=1e-5, atol=0)


def test_copies_are_detected() -> None:
    reals = noise(40, 1)
    honest = neighbors_of(reals, noise(20, 2))
    copied = neighbors_of(reals, torch.cat([reals[5:15], noise(10, 2)]))
    assert honest.fraction_near < 0.3
    assert copied.fraction_near >= 0.5
    assert sorted(copied.nearest_of_all(10)) == list(range(10))
    assert copied.indices[0, 0] == 5
    assert copied.distances[0, 0] == 0
    assert set(copied.ranked(4)["best"]) <= set(range(10))
    assert copied.realism.max() == torch.inf


def test_realism_groups_are_disjoint() -> None:
    for count in (3, 5, 20):
        groups = neighbors_of(noise(9, 1), noise(count, 2)).ranked(16)
        seeds = [seed for group in groups.values() for seed in group]
        assert len(seeds) == len(set(seeds)) == 3 * min(16, count // 3)


def test_fewer_reals_than_neighbors() -> None:
    assert neighbors_of(noise(4, 1), noise(2, 2)).indices.shape == (2, 4)


@pytest.mark.parametrize(
    ("reals", "said"), [(noise(3, 1), "3 images"), (noise(1, 1).expand(9, -1, -1, -1), "have the same features")]
)
def test_too_few_or_equal_reals_are_refused(reals: Tensor, said: str) -> None:
    with pytest.raises(PolyinrError, match=said):
        neighbors_of(reals, noise(4, 2))


def test_features_of_reals_are_cached(tmp_path) -> None:
    first = neighbors_of(noise(9, 1), noise(4, 2), cache=tmp_path / "cache")
    again = neighbors_of(noise(9, 1), noise(4, 2), cache=tmp_path / "cache")
    assert torch.equal(first.distances, again.distances)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_rows_show_the_images_of_their_indices() -> None:
    reals, fakes = Given(noise(12, 1), "reals"), ThumbnailSource(Given(noise(10, 2), "fakes"))
    found = find_neighbors(reals, fakes, PixelExtractor(), device=torch.device("cpu"))
    shown = compare_with_reals(found, reals, fakes, model="m", same_data=True)
    assert [row.seed for row in shown.first] == list(range(8))
    assert shown.nearest[0].reals[0].distance == float(found.distances[:, 0].min())
    near = shown.first[0].reals[0]
    assert near.index == int(found.indices[0, 0])
    other = [row.reals[0] for row in shown.first if row.reals[0].index != near.index]
    assert all(image.image.source != near.image.source for image in other)
    assert [share for share, *_ in shown.quantiles] == ["1%", "10%", "50%", "90%"]


def test_thumbnails_are_stored_while_images_are_read() -> None:
    pixels = noise(12, 3)
    source = ThumbnailSource(Given(pixels))
    assert torch.equal(torch.cat(list(source.batches())), pixels)
    assert len(source.thumbnails) == len(source) == 12
    (tile,) = thumbnails_at(Given(pixels), [7, 7]).values()
    assert (tile == pixels[7].permute(1, 2, 0).numpy()).all()
    assert (source.thumbnails[7] == tile).all()
