"""Results of evaluate as the tests of what reads them need: two models, and files that are none."""

import json
from pathlib import Path
from typing import Any

NOT_RESULTS = {
    "empty.json": "",
    "text.json": "fd-lite2 is 3",
    "list.json": "[]",
    "other.json": '{"card": {}, "metrics": {}}',
    "newer.json": '{"format": 99, "metrics": {}, "card": {}, "more": 1}',
    "bare.json": '{"format": 2, "metrics": {}, "card": {}}',
    "torn.json": '{"format": 2, "metrics": {"fid": {"low": 1}}, "card": {}}',
    "nan.json": '{"format": 2, "metrics": {"fid": {"value": NaN}}, "card": {}}',
    "cardless.json": '{"format": 2, "metrics": {"fid": {"value": 1}}, "card": []}',
    "deep.json": '{"format": ' + "[" * 100_000,
}
REFUSED = [
    ("missing.json", 1, "missing.json: no such file"),
    ("empty.json", 1, "empty.json: is empty", "polyinr evaluate -o"),
    ("text.json", 1, "text.json: is not JSON"),
    ("deep.json", 1, "deep.json: is not JSON"),
    ("list.json", 1, "list.json: is JSON, but not a result"),
    ("other.json", 1, "other.json: is JSON, but not a result"),
    ("newer.json", 1, "newer.json: is a result of format 99; this version reads up to 2", "update polyinr"),
    ("bare.json", 1, "bare.json: is damaged"),
    ("torn.json", 1, "torn.json: is damaged"),
    ("nan.json", 1, "nan.json: is damaged"),
    ("cardless.json", 1, "cardless.json: is damaged"),
    ("folder", 1, "folder: is a folder"),
    ("/dev/zero", 1, "/dev/zero: is not a regular file"),
    ("./a.json", 2, "a.json is given twice"),
    ("-", 1, "stdin: is empty"),
]


def write_not_results() -> None:
    """Write all that is no result into the working folder."""
    for name, text in NOT_RESULTS.items():
        Path(name).write_text(text)
    Path("folder").mkdir()


def write_result(path: str, figures: dict[str, Any], *, count: int = 20_000, psi: float = 1.0, sha: str = "a") -> str:
    """Write a result of figures, numbers or whole rows, and return its text."""
    names = [name.partition("/")[0] for name in figures]
    facts = {
        "format": 2,
        "metrics": {name: row if isinstance(row, dict) else {"value": row} for name, row in figures.items()},
        "card": {
            "resolution": 32,
            "reals": {"kind": "images", "name": "cats.zip", "sha256": "c" * 64, "count": 900, "of": 900},
            "fakes": {
                "kind": "model",
                "name": "m.safetensors",
                "sha256": sha * 64,
                "count": count,
                "seeds": f"0-{count - 1}",
                "labels": "none",
                "psi": psi,
            },
            "networks": {"lite2": {"sha256": "d" * 64, "resize": "128"}},
            "protocols": {name: {"network": "lite2", "tap": "pooled", "rule": "its own"} for name in names},
            "device": "cpu",
        },
    }
    text = json.dumps(facts)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return text
