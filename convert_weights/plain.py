"""Plain Python data out of what a pickle left: the facts that stand beside the weights."""

import contextlib

from convert_weights.files import show
from convert_weights.numpy_pickles import Array, Text
from convert_weights.pickles import Inert

MAX_PLAIN = 1_000_000  # values, and bytes of arrays, that are handed on
MAX_DEPTH = 20
_CONFIG = "mmengine.config.config.ConfigDict"


class _NotPlain(Exception):
    """A part that is no plain data, by its path."""


def plain(value: object, path: str, dropped: list[str]) -> object:
    """Return a value as plain Python data; what is none is left out and named in dropped.

    Arrays become lists. A value that is reached by many ways counts each time, so that what comes
    out is a bounded tree.
    """
    left = MAX_PLAIN

    def visit(value, path, depth):
        nonlocal left
        left -= 1
        if left < 0 or depth > MAX_DEPTH:
            raise _NotPlain(path)
        if value is None or type(value) in (str, int, float, bool, bytes):
            return value
        if isinstance(value, Inert) and str(value.cls) == _CONFIG:
            start = value.args[0] if value.args and isinstance(value.args[0], dict) else {}
            value = {**start, **value.items}
        if isinstance(value, dict):
            return mapping(value, path, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return type(value)(visit(v, path, depth + 1) for v in value)
        if isinstance(value, Array | Text) and len(value) <= left:
            left -= len(value)
            with contextlib.suppress(ValueError):
                return value.value()
        raise _NotPlain(path)

    def mapping(value, path, depth):
        nonlocal left
        kept = {}
        for key, item in value.items():
            # At the top, a part may use up half of what is left, so that the next ones still fit.
            spared = left // 2 if depth == 0 else 0
            left -= spared
            try:
                kept[key] = visit(item, f"{path}.{show(str(key), 60)}"[:300], depth + 1)
            except _NotPlain as part:
                dropped.append(str(part))
            left += spared
        return kept

    try:
        return visit(value, path, 0)
    except _NotPlain as part:
        dropped.append(str(part))
        return None
