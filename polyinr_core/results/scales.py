"""Figures by name: of which family each is, and which way is better. Knows names, no networks."""

from collections.abc import Iterable
from typing import Literal

Family = Literal[
    "frechet", "kernel", "score", "neighbours", "path", "inversion", "upsampling", "speed", "params", "other"
]
Better = Literal["lower", "higher"]

PARTS = ("precision", "recall", "density", "coverage")  # of a metric of neighbours; higher is better
ENLARGED = ("drawn", "nearest", "bilinear", "bicubic")  # of upsampling
INVERSION: dict[str, Better] = {"psnr": "higher", "ssim": "higher", "lpips": "lower"}
LOWER = ("frechet", "kernel", "path", "upsampling", "speed", "params")


def base_of(name: str) -> str:
    """Return the metric that a figure belongs to: pr-lite2 of pr-lite2/recall, inversion of inversion/psnr."""
    stem, _, part = name.rpartition("/")
    if part in (*PARTS, *ENLARGED):
        return stem
    first = name.partition("/")[0]
    return first if first in ("inversion", "speed", "params") else name


def family_of(name: str) -> Family:
    """Return a figure's family, "other" for a name that is not known."""
    base = base_of(name)
    kinds: dict[str, Family] = {
        "fid": "frechet",
        "sfid": "frechet",
        "rfid": "frechet",
        "fd": "frechet",
        "kid": "kernel",
        "kd": "kernel",
        "is": "score",
        "pr": "neighbours",
        "dc": "neighbours",
        "ppl": "path",
        "inversion": "inversion",
        "upsampling": "upsampling",
        "speed": "speed",
        "params": "params",
    }
    return kinds.get(base.partition("-")[0], "other")


def better(name: str) -> Better | None:
    """Return which way a figure is better, None where that is not known."""
    family, part = family_of(name), name.rpartition("/")[2]
    if family in LOWER:
        return "lower"
    if family == "inversion":
        return INVERSION.get(part)
    return "higher" if family == "score" or part in PARTS else None


def best(name: str, values: Iterable[float]) -> float | None:
    """Return the best of a figure's values, None where the better way is not known or there is no value."""
    way, given = better(name), list(values)
    if way is None or not given:
        return None
    return min(given) if way == "lower" else max(given)
