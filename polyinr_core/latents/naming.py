"""Parse and format seeds, classes and levels."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from polyinr_core.errors import LabelError, RequestError

MAX_SEED = 2**32 - 1  # NumPy's largest
MAX_SEEDS = 1_000_000


def parse_seeds(text: str) -> list[int]:
    """Parse "0-7,12" as [0, ..., 7, 12]. Raises RequestError."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part, re.ASCII)
        if match is None:
            raise RequestError(f"seeds {text!r} are not understood at {part!r}; write 7, 0-7 or 0-7,12")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last > MAX_SEED or first > MAX_SEED:
            raise RequestError(f"seed {max(first, last)} is outside 0-{MAX_SEED}")
        if first > last:
            raise RequestError(f"seeds {part.strip()} run backwards; write {last}-{first}")
        if len(seeds) + last - first + 1 > MAX_SEEDS:
            raise RequestError(f"seeds {text!r} are more than {MAX_SEEDS}; render them in several runs")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise RequestError(f"seeds {text!r} name a seed twice")
    return seeds


def seeds_text(seeds: Iterable[int]) -> str:
    """Format seeds, or levels, as `parse_seeds` takes them, in the same order."""
    runs: list[list[int]] = []
    for seed in seeds:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def parse_levels(text: str, *, levels: int) -> list[int]:
    """Parse "8-9" or "0,2-4" as levels of a model with `levels` levels, sorted. Raises RequestError."""
    chosen: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        if match is None:
            raise RequestError(f"levels {text[:40]!r} are not understood at {part[:40]!r}; write 3, 5-7 or 0,8-9")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if max(first, last) >= levels:
            raise RequestError(f"level {max(first, last)} is outside 0-{levels - 1} (the model has {levels} levels)")
        if first > last:
            raise RequestError(f"levels {part.strip()} run backwards; write {last}-{first}")
        chosen += range(first, last + 1)
    if len(set(chosen)) < len(chosen):
        raise RequestError(f"levels {text[:40]!r} name a level twice")
    return sorted(chosen)


def parse_label(text: str, *, classes: int, class_names: Sequence[str] = ()) -> int:
    """Return the index of a class that is given by name or number. Raises LabelError."""
    if not classes:
        raise LabelError("the model has no classes: leave --label out")
    name = text.strip()
    if name in class_names:
        return class_names.index(name)
    alike = [i for i, other in enumerate(class_names) if other.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    if re.fullmatch(r"-?\d{1,18}", name, re.ASCII):
        if 0 <= int(name) < classes:
            return int(name)
        raise LabelError(f"class {name} is outside 0-{classes - 1}")
    near = get_close_matches(name, class_names)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"give a number in 0-{classes - 1}"
    if class_names and not near:
        hint = f"{hint}, or a name that `polyinr info MODEL` lists"
    raise LabelError(f"class {name!r} is unknown; {hint}")
