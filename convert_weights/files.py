"""Bytes that stay on disk: a checkpoint file, named spans of it, and the tensors in them."""

import math
import mmap
import os
import stat
import threading
import weakref
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}

FETCH_AGAIN = "download or copy the file again"
SAVE_AGAIN = "if you trust it, load it where it was made and torch.save only its state_dict"
MAX_DIMENSIONS = 16
MAX_EMPTY = 1 << 20  # product of the other sizes of a tensor that has a size 0
_CHUNK = 1 << 20


class BadFile(Exception):
    """One readable line: which file, which rule, what to do."""


def show(text: str, limit: int = 120) -> str:
    """Return text that came from a file as one short printable line, fit for a terminal."""
    head = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: limit + 1])
    return head if len(head) <= limit else head[:limit] + "..."


class File:
    """An open checkpoint file, read-only; the descriptor closes when the last tensor is dropped."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            # Asked before opening, because opening a pipe waits for its writer.
            mode = os.stat(self.path).st_mode
            if stat.S_ISDIR(mode):
                raise self.bad("is a folder", "name the checkpoint file inside it")
            if not stat.S_ISREG(mode):
                raise self.bad("is not a regular file", "name a checkpoint file")
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            raise self.bad("does not exist", "check the spelling of the path") from None
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise self.bad(f"cannot be opened ({show(reason)})", "check its permissions") from None
        weakref.finalize(self, os.close, self._descriptor)
        self._identity = self._look()
        self.size = self._identity[0]
        self.checked: set[int] = set()  # starts of the spans whose checksum has been compared
        self.lock = threading.Lock()

    def bad(self, rule: str, fix: str) -> BadFile:
        return BadFile(f"{show(str(self.path), 1000)}: {rule}; {fix}")

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def same(self) -> None:
        """Raise BadFile where the file was changed since it was opened: its map would be stale."""
        if self._look() != self._identity:
            raise self.bad("was changed while it was being read", "leave it alone and start again")

    def read(self, start: int, size: int) -> bytes:
        """Return up to size bytes from start, fewer only at the end of the file."""
        try:
            return os.pread(self._descriptor, max(0, min(size, self.size - start)), start)
        except OSError as problem:
            reason = show(problem.strerror or str(problem))
            raise self.bad(f"cannot be read ({reason})", "check the disk it lies on") from None

    def map(self, start: int, size: int) -> tuple[mmap.mmap, int]:
        """Map size bytes from start; return the map and where in it they begin."""
        self.same()
        skip = start % mmap.ALLOCATIONGRANULARITY
        try:
            return mmap.mmap(
                self._descriptor, size + skip, access=mmap.ACCESS_READ, offset=start - skip
            ), skip
        except OSError as problem:
            reason = show(problem.strerror or str(problem))
            raise self.bad(f"cannot be mapped ({reason})", "check the disk it lies on") from None

    def load(self, start: int, size: int) -> tuple[mmap.mmap, int]:
        """Copy size bytes from start into memory; return it, and 0 as where they begin."""
        self.same()
        memory = mmap.mmap(-1, size)  # given back when dropped; malloc would keep it
        for at in range(0, size, _CHUNK):
            part = self.read(start + at, min(_CHUNK, size - at))
            memory[at : at + len(part)] = part
        return memory, 0


@dataclass(frozen=True)
class Span:
    """A named stretch of a file, with its CRC-32 where the format keeps one (0: none)."""

    file: File = field(repr=False)
    name: str
    start: int  # bytes from the start of the file
    size: int  # bytes
    crc: int = 0

    def bad(self, rule: str, fix: str) -> BadFile:
        return self.file.bad(f"{show(self.name)} {rule}", fix)

    def bytes(self, limit: int) -> bytes:
        """Return the whole span, checksum compared; refuse more than limit bytes."""
        if self.size > limit:
            rule = f"is {self.size:,} bytes, more than the {limit:,} that such a part may have"
            raise self.bad(rule, SAVE_AGAIN)
        self.check()
        data = self.file.read(self.start, self.size)
        if len(data) != self.size:
            raise self.bad("is cut short", FETCH_AGAIN)
        return data

    def check(self) -> None:
        """Compare the checksum, once per span and by plain reads, so that no memory is held."""
        # torch writes 0 where the user has switched checksums off.
        if not self.crc or self.start in self.file.checked:
            return
        with self.file.lock:
            if self.start in self.file.checked:
                return
            crc, end = 0, self.start + self.size
            for start in range(self.start, end, _CHUNK):
                crc = zlib.crc32(self.file.read(start, min(_CHUNK, end - start)), crc)
            if crc != self.crc:
                raise self.bad("does not match its checksum: the file is damaged", FETCH_AGAIN)
            self.file.checked.add(self.start)


@dataclass(frozen=True)
class Tensor:
    """A tensor that is still on disk. Make one with `tensor`, which checks that it fits."""

    shape: tuple[int, ...]
    dtype: str  # a key of DTYPES
    span: Span = field(repr=False)
    offset: int = field(repr=False)  # elements from the start of the span
    strides: tuple[int, ...] = field(repr=False)  # elements

    def read(self) -> np.ndarray:
        """Return the array, read-only, mapped from the file; dropping it releases the memory.

        A tensor at an odd address is copied instead. The first read of a zip member compares its
        CRC-32. Raises BadFile where that differs or the file was changed since it was opened.
        """
        dtype = DTYPES[self.dtype]
        if 0 in self.shape:
            return np.empty(self.shape, dtype)
        self.span.check()
        steps = zip(self.shape, self.strides, strict=True)
        elements = 1 + sum((count - 1) * step for count, step in steps)
        start = self.span.start + self.offset * dtype.itemsize
        # A zip in a zip may put numbers at odd addresses; those are copied to even ones.
        take = self.span.file.load if start % dtype.alignment else self.span.file.map
        buffer, skip = take(start, elements * dtype.itemsize)
        strides = tuple(step * dtype.itemsize for step in self.strides)
        array = np.ndarray(self.shape, dtype, buffer=buffer, offset=skip, strides=strides)
        array.flags.writeable = False
        return array


def tensor(span: Span, dtype: str, shape, offset, strides) -> Tensor:
    """Describe a tensor inside a span; offset and strides count elements.

    Raises BadFile unless every element lies in the span, and the span holds as many elements.
    """
    shape, strides = _whole_numbers(span, shape), _whole_numbers(span, strides)
    (offset,) = _whole_numbers(span, (offset,))
    if dtype not in DTYPES:
        raise span.bad(f"holds {show(str(dtype))} numbers, which are not read", SAVE_AGAIN)
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        rule = f"has a tensor of {len(shape)} dimensions with {len(strides)} strides"
        raise span.bad(rule, FETCH_AGAIN)
    held = span.size // DTYPES[dtype].itemsize
    count = math.prod(max(n, 1) for n in shape)
    steps = zip(shape, strides, strict=True)
    last = offset - 1 if 0 in shape else offset + sum((n - 1) * step for n, step in steps)
    if count > max(held, MAX_EMPTY * (0 in shape)) or last >= held:
        rule = f"has {held:,} {dtype} elements, but a tensor reaches outside it"
        raise span.bad(rule, FETCH_AGAIN)
    return Tensor(shape, dtype, span, offset, strides)


def _whole_numbers(span: Span, values) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > 1000:
        raise span.bad("has a tensor whose shape is no list of numbers", FETCH_AGAIN)
    if not all(type(v) is int and 0 <= v < 2**63 for v in values):
        raise span.bad("has a tensor with a negative or unfit size, stride or offset", FETCH_AGAIN)
    return tuple(values)


def contiguous(shape) -> tuple[int, ...]:
    """Return row-major strides, in elements."""
    strides, step = [], 1
    for count in reversed(shape):
        strides.append(step)
        step *= count
    return tuple(reversed(strides))
