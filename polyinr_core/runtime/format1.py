"""Files of format 1, as polyinr 0.1 wrote them, under the names of format 2.

Every reader of a file format calls `upgrade` on the JSON it has parsed, so that the rest of the code knows only today's
keys. A key that another change renames goes into KEYS here; the format number of new files is FORMAT.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

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
