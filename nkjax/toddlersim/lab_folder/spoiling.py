"""Picture files as labs should not have them, made byte by byte from good ones."""

import struct
import zlib

import numpy as np

from nkjax.data import images


def truncated(data: bytes) -> bytes:
    """Cut a file in the middle, as an interrupted copy leaves it."""
    return data[: len(data) // 2]


def turned(data: bytes, orientation: int) -> bytes:
    """Put an EXIF orientation 1 ... 8 into a JPEG that has no EXIF yet; the pixels stay."""
    # Big endian, one directory of one entry: tag 0x0112, a short (EXIF 2.32, 4.6).
    tiff = b"MM" + struct.pack(">HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def transparent(data: bytes) -> bytes:
    """Save a picture as PNG, half transparent."""
    rgb = images.decode_rgb(data)
    return _png(np.concatenate([rgb, np.full_like(rgb[..., :1], 128)], 2), 6)


def deep(data: bytes) -> bytes:
    """Save a picture as PNG of 16 bits a channel, of which a camera fills 10."""
    return _png(images.decode_rgb(data).astype(">u2") * 4, 2)


def animated(data: bytes) -> bytes:
    """Save a picture as PNG whose header announces two frames."""
    return _png(images.decode_rgb(data), 2, _chunk(b"acTL", struct.pack(">II", 2, 0)))


def _png(image_hwc, colour_type, extra=b"") -> bytes:
    height, width = image_hwc.shape[:2]
    bits = 8 * image_hwc.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    # Each line begins with the number of its filter: none.
    lines = b"".join(b"\0" + line.tobytes() for line in image_hwc)
    chunks = _chunk(b"IHDR", header), extra, _chunk(b"IDAT", zlib.compress(lines, 1))
    return images.PNG_START + b"".join(chunks) + _chunk(b"IEND", b"")


def _chunk(name, body) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
