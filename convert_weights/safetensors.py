"""The safetensors format: a JSON header, then the tensors back to back.

The `safetensors` package is not used: for numpy it copies each tensor out of its map, so that both
count, and it lets a header name a tensor twice. Format: README of huggingface/safetensors.
"""

import json
import math

from convert_weights.files import (
    DTYPES,
    FETCH_AGAIN,
    BadFile,
    File,
    Span,
    Tensor,
    contiguous,
    show,
    tensor,
)

MAX_HEADER = 16 << 20
_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def read_safetensors(file: File) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and the metadata. Raises BadFile unless the tensors tile the file."""
    length = int.from_bytes(file.read(0, 8), "little")
    body = 8 + length
    if body > file.size:
        rule = f"has a safetensors header of {length:,} bytes in a file of {file.size:,}"
        raise file.bad(rule, FETCH_AGAIN)
    header = read_json(Span(file, "the safetensors header", 8, length), MAX_HEADER)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(type(v) is str for v in metadata.values()):
        raise file.bad("has safetensors metadata that is no plain text", FETCH_AGAIN)
    found = {key: _entry(file, key, entry) for key, entry in header.items()}
    position = 0
    for key, (begin, end, _, _) in sorted(found.items(), key=lambda item: item[1][:2]):
        if begin != position:
            kind = "overlap" if begin < position else "leave a hole"
            raise file.bad(f"has tensors that {kind} at {show(key)}", FETCH_AGAIN)
        position = end
    if body + position != file.size:
        rule = f"should have {body + position:,} bytes by its header and has {file.size:,}"
        raise file.bad(rule, FETCH_AGAIN)
    tensors = {}
    for key, (begin, end, dtype, shape) in found.items():
        span = Span(file, key, body + begin, end - begin)
        tensors[key] = tensor(span, dtype, shape, 0, contiguous(shape))
    return tensors, metadata


def _entry(file: File, key: str, entry: object) -> tuple[int, int, str, list[int]]:
    def bad(rule: str) -> BadFile:
        return file.bad(f"has a tensor {show(key)} {rule}", FETCH_AGAIN)

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise bad("without dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or dtype not in _NAMES:
        raise bad(f"of type {show(str(dtype), 20)}, which is not read")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or len(numbers) > 16:
            raise bad("whose shape or place is no list of numbers")
        if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
            raise bad("whose shape or place is no list of numbers")
    size = DTYPES[_NAMES[dtype]].itemsize * math.prod(shape)
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise bad(f"whose shape takes {size:,} bytes and whose place does not")
    return offsets[0], offsets[1], _NAMES[dtype], shape


def read_json(span: Span, limit: int) -> dict:
    """Return a JSON object. Raises BadFile where it is none, or names a key twice."""

    def unique(pairs: list) -> dict:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key stands there twice")
        return made

    data = span.bytes(limit)
    try:
        value = json.loads(data, object_pairs_hook=unique)
    except RecursionError:
        raise span.bad("is nested too deep", FETCH_AGAIN) from None
    except ValueError as problem:
        raise span.bad(f"is not valid JSON ({show(str(problem), 80)})", FETCH_AGAIN) from None
    if not isinstance(value, dict):
        raise span.bad("is no JSON object", FETCH_AGAIN)
    return value
