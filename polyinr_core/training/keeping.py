"""Which models a run keeps: the best by the watched distance, the last few; and when waiting for better ends."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from ..errors import SnapshotError
from ..files import explain
from ..snapshots.snapshot import Snapshot, read_facts, save_snapshot
from ..strict_json import is_number, is_whole

BEST = "best.safetensors"
OLDER_LABELS = "uniform"  # of models that were measured before they said so


def keep_best(snapshots: Path, snapshot: Snapshot, *, metric: str, value: float, labels: str = "") -> bool:
    """Keep `snapshot` in the folder as best.safetensors if its distance is the least; return whether it is.

    The file's own header says what it reached (`origin`: metric and value), so that there is nothing else to go
    out of step with it. Distances of another metric, resolution or data set, or of pictures whose `labels` were
    drawn in another way, are no measure for this one: such a model, or a damaged one, gives way. Raises
    FileError.
    """
    path = snapshots / BEST
    best = kept_value(path, snapshot, metric=metric, labels=labels)
    if not math.isfinite(value) or (best is not None and value >= best):
        return False
    origin = {**snapshot.origin, "metric": metric, "value": value, **({"labels": labels} if labels else {})}
    save_snapshot(path, replace(snapshot, origin=origin), overwrite=True)
    return True


def kept_value(path: Path, snapshot: Snapshot, *, metric: str, labels: str) -> float | None:
    """Return the distance that the best model reached, None if none compares. Raises FileError."""
    if not path.exists():
        return None
    try:
        facts = read_facts(path)
        origin = facts["origin"]
        drawn = origin.get("labels", OLDER_LABELS if labels else "")
        same = (facts["resolution"], facts["data_sha256"], origin["metric"], drawn)
        if same != (snapshot.resolution, snapshot.data_sha256, metric, labels):
            return None
        return float(origin["value"])
    except (SnapshotError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def prune(snapshots: Path, keep: int) -> None:
    """Remove all numbered snapshots but the last `keep` (0: none is removed). Raises FileError.

    Only files whose names are numbers count: the best model stays, and so does what a user put there.
    """
    numbered = sorted((path for path in snapshots.glob("*.safetensors") if path.stem.isdecimal()), key=number)
    for path in numbered[:-keep] if keep else []:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explain(path, error) from error


def number(path: Path) -> int:
    """Return the pictures that a numbered snapshot had seen."""
    return int(path.stem)


@dataclass(frozen=True)
class Patience:
    """How long a stage has waited for a better distance: the least so far, and the measurements since then."""

    metric: str = ""  # whose distances these are
    best: float | None = None
    waited: int = 0

    def after(self, metric: str, value: float, *, blurred: bool) -> "Patience":
        """Return the patience after one more measurement; while the critic sees through a blur, none counts.

        With another metric than before the waiting begins anew.
        """
        before = self if metric == self.metric and not blurred else Patience(metric)
        if blurred:
            return before
        if math.isfinite(value) and (before.best is None or value < before.best):
            return Patience(metric, value)
        return Patience(metric, before.best, before.waited + 1)

    def over(self, limit: int) -> bool:
        """Say whether `limit` measurements in a row brought nothing better (0: never)."""
        return 0 < limit <= self.waited

    def to_dict(self) -> dict[str, Any]:
        """Return the counters as plain JSON values, for the state."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counters: dict[str, Any]) -> Self:
        """Take up what `to_dict` returned; what an older state does not hold, or holds damaged, begins anew."""
        held = counters if isinstance(counters, dict) else {}
        metric, best, waited = held.get("metric"), held.get("best"), held.get("waited")
        good = isinstance(metric, str) and (best is None or is_number(best)) and is_whole(waited)
        return cls(metric, best, waited) if good else cls()  # type: ignore[arg-type]
