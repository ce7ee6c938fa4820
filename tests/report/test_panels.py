"""Curves from a log: panels, smoothing, the number of points."""

import numpy as np
import pytest

from polyinr_core.report.plots import MAX_POINTS, panels_of, running_mean, smooth_curve, within_span
from polyinr_core.report.run_reader import RunLog, Series, StageSpan


def log_of(*events: dict) -> RunLog:
    return RunLog(tuple(events))


def test_order_of_the_panels() -> None:
    log = log_of(
        {"kimg": 0.0, "stage": 0, "resolution": 16, "fd-lite2": 5.0, "reals": 9, "other": 3.0, "own": 1.0},
        {"kimg": 1.0, "stage": 0, "resolution": 16, "loss_d": 1.0, "loss_g": 2.0, "loss_guidance": 0.0},
        {"kimg": 2.0, "stage": 1, "resolution": 32, "fd-lite2": 7.0, "cpu_mem_mib": 100.0, "gpu_mem_mib": 50.0},
        {"kimg": 3.0, "stage": 1, "resolution": 32, "fd-lite2": 6.5, "own": 2.0},
    )
    panels = {panel.title: panel for panel in panels_of(log, ["own"])}
    assert list(panels) == ["fd-lite2", "own", "Losses", "Memory"]
    assert [curve.name for curve in panels["Losses"].curves] == ["generator", "discriminator"]
    assert [curve.name for curve in panels["Memory"].curves] == ["CPU", "GPU"]
    assert panels["fd-lite2"].curves[0].name == "best 6.5 at 3 kimg (32 px)"  # the other stage's does not compare
    assert panels["fd-lite2"].description.startswith("fd-lite2, 0 to 3 kimg: best 6.5")


def test_guidance_loss_is_plotted_only_if_not_zero() -> None:
    (panel,) = panels_of(log_of({"kimg": 1.0, "loss_d": 0.0, "loss_guidance": 0.5}), ())
    assert [curve.name for curve in panel.curves] == ["discriminator", "guidance"]


def test_running_mean_needs_enough_points() -> None:
    few = smooth_curve("x", Series((1.0, 2.0), (3.0, 4.0)))
    assert few.mean is None
    many = smooth_curve("x", Series(tuple(map(float, range(100))), tuple(map(float, range(100)))))
    assert many.mean is not None
    assert many.mean.values[50] == pytest.approx(50)
    assert not many.low


def test_many_points_are_averaged_in_groups() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    curve = smooth_curve("x", Series(tuple(map(float, range(10_000))), tuple(values)))
    assert curve.mean is not None
    assert len(curve.mean) == len(curve.low) == len(curve.high) == MAX_POINTS
    assert (min(curve.low), max(curve.high)) == (values.min(), values.max())
    assert np.mean(curve.mean.values) == pytest.approx(values.mean())


@pytest.mark.parametrize("window", [3, 4, 7])
def test_running_mean_equals_a_loop(window: int) -> None:
    """Oracle: a loop."""
    values = np.random.default_rng(window).normal(size=20)
    before, after = window // 2, (window - 1) // 2
    expected = [values[max(0, i - before) : i + after + 1].mean() for i in range(20)]
    assert running_mean(values, window) == pytest.approx(expected)


def test_a_border_belongs_to_the_earlier_stage() -> None:
    points = Series((0.0, 2.0, 3.0), (1.0, 2.0, 3.0))
    assert within_span(points, StageSpan(0, 16, 0.0, 2.0)).kimg == (0.0, 2.0)
    assert within_span(points, StageSpan(1, 32, 2.0, 4.0)).kimg == (3.0,)
