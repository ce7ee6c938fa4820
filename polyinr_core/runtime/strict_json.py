"""Strict JSON, and the keys of files of format 1, as polyinr 0.1 wrote them.

Valid Unicode, finite numbers, bounded depth: whatever is written can be read.

A name from a file system or an archive may hold bytes that are not UTF-8, which Python maps to U+DC80 to U+DCFF
(PEP 383). Each such byte is escaped: a backslash, `x`, two hexadecimal digits. Other lone surrogates are refused.

Every reader of a file format calls `upgrade` on the JSON it has parsed, so that the rest of the code knows only today's
keys. A key that another change renames goes into KEYS here; the format number of new files is FORMAT.
"""

import json
import math
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from polyinr_core.errors import PolyinrError

MAX_DEPTH = 64  # of nested objects and lists; polyinr's files need less than ten
MAX_DIGITS = 308  # of an integer, so that a float can hold it
BYTE, SURROGATE = re.compile("[\udc80-\udcff]"), re.compile("[\ud800-\udfff]")

FORMAT = 2  # of every file that holds a renamed key; the others are still of format 1
KEYS = {
    "bounds": "window",
    "critic_channels": "disc_channels",
    "critic_res": "disc_res",
    "pictures": "images",
    "quantisation": "quantization",
    "snapshot_every": "checkpoint_every",
}
LOG_KEYS = {  # log.jsonl
    "critic": "loss_d",
    "cuda_mib": "gpu_mem_mib",
    "discriminator": "loss_d",
    "fake_logit": "d_logit_fake",
    "fake_sign": "d_sign_fake",
    "generator": "loss_g",
    "guidance": "loss_guidance",
    "held_out_logit": "d_logit_held_out",
    "images_per_second": "img_per_sec",
    "pictures_per_second": "img_per_sec",
    "real_logit": "d_logit_real",
    "real_sign": "d_sign_real",
    "resident_mib": "cpu_mem_mib",
    "spread": "diversity",
}
COUNTER_KEYS = {  # of a training state
    "best_spread": "best_diversity",
    "diagnosis": "diagnostics",
    "notes": "hooks",
    "patience": "early_stopping",
}
VALUES = {"pictures": "images"}  # of a "kind"
OPTIONS = {"--colours": "--colors"}  # among the "words" of a command
COLORMAPS = {"fire": "inferno", "bmy": "plasma", "bgy": "viridis", "kbc": "cividis"}  # the nearest of matplotlib's
PROTOCOL_WORDS = (("a picture", "an image"), ("picture", "image"), ("colour", "color"), ("neighbour", "neighbor"))
STATE_PARTS = {"critic": "discriminator"}  # a tensor's name is PART/NAME
FOLDERS = {"checkpoints": "snapshots", "samples": "pictures"}  # of a run; today's name, then that of format 1


class JsonError(PolyinrError, ValueError):
    """A value or text that is not strict JSON."""


def to_unicode(text: str) -> str:
    """Escape bytes that are not UTF-8, as in `caf\\xe9`. Raises JsonError for other lone surrogates."""
    text = BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text)
    if wrong := SURROGATE.search(text):
        raise JsonError(f"{text[:40]!r} is not valid Unicode: it holds the lone surrogate U+{ord(wrong[0]):04X}")
    return text


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Parse JSON; bytes of names that are not UTF-8 are escaped. Raises JsonError.

    `finite` false allows NaN and infinities, for files that other programs may have written.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        hooks: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite_float} if finite else {}
        value = json.loads(text, parse_int=_bounded_int, **hooks)
    except JsonError:
        raise
    except RecursionError:
        raise JsonError(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:  # also UnicodeDecodeError
        raise JsonError(f"not valid JSON: {error}") from error
    _check_depth(value)
    escapes = "\\u" in text or SURROGATE.search(text)  # few texts hold any
    return plain_json(value, finite=finite) if escapes else value


def format_json(value: Any, *, indent: int | None = None, sort_keys: bool = True, ascii_only: bool = True) -> str:
    """Return JSON that `parse_json` reads, on one line without `indent`. Raises JsonError."""
    value = plain_json(value)
    return json.dumps(value, indent=indent, sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False)


def plain_json(value: Any, *, finite: bool = True, place: str = "", depth: int = 0) -> Any:
    """Return a value as JSON would return it: lists for tuples, valid Unicode. Raises JsonError with its place."""
    if isinstance(value, str):
        return to_unicode(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 10**MAX_DIGITS:
            raise JsonError(f"{place or 'the value'} is an integer of more than {MAX_DIGITS} digits")
        return int(value)
    if isinstance(value, float):
        if finite and not math.isfinite(value):
            raise JsonError(f"{place or 'the value'} is {value}, which JSON cannot hold")
        return float(value)
    if not isinstance(value, dict | list | tuple):
        raise JsonError(f"{place or 'the value'} is a {type(value).__name__}, which JSON cannot hold")
    if depth >= MAX_DEPTH:
        raise JsonError(f"nested deeper than {MAX_DEPTH}")
    if not isinstance(value, dict):
        return [plain_json(item, finite=finite, place=f"{place}[{i}]", depth=depth + 1) for i, item in enumerate(value)]
    plain = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise JsonError(f"{place or 'the value'} has the key {key!r}, which is not a string")
        name = to_unicode(key)
        where = f"{place}.{name}" if place else name
        plain[name] = plain_json(item, finite=finite, place=where, depth=depth + 1)
    return plain


def is_whole(value: Any, low: int = 0, high: int = 2**63 - 1) -> bool:
    """Return whether a value is an integer in that range; bool is not."""
    return type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number; bool is not."""
    return type(value) in (int, float) and math.isfinite(value)


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of strings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_depth(value: Any) -> None:
    """Raise JsonError for objects and lists nested deeper than MAX_DEPTH, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            item
            for held in level
            for item in (held.values() if type(held) is dict else held)
            if type(item) is dict or type(item) is list
        ]
    if level:
        raise JsonError(f"nested deeper than {MAX_DEPTH}")


def _no_constant(name: str) -> Any:
    raise JsonError(f"{name} is not a finite number")


def _finite_float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise JsonError(f"{text[:20]} is not a finite number")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError(f"an integer of {len(text)} digits, more than {MAX_DIGITS}")
    return int(text)


def upgrade(facts: Any) -> Any:
    """Return the JSON of a file with the keys and values of format 1 renamed at every depth.

    JSON of format 2 comes back as it is, and so does anything that is no object or list. A format number 1 becomes 2.
    """
    if isinstance(facts, list):
        return [upgrade(item) for item in facts]
    if not isinstance(facts, dict):
        return facts
    renamed: dict[Any, Any] = {}
    for key, value in facts.items():
        if key == "protocols":
            renamed[key] = _reword(value)
        elif key == "kind" and isinstance(value, str):
            renamed[key] = VALUES.get(value, value)
        elif key == "words" and isinstance(value, list):
            renamed[key] = [
                COLORMAPS.get(word, word) if before == "--colours" else OPTIONS.get(word, word)
                for before, word in pairwise(["", *map(str, value)])
            ]
        elif key == "format" and type(value) is int and value == 1:
            renamed[key] = FORMAT
        else:
            renamed[KEYS.get(key, key)] = upgrade(value)
    return renamed


def upgrade_event(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of a run's log with its keys renamed; one log may hold events of both formats."""
    return {LOG_KEYS.get(key, key): value for key, value in event.items()}


def upgrade_counters(counters: Any) -> Any:
    """Return the counters of a training state with their keys renamed at every depth."""
    if not isinstance(counters, dict):
        return counters
    return {COUNTER_KEYS.get(key, key): upgrade_counters(value) for key, value in counters.items()}


def upgrade_tensor_name(name: str) -> str:
    """Return the name, PART/NAME, that a tensor of a training state has in format 2."""
    part, slash, rest = name.partition("/")
    return f"{STATE_PARTS.get(part, part)}{slash}{rest}"


def run_subfolder(run: Path, name: str) -> Path:
    """Return a run's subfolder, under its name of format 1 where an older run goes on."""
    old = run / FOLDERS[name]
    return old if old.is_dir() and not (run / name).exists() else run / name


def _reword(value: Any) -> Any:
    """Return the protocols of an evaluation in today's spelling, so that an equal rule compares equal."""
    if isinstance(value, dict):
        return {key: _reword(item) for key, item in value.items()}
    if isinstance(value, str):
        for old, new in PROTOCOL_WORDS:
            value = value.replace(old, new)
    return value
