"""A safe unpickler: a small stack machine that records names and calls and never executes them."""

import pickle
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

MAX_STEPS = 500_000  # five times those of an official checkpoint with its discriminator
MAX_TEXT_BYTES = 2**16  # longer strings stay undecoded bytes
MAX_NAME_LENGTH = 200

Known = Callable[[str, str], bool]


class PickleProblem(ValueError):
    """A pickle that is refused; the message has no file name."""


@dataclass(frozen=True, slots=True, eq=False)
class Name:
    """The name of a global in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An object in a pickle: what would be called, its arguments, its state and its items."""

    function: Name
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reference:
    """A persistent id, which torch uses for storages."""

    key: Any


def read_pickle(data: memoryview, *, known: Known, start: int = 0, max_steps: int = MAX_STEPS) -> tuple[Any, int]:
    """Return the value of the pickle that begins at `start`, and where it ends.

    Nothing is imported or called. Values are None, bool, int, float, str, list, tuple, dict with str keys (other items
    are dropped), memoryview (bytes, Python 2 strings, undecoded long strings), Name, Record, Reference. Time and memory
    are linear in the file's size, and bounded by `max_steps`. Protocols 2 to 5. Raises PickleProblem for names that
    `known` denies, opcodes that plain data do not need, and damaged pickles.
    """
    machine = Machine(data, start, known)
    return machine.run(max_steps), machine.at


def bytes_of(value: Any, *, max_bytes: int) -> memoryview:
    """Return at most that many bytes, also as protocol 2 spells them: a text to be encoded as Latin-1.

    Raises PickleProblem.
    """
    match value:
        case memoryview():
            raw = value
        case Record(arguments=(memoryview() | str() as raw, "latin1")) if str(value.function) == "_codecs.encode":
            pass
        case _:
            raise PickleProblem("no sequence of bytes")
    if len(raw) > max_bytes:  # one long text may be recalled over and over
        raise PickleProblem(f"{len(raw):,} bytes, far more than are needed")
    if raw is value:
        return raw
    try:
        text = raw if isinstance(raw, str) else str(raw, "utf-8")
        return memoryview(text.encode("latin-1"))
    except UnicodeError as error:
        raise PickleProblem("no sequence of bytes") from error


def text_of(value: Any) -> str:
    """Return a string, or short bytes as the Latin-1 string that they are in Python 2. Raises PickleProblem."""
    return value if isinstance(value, str) else str(bytes_of(value, max_bytes=MAX_NAME_LENGTH), "latin-1")


def shown(text: str) -> str:
    """Return an untrusted string in a form fit for a message: one line of ASCII, at most 80 characters."""
    return ascii(text)[1:-1][:80]


class Machine:
    """The pickle machine: a stack with marks, and a memo."""

    def __init__(self, data: memoryview, start: int, known: Known) -> None:
        self.data = data
        self.at = start
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.floor = 0  # position of the last mark: nothing below it may be popped
        self.memo: dict[int, Any] = {}

    def run(self, max_steps: int) -> Any:
        if len(self.data) < self.at + 2 or self.data[self.at] != pickle.PROTO[0]:
            self.refuse("no pickle of protocol 2 to 5 begins here")
        for _ in range(max_steps):
            if self.at >= len(self.data):
                self.refuse("cut short: it has no end")
            opcode = self.data[self.at]
            self.at += 1
            operation = OPERATIONS.get(opcode)
            if operation is not None:
                operation(self)
            elif opcode == pickle.STOP[0]:
                if len(self.stack) != 1 or self.marks:
                    self.refuse("it ends in the middle of a value")
                return self.stack.pop()
            else:
                self.refuse(f"opcode 0x{opcode:02x} is not allowed")
        self.refuse(f"more than {max_steps:,} steps")

    def refuse(self, why: str) -> NoReturn:
        raise PickleProblem(f"byte {self.at}: {why}")

    # Reading

    def take(self, count: int) -> memoryview:
        """Return the next bytes without a copy."""
        end = self.at + count
        if end > len(self.data):
            self.refuse(f"cut short: {count:,} bytes announced, {len(self.data) - self.at:,} left")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def line(self) -> str:
        """Return the string up to the next newline, at most MAX_NAME_LENGTH bytes away."""
        ahead = bytes(self.data[self.at : self.at + MAX_NAME_LENGTH])
        length = ahead.find(b"\n")
        if length < 0:
            self.refuse("a name without an end")
        self.at += length + 1
        return ahead[:length].decode("ascii", "replace")

    def text(self, count: int) -> Any:
        taken = self.take(count)
        if count > MAX_TEXT_BYTES:
            return taken
        try:
            return str(taken, "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.refuse("a text that is not UTF-8")

    # The stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= self.floor:
            self.refuse("a value is missing")
        return self.stack.pop()

    def top(self) -> Any:
        if len(self.stack) <= self.floor:
            self.refuse("a value is missing")
        return self.stack[-1]

    def mark(self) -> None:
        self.floor = len(self.stack)
        self.marks.append(self.floor)

    def since_mark(self) -> list[Any]:
        """Pop and return everything above the last mark, and the mark."""
        if not self.marks:
            self.refuse("a mark is missing")
        start = self.marks.pop()
        self.floor = self.marks[-1] if self.marks else 0
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def last(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < self.floor + count:
            self.refuse("a value is missing")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        return values

    def remember(self, index: int) -> None:
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self.memo:
            self.refuse(f"value {index} is recalled before it was stored")
        self.stack.append(self.memo[index])

    # Containers

    def put_items(self, pairs: Sequence[Any]) -> None:
        target = self.top()
        items = target.items if isinstance(target, Record) else target
        if not isinstance(items, dict) or len(pairs) % 2:
            self.refuse("items for what holds none")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            with suppress(PickleProblem):  # only strings: hashes of other keys can be made to collide
                items[text_of(key)] = value

    def append(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Record):
            self.refuse("values appended to what holds none")

    # Names and calls

    def name(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("a global whose name is no text")
        if max(len(module), len(name)) > MAX_NAME_LENGTH or not self.known(module, name):
            self.refuse(f"asks for {shown(f'{module}.{name}')}, which is not allowed; nothing of it was run")
        return Name(module, name)

    def call(self, arguments: Any) -> None:
        """Replace a callable on the stack by a record of its call."""
        function = self.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            self.refuse("a call of what is no function")
        self.push(self.dill_name(str(function), arguments) or Record(function, arguments))

    def dill_name(self, function: str, arguments: tuple[Any, ...]) -> Name | None:
        """Return the global that dill encodes as a call, checked like any other; None for other calls."""
        match function, arguments:
            case "dill._dill._get_attr", (Record(arguments=(module,)) as found, name):
                if str(found.function) == "dill._dill._import_module":
                    return self.name(module, name)
            case "dill._dill._load_type", (name,):
                return self.name("types", name)
        return None

    def set_state(self, state: Any) -> None:
        target = self.top()
        if not isinstance(target, Record):
            self.refuse("a state for what is no object")
        target.state = state

    def frame(self, length: int) -> None:
        if length > len(self.data) - self.at:
            self.refuse(f"cut short: a frame of {length:,} bytes, {len(self.data) - self.at:,} left")

    def protocol(self, version: int) -> None:
        if not 2 <= version <= 5:
            self.refuse(f"pickle protocol {version}, 2 to 5 are read")


def empty_set() -> Record:
    return Record(Name("builtins", "set"))


def join(build: Callable[[Any], Any]) -> Callable[[Machine], None]:
    return lambda m: m.push(build(m.since_mark()))


def dict_of(m: Machine) -> None:
    pairs = m.since_mark()
    m.push({})
    m.put_items(pairs)


OPERATIONS: dict[int, Callable[[Machine], Any]] = {
    opcode[0]: operation
    for opcode, operation in {
        pickle.PROTO: lambda m: m.protocol(m.number(1)),
        pickle.FRAME: lambda m: m.frame(m.number(8)),
        pickle.MARK: Machine.mark,
        pickle.POP: lambda m: m.pop() if len(m.stack) > m.floor else m.since_mark(),
        pickle.POP_MARK: Machine.since_mark,
        pickle.DUP: lambda m: m.push(m.top()),
        pickle.NONE: lambda m: m.push(None),
        pickle.NEWTRUE: lambda m: m.push(True),
        pickle.NEWFALSE: lambda m: m.push(False),
        pickle.BININT: lambda m: m.push(int.from_bytes(m.take(4), "little", signed=True)),
        pickle.BININT1: lambda m: m.push(m.number(1)),
        pickle.BININT2: lambda m: m.push(m.number(2)),
        pickle.LONG1: lambda m: m.push(int.from_bytes(m.take(m.number(1)), "little", signed=True)),
        pickle.BINFLOAT: lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        pickle.SHORT_BINUNICODE: lambda m: m.push(m.text(m.number(1))),
        pickle.BINUNICODE: lambda m: m.push(m.text(m.number(4))),
        pickle.BINUNICODE8: lambda m: m.push(m.text(m.number(8))),
        pickle.SHORT_BINSTRING: lambda m: m.push(m.take(m.number(1))),
        pickle.BINSTRING: lambda m: m.push(m.take(m.number(4))),
        pickle.SHORT_BINBYTES: lambda m: m.push(m.take(m.number(1))),
        pickle.BINBYTES: lambda m: m.push(m.take(m.number(4))),
        pickle.BINBYTES8: lambda m: m.push(m.take(m.number(8))),
        pickle.BYTEARRAY8: lambda m: m.push(m.take(m.number(8))),
        pickle.EMPTY_LIST: lambda m: m.push([]),
        pickle.EMPTY_DICT: lambda m: m.push({}),
        pickle.EMPTY_TUPLE: lambda m: m.push(()),
        pickle.EMPTY_SET: lambda m: m.push(empty_set()),
        pickle.LIST: join(list),
        pickle.TUPLE: join(tuple),
        pickle.FROZENSET: join(lambda _: empty_set()),
        pickle.DICT: dict_of,
        pickle.TUPLE1: lambda m: m.push(m.last(1)),
        pickle.TUPLE2: lambda m: m.push(m.last(2)),
        pickle.TUPLE3: lambda m: m.push(m.last(3)),
        pickle.APPEND: lambda m: m.append([m.pop()]),
        pickle.APPENDS: lambda m: m.append(m.since_mark()),
        pickle.ADDITEMS: lambda m: m.append(m.since_mark()),
        pickle.SETITEM: lambda m: m.put_items(m.last(2)),
        pickle.SETITEMS: lambda m: m.put_items(m.since_mark()),
        pickle.BINGET: lambda m: m.recall(m.number(1)),
        pickle.LONG_BINGET: lambda m: m.recall(m.number(4)),
        pickle.BINPUT: lambda m: m.remember(m.number(1)),
        pickle.LONG_BINPUT: lambda m: m.remember(m.number(4)),
        pickle.MEMOIZE: lambda m: m.remember(len(m.memo)),
        pickle.GLOBAL: lambda m: m.push(m.name(m.line(), m.line())),
        pickle.STACK_GLOBAL: lambda m: m.push(m.name(*m.last(2))),
        pickle.REDUCE: lambda m: m.call(m.pop()),
        pickle.NEWOBJ: lambda m: m.call(m.pop()),
        pickle.NEWOBJ_EX: lambda m: m.call(m.last(2)[0]),  # keyword arguments are dropped
        pickle.BUILD: lambda m: m.set_state(m.pop()),
        pickle.BINPERSID: lambda m: m.push(Reference(m.pop())),
    }.items()
}
