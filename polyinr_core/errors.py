"""Errors: each message says what is wrong, where, and what to do."""

import logging
from os import PathLike
from typing import Self

LIBRARY_LOGGERS = ("py.warnings", "tifffile", "PIL")


class PolyinrError(Exception):
    """Base class: an error that the user can correct; commands print it as one line and exit with `exit_code`."""

    exit_code = 1


class RequestError(PolyinrError):
    """An invalid request: the value of an argument, or a combination."""

    exit_code = 2


class LabelError(RequestError):
    """A class name or index that the model does not have, or a label for an unconditional model."""


class ConfigError(RequestError):
    """A configuration whose fields are out of range or contradict each other."""


class FileError(PolyinrError):
    """A file that is missing, unreadable, damaged, of the wrong type, or cannot be written."""

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[Self], tuple[str | PathLike[str], str]]:
        return type(self), (self.path, self.problem)  # so that it can be sent from another process


class CheckpointError(FileError):
    """A checkpoint that cannot be used: damaged, of another format, or of another architecture than required."""


class DatasetError(FileError):
    """A dataset that cannot be used."""


class ImageError(PolyinrError):
    """An image that cannot be used; the message has no file name, which the caller adds."""


class WeightsError(PolyinrError):
    """Pretrained weights that are missing or have the wrong hash."""


class TrainingError(PolyinrError):
    """A training run that cannot start or must not continue."""


class EvaluationError(PolyinrError):
    """Metrics that are not finite."""


class DistributedError(PolyinrError):
    """Another process of a distributed job has gone, or no longer agrees with this one."""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or the error's class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def silence_libraries() -> None:
    """Silence warnings of libraries about odd files in this process, as errors report what matters.

    For commands and their worker processes; a program that imports the library is not affected.
    """
    logging.captureWarnings(True)
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
