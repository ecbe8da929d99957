"""Zip archives as torch writes them, listed strictly and read in place.

Nothing is unpacked. The central directory and the local headers must tell the same story, members
may not overlap, and a member that is read must be stored without compression, so that it can be
mapped. The same reader opens an archive that lies inside a member of another one.
"""

import struct
from dataclasses import dataclass, field

from convert_weights.files import FETCH_AGAIN, SAVE_AGAIN, BadFile, File, Span, show

MAX_MEMBERS = 100_000
MAX_DIRECTORY = 32 << 20
MAX_INFLATED = 64 << 20  # code in a TorchScript file is compressed; it is never read
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_KNOWN_FLAGS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 11
_SIZES_FOLLOW = 1 << 3
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True)
class Archive:
    """The members of a zip, still on disk."""

    file: File = field(repr=False)
    label: str  # '' or the name of the member that holds this archive
    members: dict[str, Span]
    compressed: frozenset[str]

    def bad(self, rule: str, fix: str = FETCH_AGAIN) -> BadFile:
        return self.file.bad(f"{show(self.label)} {rule}" if self.label else rule, fix)

    def member(self, name: str) -> Span:
        """Return a member to be read. Raises BadFile if it is absent or compressed."""
        if name not in self.members:
            raise self.bad(f"has no member {show(name)}")
        if name in self.compressed:
            fix = "unpack it and pack it again without compression (zip -0)"
            raise self.bad(f"has compressed its member {show(name)}, which torch never does", fix)
        return self.members[name]


@dataclass(frozen=True)
class _Entry:
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    header: int  # bytes from the start of the archive


def open_archive(file: File, start: int = 0, size: int | None = None, label: str = "") -> Archive:
    """List the zip that fills size bytes from start. Raises BadFile where it breaks a rule."""
    size = file.size if size is None else size
    shell = Archive(file, label, {}, frozenset())
    directory, directory_start, count = _directory(shell, start, size)
    entries = _entries(shell, directory, count)
    members, compressed = {}, set()
    position = 0
    for entry in sorted(entries, key=lambda e: e.header):
        if entry.header < position:
            raise shell.bad(f"has members that overlap at {show(entry.name)}")
        if not members and entry.header:
            raise shell.bad("has foreign bytes in front of its first member", SAVE_AGAIN)
        data = _data_start(shell, entry, start, directory_start)
        position = data + entry.packed
        if position > directory_start:
            raise shell.bad(f"has a member {show(entry.name)} that reaches outside the archive")
        name = f"{label}/{entry.name}" if label else entry.name
        members[entry.name] = Span(file, name, start + data, entry.packed, entry.crc)
        if entry.method != _STORED:
            compressed.add(entry.name)
    in_order = {entry.name: members[entry.name] for entry in entries}
    return Archive(file, label, in_order, frozenset(compressed))


def _directory(shell: Archive, start: int, size: int) -> tuple[bytes, int, int]:
    """Return the bytes of the central directory, its position in the archive, its entry count."""
    tail_start = max(0, size - _END.size - 0xFFFF)
    tail = shell.file.read(start + tail_start, size - tail_start)
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) - found < _END.size:
        raise shell.bad(f"is cut short: a zip of {size:,} bytes without its end")
    end = tail_start + found
    _, disk, first_disk, here, count, length, position, comment = _END.unpack_from(tail, found)
    if end + _END.size + comment != size:
        raise shell.bad("has bytes behind the end of its zip archive")
    stop = end
    if found >= _LOCATOR64.size + _END64.size:
        mark, _, record, _ = _LOCATOR64.unpack_from(tail, found - _LOCATOR64.size)
        if mark == b"PK\6\7":
            stop = end - _LOCATOR64.size - _END64.size
            wide = _END64.unpack_from(tail, stop - tail_start)
            if wide[0] != b"PK\6\6" or record != stop or wide[1] != _END64.size - 12:
                raise shell.bad("has a damaged end record")
            narrow = (disk, first_disk, here, count, length, position)
            limits = (0xFFFF,) * 4 + (0xFFFFFFFF,) * 2
            both = zip(narrow, wide[4:], limits, strict=True)
            if any(a != b and a != limit for a, b, limit in both):
                raise shell.bad("has two end records that disagree")
            disk, first_disk, here, count, length, position = wide[4:]
    if disk or first_disk or here != count:
        raise shell.bad("is one part of a split zip archive")
    if position + length != stop:
        raise shell.bad("has a zip directory that is not where its end record says")
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise shell.bad(f"claims {count:,} members, more than any checkpoint has", SAVE_AGAIN)
    return shell.file.read(start + position, length), position, count


def _entries(shell: Archive, directory: bytes, count: int) -> list[_Entry]:
    entries, names, at = [], set(), 0
    for _ in range(count):
        if len(directory) - at < _CENTRAL.size:
            raise shell.bad("has a zip directory that is cut short")
        field_values = _CENTRAL.unpack_from(directory, at)
        mark, _, _, flags, method, _, _, crc, packed, size = field_values[:10]
        name_size, extra_size, comment_size, disk, _, _, header = field_values[10:]
        at += _CENTRAL.size
        raw_name = directory[at : at + name_size]
        extra = directory[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        if mark != b"PK\1\2" or disk not in (0, 0xFFFF) or at > len(directory):
            raise shell.bad("has a damaged zip directory")
        size, packed, header = _wide(shell, extra, (size, packed, header))
        name = _name(shell, raw_name)
        entry = _Entry(name, raw_name, flags, method, crc, packed, size, header)
        _check(shell, entry)
        if name in names:
            raise shell.bad(f"has two members named {show(name)}")
        names.add(name)
        entries.append(entry)
    if at != len(directory):
        raise shell.bad("has a zip directory with more in it than it counts")
    return entries


def _wide(shell: Archive, extra: bytes, narrow: tuple[int, ...]) -> tuple[int, ...]:
    """Replace the sizes that do not fit 32 bits by those of the zip64 field."""
    wanted = sum(value == 0xFFFFFFFF for value in narrow)
    at = 0
    while wanted and at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        body = extra[at + 4 : at + 4 + length]
        if kind == 1 and len(body) == length >= 8 * wanted:
            values = iter(struct.unpack_from(f"<{wanted}Q", body))
            return tuple(next(values) if value == 0xFFFFFFFF else value for value in narrow)
        at += 4 + length
    if wanted:
        raise shell.bad("has a member whose size is missing")
    return narrow


def _name(shell: Archive, raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise shell.bad(f"has an unreadable member name {show(repr(raw))}") from None
    parts = name.removesuffix("/").split("/")
    if not name.isprintable() or any(p in ("", ".", "..") for p in parts) or set(name) & set("\\:"):
        rule = f"has a member named '{show(name)}', which points outside the archive"
        raise shell.bad(rule, "do not unpack it; get the file from where it was published")
    return name


def _check(shell: Archive, entry: _Entry) -> None:
    name = show(entry.name)
    if entry.flags & _ENCRYPTED:
        raise shell.bad(f"has an encrypted member {name}", "decrypt it first")
    if entry.flags & ~_KNOWN_FLAGS or entry.method not in (_STORED, _DEFLATED):
        raise shell.bad(f"has a member {name} in a way of packing that torch never uses")
    if entry.method == _STORED and entry.packed != entry.size:
        raise shell.bad(f"has a member {name} with two sizes")
    if entry.method == _DEFLATED and entry.size > MAX_INFLATED:
        rule = f"has a member {name} that would unpack to {entry.size:,} bytes"
        raise shell.bad(rule, "do not unpack it; get the file from where it was published")
    if entry.name.endswith("/") and entry.size:
        raise shell.bad(f"has a folder {name} with contents")


def _data_start(shell: Archive, entry: _Entry, start: int, limit: int) -> int:
    """Check the local header; return where the data begin, in bytes from the archive's start."""
    header_end = entry.header + _LOCAL.size + len(entry.raw_name)
    if header_end > limit:
        raise shell.bad(f"has a member {show(entry.name)} that lies outside the archive")
    head = shell.file.read(start + entry.header, _LOCAL.size + len(entry.raw_name))
    mark, _, flags, method, _, _, *told, name_size, extra_size = _LOCAL.unpack_from(head)
    crc, packed, size = told
    same = (mark, flags, method, name_size, head[_LOCAL.size :]) == (
        b"PK\3\4", entry.flags, entry.method, len(entry.raw_name), entry.raw_name,
    )  # fmt: skip
    extra = shell.file.read(start + header_end, extra_size) if header_end < limit else b""
    size, packed = _wide(shell, extra, (size, packed)) if same else (0, 0)
    both = ((crc, entry.crc), (packed, entry.packed), (size, entry.size))
    # torch streams: the header says 0, the numbers follow the data and stand in the directory.
    later = bool(entry.flags & _SIZES_FOLLOW)
    if not same or any(here != listed and (here or not later) for here, listed in both):
        raise shell.bad(f"describes its member {show(entry.name)} in two ways that disagree")
    return header_end + extra_size


def torch_folder(archive: Archive) -> str:
    """Return the one folder at the top of an archive that torch wrote, byte order checked."""
    tops = {name.split("/")[0] for name in archive.members if "/" in name}
    marks = ("data.pkl", "archive_format")
    found = [top for top in tops if any(f"{top}/{mark}" in archive.members for mark in marks)]
    if len(found) != 1 or len(tops) != 1:
        fix = "unpack it if a checkpoint lies inside, else name a Sapiens checkpoint"
        raise archive.bad("is a zip archive, but not one that torch wrote", fix)
    order = f"{found[0]}/byteorder"
    if order in archive.members and archive.member(order).bytes(16) != b"little":
        raise archive.bad("was written on a big-endian machine", "save it on a little-endian one")
    return found[0]
