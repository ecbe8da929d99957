"""Write pickles opcode by opcode and zip archives field by field, also wrong ones."""

import json
import struct
import zlib
from dataclasses import dataclass, field

MARK, STOP, REDUCE, BUILD, NEWOBJ, POP = b"(", b".", b"R", b"b", b"\x81", b"0"


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def items(*values: bytes) -> bytes:
    """A tuple."""
    return MARK + b"".join(values) + b"t"


def numbers(values) -> bytes:
    return items(*map(number, values))


def listed(*values: bytes) -> bytes:
    return b"](" + b"".join(values) + b"e"


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in values.items()) + b"u"


def call(function: bytes, *args: bytes) -> bytes:
    return function + items(*args) + REDUCE


def pickled(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + STOP


def storage(key: str = "0", count: int = 6, kind: str = "FloatStorage") -> bytes:
    return items(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(stored: bytes | None = None, shape=(2, 3), strides=(3, 1), offset: int = 0) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage() if stored is None else stored,
        number(offset),
        numbers(shape),
        numbers(strides),
        b"\x89",
        hooks,
    )


@dataclass
class Member:
    """A zip member; the last fields are lies, where given."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    crc: int | None = None
    declared: int | None = None  # size in the directory
    local_declared: int | None = None  # size in the local header
    local_name: str | None = None
    header: int | None = None  # position in the directory
    written: bool = True  # or only listed in the directory
    packed: bytes = field(init=False)

    def __post_init__(self):
        self.packed = self.data
        if self.method == 8:
            squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
            self.packed = squeeze.compress(self.data) + squeeze.flush()
        self.crc = zlib.crc32(self.data) if self.crc is None else self.crc


def archive(
    members: list[Member], front: bytes = b"", back: bytes = b"", count: int | None = None
) -> bytes:
    """A zip; front and back are foreign bytes around it, count a lie about its members."""
    body, directory = front, b""
    for m in members:
        real, packed = len(m.data), len(m.packed)
        declared = real if m.declared is None else m.declared
        shown = packed if m.declared is None or m.method else declared
        local = declared if m.local_declared is None else m.local_declared
        local_name, path = (m.local_name or m.name).encode(), m.name.encode()
        header = len(body) if m.header is None else m.header
        head = (20, m.flags, m.method, 0, 0x21, m.crc)
        local_packed = shown if m.local_declared is None else local
        sizes = (local_packed, local, len(local_name), 0)
        if m.written:
            body += struct.pack("<4s5H3L2H", b"PK\3\4", *head, *sizes) + local_name + m.packed
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, *head, shown, declared, len(path), 0, 0, 0, 0, 0, header
        )
        directory += path
    count = len(members) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end + back


def pth(value: bytes, *more: Member, data: bytes = bytes(24), protocol: int = 2) -> bytes:
    """A torch archive around the opcodes of one value, with one storage '0' of 24 bytes."""
    members = [
        Member("archive/data.pkl", pickled(value, protocol)),
        Member("archive/byteorder", b"little"),
        Member("archive/data/0", data),
    ]
    return archive(members + list(more))


def checkpoint(meta: bytes, weight: bytes | None = None, **more: bytes) -> bytes:
    """The opcodes of a fine-tuned checkpoint: one weight, and whatever meta is given."""
    weights = mapping(weight=tensor() if weight is None else weight)
    return mapping(state_dict=weights, meta=meta, **more)


def module(**attributes: bytes) -> bytes:
    """The opcodes of a TorchScript module."""
    return name("__torch__.m", "Net") + b")" + NEWOBJ + mapping(**attributes) + BUILD


def torchscript(value: bytes) -> bytes:
    return pth(value, Member("archive/constants.pkl", pickled(b")")))


def old_export(inner: bytes) -> bytes:
    return archive([Member("serialized_state_dict.pt", inner), Member("version", b"5.1")])


def weight_entry(**changes) -> dict:
    meta = {
        "dtype": 7,
        "sizes": [{"as_int": 2}, {"as_int": 3}],
        "strides": [{"as_int": 3}, {"as_int": 1}],
        "storage_offset": {"as_int": 0},
        "layout": 7,
    }
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False}
    meta.update({k: v for k, v in changes.items() if k in meta})
    entry.update({k: v for k, v in changes.items() if k in entry})
    return entry | {"tensor_meta": meta}


def export(config: object) -> bytes:
    data = config if isinstance(config, bytes) else json.dumps({"config": config}).encode()
    return archive(
        [
            Member("net/archive_format", b"pt2"),
            Member("net/data/weights/weight_0", bytes(24)),
            Member("net/data/weights/model_weights_config.json", data),
        ]
    )


def safetensors(header: object, body: bytes = bytes(24), length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def flat(begin: int = 0, end: int = 24, shape=(2, 3), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
