"""Damage: JSON, bytes, tensors, zip and tar files and images, each changed by a seeded random choice."""

import io
import json
import random
import tarfile
import zipfile
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DEEP = 3000
ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**31, 2**63, 10**30, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", "x", "caf\udce9", "\ud800", "a" * 5000, "../../x", [], [1], ["a"], [[]], {}, {"a": 1}, {"format": 1}),
]


def changed_json(rng: random.Random, value: Any) -> Any:
    """Return JSON with one thing in it changed: another type, a missing key, a deep nest, a huge number."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        held = waiting.pop()
        keys = list(held) if isinstance(held, dict) else range(len(held)) if isinstance(held, list) else ()
        for key in keys:
            places.append((held, key))
            waiting.append(held[key])
    if not places or rng.random() < 0.05:
        return rng.choice(ODD)
    held, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del held[key]
        case 1 if isinstance(held, dict):
            held[rng.choice(["format", "x", "label", "seeds", ""])] = rng.choice(ODD)
        case 2:
            held[key] = [held[key]] if rng.random() < 0.5 else {"a": held[key]}
        case _:
            held[key] = rng.choice(ODD)
    return value


def json_bytes(rng: random.Random, value: Any) -> bytes:
    """Return a changed value as bytes; now and then nested so deep that no reader follows."""
    if rng.random() < 0.05:
        mark = rng.choice(["[", '{"a":'])
        return (mark * DEEP).encode()
    changed = changed_json(rng, value)
    if rng.random() < 0.1:
        text = json.dumps(changed).replace(": ", f": {rng.choice(['[' * DEEP, '1e999', 'NaN', '9' * 5000])}, ", 1)
    else:
        text = json.dumps(changed, ensure_ascii=True)
    return text.encode()


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes with some flipped, cut out, doubled or cut off."""
    held = bytearray(data)
    head = min(len(held), 600)
    match rng.randrange(5):
        case 0:
            return bytes(held[: rng.randrange(len(held))])
        case 1:
            at = rng.randrange(len(held))
            return bytes(held[:at] + held[at + rng.randrange(1, 40) :])
        case 2:
            at = rng.randrange(len(held))
            return bytes(held[:at] + held[at : at + 64] * 2 + held[at:])
        case 3:  # where the structure is
            for _ in range(rng.randrange(1, 5)):
                held[rng.randrange(head)] = rng.randrange(256)
        case _:
            for _ in range(rng.randrange(1, 5)):
                held[rng.randrange(len(held))] ^= 1 << rng.randrange(8)
    return bytes(held)


def changed_tensors(rng: random.Random, data: bytes) -> bytes:
    """Return a safetensors file with its header, its facts, its numbers or its bytes changed."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    metadata = header.get("__metadata__", {})
    match rng.randrange(4):
        case 0:
            return changed_bytes(rng, data)
        case 1 if metadata:
            key = rng.choice(list(metadata))
            try:
                metadata[key] = json_bytes(rng, json.loads(metadata[key])).decode()
            except ValueError:  # a plain text
                metadata[key] = rng.choice(["", "x", "1" * 9])
        case 2:
            header = changed_json(rng, header)
        case _:  # numbers as a sick model has them
            held = bytearray(body)
            for _ in range(rng.randrange(1, 3)):
                at = rng.randrange(len(held) // 4) * 4
                held[at : at + 4] = np.float32(rng.choice([np.nan, np.inf, 1e30, 3e38, 1e9])).tobytes()
            body = bytes(held)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed_document(rng: random.Random, data: bytes) -> bytes:
    """Return a JSON file changed as JSON or as bytes."""
    return json_bytes(rng, json.loads(data)) if rng.random() < 0.8 else changed_bytes(rng, data)


def changed_lines(rng: random.Random, data: bytes) -> bytes:
    """Return a file of JSON lines with one of them changed."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = changed_document(rng, lines[at])
    return b"\n".join(lines) + b"\n"


def changed_zip(rng: random.Random, data: bytes) -> bytes:
    """Return a zip whose dataset.json is changed, or whose bytes are."""
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as held, zipfile.ZipFile(made, "w") as zipped:
        for name in held.namelist():
            inside = held.read(name)
            zipped.writestr(name, changed_document(rng, inside) if name.endswith(".json") else inside)
    return made.getvalue()


def changed_tar(rng: random.Random, data: bytes) -> bytes:
    """Return a tar whose labels are changed, or whose bytes are."""
    if rng.random() < 0.5:
        return changed_bytes(rng, data)
    made = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as held, tarfile.open(fileobj=made, mode="w") as tar:
        for info in held:
            file = held.extractfile(info)
            inside = b"" if file is None else file.read()
            if info.name.endswith(".json"):
                inside = changed_document(rng, inside)
            info.size = len(inside)
            tar.addfile(info, io.BytesIO(inside))
    return made.getvalue()


def changed_metadata(rng: random.Random, data: bytes) -> bytes:
    """Return a PNG with other metadata, or with other bytes."""
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    with Image.open(io.BytesIO(data)) as image:
        info, made = PngInfo(), io.BytesIO()
        info.add_text("polyinr", json_bytes(rng, json.loads(image.info["polyinr"])).decode())
        image.save(made, "png", pnginfo=info)
    return made.getvalue()


def changed_npz(rng: random.Random, data: bytes) -> bytes:
    """Return an .npz whose arrays are changed, or whose bytes are."""
    if rng.random() < 0.4:
        return changed_bytes(rng, data)
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as held, zipfile.ZipFile(made, "w") as zipped:
        for name in held.namelist():
            inside = held.read(name)
            zipped.writestr(name, changed_bytes(rng, inside) if rng.random() < 0.6 else inside)
    return made.getvalue()
