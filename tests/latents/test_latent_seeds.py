"""Seeds, z and classes."""

import re

import numpy as np
import pytest
import torch

from polyinr_core.errors import LabelError, RequestError
from polyinr_core.latents.latents import (
    UNIFORM,
    LabelDistribution,
    draw_labels,
    draw_z,
    parse_label,
    parse_levels,
    parse_seeds,
    seeds_text,
)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("3,5, 9", [3, 5, 9]),
        ("0-1,7,5-6", [0, 1, 7, 5, 6]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds(text: str, seeds: list[int]):
    assert parse_seeds(text) == seeds
    assert parse_seeds(seeds_text(seeds)) == seeds


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,",
        "-1",
        "1-",
        "3-1",
        "a",
        "1.5",
        "4294967296",
        "0-99999999",
        "0-4294967295",
        "2,2",
        "0-3,1",
        "٣",
    ],
)
def test_nonsense_seeds(text: str):
    with pytest.raises(RequestError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize(
    ("text", "levels"), [("3", [3]), ("8-9", [8, 9]), (" 4 , 0-1", [0, 1, 4]), ("0-9", list(range(10)))]
)
def test_levels(text: str, levels: list[int]):
    assert parse_levels(text, levels=10) == levels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10", "level 10 is outside 0-9 (the model has 10 levels)"),
        ("5-1", "write 1-5"),
        ("1,0-3", "twice"),
        ("", "not understood at ''"),
        ("-1", "not understood"),
        ("last", "not understood"),
        ("٣", "not understood"),
    ],
)
def test_nonsense_levels(text: str, words: str):
    with pytest.raises(RequestError, match=re.escape(words)):
        parse_levels(text, levels=10)


def test_z_is_the_releases_draw():
    """Oracle: NumPy's RandomState(seed).randn(1, z), as docs/method.md says of seeds; exact in float32."""
    z = draw_z([0, 5, 2**32 - 1], 64)
    for row, seed in zip(z, (0, 5, 2**32 - 1), strict=True):
        assert torch.equal(row, torch.from_numpy(np.random.RandomState(seed).randn(1, 64))[0].float())
    assert abs(float(z[0, 0]) - 1.764052345967664) < 1e-6  # known first normal of seed 0


def test_a_seed_does_not_know_its_neighbors():
    assert torch.equal(draw_z([3, 1, 2], 8)[1], draw_z([1], 8)[0])
    assert draw_labels([3, 1, 2], 10)[2] == draw_labels([2], 10)[0]


def test_labels_are_the_releases_draw():
    """Oracle: RandomState(seed).randint(0, c, 1), a generator apart from z's; exact."""
    expected = [np.random.RandomState(seed).randint(0, 1000, 1)[0] for seed in range(20)]
    assert draw_labels(range(20), 1000).tolist() == expected


def test_labels_of_a_dataset_are_those_of_its_images():
    """Oracle: the class of the image that RandomState(seed).randint(0, images) picks of a set sorted by class."""
    counts = (5, 0, 1, 3)
    images = np.repeat(np.arange(4), counts)
    drawn = LabelDistribution(counts=counts).draw(range(2000), 4)
    assert drawn.tolist() == [images[np.random.RandomState(seed).randint(0, 9)] for seed in range(2000)]
    for label, count in enumerate(counts):  # 5 standard deviations of a binomial
        share = count / 9
        assert abs((drawn == label).float().mean() - share) <= 5 * (share * (1 - share) / 2000) ** 0.5


def test_labels_follow_the_frequencies_alone():
    """Twice the images of each class draw the same; as many in each class draw what uniform draws."""
    seeds = range(50)
    draws = [LabelDistribution(counts=counts).draw(seeds, 3) for counts in ((2, 4, 6), (1, 2, 3))]
    assert torch.equal(*draws)
    assert torch.equal(LabelDistribution(counts=(7, 7, 7)).draw(seeds, 3), draw_labels(seeds, 3))
    assert torch.equal(UNIFORM.draw(seeds, 3), draw_labels(seeds, 3))
    assert LabelDistribution(label=2).draw(seeds, 3).tolist() == [2] * 50
    assert not torch.equal(draws[0], draw_labels(seeds, 3))


def test_a_label_of_a_dataset_does_not_know_its_neighbors():
    labels = LabelDistribution(counts=(3, 1, 9))
    assert labels.draw([8, 3], 3)[1] == labels.draw([3], 3)[0]


NAMES = ("cat", "Dog", "dog", "3")


@pytest.mark.parametrize(
    ("text", "label"), [("cat", 0), ("CAT", 0), ("Dog", 1), ("dog", 2), ("3", 3), ("0", 0), (" 2 ", 2)]
)
def test_labels_by_name_and_number(text: str, label: int):
    assert parse_label(text, classes=4, class_names=NAMES) == label


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4", "outside 0-3"),
        ("-1", "outside 0-3"),
        ("catt", "did you mean 'cat'"),
        ("DO", "did you mean 'Dog', 'dog'"),
        ("DOG", "unknown"),
        ("", "unknown"),
        ("1.0", "unknown"),
    ],
)
def test_unknown_labels(text: str, words: str):
    with pytest.raises(LabelError, match=words):
        parse_label(text, classes=4, class_names=NAMES)


def test_an_unconditional_model_has_no_labels():
    with pytest.raises(LabelError, match="no classes"):
        parse_label("0", classes=0)
