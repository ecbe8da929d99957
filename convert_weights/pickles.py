"""Read a pickle as data: its opcodes are followed on a small stack, and nothing is ever called.

Python's own unpickler imports names and calls them. Here a name becomes a `Global`, a call becomes
whatever plain value `World` makes of it, and everything `World` does not know is refused.
"""

import io
import pickletools
import struct
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from convert_weights.files import FETCH_AGAIN, SAVE_AGAIN, Span, show

MAX_PICKLE = 256 << 20  # bytes; long training logs lie in here as text
MAX_OPCODES = 500_000  # a 2b training checkpoint needs about 150,000
MAX_INTEGER = 2**64


class Refused(Exception):
    """What a pickle asks for and may not have; the reader adds which file it is in."""

    def __init__(self, rule: str, fix: str = SAVE_AGAIN):
        super().__init__(rule)
        self.rule, self.fix = rule, fix


@dataclass(frozen=True)
class Global:
    """The name of a Python object; only a name."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)
class Inert:
    """What would be an instance of a class: the parts the pickle gives it, never assembled."""

    cls: Global
    args: tuple
    state: object = None
    items: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)


class World(Protocol):
    """What names, calls and persistent ids mean; Refused is raised where they mean nothing."""

    def name(self, module: str, name: str) -> Global: ...
    def call(self, function: object, args: tuple) -> object: ...
    def new(self, cls: object, args: tuple) -> object: ...
    def build(self, target: object, state: object) -> None: ...
    def persistent(self, identity: object) -> object: ...


def interpret(span: Span, world: World) -> object:
    """Return the value a pickle describes. Raises BadFile naming the first thing that is wrong."""
    data = span.bytes(MAX_PICKLE)
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in quoted text
            return _Machine(world).run(data)
    except Refused as refused:
        raise span.bad(refused.rule, refused.fix) from None
    except (ValueError, struct.error, EOFError, OverflowError) as problem:
        raise span.bad(f"is no whole pickle ({show(str(problem), 60)})", FETCH_AGAIN) from None


class _Machine:
    def __init__(self, world: World):
        self.world = world
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, data: bytes) -> object:
        stream = io.BytesIO(data)
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPCODES:
                raise Refused(f"has more than {MAX_OPCODES:,} steps")
            step = _STEPS.get(opcode.name)
            if step is None:
                raise Refused(f"uses the pickle opcode {opcode.name}, which no weights file needs")
            step(self, arg)
        if stream.tell() != len(data):
            raise Refused("has bytes behind its end", FETCH_AGAIN)
        value = self.pop()
        if self.stack or self.marks:
            raise Refused("leaves values behind", FETCH_AGAIN)
        return value

    def push(self, value: object) -> None:
        self.stack.append(value)

    def top(self) -> object:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("takes a value where there is none", FETCH_AGAIN)
        return self.stack[-1]

    def pop(self) -> object:
        value = self.top()
        self.stack.pop()
        return value

    def pop_to_mark(self) -> list:
        if not self.marks:
            raise Refused("ends a group that it never began", FETCH_AGAIN)
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def pop_args(self) -> tuple:
        args = self.pop()
        if not isinstance(args, tuple):
            raise Refused("calls something with arguments that are no tuple")
        return args


def scalar(key: object) -> object:
    """Return a value that may be a dictionary key or set element. Raises Refused for another."""
    # Tuples as keys could be crafted to collide; strings cannot, numbers hardly.
    if key is not None and type(key) not in (str, int, float, bool, bytes):
        raise Refused(f"uses a {type(key).__name__} as a dictionary key or set element")
    return key


def _protocol(machine: _Machine, version: int) -> None:
    if version > 5:
        raise Refused(f"is of pickle protocol {version}, which does not exist", FETCH_AGAIN)


def _frame(machine: _Machine, size: int) -> None:
    # A hint for buffering; an unpickler that believes it would reserve that much.
    if size > MAX_PICKLE:
        raise Refused(f"announces a frame of {size:,} bytes", FETCH_AGAIN)


def _integer(machine: _Machine, value: int) -> None:
    if abs(value) > MAX_INTEGER:
        raise Refused("has an integer of more than 64 bits")
    machine.push(value)


def _put(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.top()


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise Refused(f"refers to value {index}, which it never stored", FETCH_AGAIN)
    machine.push(machine.memo[index])


def _set_items(machine: _Machine, values: list) -> None:
    target = machine.top()
    if len(values) % 2:
        raise Refused("has a dictionary key without a value", FETCH_AGAIN)
    items = target.items if isinstance(target, Inert) else target
    if type(items) not in (dict, OrderedDict):
        raise Refused(f"sets items of a {type(target).__name__}")
    before = len(items)
    items.update(zip(map(scalar, values[::2]), values[1::2], strict=True))
    if len(items) - before != len(values) // 2:
        raise Refused("names a dictionary key twice", FETCH_AGAIN)


def _append(machine: _Machine, values: list) -> None:
    target = machine.top()
    if type(target) is list:
        target.extend(values)
    elif isinstance(target, Inert):
        target.elements.extend(values)
    else:
        raise Refused(f"appends to a {type(target).__name__}")


def _add(machine: _Machine, values: list) -> None:
    target = machine.top()
    if type(target) is not set:
        raise Refused(f"adds elements to a {type(target).__name__}")
    target.update(map(scalar, values))


def _dict(machine: _Machine, _) -> None:
    values = machine.pop_to_mark()
    machine.push({})
    _set_items(machine, values)


def _pop(machine: _Machine, _) -> None:
    # As in Python: with nothing above the innermost mark, POP takes the mark.
    if machine.marks and len(machine.stack) == machine.marks[-1]:
        machine.marks.pop()
    else:
        machine.pop()


def _tuple_of(count: int):
    def step(machine: _Machine, _) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(values)))

    return step


def _global(machine: _Machine, arg: str) -> None:
    module, _, name = arg.partition(" ")
    machine.push(machine.world.name(module, name))


def _stack_global(machine: _Machine, _) -> None:
    name, module = machine.pop(), machine.pop()
    if type(name) is not str or type(module) is not str:
        raise Refused("names a Python object by something that is no text")
    machine.push(machine.world.name(module, name))


def _reduce(machine: _Machine, _) -> None:
    args, function = machine.pop_args(), machine.pop()
    machine.push(machine.world.call(function, args))


def _newobj(machine: _Machine, _) -> None:
    args, cls = machine.pop_args(), machine.pop()
    machine.push(machine.world.new(cls, args))


def _build(machine: _Machine, _) -> None:
    state = machine.pop()
    machine.world.build(machine.top(), state)


def _push_new(make):
    return lambda machine, _: machine.push(make())


def _push_arg(machine: _Machine, arg: object) -> None:
    machine.push(arg)


_STEPS = {
    "PROTO": _protocol,
    "FRAME": _frame,
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "NONE": _push_new(lambda: None),
    "NEWTRUE": _push_new(lambda: True),
    "NEWFALSE": _push_new(lambda: False),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _integer),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _push_arg),
    **dict.fromkeys(("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _push_arg),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), _push_arg),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), _push_arg),
    "EMPTY_LIST": _push_new(list),
    "EMPTY_DICT": _push_new(dict),
    "EMPTY_SET": _push_new(set),
    "EMPTY_TUPLE": _push_new(tuple),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": _dict,
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(scalar, machine.pop_to_mark()))),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, [machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: _add(machine, machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _newobj,
    "BUILD": _build,
    "BINPERSID": lambda machine, _: machine.push(machine.world.persistent(machine.pop())),
}
