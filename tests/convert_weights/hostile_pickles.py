"""Pickles that try to run code, exhaust memory, or describe tensors that are not there."""

import struct
from pathlib import Path

from tests.convert_weights.crafting import (
    BUILD,
    MARK,
    NEWOBJ,
    POP,
    REDUCE,
    Member,
    archive,
    call,
    checkpoint,
    items,
    listed,
    mapping,
    module,
    name,
    number,
    numbers,
    pickled,
    pth,
    safetensors,
    storage,
    tensor,
    text,
    torchscript,
)

_NET = name("mmengine.logging.history_buffer", "HistoryBuffer")
_ORDERED = name("collections", "OrderedDict")


def payloads(marker: Path) -> dict[str, bytes]:
    """Values, as opcodes; unpickling any of them for real creates the marker."""
    shell = text(f"touch '{marker}'")
    python = text(f"open({str(marker)!r}, 'w').close()")
    system = name("os", "system")
    imported = call(name("builtins", "__import__"), text("os"))
    getattr_ = name("builtins", "getattr")
    modules = call(getattr_, name("collections", "_sys"), text("modules"))
    found = call(call(getattr_, modules, text("get")), text("os"))
    argv = listed(text("touch"), text(str(marker)))
    ran = call(name("builtins", "map"), system, listed(shell))
    user_dict = name("collections", "UserDict")
    return {
        "os_system": call(system, shell),
        "posix_system": call(name("posix", "system"), shell),
        "eval": call(name("builtins", "eval"), python),
        "python2_eval": call(name("__builtin__", "eval"), python),
        "exec": call(name("builtins", "exec"), python),
        "subprocess": call(name("subprocess", "check_call"), argv),
        "popen_new": call(name("subprocess", "Popen"), argv) + b"0" + call(system, shell),
        "open_for_writing": call(name("builtins", "open"), text(str(marker)), text("w")),
        "import_then_getattr": call(call(getattr_, imported, text("system")), shell),
        "getattr_chain": call(call(getattr_, found, text("system")), shell),
        "dotted_name": b"\x8c\x02os\x8c\x0epath.os.system\x93" + items(shell) + REDUCE,
        "partial": call(call(name("functools", "partial"), system, shell)),
        "methodcaller": call(
            call(name("operator", "methodcaller"), text("system"), shell), imported
        ),
        "timeit": call(
            name("timeit", "timeit"), python, text("pass"), name("time", "time"), number(1)),
        "runs_then_forgets": b"N" + call(system, shell) + POP,
        "inst": MARK + shell + b"ios\nsystem\n",
        "obj": MARK + system + shell + b"o",
        "newobj_iterates_a_map": name("builtins", "bytes") + items(ran) + NEWOBJ,
        "newobj_ex": name("builtins", "bytes") + items(ran) + b"}\x92",
        "setstate_planted": call(_ORDERED)
        + mapping(__setstate__=system) + BUILD + shell + BUILD,
        "setstate_on_a_class": user_dict
        + items(b"N", mapping(__setstate__=system)) + BUILD + POP
        + call(user_dict) + shell + BUILD,
        "nested_loads": call(
            name("pickle", "loads"),
            call(name("_codecs", "encode"), text(pickled(call(system, shell)).decode("latin-1")),
                 text("latin1")),
        ),
    }  # fmt: skip


def pickle_tricks() -> dict[str, bytes]:
    """Checkpoints whose pickle asks for more than data, though nothing would run by itself."""
    history = call(name("builtins", "getattr"), _NET, text("__init__"))
    ordered = call(name("builtins", "getattr"), _ORDERED, text("fromkeys"))
    value_calls = {
        "getattr_dunder": history,
        "getattr_of_a_getattr": call(name("builtins", "getattr"), history, text("__globals__")),
        "getattr_of_another_class": ordered,
        "import_another_module": call(name("importlib", "import_module"), text("antigravity")),
        "connect": call(name("socket", "create_connection"), items(text("127.0.0.1"), number(9))),
        "whole_model": call(name("torch.nn.modules.conv", "Conv2d")),
        "reaches_through_mmengine": b"\x8c\x08mmengine\x8c\x09os.system\x93",
        "calls_a_string": call(text("os.system"), text("true")),
        "calls_a_storage": call(name("torch", "FloatStorage"), number(2**40)),
        "calls_a_dictionary": call(b"}"),
        "new_of_a_dictionary": _ORDERED + b")" + NEWOBJ,
        "state_of_a_list": b"]}b",
        "state_of_a_dictionary": call(_ORDERED) + mapping(update=b"N") + BUILD,
        "state_of_a_class": _NET + mapping(x=b"N") + BUILD,
        "inst": MARK + b"immengine.config.config\nConfigDict\n",
        "obj": MARK + _NET + b"o",
        "newobj_ex": _NET + b")}\x92",
        "extension_code": b"\x82\x01",
        "persistent_text": b"Pstorage\n",
        "persistent_module": items(text("module"), _NET, text("x"), text("y")) + b"Q",
        "storage_of_a_class": items(
            text("storage"), _NET, text("0"), text("cpu"), number(6)) + b"Q",
        "encode_through_bz2": call(name("_codecs", "encode"), text("BZh"), text("bz2")),
        "encode_of_an_object": call(name("_codecs", "encode"), _NET, text("latin1")),
        "unhashable_key": b"}](" + b"e" + b"Ns",
        "tuple_key": b"}" + numbers([1]) + b"Ns",
        "key_twice": b"}(" + (text("a") + b"N") * 2 + b"u",
        "stack_underflow": b"(t" + POP * 20,
        "mark_missing": b"t",
        "memo_missing": b"j\xff\xff\xff\x7f",
        "protocol_99": b"\x80\x63N",
        "numpy_objects": _array(_dtype("O8"), listed(b"N")),
        "numpy_records": _array(_dtype("V8"), _raw("12345678")),
        "numpy_object_state": _array(_dtype("f8", names=text("O")), _raw("12345678")),
        "numpy_of_a_list": _array(_dtype("f8"), listed(b"N")),
        "numpy_too_short": _array(_dtype("f8"), _raw("1234")),
        "numpy_negative": _array(_dtype("f8"), _raw("12345678"), shape=(-1,)),
        "numpy_subclass": call(
            name("numpy.core.multiarray", "_reconstruct"), _NET, numbers([0]), text("b")),
    }  # fmt: skip
    return {key: pth(checkpoint(meta=value)) for key, value in value_calls.items()}


def _raw(data: str) -> bytes:
    return call(name("_codecs", "encode"), text(data), text("latin1"))


def _dtype(code: str, names: bytes = b"N") -> bytes:
    made = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
    return (
        made + items(number(3), text("<"), b"N", names, b"N", *[number(-1)] * 2, number(0)) + BUILD
    )


def _array(dtype: bytes, data: bytes, shape=(1,)) -> bytes:
    reconstruct = name("numpy.core.multiarray", "_reconstruct")
    empty = call(reconstruct, name("numpy", "ndarray"), numbers([0]), b"U\x01b")
    return empty + items(number(1), numbers(shape), dtype, b"\x89", data) + BUILD


def bombs() -> dict[str, bytes]:
    """Files that are small and would have a careless reader take much memory or time."""
    big = struct.pack("<Q", 2**62)
    rows = b"](" + b"N" * 200_000 + b"e" + b"q\x00"
    copies = (name("builtins", "frozenset") + b"h\x00\x85R0") * 20_000
    laughs = module(leaf=tensor()) + b"q\x00"
    for _ in range(50):
        laughs = laughs + POP + module(a=b"h\x00", b=b"h\x00") + b"q\x00"
    return {
        "memo_index": pth(b"]r\xff\xff\xff\x7f"),
        "text_length": pth(b"\x8d" + big),
        "bytes_length": pth(b"\x8e" + big),
        "bytearray_length": pth(b"\x96" + big),
        "frame_length": pth(b"\x95" + big + checkpoint(b"N"), protocol=4),
        "integer_length": pth(b"\x8b\xff\xff\xff\x7f"),
        "integer_digits": pth(checkpoint(b"L" + b"9" * 1_000_000 + b"L\n")),
        "integer_huge": pth(
            checkpoint(b"\x8b" + struct.pack("<i", 1_000_000) + b"\x01" * 1_000_000)
        ),
        "step_flood": pth(b"N0" * 2_000_000 + b"N"),
        "dictionary_flood": pth(b"}q\x01" * 1_000_000),
        "copy_flood": pth(rows + copies),
        "deep_tuples": pth(b")" + b"\x85" * 400_000),
        "deep_lists": pth(b"]" * 200_000 + b"a" * 199_999),
        "deep_key": pth(b"})" + b"\x85" * 400_000 + b"Ns"),
        "cycle": pth(b"]q\x00h\x00a"),
        "cycle_of_modules": torchscript(
            name("__torch__.m", "Net") + b")" + NEWOBJ + b"q\x00" + mapping(me=b"h\x00") + BUILD),
        "billion_laughs": torchscript(laughs),
        "huge_storage": _weights(storage(count=2**60)),
        "zip_bomb": pth(checkpoint(b"N"), Member("archive/x", bytes(200 << 20), method=8)),
        "zip_bomb_pickle": archive(
            [Member("archive/data.pkl", pickled(b"N0" * 10_000_000 + b"N"), method=8)]),
        "zip_count": archive([Member("archive/data.pkl", b"")], count=0xFFFF),
        "json_depth": safetensors(b'{"a":' + b"[" * 500_000),
        "json_number": safetensors(b'{"a":' + b"9" * 500_000 + b"}"),
        "header_length": safetensors(b"{}", length=2**60),
    }  # fmt: skip


def _weights(stored: bytes, **layout) -> bytes:
    return pth(checkpoint(b"N", weight=tensor(stored, **layout)))


def tensor_lies() -> dict[str, bytes]:
    good = storage()
    return {
        "storage_too_long": _weights(storage(count=7)),
        "storage_too_short": _weights(storage(count=5)),
        "storage_negative": _weights(storage(count=-6)),
        "storage_missing": _weights(storage(key="1")),
        "storage_outside": _weights(storage(key="../../data/0")),
        "storage_quantised": _weights(storage(kind="QInt8Storage")),
        "stride_negative": _weights(good, strides=(-3, 1)),
        "stride_outside": _weights(good, strides=(4, 1)),
        "stride_zero_expands": _weights(good, shape=(2**40, 6), strides=(0, 1)),
        "stride_count": _weights(good, strides=(1,)),
        "offset_negative": _weights(good, offset=-1),
        "offset_outside": _weights(good, offset=1),
        "shape_overflows": _weights(good, shape=(2**32, 2**32), strides=(0, 0)),
        "shape_empty_overflows": _weights(good, shape=(0, 2**62), strides=(1, 1)),
        "shape_is_text": pth(checkpoint(b"N", weight=call(
            name("torch._utils", "_rebuild_tensor_v2"), good, number(0), text("ab"), text("cd")))),
        "tensor_of_nothing": _weights(b"N"),
        "parameter_of_nothing": _weights(call(name("torch._utils", "_rebuild_parameter"), b"N")),
        "key_with_newline": pth(mapping(**{"a\nb": tensor()})),
        "key_with_escape": pth(mapping(**{"\x1b[2Ja": tensor()})),
        "no_weights": pth(mapping(epoch=number(3))),
        "only_a_tensor": pth(tensor()),
        "big_endian": archive([Member("a/data.pkl", pickled(checkpoint(b"N"))),
                               Member("a/byteorder", b"big"), Member("a/data/0", bytes(24))]),
        "bytes_behind_the_pickle": pth(checkpoint(b"N") + b".N"),
        "pickle_cut_short": archive(
            [Member("a/data.pkl", pickled(checkpoint(b"N"))[:-9]), Member("a/data/0", bytes(24))]),
    }  # fmt: skip
