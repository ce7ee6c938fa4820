"""The run folder: what stands where, which configuration it belongs to, and its log."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import explain, read_bytes, written_beside
from .config import TrainingConfig

FORMAT = 1
# between a run and its continuation; the data is known by its sum, not by its name
MAY_CHANGE = {"state_every", "snapshot_every", "metric_every", "name"}


@dataclass(frozen=True)
class DataFacts:
    """Which pictures a run learns from."""

    name: str
    sha256: str
    pictures: int
    classes: int


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state"

    def picture(self, name: str) -> Path:
        return self.path / "pictures" / f"{name}.png"

    def snapshot(self, images: int) -> Path:
        return self.path / "snapshots" / f"{images:09d}.safetensors"

    def claim(self, config: TrainingConfig, data: DataFacts) -> None:
        """Write the configuration into a new folder, or check that it is the one a started run has.

        Raises TrainingError naming every field that differs, FileError.
        """
        now = {"format": FORMAT, "training": config.to_dict(), "data": asdict(data)}
        if not self.config.exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise TrainingError(
                    f"{self.path}: is there already and is no run folder; choose another --run-dir"
                )
            with written_beside(self.config) as draft:
                draft.write_text(json.dumps(now, indent=2) + "\n")
            return
        if changes := differences(self.read(), now):
            raise TrainingError(
                f"{self.path}: this run was started with {'; '.join(changes)}; "
                "give the same again to go on, or another --run-dir to start anew"
            )

    def read(self) -> dict[str, Any]:
        """Return the stored configuration. Raises TrainingError, FileError."""
        try:
            stored = json.loads(read_bytes(self.config))
        except ValueError as error:
            raise TrainingError(f"{self.config}: no JSON; choose another --run-dir to start anew") from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise TrainingError(f"{self.config}: a run of another format than {FORMAT}; choose another --run-dir")
        if not all(isinstance(stored.get(part), dict) for part in ("training", "data")):
            raise TrainingError(f"{self.config}: damaged; choose another --run-dir to start anew")
        return stored

    def append(self, event: dict[str, Any]) -> None:
        """Append one line to the log. Raises FileError."""
        try:
            with self.log.open("a+b") as file:
                file.seek(max(0, file.tell() - 1))
                if file.read() not in (b"", b"\n"):  # a crash cut the last line off: keep the next one whole
                    file.write(b"\n")
                file.write(json.dumps(event).encode() + b"\n")
        except OSError as error:
            raise explain(self.log, error) from error


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a phrase for each field of the run or its data that differs and may not."""
    return [
        f"{field} {stored[part].get(field)!r} (now {value!r})"
        for part in ("training", "data")
        for field, value in now[part].items()
        if field not in MAY_CHANGE and stored[part].get(field) != value
    ]
