"""What a gallery shows: bounded, and something of every model, however small."""

import pytest

from polyinr_core.errors import RequestError
from polyinr_core.gallery.plan import groups_of, parse_psis, plan_for, psi_text, spread
from polyinr_core.models.config import GeneratorConfig

TINY = GeneratorConfig(levels=3, channels=4, w_dim=4)


@pytest.mark.parametrize(
    ("levels", "groups"),
    [
        (1, []),
        (2, [[0], [1]]),
        (3, [[0], [1], [2]]),
        (4, [[0], [1], [2, 3]]),
        (6, [[0, 1], [2, 3], [4, 5]]),
        (10, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
    ],
)
def test_the_groups_are_all_levels_and_end_with_the_last_two(levels: int, groups: list[list[int]]) -> None:
    assert [list(group) for group in groups_of(levels)] == groups


def test_psi_is_read_as_rising_numbers() -> None:
    assert parse_psis("1,0.5, -0,2e-1,1.0") == (0.0, 0.2, 0.5, 1.0)
    assert [psi_text(psi) for psi in parse_psis("-0.5,-0,0.7,1,100")] == ["-0.5", "0", "0.7", "1", "100"]


@pytest.mark.parametrize("text", ["", "1,", "half", "nan", "inf", "101", ",".join(map(str, range(25)))])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--psi"):
        parse_psis(text)


@pytest.mark.parametrize(("resolution", "side"), [(0, 128), (32, 128), (160, 160), (512, 256)])
def test_images_have_the_models_size_within_bounds(resolution: int, side: int) -> None:
    plan = plan_for(TINY, resolution)
    assert (plan.side, plan.beyond_side, plan.opened_side) == (side, round(1.5 * side), 256)


def test_many_classes_and_levels_are_thinned_evenly() -> None:
    plan = plan_for(GeneratorConfig(levels=40, channels=4, classes=1000), 32)
    assert len(plan.classes) == 16
    assert (plan.classes[0], plan.classes[-1]) == (0, 999)
    assert len(plan.levels) == 12
    assert (plan.levels[0], plan.levels[-1]) == (0, 39)
    assert spread(range(3), 3) == (0, 1, 2)


def test_a_label_is_the_only_class() -> None:
    assert plan_for(GeneratorConfig(levels=2, channels=4, classes=5), 32, label=3).classes == (3,)


def test_few_seeds_leave_out_what_needs_several() -> None:
    one, two, three = (plan_for(TINY, 32, seeds=seeds) for seeds in ("7", "7,2", "1-3"))
    assert one.stops == ()
    assert one.mixed == ((), ())
    assert two.stops == (7, 2)
    assert two.mixed == ((7,), (2,))
    assert three.mixed == ((1,), (2,))
    assert plan_for(TINY, 32, frames=2).stops == (0, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": "0-128"}, "129 images"),
        ({"side": 7}, "--res 7 is outside 8-1024"),
        ({"side": 1025}, "--res 1025"),
        ({"frames": 1}, "--frames 1 is outside 2-480"),
        ({"frames": 481}, "--frames 481"),
    ],
)
def test_what_is_out_of_bounds_is_refused(options: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plan_for(TINY, 32, **options)
