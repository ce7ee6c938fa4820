"""Run the project without what only POSIX or Linux has: python without_posix.py [ARGUMENTS OF polyinr].

Without arguments every module of the two packages is imported. The libraries are imported before the names are
removed, as each asks at its import what its system has; so what fails afterwards is our own code.
"""

import io
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from importlib.abc import MetaPathFinder
from pkgutil import walk_packages
from typing import Any

LIBRARIES = (
    *("torch", "torch.distributed", "torch.utils.data", "torchvision", "timm", "numpy", "scipy.optimize", "PIL.Image"),
    *("safetensors.torch", "filelock", "huggingface_hub", "skimage", "matplotlib.pyplot", "tifffile", "typer", "rich"),
    *("subprocess", "multiprocessing.resource_tracker", "asyncio", "tarfile", "zipfile", "webbrowser"),
    *("uvicorn", "starlette.applications", "av", "tensorboard", "pyarrow", "wandb", "trackio"),  # extras
)
MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog")
SIGNALS = (
    *("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGQUIT", "SIGPIPE", "SIGCHLD", "SIGTSTP", "SIGCONT"),
    *("pthread_sigmask", "pthread_kill", "sigwait", "alarm", "setitimer", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"),
)
SYSTEM = (
    *("fork", "forkpty", "getuid", "geteuid", "getgid", "getpgrp", "getpgid", "setsid", "killpg", "uname", "sysconf"),
    *("sysconf_names", "getloadavg", "mkfifo", "mknod", "fchmod", "fchown", "chown", "nice", "wait"),
    *("waitid", "O_DIRECTORY", "posix_fadvise", "pread", "pwrite", "sched_getaffinity", "ttyname"),
    *("sched_setaffinity", "openpty", "pipe2", "sendfile", "sync", "fdatasync"),
)
LINUX_FILES = ("/proc/", "/sys/", "/dev/fd")


class Refuser(MetaPathFinder):
    """Refuses to import MODULES."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def take_away() -> None:
    """Import the libraries; remove modules, names and files; let `polyinr_core` take the system for Windows."""
    for name in LIBRARIES:
        with suppress(ImportError):
            import_module(name)
    assert not any(name.startswith("polyinr_") for name in sys.modules)
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Refuser())
    for module, names in ((signal, SIGNALS), (os, SYSTEM)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    import_module("multiprocessing.resource_tracker")._HAVE_SIGMASK = False  # what it found at its import
    system_open = io.open

    def open_file(file: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(LINUX_FILES):
            raise FileNotFoundError(2, "No such file or directory", os.fspath(file))
        return system_open(file, *arguments, **named)

    io.open = open_file  # pathlib's
    import_module("polyinr_core.runtime.atomic_io").WINDOWS = True


def import_all() -> None:
    """Import every module of the packages, and print their names."""
    for package in ("polyinr_core", "polyinr_cli"):
        for found in walk_packages(import_module(package).__path__, f"{package}."):
            if not found.name.endswith("triton_kernels"):  # for CUDA on Linux alone
                import_module(found.name)
            print(found.name)


if __name__ == "__main__":
    take_away()
    if sys.argv[1:]:
        from polyinr_cli.main import run

        run()
    import_all()
