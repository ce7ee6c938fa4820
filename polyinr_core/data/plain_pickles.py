"""Pickles of plain data, read by a small machine that can build nothing else and imports nothing."""

import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_STEPS = 2**22  # a batch of CIFAR-10 takes sixty thousand

# what a pickled array of bytes is made of; each is answered by plain data, none is ever imported or called
RECONSTRUCT = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
KNOWN = {*RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"}


class PickledArray:
    """An array while its pickle is being read: what `_reconstruct` is answered with."""

    values: NDArray[np.uint8] | None = None

    def build(self, state: tuple[Any, ...]) -> None:
        """Take shape and bytes from the state of a pickled array of unsigned bytes."""
        _, shape, dtype, fortran, raw = state
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        if not (dtype == "numpy u1" and not fortran and isinstance(raw, bytes) and isinstance(shape, tuple)):
            raise ValueError("an array of something else than bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape)


def read_plain_pickle(data: bytes) -> Any:
    """Return dictionaries, lists, texts, bytes, numbers and byte arrays from a pickle; ValueError for all else.

    Nothing named in the pickle is imported, called or built.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if step > MAX_STEPS:
            raise ValueError("too many steps")
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return plain(stack.pop())
            case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1":
                stack.append(argument)
            case "BINSTRING" | "SHORT_BINSTRING" | "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BINBYTES8":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "MARK":
                marks.append(len(stack))
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": ()}[opcode.name])
            case "TUPLE":
                stack.append(tuple(to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS":
                items = to_mark() if opcode.name == "APPENDS" else [stack.pop()]
                target_of(stack, list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = to_mark() if opcode.name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                target_of(stack, dict).update(zip(items[::2], map(plain, items[1::2]), strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[number(argument)] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[number(argument)])
            case "GLOBAL" | "STACK_GLOBAL":
                stack.append(known(argument or " ".join([stack.pop(-2), stack.pop()])))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(answer(stack.pop(), arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], PickledArray):
                    stack[-1].build(state)
            case _:
                raise ValueError(f"the step {opcode.name} is not allowed")
    raise ValueError("it has no end")


class Known(str):
    """One of the few names that a pickle may mention; a class of its own, so that no text can pose as one."""

    __slots__ = ()


def known(name: str) -> Known:
    """Return the name if it may be mentioned. Raises ValueError."""
    if name not in KNOWN:
        raise ValueError(f"it asks for {name}")
    return Known(name)


def answer(called: object, arguments: Any) -> object:
    """Answer a call of one of the known names with plain data."""
    if isinstance(called, Known) and called in RECONSTRUCT:
        return PickledArray()
    if isinstance(called, Known) and called == "numpy dtype" and arguments[0] in ("u1", "|u1"):
        return Known("numpy u1")
    if isinstance(called, Known) and called == "_codecs encode" and arguments[1] == "latin1":
        return str(arguments[0]).encode("latin-1")
    raise ValueError(f"it calls {called!r}"[:80])


def number(argument: int | None) -> int:
    """Return a step's number. Raises ValueError."""
    if argument is None:
        raise ValueError("a step lacks its number")
    return argument


def plain(value: object) -> object:
    """Return an array instead of the one being built; all else as it is."""
    return value.values if isinstance(value, PickledArray) else value


def target_of(stack: list[Any], kind: type) -> Any:
    """Return the list or dictionary on top of the stack. Raises ValueError."""
    if type(stack[-1]) is not kind:
        raise ValueError(f"it fills something that is no {kind.__name__}")
    return stack[-1]
