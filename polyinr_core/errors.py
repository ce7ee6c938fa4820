"""Typed errors: each says what is wrong, where, and what to do."""

import logging
from os import PathLike
from typing import Self

LIBRARY_LOGGERS = ("py.warnings", "tifffile", "PIL")


class PolyinrError(Exception):
    """A failure that a person can mend; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 1


class RequestError(PolyinrError):
    """The request itself makes no sense (an option's value, a combination): wrong usage."""

    exit_code = 2


class LabelError(RequestError):
    """A class name or index that the model does not have, or a label where none can be."""


class ConfigError(RequestError):
    """A configuration whose fields are out of range or contradict each other."""


class FileError(PolyinrError):
    """A file that is missing, unreadable, corrupt, of another kind, or cannot be written."""

    def __init__(self, path: str | PathLike[str], problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    def __reduce__(self) -> tuple[type[Self], tuple[str | PathLike[str], str]]:
        return type(self), (self.path, self.problem)  # so that it comes whole from another process


class CheckpointError(FileError):
    """A model file that cannot be used: broken, of another format, or of another form than asked."""


class DatasetError(FileError):
    """A data set that cannot be used."""


class ImageError(PolyinrError):
    """An image that cannot be used: the reason alone, as the caller knows its name."""


class WeightsError(PolyinrError):
    """Pretrained weights that are not at hand, or are not what their hash promises."""


class TrainingError(PolyinrError):
    """A training run that cannot start or must not go on."""


class EvaluationError(PolyinrError):
    """Figures that could not be computed as finite numbers."""


class DistributedError(PolyinrError):
    """Another process of a distributed job has gone, or no longer agrees with this one."""


def silence_libraries() -> None:
    """Keep what libraries say of odd files from stderr, in this process: what matters of it, our errors say.

    For a command and for each process that it starts; a program that imports the library is left as it is.
    """
    logging.captureWarnings(True)
    for name in LIBRARY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
