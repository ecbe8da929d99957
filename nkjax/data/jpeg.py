"""Read and remove the metadata of JPEG files, byte by byte, without decoding pixels.

Orientation is also read from PNG and WebP, which carry the same EXIF block. Source: ITU-T T.81
annex B, EXIF 2.32 4.6.
"""

import dataclasses
import re
from collections.abc import Iterator

START, END = b"\xff\xd8", b"\xff\xd9"
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
HUFFMAN, ARITHMETIC, TABLES, LINES, INTERVAL = 0xC4, 0xCC, 0xDB, 0xDC, 0xDD
SCAN, LAST, COMMENT = 0xDA, 0xD9, 0xFE
APPLICATIONS = range(0xE0, 0xF0)
NEEDED = (*FRAMES, HUFFMAN, ARITHMETIC, TABLES, LINES, INTERVAL, SCAN, LAST)

# What ends the coded pixels of a scan: no stuffed zero, no restart marker, no fill byte.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclasses.dataclass(frozen=True)
class Frame:
    """The frame header: marker (0xC0 baseline, 0xC2 progressive), bits a sample, size, channels.

    size_wh: px as stored, before any EXIF turn.
    """

    marker: int
    bits: int
    size_wh: tuple[int, int]
    channels: int


def frame(data: bytes) -> Frame:
    """Read the frame header of a JPEG, walking through the whole file.

    Raises ValueError in one line for a file that is truncated, or damaged where one can see it
    without decoding.
    """
    found = None
    for marker, start, end in _segments(data):
        if marker in FRAMES and found is None:
            body = data[start + 4 : end]
            if len(body) < 6:
                raise ValueError("damaged JPEG: its frame header is too short")
            height, width = _big(body[1:3]), _big(body[3:5])
            found = Frame(marker, body[0], (width, height), body[5])
        elif marker == SCAN and found is None:
            break
    if found is None:
        raise ValueError("damaged JPEG: no frame header before the pixels")
    return found


def size_wh(data: bytes) -> tuple[int, int]:
    """Read width and height in px as stored, before any EXIF turn; raises ValueError."""
    return frame(data).size_wh


def strip(data: bytes) -> bytes:
    """Remove everything from a JPEG that its pixels do not need; the coded pixels stay untouched.

    Gone are EXIF, XMP, IPTC, ICC and maker blocks (all APPn), comments, thumbnails and whatever
    follows the end (further pictures, video). Of APP0 and APP14 only the fixed fields of JFIF and
    Adobe stay: they tell how colours are coded. Raises ValueError in one line for a file that is
    truncated, has bytes between its segments, or markers that no decoder needs to know.
    """
    kept, markers = [START], set()
    for marker, start, end in _segments(data):
        if marker in NEEDED:
            kept.append(data[start:end])
            markers.add(marker)
        elif marker == 0xE0 and _is_jfif(data[start + 4 : end]):
            # The two bytes before a thumbnail are its width and height.
            kept.append(b"\xff\xe0\x00\x10" + data[start + 4 : start + 16] + b"\0\0")
        elif marker == 0xEE and _is_adobe(data[start + 4 : end]):
            kept.append(b"\xff\xee\x00\x0e" + data[start + 4 : start + 16])
        elif marker not in APPLICATIONS and marker != COMMENT:
            raise ValueError(f"damaged JPEG: unknown marker FF{marker:02X}")
    if not markers.intersection(FRAMES) or SCAN not in markers:
        raise ValueError("damaged JPEG: no pixels in it")
    return b"".join(kept)


def orientation(data: bytes) -> int:
    """Read the EXIF orientation 1 ... 8 of a JPEG, PNG or WebP; 1 where absent or damaged.

    TIFF has one too, but OpenCV always applies it: such pixels arrive upright.
    """
    if data.startswith(START):
        return _tiff_orientation(_jpeg_exif(data))
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _tiff_orientation(_chunk(data, b"eXIf", 8, "big"))
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        block = _chunk(data, b"EXIF", 12, "little")
        return _tiff_orientation(block.removeprefix(b"Exif\0\0"))
    return 1


def _segments(data) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of every segment; a scan's coded pixels belong to it."""
    if not data.startswith(START):
        raise ValueError("no JPEG: it does not begin with FFD8")
    start = len(START)
    while True:
        while data[start : start + 2] == b"\xff\xff":  # fill bytes
            start += 1
        if data[start : start + 1] != b"\xff" or start + 1 >= len(data):
            raise ValueError(f"truncated or damaged JPEG: no marker at byte {start}")
        marker = data[start + 1]
        if marker == LAST:
            yield marker, start, start + 2
            return
        length = _big(data[start + 2 : start + 4])
        end = start + 2 + length
        if marker < 0xC0 or 0xD0 <= marker <= 0xD8 or length < 2 or end > len(data):
            raise ValueError(f"truncated or damaged JPEG: no whole segment at byte {start}")
        if marker == SCAN:
            after = _AFTER_SCAN.search(data, end)
            if after is None:
                raise ValueError("truncated JPEG: no end marker")
            end = after.start()
        yield marker, start, end
        start = end


def _is_jfif(body):
    return len(body) >= 14 and body.startswith(b"JFIF\0")


def _is_adobe(body):
    return len(body) >= 12 and body.startswith(b"Adobe")


def _jpeg_exif(data):
    try:
        for marker, start, end in _segments(data):
            if marker == 0xE1 and data[start + 4 : start + 10] == b"Exif\0\0":
                return data[start + 10 : end]
            if marker == SCAN:
                break
    except ValueError:
        pass
    return b""


def _chunk(data, wanted, start, order):
    """Find a chunk of a PNG (length, name, body, checksum) or a WebP (name, length, body)."""
    while start + 8 <= len(data):
        first, second = data[start : start + 4], data[start + 4 : start + 8]
        name, length = (second, first) if order == "big" else (first, second)
        length = int.from_bytes(length, order)
        if name == wanted:
            return data[start + 8 : start + 8 + length]
        start += 8 + length + (4 if order == "big" else length % 2)
    return b""


def _tiff_orientation(tiff):
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None or int.from_bytes(tiff[2:4], order) != 42:
        return 1
    first = int.from_bytes(tiff[4:8], order)
    for i in range(int.from_bytes(tiff[first : first + 2], order)):
        entry = tiff[first + 2 + 12 * i : first + 14 + 12 * i]
        if len(entry) < 12:
            return 1
        if int.from_bytes(entry[:2], order) == 0x0112:
            value = int.from_bytes(entry[8:10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _big(two_bytes):
    return int.from_bytes(two_bytes, "big")
