"""Result files: their names, the numbers of an estimate, the families of metrics."""

from pathlib import Path

from polyinr_core.evaluation.results import distinct_names, parse_result
from polyinr_core.metrics.registry import METRIC_NAMES, METRICS, base_of, best, better, family_of


def test_distinct_names() -> None:
    paths = [Path(name) for name in ("a/x/r.json", "b/x/r.json", "b/s.json", "r.json")]
    assert distinct_names(paths) == ["a/x/r", "b/x/r", "s", "r"]


def test_invalid_numbers_of_an_estimate_are_ignored() -> None:
    text = b'{"format": 2, "metrics": {"is": {"value": 2, "x": NaN}}, "card": {}}'
    assert parse_result(text, Path("r")).metrics == {"is": {"value": 2.0}}


def test_every_metric_has_a_family_and_a_direction() -> None:
    names = [*METRICS, *(part for part in METRIC_NAMES.replace(",", " ").split() if part[:3] in ("fd-", "kd-"))]
    names = [name for name in names if "NAME" not in name and "FILE" not in name]
    names += ["fd-timm:a/b", "ppl", "ppl-lite2", "inversion/psnr"]
    names += ["upsampling/rendered", "upsampling/bicubic", "upsampling-timm:x/y/rendered"]
    names += ["inversion/ssim", "inversion/lpips", "speed", "speed/seconds", "params", "params/synthesis"]
    whole = [name for name in names if family_of(name) != "neighbors"]
    for name in whole:
        assert family_of(name) != "other", name
        assert better(name) == ("higher" if name in ("is", "inversion/psnr", "inversion/ssim") else "lower"), name
    for part in ("pr/precision", "pr-lite2/recall", "dc-timm:a/b/density", "dc-lite2/coverage"):
        assert (family_of(part), better(part)) == ("neighbors", "higher")
    assert base_of("dc-timm:a/b/density") == "dc-timm:a/b"
    assert (family_of("joy"), better("joy"), best("joy", [1.0])) == ("other", None, None)
    assert (best("fid", [2.0, 1.0]), best("is", [2.0, 1.0]), best("is", [])) == (1.0, 2.0, None)
