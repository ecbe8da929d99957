"""What the names in a checkpoint's pickle mean, as plain data. Anything not listed is refused.

Listed: torch's tensors and storages, ordered dictionaries, numpy arrays of numbers and text, and
the classes of the mm* packages (and `__torch__` in TorchScript), which become inert records.
The pickled forms are described in notes/sapiens.md, section A3.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convert_weights import numpy_pickles
from convert_weights.archives import Archive
from convert_weights.files import DTYPES, FETCH_AGAIN, Span, Tensor, show, tensor
from convert_weights.pickles import MAX_OPCODES, Global, Inert, Refused, scalar

_MM_ROOTS = {"mmengine", "mmcv", "mmpose", "mmseg", "mmpretrain", "mmdet"}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Names that may be mentioned and are never called.
_MENTIONED = {
    *(f"torch.{name}" for name in (*_STORAGES, *DTYPES, "strided")),
    "numpy.ndarray",
    *(f"builtins.{name}" for name in ("list", "dict", "int", "float", "str", "bool", "tuple")),
}


@dataclass(frozen=True)
class _Storage:
    span: Span
    dtype: str


class TorchWorld:
    """The meaning of the names in one torch archive."""

    def __init__(self, archive: Archive, prefix: str, torchscript: bool = False):
        self.archive, self.prefix, self.torchscript = archive, prefix, torchscript
        self.copies_left = MAX_OPCODES

    def rows(self, values: list | tuple) -> list | tuple:
        """Charge for a copy: one stored list may be asked for again and again."""
        self.copies_left -= len(values)
        if self.copies_left < 0:
            raise Refused("copies its lists too many times")
        return values

    def name(self, module: str, name: str) -> Global:
        module = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        found = Global(module, name)
        if str(found) not in _CALLS and str(found) not in _MENTIONED and not self._inert(found):
            rule = f"asks Python for {show(str(found))}, for which a weights file has no use"
            raise Refused(rule)
        return found

    def _inert(self, name: object) -> bool:
        if not isinstance(name, Global) or not name.name.isidentifier():
            return False
        root = name.module.split(".")[0]
        return root in _MM_ROOTS or (self.torchscript and root == "__torch__")

    def call(self, function: object, args: tuple) -> object:
        if self._inert(function):
            return Inert(function, args)
        meaning = _CALLS.get(str(function)) if isinstance(function, Global) else None
        if meaning is None:
            kind = function if isinstance(function, Global) else f"a {type(function).__name__}"
            raise Refused(f"calls {show(str(kind))}, for which a weights file has no use")
        return meaning(self, args)

    def new(self, cls: object, args: tuple) -> object:
        if not self._inert(cls):
            kind = cls if isinstance(cls, Global) else f"a {type(cls).__name__}"
            raise Refused(f"makes an object of {show(str(kind))}, which no weights file needs")
        return Inert(cls, args)

    def build(self, target: object, state: object) -> None:
        if isinstance(target, Inert) and target.state is None:
            target.state = state
        elif isinstance(target, numpy_pickles.Array) and target.dtype is None:
            numpy_pickles.fill(target, state)
        elif isinstance(target, np.dtype):
            numpy_pickles.check_dtype_state(target, state)
        elif type(target) is not OrderedDict or not _is_metadata(state):
            raise Refused(f"sets the state of a {show(type(target).__name__)}")

    def persistent(self, identity: object) -> _Storage:
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise Refused("refers to stored numbers in a form that torch does not write")
        _, kind, key, _, count = identity
        if not isinstance(kind, Global) or kind.module != "torch" or kind.name not in _STORAGES:
            raise Refused(f"stores numbers as {show(str(kind))}, which is not read")
        if type(key) is not str or not re.fullmatch(r"\w{1,40}", key) or type(count) is not int:
            raise Refused("refers to stored numbers in a form that torch does not write")
        dtype = _STORAGES[kind.name]
        span = self.archive.member(f"{self.prefix}/data/{key}")
        if count < 0 or span.size != count * DTYPES[dtype].itemsize:
            rule = f"is {span.size:,} bytes, but the file says that it holds {count:,} {dtype}"
            raise span.bad(rule, FETCH_AGAIN)
        return _Storage(span, dtype)


def _is_metadata(state: object) -> bool:
    """The version numbers of its modules, which torch hangs on a state dict."""
    return isinstance(state, dict) and list(state) == ["_metadata"]


def _tensor(world: TorchWorld, args: tuple) -> Tensor:
    if len(args) < 4 or not isinstance(args[0], _Storage):
        raise Refused("rebuilds a tensor in a form that torch does not write")
    storage, offset, shape, strides = args[:4]
    return tensor(storage.span, storage.dtype, shape, offset, strides)


def _parameter(world: TorchWorld, args: tuple) -> Tensor:
    if not args or not isinstance(args[0], Tensor):
        raise Refused("rebuilds a parameter from something that is no tensor")
    return args[0]


def _ordered_dict(world: TorchWorld, args: tuple) -> OrderedDict:
    if not args:
        return OrderedDict()
    if len(args) == 1 and isinstance(args[0], list):
        pairs = world.rows(args[0])
        if all(isinstance(p, list | tuple) and len(p) == 2 and type(p[0]) is str for p in pairs):
            return OrderedDict(pairs)
    raise Refused("makes a dictionary in a form that torch does not write")


def _default_dict(world: TorchWorld, args: tuple) -> dict:
    if len(args) > 1 or not all(arg is None or isinstance(arg, Global) for arg in args):
        raise Refused("makes a dictionary with a default that is no plain type")
    return {}


def _set(make: type) -> Callable:
    def meaning(world: TorchWorld, args: tuple):
        if not args:
            return make()
        if len(args) == 1 and isinstance(args[0], list | tuple):
            return make(map(scalar, world.rows(args[0])))
        raise Refused("makes a set of something that is no list")

    return meaning


def _first(kind) -> Callable:
    def meaning(world: TorchWorld, args: tuple):
        if not args or not isinstance(args[0], kind):
            raise Refused("wraps a value in a form that torch does not write")
        return args[0]

    return meaning


_bytes = _first(bytes | numpy_pickles.Text)


def _getattr(world: TorchWorld, args: tuple) -> Inert:
    """mmengine's HistoryBuffer stores methods of its own class, as getattr(class, name)."""
    named = len(args) == 2 and isinstance(args[0], Global) and world._inert(args[0])
    if not named or type(args[1]) is not str or not re.fullmatch(r"[a-zA-Z]\w{0,60}", args[1]):
        raise Refused("asks Python for getattr other than a method of an mmengine class")
    return Inert(args[0], (args[1],))


def _inert_call(name: str) -> Callable:
    module, _, name = name.rpartition(".")
    return lambda world, args: Inert(Global(module, name), args)


_CALLS: dict[str, Callable[[TorchWorld, tuple], object]] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": _first(tuple),
    "torch.jit._pickle.restore_type_tag": _first(object),
    **dict.fromkeys(
        (f"torch.jit._pickle.build_{kind}list" for kind in ("tensor", "int", "double", "bool")),
        _first(list),
    ),
    **{name: _inert_call(name) for name in ("torch.device", "builtins.slice", "builtins.complex")},
    "builtins.set": _set(set),
    "builtins.frozenset": _set(frozenset),
    "builtins.bytes": lambda world, args: _first(bytes)(world, args or (b"",)),
    "builtins.bytearray": lambda world, args: _first(numpy_pickles.Text | bytes)(
        world, args or (b"",)
    ),
    "builtins.getattr": _getattr,
    "_codecs.encode": numpy_pickles.encode,
    "numpy.dtype": numpy_pickles.dtype,
    "numpy.core.multiarray._reconstruct": numpy_pickles.empty_array,
    "numpy.core.multiarray.scalar": numpy_pickles.scalar_array,
    "numpy.core.numeric._frombuffer": numpy_pickles.array_from_buffer,
}
