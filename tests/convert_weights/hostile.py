"""Craft files that try to run code, exhaust memory or lie about themselves; each must be refused.

`craft_all(folder)` writes them all; the pickles among them are in `hostile_pickles`.
"""

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np

from tests.convert_weights.crafting import (
    Member,
    archive,
    checkpoint,
    export,
    flat,
    mapping,
    module,
    old_export,
    pickled,
    pth,
    safetensors,
    storage,
    tensor,
    torchscript,
    weight_entry,
)
from tests.convert_weights.hostile_pickles import bombs, payloads, pickle_tricks, tensor_lies

MARKER = "a-payload-ran"


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
        "absolute_path": around(numbers_, Member("/etc/evil", b"x")),
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
        "pickle": pickle_tricks(),
        "bomb": bombs(),
        "tensor": tensor_lies(),
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
