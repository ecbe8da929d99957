"""Craft files that try to run code, exhaust memory or lie about themselves; each must be refused.

`craft_all(folder)` writes them all. `payloads(marker)` are the pickles among them that really do
run when Python unpickles them: each creates the marker file.
"""

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np

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
    export,
    flat,
    items,
    listed,
    mapping,
    module,
    name,
    number,
    numbers,
    old_export,
    pickled,
    pth,
    safetensors,
    storage,
    tensor,
    text,
    torchscript,
    weight_entry,
)

MARKER = "a-payload-ran"
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


def _pickle_tricks() -> dict[str, bytes]:
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


def _bombs() -> dict[str, bytes]:
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


def _tensor_lies() -> dict[str, bytes]:
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


def _weights_in(size: int, *members: Member) -> bytes:
    """An archive whose weights are the first member given, of that many bytes."""
    stored = storage(count=size // 4)
    weights = tensor(stored, shape=(size // 4,), strides=(1,))
    return archive([Member("a/data.pkl", pickled(checkpoint(b"N", weights))), *members])


def _nested_members() -> bytes:
    """A member whose numbers are another member, header and all: each by itself is flawless."""
    inner = Member("a/data/1", bytes(24))
    alone = archive([inner])
    data = alone[: alone.index(b"PK\1\2")] + bytes(2)
    outer = Member("a/data/0", data)
    inner.written = False
    inner.header = _weights_in(len(data), outer).index(data)
    return _weights_in(len(data), outer, inner)


def _zip_lies() -> dict[str, bytes]:
    value = pickled(checkpoint(b"N"))
    data, numbers_ = Member("a/data.pkl", value), Member("a/data/0", bytes(24))

    def around(*members: Member, **more) -> bytes:
        return archive([Member("a/data.pkl", value), *members], **more)

    good = archive([data, numbers_])
    inside = Member("a/data/0", bytes(24), header=0)
    return {
        "members_overlap": around(inside),
        "members_nested": _nested_members(),
        "member_into_the_directory": _weights_in(
            28, Member("a/data/0", bytes(24), crc=0, declared=28, local_declared=28)),
        "members_cover_each_other": around(
            Member("a/data/0", bytes(24), declared=60, local_declared=60),
            Member("a/data/1", bytes(24))),
        "local_name_differs": around(Member("a/data/0", bytes(24), local_name="a/data/9")),
        "local_size_differs": around(Member("a/data/0", bytes(24), local_declared=12)),
        "member_outside": around(Member("a/data/0", bytes(24), declared=2**30)),
        "member_before_the_file": around(Member("a/data/0", bytes(24), header=2**31)),
        "wrong_checksum": archive([Member("a/data.pkl", value, crc=1), numbers_]),
        "cut_in_half": good[: len(good) // 2],
        "cut_by_one": good[:-1],
        "bytes_in_front": archive([data, numbers_], front=b"PK\3\4" + bytes(60)),
        "bytes_behind": good + b"#!/bin/sh\n",
        "parent_folder": around(numbers_, Member("../../evil", b"x")),
        "inner_parent_folder": around(numbers_, Member("a/../../evil", b"x")),
        "absolute_path": around(numbers_, Member("/tmp/evil", b"x")),
        "backslashes": around(numbers_, Member("a\\..\\evil", b"x")),
        "duplicate_member": around(numbers_, Member("a/data/0", bytes(24))),
        "encrypted": around(Member("a/data/0", bytes(24), flags=1)),
        "strange_method": around(Member("a/data/0", bytes(24), method=93)),
        "compressed_weights": around(Member("a/data/0", bytes(24), method=8)),
        "compressed_pickle": archive([Member("a/data.pkl", value, method=8), numbers_]),
        "two_sizes": around(Member("a/data/0", bytes(24), declared=23, local_declared=24)),
        "two_folders": around(numbers_, Member("b/data.pkl", value)),
        "no_folder": archive([Member("data.pkl", value), Member("data/0", bytes(24))]),
        "office_document": archive([Member("word/document.xml", b"<xml/>")]),
        "empty_zip": archive([]),
    }  # fmt: skip


def _nested_and_exported(marker: Path) -> dict[str, bytes]:
    run = payloads(marker)["os_system"]
    state = mapping(weight=tensor())
    inner = pth(state)
    return {
        "script_payload": torchscript(module(weight=tensor(), x=run)),
        "script_without_module": torchscript(mapping(weight=tensor())),
        "optimizer_payload": pth(checkpoint(b"N", optimizer=run)),
        "old_export_payload": old_export(pth(mapping(weight=tensor(), x=run))),
        "old_export_parent_folder": old_export(pth(state, Member("archive/../x", b""))),
        "old_export_cut": old_export(inner[:-30]),
        "old_export_reaches_out": old_export(pth(mapping(weight=tensor(storage(key="1"))))),
        "old_export_bomb": old_export(pth(state, Member("archive/x", bytes(200 << 20), method=8))),
        "old_export_no_zip": old_export(pickled(run)),
        "old_export_lies": old_export(archive(
            [Member("a/data.pkl", pickled(state)), Member("a/data/0", bytes(24), declared=200)])),
        "export_parent_folder": export({"w": weight_entry(path_name="../x")}),
        "export_elsewhere": export({"w": weight_entry(path_name="../../archive_format")}),
        "export_pickle": export({"w": weight_entry(use_pickle=True)}),
        "export_too_large": export({"w": weight_entry(sizes=[{"as_int": 2}, {"as_int": 4}])}),
        "export_symbolic": export({"w": weight_entry(sizes=[{"as_expr": "s0"}, {"as_int": 3}])}),
        "export_negative": export({"w": weight_entry(strides=[{"as_int": -3}, {"as_int": 1}])}),
        "export_offset": export({"w": weight_entry(storage_offset={"as_int": 1})}),
        "export_type": export({"w": weight_entry(dtype=99)}),
        "export_type_is_true": export({"w": weight_entry(dtype=True)}),
        "export_missing": export({"w": weight_entry(path_name="weight_1")}),
        "export_list": export([weight_entry()]),
        "export_no_json": export(b"{'config': __import__('os')}"),
        "export_deep_json": export(b'{"config":' + b"[" * 200_000),
    }  # fmt: skip


def _safetensors_lies() -> dict[str, bytes]:
    one = b'"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}'
    return {
        "overlap": safetensors({"a": flat(0, 24), "b": flat(12, 24, (3,))}),
        "hole": safetensors({"a": flat(0, 8, (2,)), "b": flat(12, 24, (3,))}),
        "invalid_json": safetensors(b"{" + one),
        "key_twice": safetensors(b"{" + one + b"," + one + b"}"),
        "not_an_object": safetensors(b"{}", body=b""),
        "outside": safetensors({"a": flat(0, 48, (12,))}),
        "backwards": safetensors({"a": flat(24, 0)}),
        "bytes_behind": safetensors({"a": flat()}, body=bytes(25)),
        "shape_negative": safetensors({"a": flat(shape=(-2, -3))}),
        "shape_of_true": safetensors({"a": flat(0, 4, (True,))}, body=bytes(4)),
        "shape_of_floats": safetensors({"a": flat(shape=(2.0, 3.0))}),
        "shape_wrong": safetensors({"a": flat(shape=(2, 4))}),
        "type_unknown": safetensors({"a": flat(dtype="Q4")}),
        "extra_field": safetensors({"a": flat() | {"code": "x"}}),
        "metadata_nested": safetensors({"a": flat(), "__metadata__": {"x": {}}}),
        "not_text": safetensors(b'{"\xff\xfe": 1}'),
    }


def _not_checkpoints(marker: Path) -> dict[str, bytes]:
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 1320000000\n"
    tar, npz, npy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("pickle"))
    np.savez(npz, a=np.zeros(3))
    np.save(npy, np.zeros(3))
    legacy = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    return {
        "git_lfs_pointer": lfs % (b"0" * 64),
        "web_page": b"<!DOCTYPE html>\n<html><body>Sign in</body></html>",
        "web_page_bare": b"\n  <HTML><head><title>403 Forbidden</title></head>",
        "xml_error": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "json_error": b'{"error": "Repository not found"}',
        "empty": b"",
        "one_byte": b"\x80",
        "zeros": bytes(4096),
        "text": b"epoch 3: loss 0.1\n" * 10,
        "unknown_bytes": bytes(range(200, 256)) * 8,
        "legacy_torch": legacy,
        "bare_payload": pickled(payloads(marker)["os_system"]),
        "old_protocol_payload": b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.",
        "gzip": gzip.compress(pth(checkpoint(b"N"))),
        "tar": tar.getvalue(),
        "npz": npz.getvalue(),
        "npy": npy.getvalue(),
        "onnx": b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x80\x01",
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    }


def craft_all(folder: Path) -> list[Path]:
    """Write every hostile file; each must be refused, and MARKER must never appear beside it."""
    marker = folder / MARKER
    groups = {
        "payload": {k: pth(checkpoint(meta=v), protocol=4) for k, v in payloads(marker).items()},
        "pickle": _pickle_tricks(),
        "bomb": _bombs(),
        "tensor": _tensor_lies(),
        "zip": _zip_lies(),
        "layout": _nested_and_exported(marker),
        "safetensors": _safetensors_lies(),
        "other": _not_checkpoints(marker),
    }
    paths = []
    for group, files in groups.items():
        for key, data in files.items():
            paths.append(folder / f"{group}_{key}.pth")
            paths[-1].write_bytes(data)
    return paths


def another_model() -> bytes:
    """A well-formed checkpoint of a ResNet: readable here, refused where names are mapped."""
    keys = ("conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "fc.weight")
    return pth(mapping(**dict.fromkeys(keys, tensor())))
