"""What a gallery shows: bounded, and something of every model, however small."""

import pytest

from polyinr_core.errors import RequestError
from polyinr_core.gallery.plan import evenly_spaced, format_psi, mixing_groups, parse_psi_values, plan_gallery
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
    assert [list(group) for group in mixing_groups(levels)] == groups


def test_psi_values_are_sorted() -> None:
    plan = plan_gallery(TINY, 32, psi_values=parse_psi_values("1,0.5, -0,2e-1,1.0"))
    assert plan.psi_values == (0.0, 0.2, 0.5, 1.0)
    assert [format_psi(psi) for psi in (-0.5, 0.0, 0.7, 1.0, 100.0)] == ["-0.5", "0", "0.7", "1", "100"]
    assert str(plan.psi_values[0]) == "0.0"  # not -0.0


@pytest.mark.parametrize("text", ["", "1,", "half", "nan", "inf", "1e7", ",".join(map(str, range(25)))])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(RequestError, match="psi"):
        plan_gallery(TINY, 32, psi_values=parse_psi_values(text))


@pytest.mark.parametrize(("resolution", "expected"), [(0, 128), (32, 128), (160, 160), (512, 256)])
def test_images_have_the_models_size_within_bounds(resolution: int, expected: int) -> None:
    plan = plan_gallery(TINY, resolution)
    assert (plan.resolution, plan.extrapolation_resolution, plan.enlarged_resolution) == (
        expected,
        round(1.5 * expected),
        256,
    )


def test_many_classes_and_levels_are_thinned_evenly() -> None:
    plan = plan_gallery(GeneratorConfig(levels=40, channels=4, classes=1000), 32)
    assert len(plan.classes) == 16
    assert (plan.classes[0], plan.classes[-1]) == (0, 999)
    assert len(plan.levels) == 12
    assert (plan.levels[0], plan.levels[-1]) == (0, 39)
    assert evenly_spaced(range(3), 3) == (0, 1, 2)


def test_a_label_is_the_only_class() -> None:
    assert plan_gallery(GeneratorConfig(levels=2, channels=4, classes=5), 32, label=3).classes == (3,)


def test_few_seeds_leave_out_what_needs_several() -> None:
    one, two, three = (plan_gallery(TINY, 32, seeds=seeds) for seeds in ((7,), (7, 2), (1, 2, 3)))
    assert one.keyframes == ()
    assert one.mixing_seeds == ((), ())
    assert two.keyframes == (7, 2)
    assert two.mixing_seeds == ((7,), (2,))
    assert three.mixing_seeds == ((1,), (2,))
    assert plan_gallery(TINY, 32, frames=2).keyframes == (0, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": range(129)}, "129 images"),
        ({"resolution": 7}, "--res 7 is out of range 8-1024"),
        ({"resolution": 1025}, "--res 1025"),
        ({"frames": 1}, "--frames 1 is out of range 2-480"),
        ({"frames": 481}, "--frames 481"),
    ],
)
def test_what_is_out_of_bounds_is_refused(options: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        plan_gallery(TINY, 32, **options)
