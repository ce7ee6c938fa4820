"""What a run folder tells: configuration, stages, data, sheets of pictures, models; the run may be going on."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, FileError
from ..files import PathLike, read_bytes
from ..results.result import Result, read_result
from ..strict_json import JsonError, parse_json, to_unicode
from ..training.folder import FORMAT, RunFolder
from ..training.keeping import BEST
from ..training.stages import Stage, parse_stages
from .log import Log, read_log


@dataclass(frozen=True)
class StoredRun:
    """A run as its folder has it. `stages` are empty where the configuration names none that can be read."""

    folder: RunFolder
    config: dict[str, Any]
    data: dict[str, Any]
    stages: tuple[Stage, ...]
    log: Log

    @property
    def name(self) -> str:
        return to_unicode(self.folder.path.absolute().name)

    @property
    def sheets(self) -> tuple[tuple[float, Path], ...]:
        """The sheets of samples, each with the kimg at which it was drawn, the oldest first."""
        paths = [path for path in self.folder.pictures.glob("fakes-*.png") if seen_of(path) is not None]
        return tuple(sorted(((seen_of(path) or 0) / 1000, path) for path in paths))

    @property
    def reals(self) -> Path | None:
        """The sheet of real pictures, if there is one."""
        path = self.folder.picture("reals")
        return path if path.is_file() else None

    @property
    def model(self) -> Path | None:
        """The run's best model, without one the newest, None where there is none as yet."""
        if (best := self.folder.snapshots / BEST).is_file():
            return best
        numbered = [path for path in self.folder.snapshots.glob("*.safetensors") if path.stem.isdecimal()]
        return max(numbered, key=lambda path: int(path.stem), default=None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The distances that the run was told to measure, at its last start."""
        named = self.config.get("metrics")
        return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()

    def results(self, *, but: Sequence[Path] = ()) -> tuple[Result, ...]:
        """Return what `polyinr evaluate` has left in the folder, `but` some; other .json files are left alone."""
        given = {path.resolve() for path in but}
        found = []
        for path in sorted(self.folder.path.glob("*.json")):
            with suppress(FileError):
                if path.resolve() not in given:
                    found.append(read_result(path))
        return tuple(found)


def read_run(path: PathLike) -> StoredRun:
    """Read a run folder. Raises FileError where it is none, or is damaged."""
    path = Path(path)
    folder = RunFolder(path)
    if not path.is_dir():
        raise FileError(path, "is a file, a run folder is needed" if path.exists() else "no such folder")
    if not folder.config.is_file():
        raise FileError(path, f"is no run folder: it holds no {folder.config.name}; `polyinr train` makes one")
    try:
        stored = parse_json(read_bytes(folder.config))
    except JsonError as error:
        raise FileError(folder.config, f"a damaged configuration: {error}") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise FileError(folder.config, f"no configuration of a run in format {FORMAT}")
    config, data = stored.get("training"), stored.get("data")
    if not isinstance(config, dict) or not isinstance(data, dict):
        raise FileError(folder.config, "a damaged configuration: its training or its data is missing")
    return StoredRun(folder, config, data, stages_of(config), read_log(folder.log))


def stages_of(config: dict[str, Any]) -> tuple[Stage, ...]:
    """Return the stages of a configuration, none where they are damaged."""
    try:
        return parse_stages(str(config.get("stages")))
    except ConfigError:
        return ()


def seen_of(sheet: Path) -> int | None:
    """Return how many pictures the run had seen when it drew a sheet, None for another file's name."""
    digits = sheet.stem.removeprefix("fakes-")
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else None
