"""Models on the Hugging Face hub: names such as hf:OWNER/NAME@REVISION, read through huggingface_hub's cache; uploads.

Only `model.safetensors` of a repository is ever read. Nothing is asked of the hub unless a model there is named.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from polyinr_core.errors import FileError, RequestError, first_line
from polyinr_core.runtime.atomic_io import PathLike

PREFIX = "hf:"
MODEL_FILE = "model.safetensors"
CARD_FILE = "README.md"
LIBRARY = "polyinr"
LOGIN = "log in with `hf auth login`"
NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
CACHED = re.compile(
    r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)/snapshots/(?P<commit>[0-9a-f]{40})/[^/+]+(?P<deltas>[^/]*)$"
)


@dataclass(frozen=True)
class HubName:
    """A model on the hub; without a revision the newest commit of its main branch."""

    repository: str  # OWNER/NAME
    revision: str | None = None  # a branch, a tag or a commit

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_hub_name(model: PathLike) -> bool:
    """Return whether a model is named as hf:OWNER/NAME; a file of that very name comes first."""
    return Path(model).as_posix().startswith(PREFIX) and not os.path.exists(model)


def parse_hub_name(model: PathLike) -> HubName:
    """Parse OWNER/NAME[@REVISION], with or without hf: before it. Raises RequestError."""
    text = Path(model).as_posix()
    match = NAME.fullmatch(text.removeprefix(PREFIX))
    if match is None or ".." in match["repository"] or "--" in match["repository"]:
        raise RequestError(f"{text}: not a name on the hub; write {PREFIX}owner/name or {PREFIX}owner/name@revision")
    return HubName(match["repository"], match["revision"])


def local_file(model: PathLike, *, progress: bool = False) -> Path:
    """Return the file of a model that is named on the hub, downloaded unless it is cached; any other path as it is.

    Without a network the newest cached commit of the revision is taken. With `progress` huggingface_hub shows its
    progress bars on stderr. Raises RequestError, FileError.
    """
    return download(parse_hub_name(model), progress=progress) if is_hub_name(model) else Path(model)


def download(name: HubName, *, progress: bool = False) -> Path:
    """Return the cached file of a model on the hub, after downloading what has changed. Raises FileError."""
    import huggingface_hub

    with explained(name), progress_bars(shown=progress):
        path = huggingface_hub.hf_hub_download(
            name.repository, MODEL_FILE, revision=name.revision, library_name=LIBRARY
        )
    return Path(path)


def hub_name_of(path: PathLike) -> str | None:
    """Return hf:OWNER/NAME@COMMIT, with +DELTA if any, of a file in the hub's cache, None for any other file."""
    match = CACHED.search(Path(path).as_posix())
    return f"{PREFIX}{match['owner']}/{match['name']}@{match['commit']}{match['deltas']}" if match else None


def model_name(path: Path) -> str:
    """Return the name by which a model's file is found again: on the hub if it comes from there, else its own."""
    return hub_name_of(path) or path.name


def upload(
    name: HubName,
    files: Mapping[str, bytes | Path],
    *,
    message: str,
    private: bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> HubName:
    """Commit files to the main branch of a model repository, which is created if it is missing.

    Args:
        name: Of the repository, without a revision.
        files: Bytes, or a file to read, by their path in the repository.
        message: The first line of the commit.
        private: Whether a new repository is private; by default as the owner has set.
        overwrite: Whether a model or model card that the repository holds is replaced; its history keeps the old one.
        progress: Whether huggingface_hub shows its progress bars on stderr.

    Returns the model's name at the new commit. Raises RequestError, FileError.
    """
    import huggingface_hub

    if name.revision is not None:
        raise RequestError(f"{name}: a model is pushed to the main branch; leave @{name.revision} out")
    api = huggingface_hub.HfApi(library_name=LIBRARY)
    with explained(name), progress_bars(shown=progress):
        api.create_repo(name.repository, private=private, exist_ok=True)
        if not overwrite:
            for file in (MODEL_FILE, CARD_FILE):
                if file in files and api.file_exists(name.repository, file):
                    raise FileError(str(name), f"holds a {file}; push to another name or give --overwrite")
        operations = [huggingface_hub.CommitOperationAdd(path, content) for path, content in files.items()]
        commit = api.create_commit(name.repository, operations, commit_message=message)
    return HubName(name.repository, commit.oid)


@contextmanager
def progress_bars(*, shown: bool) -> Iterator[None]:
    """Hide huggingface_hub's progress bars, which it shows also where stderr is no terminal, unless `shown`."""
    from huggingface_hub import utils

    if shown or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def explained(name: HubName) -> Iterator[None]:
    """Convert errors of huggingface_hub to a FileError or RequestError with one clear line."""
    from huggingface_hub import errors

    known: dict[type[Exception], str] = {
        errors.GatedRepoError: f"the model is gated; accept its conditions on its page, and {LOGIN}",
        errors.RepositoryNotFoundError: (
            f"no such repository on the hub, or it is private; check the name; for a private one {LOGIN}"
        ),
        errors.RevisionNotFoundError: "the repository has no such branch, tag or commit; check the revision",
        errors.LocalEntryNotFoundError: (
            "not on this machine, and the hub cannot be reached; connect and run again, or name a model file"
        ),
        errors.OfflineModeIsEnabled: "the hub is switched off by HF_HUB_OFFLINE; unset it and run again",
        errors.EntryNotFoundError: (
            f"the repository has no {MODEL_FILE}; it is no model of {LIBRARY}; `polyinr push` uploads one"
        ),
        errors.LocalTokenNotFoundError: "not logged in; run `hf auth login`, or set HF_TOKEN",
    }
    try:
        yield
    except (FileError, RequestError):
        raise
    except errors.HFValidationError as error:
        raise RequestError(f"{name}: not a name on the hub; write {PREFIX}owner/name") from error
    except Exception as error:  # also of whichever HTTP library this version of huggingface_hub uses
        for kind, problem in known.items():  # a subclass before its base
            if isinstance(error, kind):
                raise FileError(str(name), problem) from error
        if not isinstance(error, errors.HfHubHTTPError):
            problem = f"the hub cannot be used ({first_line(error)}); check the connection"
        elif (status := getattr(error.response, "status_code", None)) in (401, 403):
            problem = f"the hub refuses access ({status}); {LOGIN}, with a token that may write there"
        else:
            problem = f"the hub answers: {first_line(error)}; try again later"
        raise FileError(str(name), problem) from error
