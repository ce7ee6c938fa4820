"""Training on: which stages of a started run may change."""

from dataclasses import replace

from .stages import Stage, format_stage


def stage_changes(
    before: tuple[Stage, ...], now: tuple[Stage, ...], *, reached: tuple[int, int] | None
) -> list[str]:
    """Return a phrase for each stage that was trained and is given differently now.

    `reached` is the stage that the run stands in and the pictures seen there; None: nothing is trained yet.
    Stages before it stay as they were. Its own may be longer, or shorter as long as what was seen fits in. Later
    ones are free.
    """
    if reached is None:
        return []
    current, images = reached
    changes = []
    for index, stage in enumerate(before[: current + 1]):
        shown = format_stage(stage)
        if index >= len(now):
            changes.append(f"the stage {shown} has begun and is missing now")
        elif now[index] != stage:
            given = format_stage(now[index])
            if index < current:
                changes.append(f"the stage {shown} is over and cannot become {given}")
            elif replace(now[index], kimg=stage.kimg) != stage:
                changes.append(f"the stage {shown} has begun and cannot become {given}, only longer")
            elif now[index].images < min(images, stage.images):
                changes.append(f"the stage {given} is shorter than the {images / 1000:g} kimg seen already")
    return changes
