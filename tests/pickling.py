"""Stand-ins that pickle as calls of any global, for tests of what reads pickles."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Calls:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments

    def __call__(self) -> None:
        """Look callable, so that what a call gives can be called in its turn."""


def named(module: str, name: str) -> Callable[..., Any]:
    """Return a function that pickles as the global `module.name`."""

    def function(*arguments: Any) -> Any:
        raise AssertionError("nothing in a pickle may be called")

    function.__module__, function.__qualname__, function.__name__ = module, name, name
    return function


@contextmanager
def present(*members: Any) -> Iterator[None]:
    """Let stand-ins be found under the names they pretend to have, while they are pickled."""
    saved = {}
    for member in members:
        parts = member.__module__.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            if name not in saved:
                saved[name] = sys.modules.get(name)
                sys.modules[name] = ModuleType(name)
        setattr(sys.modules[member.__module__], member.__qualname__, member)
    try:
        yield
    finally:
        for name, module in saved.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
