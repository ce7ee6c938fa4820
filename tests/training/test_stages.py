"""Training on: what is trained stays, the stage at hand may be longer, what is to come is free."""

import pytest

from polyinr_core.training.config import parse_stages, stage_changes

BEFORE = "32:20,64:10,128:5"


def changes(now: str, *, reached: tuple[int, int] | None, before: str = BEFORE) -> list[str]:
    return stage_changes(parse_stages(before), parse_stages(now), reached=reached)


@pytest.mark.parametrize(
    ("now", "reached"),
    [
        (BEFORE, (1, 4000)),
        ("8:1", None),  # nothing is trained yet
        ("32:20,64:30,128:5", (1, 4000)),
        ("32:20,64:4,128:5", (1, 4000)),  # shorter, but not shorter than what was seen
        ("32:20,64:10", (1, 4000)),
        ("32:20,64:10,128:5,256:1", (2, 5000)),
        ("32:20,64:10,256:1:batch=4", (1, 10000)),
        ("32:20", (0, 20000)),
    ],
)
def test_what_may_change(now: str, reached: tuple[int, int] | None) -> None:
    assert changes(now, reached=reached) == []


@pytest.mark.parametrize(
    ("now", "reached", "expected"),
    [
        ("32:21,64:10", (1, 4000), ["the stage 32:20 is over and cannot become 32:21"]),
        ("16:20,64:10", (1, 4000), ["the stage 32:20 is over and cannot become 16:20"]),
        ("32:20,64:3.9", (1, 4000), ["the stage 64:3.9 is shorter than the 4 kimg seen already"]),
        ("32:20", (1, 4000), ["the stage 64:10 has begun and is missing now"]),
        ("32:20,128:10", (1, 4000), ["the stage 64:10 has begun and cannot become 128:10, only longer"]),
        (
            "32:20,64:10:batch=8",
            (1, 4000),
            ["the stage 64:10 has begun and cannot become 64:10:batch=8, only longer"],
        ),
        (
            "16:20",
            (1, 4000),
            [
                "the stage 32:20 is over and cannot become 16:20",
                "the stage 64:10 has begun and is missing now",
            ],
        ),
    ],
)
def test_what_may_not(now: str, reached: tuple[int, int], expected: list[str]) -> None:
    assert changes(now, reached=reached) == expected


def test_the_last_batch_of_a_stage_is_no_reason() -> None:
    """A stage of 20 thousand images, 64 at a time, sees 20032: it may be written as it was, or longer."""
    assert changes("32:20", reached=(0, 20032), before="32:20") == []
    assert changes("32:20.01", reached=(0, 20032), before="32:20") == []
    assert changes("32:19.99", reached=(0, 20032), before="32:20") != []
