"""The run folder: its paths, its lock, the configuration it belongs to, and its log."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from polyinr_core.errors import ConfigError, FileError, TrainingError
from polyinr_core.runtime.atomic_io import explain, make_folder, read_bytes, unmake_folders, written_beside
from polyinr_core.runtime.strict_json import (
    FORMAT,
    JsonError,
    format_json,
    parse_json,
    plain_json,
    run_subfolder,
    upgrade,
)

from .config import TrainingConfig, parse_stages, stage_changes
from .state import read_progress

# these may differ when a run resumes; the dataset is identified by its SHA-256, not its name
MAY_CHANGE = {
    *("state_every", "checkpoint_every", "metric_every", "metrics", "auto_advance", "keep"),
    *("chunk", "workers", "name"),
}
# settings of runs that were started before these fields existed
BEFORE_0_2 = {
    field.name: field.default
    for field in fields(TrainingConfig)
    if field.name in ("loss", "penalty", "penalty_every", "lecam", "augment", "schedule", "class_centering")
}
SHA256_FIELDS = {"init_from": "--init-from of SHA-256", "sha256": "data of SHA-256"}  # their names in messages


@dataclass(frozen=True)
class DataFacts:
    """The dataset of a run."""

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
        """A file on which the process that writes the folder holds a lock."""
        return self.path / "run.lock"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return run_subfolder(self.path, "samples")

    @property
    def scan_index(self) -> Path | None:
        """The folder in which the scan of tar shards is kept, once it is a run folder."""
        return self.path if self.config.exists() else None

    def sample(self, name: str) -> Path:
        return self.samples / f"{name}.png"

    @property
    def checkpoints(self) -> Path:
        return run_subfolder(self.path, "checkpoints")

    def checkpoint(self, images: int) -> Path:
        return self.checkpoints / f"{images:09d}.safetensors"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other processes, and remove the incomplete files of one that was killed.

        The lock is released when the process ends, however it does. A new folder that stays empty is removed again.
        Raises TrainingError when another process holds the lock or the folder holds something else, FileError.
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
                f"{self.path}: another process is training here; wait until it ends, or choose another --run-dir"
            ) from error
        except OSError as error:
            unmake_folders(made)
            raise explain(self.path, error) from error
        try:
            self.clear_drafts()
            yield
        finally:
            with suppress(OSError):
                self.lock.unlink()  # while locked, so that no other process can lock a file that is then removed
            lock.release()
            unmake_folders(made)

    def check_place(self) -> None:
        """Raise TrainingError if the folder holds anything but a run, or the leftovers of a killed process."""
        try:
            if self.config.exists() or not self.path.exists():
                return
            occupied = not self.path.is_dir() or any(
                path != self.lock and not is_draft(path, of=self.config) for path in self.path.iterdir()
            )
        except OSError as error:
            raise explain(self.path, error) from error
        if occupied:
            raise TrainingError(f"{self.path}: already exists and is no run folder; choose another --run-dir")

    def clear_drafts(self) -> None:
        """Remove the incomplete files of a process that was killed."""
        for folder in (self.path, self.state, self.checkpoints, self.samples):
            for path in folder.glob(".*.part"):
                shutil.rmtree(path, ignore_errors=True)

    def claim(self, config: TrainingConfig, data: DataFacts) -> None:
        """Write the configuration into a new folder, or check that the run in the folder can resume with it.

        It may differ in the fields of MAY_CHANGE and in stages still to come; then it replaces the stored one. Raises
        TrainingError naming all other differences, FileError.
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
                    "give the same settings to resume, or another --run-dir to start a new run"
                )
            self.check_stages(stored["training"].get("stages"), config)
            if stored == now:
                return
        with written_beside(self.config, overwrite=True) as draft:
            draft.write_text(format_json(now, indent=2, sort_keys=False) + "\n", encoding="utf-8")

    def check_stages(self, stored: Any, config: TrainingConfig) -> None:
        """Raise TrainingError unless the stored stages, as far as they have been trained, are those of `config`."""
        try:
            if not isinstance(stored, str):
                raise ConfigError("its stages are not text")
            before = parse_stages(stored)
        except ConfigError as error:
            raise TrainingError(f"{self.config}: damaged; choose another --run-dir to start a new run") from error
        if changes := stage_changes(before, config.stages, reached=read_progress(self.state)):
            raise TrainingError(
                f"{self.path}: {'; '.join(changes)}; this run has --stages {stored}: extend the last "
                "one, add others, or choose another --run-dir to start a new run"
            )

    def read(self) -> dict[str, Any]:
        """Return the stored configuration. Raises TrainingError, FileError."""
        try:
            stored = upgrade(parse_json(read_bytes(self.config)))
        except JsonError as error:
            raise TrainingError(f"{self.config}: {error}; choose another --run-dir to start a new run") from error
        number = stored.get("format") if isinstance(stored, dict) else None
        if number != FORMAT:
            raise TrainingError(
                f"{self.config}: has format {number}, this polyinr reads {FORMAT} and older; choose another --run-dir"
            )
        if not all(isinstance(stored.get(part), dict) for part in ("training", "data")):
            raise TrainingError(f"{self.config}: damaged; choose another --run-dir to start a new run")
        return {**stored, "training": BEFORE_0_2 | stored["training"]}

    def settings(self) -> TrainingConfig | None:
        """Return the configuration that the run was started with, None before it. Raises TrainingError, FileError."""
        if not self.config.exists():
            return None
        try:
            return TrainingConfig.from_dict(self.read()["training"])
        except ConfigError as error:
            raise TrainingError(f"{self.config}: {error}; choose another --run-dir to start a new run") from error

    def append(self, event: dict[str, Any]) -> None:
        """Append one line to the log, whole or not at all. Raises FileError."""
        try:
            line = format_json(event, sort_keys=False).encode() + b"\n"
        except JsonError as error:
            raise FileError(self.log, f"cannot hold an event: {error}") from error
        try:
            with self.log.open("a+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 1))
                if file.read(1) not in (b"", b"\n"):  # a crash cut off the last line: start a new one
                    line = b"\n" + line
                try:
                    rest = line
                    while rest:  # a full disk takes what fits; writing the rest then raises
                        rest = rest[file.write(rest) :]
                except OSError:
                    with suppress(OSError):
                        file.truncate(end)
                    raise
        except OSError as error:
            raise explain(self.log, error) from error


def default_run_dir(data: Path, preset: str) -> Path:
    """Return the run folder of a dataset and a preset where none is named: runs/PRESET-DATA."""
    name = re.sub(r"[^\w.-]+", "_", data.stem)
    return Path("runs", f"{preset}-{name}")


def is_draft(path: Path, *, of: Path) -> bool:
    """Return whether the path is a draft that `written_beside` made for the file `of`."""
    return path.name.startswith(f".{of.name}.") and path.suffix == ".part"


def differences(stored: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a phrase for each field, apart from the stages, that differs and may not."""
    return [
        f"{SHA256_FIELDS.get(field, field)} {format_value(stored[part].get(field))} (now {format_value(value)})"
        for part in ("training", "data")
        for field, value in now[part].items()
        if field not in MAY_CHANGE | {"stages"} and stored[part].get(field) != value
    ]


def format_value(value: Any) -> str:
    """Return a value for a message: "none" if empty, the first digits of a SHA-256."""
    if value in ("", None):
        return "none"
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return repr(value)
