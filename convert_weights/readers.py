"""Open a checkpoint file, whichever way it is packed, without executing anything in it.

The layout is told by content, never by name. Layouts: notes/sapiens.md, section A3.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from convert_weights.allowlist import TorchWorld
from convert_weights.archives import Archive, open_archive, torch_folder
from convert_weights.exports import read_export, read_old_export
from convert_weights.files import FETCH_AGAIN, SAVE_AGAIN, BadFile, File, Tensor, show
from convert_weights.pickles import Inert, interpret
from convert_weights.plain import plain
from convert_weights.safetensors import read_safetensors

__all__ = ["BadFile", "Checkpoint", "Tensor", "open_checkpoint"]

MAX_DEPTH = 60  # of a TorchScript module tree
MAX_VISITS = 200_000
MAX_LINES = 200  # of what was not read
_TORCH_FILES = re.compile(r"data/.*|\.data/.*|data\.pkl|byteorder|version|\.\w+")
_FOREIGN = [
    (rb"version https://git-lfs", "is a git-lfs pointer, not the weights", "run git lfs pull"),
    (
        rb"(?i)\s*<(!doctype|html|\?xml|head|error)",
        "is a web page, not weights (a login or error page saved in its place)",
        "open the address in a browser, accept the terms, and download the file itself",
    ),
    (rb"\s*\{\s*\"", "is a JSON text, not weights", "name the weights file beside it"),
    (
        rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.",
        "is in torch's format from before 1.6, a chain of pickles",
        "torch.load it with weights_only=True and torch.save it again",
    ),
    (rb"\x80[\x00-\x05]", "is a bare pickle, not a torch checkpoint", SAVE_AGAIN),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "is compressed", "unpack it"),
    (rb"(?s).{257}ustar", "is a tar archive", "unpack it and name the checkpoint inside"),
    (rb"\x08[\x01-\x20][\x12\x1a:B]", "is an ONNX model", "name the .pth it was made from"),
    (rb"\x89HDF", "is an HDF5 file", "name a Sapiens checkpoint"),
    (rb"GGUF|(?s:....)TFL3", "is a model of another framework", "name a Sapiens checkpoint"),
    (rb"\x93NUMPY", "is a numpy array", "name a Sapiens checkpoint"),
    (rb"\x89PNG|\xff\xd8\xff", "is a picture", "name a Sapiens checkpoint"),
    (rb"\x00+$", "begins with nothing but zeros: a download that never finished", FETCH_AGAIN),
]


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; the tensors are still on disk."""

    path: str
    layout: str  # as open_checkpoint lists them
    tensors: dict[str, Tensor]  # in file order, names as in the file
    meta: dict = field(default_factory=dict)  # plain facts found beside the weights
    dropped: list[str] = field(default_factory=list)  # what is in the file and was not read


def open_checkpoint(path: str | Path) -> Checkpoint:
    """List the tensors of a checkpoint and what lies beside them, executing nothing.

    The layout is 'pth flat', 'pth state_dict', 'pth training checkpoint', 'torchscript',
    'torch.export', 'torch.export (2.3 layout)' or 'safetensors'. Raises BadFile, one line,
    where the file is none of these or breaks a rule of its format. Source: notes/sapiens.md A3.
    """
    file = File(path)
    head = file.read(0, 512)
    if not file.size:
        raise file.bad("is empty", FETCH_AGAIN)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        layout, tensors, meta, dropped = _read_zip(open_archive(file))
    elif head[8:9] == b"{" and not re.match(rb"[\t-~]{8}", head):
        layout, dropped = "safetensors", []
        tensors, meta = read_safetensors(file)
    else:
        for magic, rule, fix in _FOREIGN:
            if re.match(magic, head):
                raise file.bad(rule, fix)
        raise file.bad("is not a torch or safetensors file", "name a Sapiens checkpoint")
    if not tensors:
        raise file.bad("holds no tensors", "name a Sapiens checkpoint")
    for key in tensors:
        if not re.fullmatch(r"[!-~]{1,300}", key):
            raise file.bad(f"has a tensor with the unusable name '{show(key)}'", SAVE_AGAIN)
    if len(dropped) > MAX_LINES:
        dropped = [*dropped[:MAX_LINES], f"and {len(dropped) - MAX_LINES:,} more"]
    return Checkpoint(str(file.path), layout, tensors, meta, dropped)


def _read_zip(archive: Archive) -> tuple[str, dict[str, Tensor], dict, list[str]]:
    if "serialized_state_dict.pt" in archive.members:
        tensors, dropped = read_old_export(archive)
        return "torch.export (2.3 layout)", tensors, {}, dropped
    prefix = torch_folder(archive)
    if f"{prefix}/archive_format" in archive.members:
        tensors, dropped = read_export(archive, prefix)
        return "torch.export", tensors, {}, dropped
    if f"{prefix}/constants.pkl" in archive.members:
        tensors, dropped = _read_torchscript(archive, prefix)
        return "torchscript", tensors, {}, dropped
    return _read_pth(archive, prefix)


def _read_pth(archive: Archive, prefix: str) -> tuple[str, dict[str, Tensor], dict, list[str]]:
    root = interpret(archive.member(f"{prefix}/data.pkl"), TorchWorld(archive, prefix))
    short = [name.removeprefix(f"{prefix}/") for name in archive.members]
    dropped = [show(name) for name in short if not _TORCH_FILES.fullmatch(name)]
    if not isinstance(root, dict):
        what = root.cls if isinstance(root, Inert) else type(root).__name__
        raise archive.bad(f"holds a {show(str(what))}, not a dictionary of weights", SAVE_AGAIN)
    if "state_dict" not in root:
        tensors = _only_tensors(root, "", dropped)
        if not tensors:
            names = show(", ".join(str(key) for key in list(root)[:6]), 100) or "nothing"
            raise archive.bad(f"has neither weights nor a state_dict, but {names}", SAVE_AGAIN)
        return "pth flat", tensors, {}, dropped
    if not isinstance(root["state_dict"], dict):
        raise archive.bad("has a state_dict that is no dictionary", SAVE_AGAIN)
    tensors = _only_tensors(root["state_dict"], "state_dict.", dropped)
    meta = plain(root.get("meta", {}), "meta", dropped)
    others = [show(str(key)) for key in root if key not in ("state_dict", "meta")]
    layout = "pth training checkpoint" if others else "pth state_dict"
    return layout, tensors, meta if isinstance(meta, dict) else {}, dropped + others


def _only_tensors(values: dict, path: str, dropped: list[str]) -> dict[str, Tensor]:
    named = {k: v for k, v in values.items() if type(k) is str and isinstance(v, Tensor)}
    dropped += [f"{path}{show(str(key))} (not a tensor)" for key in values if key not in named]
    return named


def _read_torchscript(archive: Archive, prefix: str) -> tuple[dict[str, Tensor], list[str]]:
    """A TorchScript module is a tree of objects; a tensor's name is its path of attributes."""
    world = TorchWorld(archive, prefix, torchscript=True)
    root = interpret(archive.member(f"{prefix}/data.pkl"), world)
    if not isinstance(root, Inert):
        raise archive.bad("is a TorchScript archive without a module in it", SAVE_AGAIN)
    tensors, visits = {}, 0
    queue = [("", root, 0)]
    while queue:
        path, value, depth = queue.pop()
        visits += 1
        if visits > MAX_VISITS or depth > MAX_DEPTH:
            raise archive.bad("has a TorchScript module tree without end", SAVE_AGAIN)
        if isinstance(value, Tensor):
            tensors[path] = value
        elif isinstance(value, Inert) and isinstance(value.state, dict):
            dot = path + "." if path else ""
            children = [(f"{dot}{k}", v, depth + 1) for k, v in value.state.items()]
            queue += reversed([c for c in children if isinstance(c[1], Inert | Tensor)])
    folders = {name.split("/")[1] for name in archive.members if name.count("/")}
    unread = folders - {"data", ".data", "data.pkl", "byteorder", "version"}
    return tensors, sorted(show(name) for name in unread)
