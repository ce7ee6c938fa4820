"""Differences between two results, which metrics they affect, and by how much."""

import copy
import math
from pathlib import Path
from typing import Any, get_args

import pytest
from conftest import Run, small_checkpoint
from evaluation_inputs import LinearExtractor, write_images

from polyinr_core.evaluation import protocols
from polyinr_core.evaluation.compare import Comparison, Grade, compare, fact_of, rules
from polyinr_core.evaluation.results import Result
from polyinr_core.metrics.registry import Family, family_of

CARD: dict[str, Any] = {
    "resolution": 32,
    "mirror": "none",
    "quantization": "uint8",
    "reals": {"kind": "images", "name": "r.zip", "sha256": "aa" * 32, "count": 900, "of": 900, "labels": "own"},
    "fakes": {
        "kind": "model",
        "name": "m.safetensors",
        "sha256": "bb" * 32,
        "count": 1000,
        "seeds": "0-999",
        "labels": "uniform",
        "psi": 1.0,
    },
    "networks": {
        "lite2": {"sha256": "cc" * 32, "resize": "128"},
        "inception": {"sha256": "dd" * 32, "resize": "299"},
    },
    "protocols": {
        "fd-lite2": {"network": "lite2", "tap": "pooled", "rule": "N - 1"},
        "kd-lite2": {"network": "lite2", "tap": "pooled", "rule": "cubic"},
        "pr-lite2": {"network": "lite2", "tap": "pooled", "rule": "3"},
        "is": {"network": "inception", "tap": "probabilities", "rule": "10 splits"},
    },
    "libraries": {"torch": "2.15.0"},
    "device": "cpu",
}
VALUES = {"fd-lite2": 100.0, "kd-lite2": 0.3, "pr-lite2/recall": 0.4, "is": 9.0, "params": 1e6, "speed": 0.5}


def result(**changes: Any) -> Result:
    """A result whose card differs in the fields given as reals__count=3; the metrics are the same."""
    card = copy.deepcopy(CARD)
    for path, value in changes.items():
        *above, last = path.split("__")
        place = card
        for name in above:
            place = place.setdefault(name, {})
        place[last] = value
    return Result("r", {name: {"value": value} for name, value in VALUES.items()}, card)


def standings(comparison: Comparison) -> dict[str, str]:
    return {name: verdict.standing for name, verdict in comparison.verdicts.items()}


def touched(comparison: Comparison) -> set[str]:
    return {name for difference in comparison.differences for names in difference.effects.values() for name in names}


DISTANCES = {"fd-lite2", "kd-lite2", "pr-lite2/recall"}
SEEN = {*DISTANCES, "is"}


@pytest.mark.parametrize(
    ("changes", "names", "standing"),
    [
        ({"resolution": 64}, SEEN | {"speed"}, "not comparable"),
        ({"mirror": "both"}, DISTANCES, "not comparable"),
        ({"quantization": "none"}, SEEN, "not comparable"),
        ({"reals__sha256": "ee" * 32}, DISTANCES, "not comparable"),
        ({"reals__reduction": "area average"}, DISTANCES, "not comparable"),
        ({"reals__held_out": {"run": "r", "seed": 1, "count": 5}}, DISTANCES, "not comparable"),
        ({"reals__kind": "statistics"}, DISTANCES, "unknown"),
        ({"reals__statistics": {"sha256": "ff" * 32}}, DISTANCES, "within"),
        ({"fakes__sha256": "ee" * 32}, SEEN | {"params", "speed"}, "comparable"),
        ({"fakes__psi": 0.7}, SEEN, "comparable"),
        ({"fakes__labels": "class 3"}, SEEN, "not comparable"),
        ({"fakes__labels": "dataset", "fakes__label_weights": "3 0 1"}, SEEN, "not comparable"),
        ({"fakes__seeds": "5-1004"}, SEEN, "within"),
        ({"fakes__kind": "images"}, SEEN | {"speed"}, "comparable"),
        ({"networks__lite2": {"sha256": "", "resize": "128"}}, DISTANCES, "not comparable"),
        ({"networks__inception__resize": "bicubic"}, {"is"}, "not comparable"),
        ({"protocols__is__rule": "1 split"}, {"is"}, "not comparable"),
        ({"libraries__torch": "3.0"}, SEEN, "within"),
        ({"device": {"name": "H200"}}, SEEN, "within"),
        ({"precision": "bfloat16"}, SEEN, "within"),
        ({"weather": "rain"}, set(VALUES), "unknown"),
    ],
)
def test_a_difference_affects_its_metrics(changes: dict[str, Any], names: set[str], standing: str) -> None:
    for pair in ((result(), result(**changes)), (result(**changes), result())):
        comparison = compare(*pair)
        assert touched(comparison) >= names - {"speed"}
        found = standings(comparison)
        assert {found[name] for name in names - {"speed"}} == {standing}
        assert {found[name] for name in set(VALUES) - names - {"speed"}} <= {"comparable"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reals__name": "copy.zip", "reals__of": 901, "fakes__name": "copy.safetensors"},
        {"fakes__reduction": "none"},
        {"fakes__labels": "uniform"},
        {"fakes__labels": "dataset", "fakes__label_weights": "1 1 1"},
        {"networks__lite2__published": True},
        {"networks__vgg16": {"sha256": "ab", "resize": ""}, "protocols__pr": {"network": "vgg16"}},
    ],
)
def test_irrelevant_fields_are_no_difference(changes: dict[str, Any]) -> None:
    assert compare(result(), result(**changes)).differences == ()


def test_labels_of_two_datasets_with_equal_frequencies_agree() -> None:
    """The difference is listed once: that one card has no weights follows from its labels."""
    drawn = {"fakes__labels": "dataset", "fakes__label_weights": "3 0 1"}
    other = compare(result(**drawn), result(**drawn | {"fakes__label_weights": "3 1 0"}))
    assert [difference.field for difference in other.differences] == [("fakes", "label_weights")]
    assert other.verdicts["is"].standing == "not comparable"
    assert compare(result(**drawn), result(**drawn)).differences == ()
    differing = compare(result(), result(**drawn)).differences
    assert [difference.field for difference in differing] == [("fakes", "labels")]


def test_effect_of_counts_by_family() -> None:
    """Half as many: a Fréchet distance owes them three quarters at most; what is of neighbors, nobody knows."""
    comparison = compare(result(), result(fakes__count=500, fakes__seeds="0-499"))
    assert [difference.field for difference in comparison.differences] == [("fakes", "count")]
    assert standings(comparison) == {
        "fd-lite2": "within",
        "kd-lite2": "within",
        "pr-lite2/recall": "not comparable",
        "is": "not comparable",
        "params": "comparable",
        "speed": "comparable",
    }
    verdict = comparison.verdicts["fd-lite2"]
    assert verdict.within == 75
    assert verdict.because == ("the count of generated images",)
    reals = compare(result(), result(reals__count=300)).verdicts["fd-lite2"]
    assert reals.within == pytest.approx(100 * 8 / 9)


def test_halving_tightens_the_bound_of_the_bias() -> None:
    few, many = result(fakes__count=500), result(fakes__count=2000)
    few.metrics["fd-lite2"]["bias"] = 8.0
    assert compare(many, few).verdicts["fd-lite2"].within == 16
    few.metrics["fd-lite2"]["bias"] = 1000.0
    assert compare(many, few).verdicts["fd-lite2"].within == 93.75


@pytest.mark.parametrize(("n", "more"), [(5, 10), (10, 80), (20, 40), (40, 160), (160, 320)])
def test_the_bias_of_a_gaussian_sample_is_within_the_bound(n: int, more: int) -> None:
    """Oracle: mean Fréchet distances of normal samples to their own distribution, in 20 dimensions."""
    import torch

    from polyinr_core.metrics.bootstrap import frechet_to, halving
    from polyinr_core.metrics.frechet import Gaussian

    rng = torch.Generator().manual_seed(0)
    figure = frechet_to(Gaussian(torch.zeros(20).double(), torch.eye(20).double()))
    samples = torch.randn(20, more, 20, generator=rng, dtype=torch.float64)
    values = [math.fsum(figure(part[:count]) for part in samples) / 20 for count in (n, more)]
    few, many = result(fakes__count=n), result(fakes__count=more)
    few.metrics["fd-lite2"], many.metrics["fd-lite2"] = ({"value": value} for value in values)
    shift = values[0] - values[1]
    assert shift > 0.1 * values[0]
    assert compare(few, many).verdicts["fd-lite2"].within >= shift
    few.metrics["fd-lite2"]["bias"] = math.fsum(halving(figure, part[:n])["bias"] for part in samples) / 20
    assert compare(few, many).verdicts["fd-lite2"].within >= shift


def test_intervals_decide_which_model_is_better() -> None:
    a, b = result(), result(fakes__sha256="ee" * 32)
    a.metrics["fd-lite2"] = {"value": 100.0, "low": 97.0, "high": 103.0}
    b.metrics["fd-lite2"] = {"value": 104.9, "low": 101.0, "high": 109.0}
    verdict = compare(a, b).verdicts["fd-lite2"]
    assert (verdict.standing, verdict.within, verdict.better) == ("comparable", 5.0, None)
    b.metrics["fd-lite2"]["value"] = 105.1
    assert compare(a, b).verdicts["fd-lite2"].better == 0
    assert compare(b, a).verdicts["fd-lite2"].better == 1
    assert compare(a, b).verdicts["fd-lite2"].compares == ("the model",)


def test_two_differences_are_both_named() -> None:
    b = result(fakes__sha256="ee" * 32, fakes__psi=0.5)
    b.metrics["is"] = {"value": 10.0}
    del b.metrics["params"]
    comparison = compare(result(), b)
    verdict = comparison.verdicts["is"]
    assert set(verdict.compares) == {"the model", "psi"}
    assert verdict.better == 1
    assert comparison.alone == (("params",), ())


def test_every_field_of_a_card_has_a_rule(polyinr: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new field of the card needs a rule: what differs in it must not be of unknown effect."""
    monkeypatch.setattr(protocols, "load_extractor", lambda name, **options: LinearExtractor())
    write_images(tmp_path / "reals", 8, resolution=24)
    small_checkpoint(tmp_path / "model.safetensors")
    words = "evaluate --real reals -m model.safetensors --res 24 --count 8 --json -q --metrics"
    ran = polyinr(*words.split(), "fd-lite2,kd-lite2,pr-lite2,upsampling-lite2,speed,params")
    assert ran.code == 0, ran.stderr
    facts = ran.lines[0]
    assert len(facts["card"]) > 5

    def other(fact: Any) -> Any:
        return {name: other(part) for name, part in fact.items()} if isinstance(fact, dict) else f"not {fact}"

    a = Result("a", facts["metrics"], facts["card"])
    comparison = compare(a, Result("b", facts["metrics"], other(facts["card"])))
    grades = {field.field: [fact.grade for fact in field.effects] for field in comparison.differences}
    assert grades.pop(("reals", "kind")) == ["unknown"]  # no card says what is in statistics of others
    assert [field for field, found in grades.items() if "unknown" in found] == []
    assert {verdict.standing for verdict in compare(a, a).verdicts.values()} == {"comparable"}
    families = {family_of(name) for name in facts["metrics"]}
    assert families == {"frechet", "kernel", "neighbors", "upsampling", "speed", "params"}


def test_every_rule_matches_something() -> None:
    """Each fact applies to some metric: no rule is hidden by another. Each effect is a full sentence."""
    said = set()
    for rule in rules():
        field = tuple("x" if name == "*" else name for name in rule.field if name != "**")
        said |= {fact_of(field, family_of(name)) for name in (*VALUES, "ppl", "inversion/psnr")}
        assert rule.fact.grade in get_args(Grade)
        assert rule.families <= set(get_args(Family))
        assert rule.fact.effect.endswith((".", ".)"))
    assert said - {None} == {rule.fact for rule in rules()}


def test_spread_of_times_and_scores() -> None:
    a, b = result(), result(fakes__sha256="ee" * 32)
    a.metrics["speed"], b.metrics["speed"] = ({"value": 5.0, "min": 2.0, "max": 8.0} for _ in range(2))
    a.metrics["is"], b.metrics["is"] = ({"value": value, "std": 3.0} for value in (9.0, 12.0))
    verdicts = compare(a, b).verdicts
    assert verdicts["speed"].within == verdicts["is"].within == pytest.approx(math.sqrt(18))
    assert verdicts["is"].better is None


def test_last_digits_make_no_value_better() -> None:
    a, b = result(device={"type": "cpu", "threads": 1}), result(device={"type": "cpu", "threads": 2})
    for value, better in ((100.0005, None), (100.5, 0)):
        a.metrics["fd-lite2"], b.metrics["fd-lite2"] = {"value": 100.0}, {"value": value}
        verdict = compare(a, b).verdicts["fd-lite2"]
        assert (verdict.standing, verdict.better) == ("within", better)
        assert verdict.within == pytest.approx(1e-5 * value)
