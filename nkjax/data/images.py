"""Decode and warp pictures on the host, uint8 RGB.

Importing this module turns OpenCV's own threads off in this process (`cv2.setNumThreads(0)`):
loaders work on many pictures at once, and nested threads slow them down. The results do not depend
on it.
"""

from pathlib import Path

import cv2
import numpy as np

cv2.setNumThreads(0)

JPEG_START, JPEG_END, PNG_START = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"


class BadImage(ValueError):
    """A picture that cannot be used; the message is one line with file, reason and remedy."""


def read_rgb(path, exif="apply"):
    """Read a picture file as `decode_rgb` does; BadImage also where it cannot be opened."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be opened ({error.strerror}); check the path") from None
    return decode_rgb(data, exif, name=str(path))


def decode_rgb(data, exif="apply", name="picture"):
    """Decode the bytes of a picture to RGB.

    data: JPEG, PNG, or what else OpenCV reads (BMP, WebP, TIFF, ...); exif: 'apply' turns the
    picture upright by its EXIF orientation, 'ignore' leaves the pixels as stored; name: for
    messages. Returns (H, W, 3) uint8. Grey and palette pictures become RGB; 16-bit values v become
    round(v / 257); an alpha channel without effect is dropped.

    Raises BadImage for a truncated or undecodable file, CMYK JPEG (its colours depend on an ink
    profile), transparent pixels (their colour is undefined), several frames, and values that are
    neither 8 nor 16 bit.
    """
    if exif not in ("apply", "ignore"):
        raise ValueError(f"exif must be 'apply' or 'ignore', not {exif!r}")
    if data.startswith(JPEG_START):
        _check_jpeg(data, name)
    elif not _is_plain_png(data):
        _check_frames_and_alpha(data, name)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    image = _decode(data, flags if exif == "apply" else flags | cv2.IMREAD_IGNORE_ORIENTATION, name)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise BadImage(f"{name}: holds {image.dtype} values; save it as an 8-bit picture")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def warp_affine(image_hwc, matrix_23, size_wh):
    """Warp a picture by an affine matrix, bilinear, zero outside.

    image_hwc: uint8; matrix_23: picture px -> output px (`geometry.affine.udp_matrix`); size_wh: of
    the output. Returns (h, w, C) uint8. OpenCV 4 snaps coordinates to 1/32 px, so versions differ
    by up to 6 grey levels (notes sapiens A4). Raises ValueError for another dtype or rank, or a
    matrix that is not finite.
    """
    matrix = np.asarray(matrix_23, np.float64)
    if image_hwc.dtype != np.uint8 or image_hwc.ndim != 3:
        raise ValueError(f"want a uint8 (H, W, C) picture, not {image_hwc.dtype} {image_hwc.shape}")
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise ValueError("want a finite (2, 3) matrix; is the box without extent?")
    size = (int(size_wh[0]), int(size_wh[1]))
    warped = cv2.warpAffine(
        image_hwc, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return warped.reshape(size[1], size[0], image_hwc.shape[2])


def _decode(data, flags, name):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise BadImage(f"{name}: not a complete picture that OpenCV can read; replace or remove it")
    return image


def _check_jpeg(data, name):
    """Walk the segments up to the pixels, then look for the end marker."""
    # OpenCV 4 fills a truncated JPEG with stale memory and calls it good.
    start, channels = 2, None
    while data[start : start + 1] == b"\xff" and start + 4 <= len(data):
        marker = data[start + 1]
        if marker == 0xFF:
            start += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            channels = data[start + 9] if start + 9 < len(data) else None
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if marker == 0xDA:
            break
    else:
        start = len(data)
    if channels == 4:
        raise BadImage(f"{name}: CMYK JPEG; convert it to RGB first")
    if data.find(JPEG_END, start) < 0:
        raise BadImage(f"{name}: truncated or damaged JPEG; copy it again from its source")


def _is_plain_png(data):
    """A single 8- or 16-bit grey or RGB frame without transparency, told from the header alone."""
    header = _png_header(data)
    return (
        len(header) > 25
        and header[25] in (0, 2)
        and b"tRNS" not in header
        and b"acTL" not in header
    )


def _png_header(data):
    return data[: data.find(b"IDAT")] if data.startswith(PNG_START) else b""


def _check_frames_and_alpha(data, name):
    image = _decode(data, cv2.IMREAD_UNCHANGED, name)
    try:
        _, frames = cv2.imdecodemulti(
            np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(0, 2)
        )
    except cv2.error:
        frames = ()
    # OpenCV 4.10 shows the first frame of an animated PNG only; the header tells.
    if len(frames) > 1 or b"acTL" in _png_header(data):
        raise BadImage(f"{name}: holds several frames; save the one you mean as JPEG or PNG")
    if image.ndim == 3 and image.shape[2] == 4 and np.issubdtype(image.dtype, np.integer):
        if image[..., 3].min() < np.iinfo(image.dtype).max:
            raise BadImage(f"{name}: has transparent pixels (or is CMYK); flatten it to RGB first")
