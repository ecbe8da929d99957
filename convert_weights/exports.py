"""The two layouts of torch.export archives. Only weights are read; the program graph is not.

Layouts: notes/sapiens.md, section A3, and the archives that torch itself writes.
"""

import re

from convert_weights.allowlist import TorchWorld
from convert_weights.archives import Archive, open_archive, torch_folder
from convert_weights.files import FETCH_AGAIN, SAVE_AGAIN, BadFile, Tensor, show, tensor
from convert_weights.pickles import interpret
from convert_weights.safetensors import read_json

MAX_CONFIG = 16 << 20
# Numbers that torch.export gives to element types.
_DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip
_STRIDED = 7


def read_export(archive: Archive, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of an archive with one member per weight, and what else it holds."""
    folder = f"{prefix}/data/weights/"
    configs = [
        name for name in archive.members if re.fullmatch(re.escape(folder) + r"[^/]+\.json", name)
    ]
    if len(configs) != 1:
        rule = f"is a torch.export archive with {len(configs)} lists of weights instead of one"
        raise archive.bad(rule, "export it again with a newer torch, or save its state_dict")
    config = read_json(archive.member(configs[0]), MAX_CONFIG).get("config")
    if not isinstance(config, dict):
        raise archive.bad(f"has a list of weights {show(configs[0])} without a config")
    tensors = {key: _weight(archive, folder, key, entry) for key, entry in config.items()}
    used = {t.span.name for t in tensors.values()} | {configs[0]}
    kept = re.compile(re.escape(prefix) + r"/(\.data/.*|byteorder|archive_\w+)")
    return tensors, [
        show(n.removeprefix(f"{prefix}/"))
        for n in archive.members
        if n not in used and not kept.fullmatch(n)
    ]


def _weight(archive: Archive, folder: str, key: str, entry: object) -> Tensor:
    def bad(rule: str, fix: str = FETCH_AGAIN) -> BadFile:
        return archive.bad(f"has a weight {show(key)} {rule}", fix)

    meta = entry.get("tensor_meta") if isinstance(entry, dict) else None
    if not isinstance(meta, dict):
        raise bad("without a description")
    if entry.get("use_pickle") is not False:
        raise bad("that is a pickled object, not numbers", SAVE_AGAIN)
    name = entry.get("path_name")
    if type(name) is not str or not re.fullmatch(r"\w{1,100}", name):
        raise bad(f"stored under '{show(str(name))}', which points outside the archive")
    dtype = meta.get("dtype")
    if type(dtype) is not int or dtype not in _DTYPES or meta.get("layout") != _STRIDED:
        raise bad("of a type that is not read", SAVE_AGAIN)
    sizes, strides = (
        [_number(n) for n in numbers] if isinstance(numbers, list) else None
        for numbers in (meta.get("sizes"), meta.get("strides"))
    )
    offset = _number(meta.get("storage_offset"))
    return tensor(archive.member(folder + name), _DTYPES[dtype], sizes, offset, strides)


def _number(value: object) -> object:
    return value.get("as_int") if isinstance(value, dict) else None


def read_old_export(archive: Archive) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a torch-2.3 archive, whose state dict is an archive in the archive."""
    name = "serialized_state_dict.pt"
    span = archive.member(name)
    if archive.file.read(span.start, 4) != b"PK\3\4":
        raise span.bad("is no zip archive, as torch would write it", FETCH_AGAIN)
    inner = open_archive(archive.file, span.start, span.size, name)
    prefix = torch_folder(inner)
    values = interpret(inner.member(f"{prefix}/data.pkl"), TorchWorld(inner, prefix))
    if not isinstance(values, dict):
        raise span.bad("holds no dictionary of weights", SAVE_AGAIN)
    tensors = {k: v for k, v in values.items() if type(k) is str and isinstance(v, Tensor)}
    dropped = [f"state_dict {show(str(k))} (not a tensor)" for k in values if k not in tensors]
    return tensors, dropped + [show(n) for n in archive.members if n not in (name, "version")]
