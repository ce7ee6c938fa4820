"""The run folder: what stands where, who may write there, which configuration it belongs to, and its log."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polyinr_core.errors import ConfigError, FileError, TrainingError
from polyinr_core.runtime.atomic_io import explain, make_folder, read_bytes, unmake_folders, written_beside
from polyinr_core.runtime.format1 import FORMAT, run_subfolder, upgrade
from polyinr_core.runtime.strict_json import JsonError, format_json, parse_json, plain_json

from .config import TrainingConfig, parse_stages, stage_changes
from .state import reached

# between a run and its continuation: how often and how it is done; the data is known by its sum, not by its name
MAY_CHANGE = {
    *("state_every", "checkpoint_every", "metric_every", "metrics", "auto_advance", "keep"),
    *("chunk", "workers", "name"),
}
SUMS = {"init_from": "--init-from of SHA-256", "sha256": "data of SHA-256"}  # how a message names them


@dataclass(frozen=True)
class DataFacts:
    """Which images a run learns from."""

    name: str
    sha256: str
    images: int
    classes: int


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def lock(self) -> Path:
        """There while a process writes to the folder; it is the lock on the file that counts, not the file."""
        return self.path / "run.lock"

    @property
    def charts(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return run_subfolder(self.path, "samples")

    def sample(self, name: str) -> Path:
        return self.samples / f"{name}.png"

    @property
    def checkpoints(self) -> Path:
        return run_subfolder(self.path, "checkpoints")

    def checkpoint(self, images: int) -> Path:
        return self.checkpoints / f"{images:09d}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all other processes out of the folder, and clear away what a killed one left half-written.

        A process that ends, however it ends, frees the lock. Where nothing comes into a new folder, it goes
        again. Raises TrainingError when another process has the lock or this is no place for a run, FileError.
        """
        self.check_place()
        try:
            made = make_folder(self.path)
        except OSError as error:
            raise explain(self.path, error) from error
        lock = FileLock(self.lock)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise TrainingError(
                f"{self.path}: another process is training here; wait for its end, or choose another --run-dir"
            ) from error
        except OSError as error:
            unmake_folders(made)
            raise explain(self.path, error) from error
        try:
            self.clear_drafts()
            yield
        finally:
            with suppress(OSError):
                self.lock.unlink()  # while it is ours: who waits for this very file sees that it has gone
            lock.release()
            unmake_folders(made)

    def check_place(self) -> None:
        """Raise TrainingError where something else than a run is; what a killed process left is nothing."""
        try:
            if self.config.exists() or not self.path.exists():
                return
            mine = not self.path.is_dir() or any(
                path != self.lock and not is_draft(path, of=self.config) for path in self.path.iterdir()
            )
        except OSError as error:
            raise explain(self.path, error) from error
        if mine:
            raise TrainingError(f"{self.path}: is there already and is no run folder; choose another --run-dir")

    def clear_drafts(self) -> None:
        """Remove the half-written files of a process that was killed."""
        for folder in (self.path, self.state, self.checkpoints, self.samples):
            for path in folder.glob(".*.part"):
                shutil.rmtree(path, ignore_errors=True)

    def claim(self, config: TrainingConfig, data: DataFacts) -> None:
        """Write the configuration into a new folder, or check that it is one that the started run can go on with.

        It is the one that the run has, or differs in what may change (MAY_CHANGE, and the stages that are still
        to come); then it takes the stored one's place. Raises TrainingError naming all that differs, FileError.
        """
        try:
            now = plain_json({"format": FORMAT, "training": config.to_dict(), "data": asdict(data)})
        except JsonError as error:
            raise TrainingError(f"{self.config}: cannot be written: {error}") from error
        self.check_place()
        if self.config.exists():
            stored = self.read()
            if changes := differences(stored, now):
                raise TrainingError(
                    f"{self.path}: this run was started with {'; '.join(changes)}; "
                    "give the same again to go on, or another --run-dir to start anew"
                )
            self.check_stages(stored["training"].get("stages"), config)
            if stored == now:
                return
        with written_beside(self.config, overwrite=True) as draft:
            draft.write_text(format_json(now, indent=2, sort_keys=False) + "\n", encoding="utf-8")

    def check_stages(self, stored: Any, config: TrainingConfig) -> None:
        """Raise TrainingError unless the stored stages, as far as they are trained, are those of `config`."""
        try:
            if not isinstance(stored, str):
                raise ConfigError("its stages are no text")
            before = parse_stages(stored)
        except ConfigError as error:
            raise TrainingError(f"{self.config}: damaged; choose another --run-dir to start anew") from error
        if changes := stage_changes(before, config.stages, reached=reached(self.state)):
            raise TrainingError(
                f"{self.path}: {'; '.join(changes)}; this run has --stages {stored}: make the last ones longer, "
                "add others, or choose another --run-dir to start anew"
            )

    def read(self) -> dict[str, Any]:
        """Return the stored configuration. Raises TrainingError, FileError."""
        try:
            stored = upgrade(parse_json(read_bytes(self.config)))
        except JsonError as error:
            raise TrainingError(f"{self.config}: {error}; choose another --run-dir to start anew") from error
        if not isinstance(stored, dict) or stored.get("format") != FORMAT:
            raise TrainingError(f"{self.config}: a run of another format than {FORMAT}; choose another --run-dir")
        if not all(isinstance(stored.get(part), dict) for part in ("training", "data")):
            raise TrainingError(f"{self.config}: damaged; choose another --run-dir to start anew")
        return stored

    def append(self, event: dict[str, Any]) -> None:
        """Append one line to the log, whole or not at all. Raises FileError."""
        try:
            line = format_json(event, sort_keys=False).encode() + b"\n"
        except JsonError as error:
            raise FileError(self.log, f"cannot take an event: {error}") from error
        try:
            with self.log.open("a+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                if file.read(1) not in (b"", b"\n"):  # a crash cut the last line off: keep the next one whole
                    line = b"\n" + line
                try:
                    left = line
                    while left:  # the system takes what fits, and says why not more when asked once more
                        left = left[file.write(left) :]
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise explain(self.log, error) from error


def is_draft(path: Path, *, of: Path) -> bool:
    """Say whether `written_beside` made this beside the file."""
    return path.name.startswith(f".{of.name}.") and path.suffix == ".part"


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a phrase for each field of the run or its data that differs and may not, stages apart."""
    return [
        f"{SUMS.get(field, field)} {shown(stored[part].get(field))} (now {shown(value)})"
        for part in ("training", "data")
        for field, value in now[part].items()
        if field not in MAY_CHANGE | {"stages"} and stored[part].get(field) != value
    ]


def shown(value: Any) -> str:
    """Return a stored value as a message has it: nothing in words, and the first digits of a SHA-256 sum."""
    if value in ("", None):
        return "none"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return repr(value)
