"""Diagnostics: a healthy run's log and sheets raise nothing, a collapsed one's do; each warning comes once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from polyinr_core.images.grid import Pixels
from polyinr_core.runtime.strict_json import upgrade_event
from polyinr_core.training.diagnostics import Diagnostics, diversity, overfitting

DOCS = Path(__file__).parent.parent.parent / "docs"


def logged(name: str) -> list[dict[str, Any]]:
    return [
        upgrade_event(json.loads(line)) for line in (DOCS / "training-run" / f"{name}.jsonl").read_text().splitlines()
    ]


def listen(diagnosis: Diagnostics, events: list[dict[str, Any]], *, before: float = 0.0) -> dict[float, str]:
    """Tell a diagnosis a log's signs and distances; return the warnings by kimg."""
    warnings = {}
    for event in events:
        kimg = event["kimg"]
        if "d_sign_fake" in event:
            warning = diagnosis.update_signs(
                fake=event["d_sign_fake"],
                real=event["d_sign_real"],
                images=round(1000 * (kimg - before)),
                stage_images=round(1000 * kimg),
            )
            before = kimg
        else:
            warning = diagnosis.update_distance("fd-lite2", event["fd-lite2"])
        if warning:
            warnings[kimg] = warning
    return warnings


def cells(name: str) -> Pixels:
    """The 32 images of a grid of an hour of training by polyinr 0.1, 32 px."""
    sheet = np.asarray(Image.open(Path(__file__).parent / "sheets" / f"{name}.png").convert("RGB"))
    return np.stack([sheet[r : r + 32, c : c + 32] for r in range(0, 136, 34) for c in range(0, 272, 34)])


def test_a_healthy_run_raises_nothing() -> None:
    diagnosis = Diagnostics()
    assert listen(diagnosis, logged("log")) == {}
    data = diversity(cells("reals"))
    for name, seen in (("before", 0), ("midway", 10000), ("after", 19856)):
        assert diagnosis.update_diversity(samples=diversity(cells(name)), data=data, stage_images=seen) is None


def test_a_collapsed_run_is_reported() -> None:
    """First by its signs, then by its distance; each once."""
    warnings = listen(Diagnostics(), logged("first-attempt"))
    assert len(warnings) == 2
    (early, signs), (late, distance) = warnings.items()
    assert 12 < early < 14
    assert "--init-from" in signs
    assert late == 16
    assert "fd-lite2 has risen to 795.3 from 504.2" in distance


def test_a_resumed_run_warns_as_the_uninterrupted_one() -> None:
    events = logged("first-attempt")
    whole = listen(Diagnostics(), events)
    for cut in (10, 53, 54, 60, 70):
        first = Diagnostics()
        warned = listen(first, events[:cut])
        kept = json.loads(json.dumps(first.to_dict(), allow_nan=False))
        before = max(event["kimg"] for event in events[:cut] if "d_sign_fake" in event)
        warned |= listen(Diagnostics.from_dict(kept), events[cut:], before=before)
        assert warned == whole


def test_a_state_of_another_version_is_taken_up() -> None:
    assert Diagnostics.from_dict({"best_diversity": 0.5, "of another version": 1}) == Diagnostics(best_diversity=0.5)


def test_a_state_holds_no_time() -> None:
    """The same run writes the same state on any machine."""
    diagnosis = Diagnostics()
    before = diagnosis.to_dict()
    assert diagnosis.add_metric_time(1.0) is None
    diagnosis.add_training_time(90.0)
    assert diagnosis.add_metric_time(30.0)
    assert diagnosis.to_dict() == before


def test_a_warning_comes_again_only_after_its_number_was_well() -> None:
    diagnosis = Diagnostics()
    warned = [diagnosis.update_distance("fid", value) is not None for value in (10, 13, 14, 11.5, 13, 10.5, 13)]
    assert warned == [False, True, False, False, False, False, True]


def test_a_new_stage_begins_anew() -> None:
    diagnosis = Diagnostics()
    assert diagnosis.update_distance("fid", 10) is None
    assert diagnosis.update_distance("fid", 20)
    assert diagnosis.update_diversity(samples=0.5, data=0.5, stage_images=0) is None
    diagnosis.start_stage()
    assert diagnosis == Diagnostics()
    assert diagnosis.update_distance("fid", 20) is None
    assert diagnosis.update_distance("fid", 40)


def test_distances_of_two_kinds_are_not_compared() -> None:
    diagnosis = Diagnostics()
    assert diagnosis.update_distance("fid", 10) is None
    assert diagnosis.update_distance("fd-lite2", 400) is None
    assert diagnosis.update_distance("fd-lite2", 600)


def test_kernel_distances_near_nothing_are_not_compared() -> None:
    diagnosis = Diagnostics()
    assert [diagnosis.update_distance("kd-lite2", value) for value in (-1e-4, 1e-4, 5.0)] == [None] * 3


@pytest.mark.parametrize("shapes", [1, 4, 12])
def test_few_shapes_are_a_collapse(shapes: int) -> None:
    """Of 32 samples, few differ, by more than noise of two gray levels."""
    diagnosis = Diagnostics()
    data, healthy = cells("reals"), cells("after")
    noise = np.random.default_rng(0).normal(0, 2, healthy.shape)
    collapsed = np.clip(healthy[np.arange(32) % shapes] + noise, 0, 255).astype(np.uint8)
    facts = {"data": diversity(data), "stage_images": 5000}
    assert diagnosis.update_diversity(samples=diversity(healthy), **facts) is None
    warning = diagnosis.update_diversity(samples=diversity(collapsed), **facts)
    assert warning is not None
    assert "--init-from" in warning
    assert diagnosis.update_diversity(samples=diversity(collapsed), **facts) is None
    assert diagnosis.update_diversity(samples=diversity(healthy), **facts) is None
    assert diagnosis.update_diversity(samples=diversity(collapsed), **facts)


def test_a_slow_beginning_is_no_collapse() -> None:
    """The release's start values draw one color: alike at first, which is worth a word only when it stays so."""
    diagnosis = Diagnostics()
    warned = [diagnosis.update_diversity(samples=0.01, data=0.5, stage_images=seen) for seen in range(0, 30000, 5000)]
    assert [warning is not None for warning in warned] == [False, False, False, False, True, False]


def test_what_cannot_be_compared_raises_nothing() -> None:
    diagnosis, nan = Diagnostics(), float("nan")
    assert diagnosis.update_diversity(samples=0.3, data=0.0, stage_images=10**6) is None  # the data is one image
    assert diagnosis.update_diversity(samples=nan, data=0.3, stage_images=10**6) is None
    assert diagnosis.update_distance("fid", nan) is None
    assert diagnosis.update_logits(training=nan, held_out=0.0, fakes=0.0) is None
    assert diagnosis.update_signs(fake=nan, real=1.0, images=10**6, stage_images=10**6) is None
    assert diagnosis == Diagnostics()


def test_spread_is_the_distance_to_the_nearest() -> None:
    gray = [np.full((40, 40, 3), value, np.uint8) for value in (0, 51, 51, 255)]
    assert diversity(np.stack(gray[:2])) == pytest.approx(0.4)
    assert diversity(np.stack(gray)) == pytest.approx((0.4 + 0 + 0 + 1.6) / 4)
    assert diversity(np.stack(gray[:1])) == 0


def test_spread_hardly_depends_on_the_resolution() -> None:
    small = cells("reals")
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    assert diversity(large) == pytest.approx(diversity(small), rel=0.01)


def test_overfitting_is_the_share_of_the_way_to_the_fakes() -> None:
    assert overfitting(training=1.0, held_out=1.0, fakes=-1.0) == 0
    assert overfitting(training=1.0, held_out=-1.0, fakes=-1.0) == 1
    assert overfitting(training=1.0, held_out=0.5, fakes=-1.0) == 0.25
    assert overfitting(training=0.4, held_out=-1.0, fakes=0.0) == 0  # the discriminator tells nothing apart


def test_overfitting_that_lasts_is_reported() -> None:
    diagnosis = Diagnostics()

    def hear(held_out: float) -> bool:
        return diagnosis.update_logits(training=1.0, held_out=held_out, fakes=-1.0) is not None

    assert [hear(held_out) for held_out in (0.0, *[0.9] * 20)] == [False] * 21  # one bad number is none
    warned = [hear(0.5) for _ in range(60)]
    assert warned.count(True) == 1
    assert not any(hear(0.9) for _ in range(60))
    assert any(hear(0.0) for _ in range(20))


@pytest.mark.parametrize("noise", [0.1, 0.25])
def test_noise_of_the_logits_is_no_overfitting(noise: float) -> None:
    """Means of 16 images whose logits differ by 0.4 or 1, over a thousand measurements."""
    diagnosis, rng = Diagnostics(), np.random.default_rng(0)
    for _ in range(1000):
        training, held_out, fakes = rng.normal((2.6, 2.5, -0.1), noise)
        assert diagnosis.update_logits(training=training, held_out=held_out, fakes=fakes) is None


def test_metrics_that_take_long_are_reported() -> None:
    diagnosis = Diagnostics()
    diagnosis.add_training_time(1.0)
    assert diagnosis.add_metric_time(60.0) is None  # the data is looked at once
    diagnosis.add_training_time(85.0)
    warning = diagnosis.add_metric_time(15.0)
    assert warning is not None
    assert "15%" in warning
    assert "--metric-every" in warning
    diagnosis.add_training_time(85.0)
    assert diagnosis.add_metric_time(15.0) is None
    cheap = Diagnostics()
    for _ in range(4):
        assert cheap.add_metric_time(9.0) is None
        cheap.add_training_time(95.0)
