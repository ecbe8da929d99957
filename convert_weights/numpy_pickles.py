"""Numpy arrays in a pickle, as numpy writes them: of numbers and text, never of objects.

Each function stands for a numpy name that a pickle calls, and raises Refused for any call that
numpy itself would not write. Forms: numpy 1 (`numpy.core.multiarray`) and 2, protocols 2 to 5.
"""

import math
import re
from dataclasses import dataclass

import numpy as np

from convert_weights.files import FETCH_AGAIN, show
from convert_weights.pickles import Global, Refused

_NUMPY_DTYPE = re.compile(r"\?|b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6}")


@dataclass(frozen=True)
class Text:
    """Bytes that an old pickle spells as latin-1 text; encoded only when they are wanted."""

    text: str

    def __len__(self) -> int:
        return len(self.text)

    def value(self) -> bytes:
        """Raises ValueError where the text has characters that are no bytes."""
        return self.text.encode("latin-1")


@dataclass(eq=False, repr=False)
class Array:
    """A small numpy array or scalar beside the weights."""

    dtype: np.dtype | None = None
    shape: tuple = ()
    fortran: bool = False
    data: object = b""

    def __len__(self) -> int:
        return len(self.data)

    def value(self) -> object:
        """Return lists of Python values. Raises ValueError where the bytes are no such values."""
        if self.dtype is None or not len(self):
            return []
        data = self.data.value() if isinstance(self.data, Text) else self.data
        flat = np.frombuffer(data, self.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C").tolist()


def encode(world: object, args: tuple) -> Text:
    """Read `_codecs.encode(text, 'latin-1')`, as numpy spells bytes. Raises Refused otherwise."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        raise Refused("asks Python for _codecs.encode other than from text to latin-1")
    return Text(args[0])


def dtype(world: object, args: tuple) -> np.dtype:
    """Read `numpy.dtype(code)` of plain numbers or text. Raises Refused otherwise."""
    code = args[0] if args else None
    if type(code) is not str or not _NUMPY_DTYPE.fullmatch(code):
        raise Refused(f"has a numpy array of {show(str(code))}, not of numbers or text")
    return np.dtype(code).newbyteorder("<")


def check_dtype_state(dtype: np.dtype, state: object) -> None:
    """Raise Refused unless the state of a dtype is that of plain little-endian numbers."""
    known = isinstance(state, tuple) and len(state) in (8, 9) and state[1] in ("<", "|", "=")
    if not known or any(part is not None for part in state[2:5]) or state[8:] not in ((), (None,)):
        raise Refused("has a numpy array of records, objects or big-endian numbers")


def empty_array(world: object, args: tuple) -> Array:
    """Read `numpy._reconstruct(ndarray, (0,), ...)`: an array to be filled. Raises Refused."""
    if len(args) != 3 or args[0] != Global("numpy", "ndarray") or args[1] != (0,):
        raise Refused("rebuilds a numpy array in a form that numpy does not write")
    return Array()


def fill(array: Array, state: object) -> None:
    """Give an array the shape, dtype and bytes of its pickled state. Raises Refused."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise Refused("sets a numpy array in a form that numpy does not write")
    _, shape, dtype, fortran, data = state
    _array(array, dtype, shape, fortran is True, data)


def scalar_array(world: object, args: tuple) -> Array:
    """Read `numpy.scalar(dtype, bytes)` as an array without axes. Raises Refused."""
    if len(args) != 2:
        raise Refused("rebuilds a numpy number in a form that numpy does not write")
    return _array(Array(), args[0], (), False, args[1])


def array_from_buffer(world: object, args: tuple) -> Array:
    """Read `numpy._frombuffer(bytes, dtype, shape, order)`. Raises Refused."""
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise Refused("rebuilds a numpy array in a form that numpy does not write")
    return _array(Array(), args[1], args[2], args[3] == "F", args[0])


def _array(array: Array, dtype, shape, fortran: bool, data) -> Array:
    sized = isinstance(shape, tuple) and len(shape) <= 16
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray | Text):
        raise Refused("has a numpy array of objects, not of numbers or text")
    if not sized or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise Refused("has a numpy array whose shape is no list of numbers", FETCH_AGAIN)
    if dtype.itemsize * math.prod(shape) != len(data) or not dtype.itemsize:
        raise Refused("has a numpy array whose size and shape disagree", FETCH_AGAIN)
    array.dtype, array.shape, array.fortran, array.data = dtype, shape, fortran, data
    return array
