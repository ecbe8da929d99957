"""Decode, turn, warp and encode pictures on the host, uint8 RGB.

Importing this module turns OpenCV's own threads off in this process (`cv2.setNumThreads(0)`):
loaders work on many pictures at once, and nested threads slow them down. The results do not depend
on it. OpenCV's messages are turned off too: what is wrong with a picture stands in BadImage.
"""

from pathlib import Path

import cv2
import numpy as np

from nkjax.data import jpeg

cv2.setNumThreads(0)
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)  # silent

# What names of picture files end in, in any case.
ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
JPEG_START, JPEG_END, PNG_START = b"\xff\xd8\xff", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"
FORMATS = (
    (0, JPEG_START, "jpeg"), (0, PNG_START, "png"), (0, b"BM", "bmp"), (8, b"WEBP", "webp"),
    (0, b"II*\0", "tiff"), (0, b"MM\0*", "tiff"), (0, b"GIF8", "gif"), (4, b"ftypavi", "avif"),
)  # fmt: skip
FACTORS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Baseline, extended and progressive with Huffman codes: what every decoder reads.
COMMON_FRAMES = (0xC0, 0xC1, 0xC2)


class BadImage(ValueError):
    """A picture that cannot be used; the message is one line with file, reason and remedy."""


class SeveralFrames(BadImage):
    """A file with more than one picture."""


class UndefinedColours(BadImage):
    """A CMYK picture, or one with transparent pixels."""


def read_rgb(path, exif="apply"):
    """Read a picture file as `decode_rgb` does; BadImage also where it cannot be opened."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be opened ({error.strerror}); check the path") from None
    return decode_rgb(data, exif, name=str(path))


def decode_rgb(data, exif="apply", name="picture"):
    """Decode the bytes of a picture to RGB.

    data: of one of FORMATS; exif: 'apply' turns the picture upright by its EXIF orientation,
    'ignore' leaves the pixels as stored; name: for messages. Returns (H, W, 3) uint8. Grey and
    palette pictures become RGB; 16-bit values v become round(v / 257); an alpha channel without
    effect is dropped.

    Raises BadImage for a truncated or undecodable file, CMYK JPEG (its colours depend on an ink
    profile), transparent pixels (their colour is undefined), several frames, and values that are
    neither 8 nor 16 bit.
    """
    if exif not in ("apply", "ignore"):
        raise ValueError(f"exif must be 'apply' or 'ignore', not {exif!r}")
    if format_of(data) == "other":
        # OpenCV 4.10 crashes on damaged JPEG 2000, which no lab has.
        raise BadImage(f"{name}: not a complete picture of a known format; save it as JPEG or PNG")
    if data.startswith(JPEG_START):
        _check_jpeg(data, name)
    elif not _is_plain_png(data):
        _check_frames_and_alpha(data, name)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(data, flags, name)
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        raise BadImage(f"{name}: holds {image.dtype} values; save it as an 8-bit picture")
    cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    # Not by OpenCV's own turning: 4.10 overlooks EXIF behind XMP, and all EXIF of WebP.
    return turn(image, jpeg.orientation(data)) if exif == "apply" else image


def decode_reduced(data, factor, name="picture"):
    """Decode a canonical JPEG to RGB at 1, 1/2, 1/4 or 1/8 of its size, as fast as can be.

    data: what `canonical_jpeg` made; factor: 1, 2, 4 or 8. EXIF is not looked at; there is none.
    Returns (ceil(H / factor), ceil(W / factor), 3) uint8. A point at x px of the picture, pixel
    centres at integers, lies at (x + 0.5) / factor - 0.5. Raises BadImage for a truncated picture.
    """
    # OpenCV 4 fills a truncated JPEG with stale memory and calls it good.
    if not data.endswith(JPEG_END):
        raise BadImage(f"{name}: truncated or damaged JPEG; pack it again from its source")
    image = _decode(data, FACTORS[factor] | cv2.IMREAD_IGNORE_ORIENTATION, name)
    # In place, before the warp: within 2 % of turning the crop instead (640x480 ... 1920x1080).
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def format_of(data):
    """Tell the format of a picture by its first bytes, one of FORMATS, else 'other'."""
    known = (name for at, start, name in FORMATS if data[at : at + len(start)] == start)
    return next(known, "other")


def mode(data, name="picture"):
    """Tell what a picture that decodes holds: 'rgb', 'grey', 'palette', 'rgba' or '16 bit'.

    'rgba' is any picture with an alpha channel. Raises BadImage where OpenCV cannot read it.
    """
    if data.startswith(JPEG_START):
        return "grey" if _check_jpeg(data, name) == 1 else "rgb"
    if data.startswith(PNG_START) and len(data) > 25:
        by_colour_type = {0: "grey", 2: "rgb", 3: "palette", 4: "rgba", 6: "rgba"}
        return "16 bit" if data[24] == 16 else by_colour_type.get(data[25], "rgb")
    if format_of(data) == "gif":
        return "palette"
    image = _decode(data, cv2.IMREAD_UNCHANGED, name)
    if image.dtype == np.uint16:
        return "16 bit"
    return {1: "grey", 4: "rgba"}.get(1 if image.ndim == 2 else image.shape[2], "rgb")


def canonical_jpeg(data, turned, name="picture"):
    """Turn the bytes of a picture into a JPEG without metadata that every decoder reads.

    data: as for `decode_rgb`; turned: the EXIF orientation to bake into the pixels, 1 for none
    (whatever the file says). Returns (bytes, 'stripped') for an 8-bit grey or three-channel JPEG
    that needs no turn, its coded pixels untouched; (bytes, 'encoded') by `encode_jpeg` otherwise.
    Raises BadImage as `decode_rgb` and `encode_jpeg`; pixels that are only stripped are not
    decoded, so look at them first (`scan`).
    """
    if turned == 1 and data.startswith(JPEG_START):
        stripped = _strip(data)
        if stripped is not None:
            return stripped, "stripped"
    return encode_jpeg(turn(decode_rgb(data, "ignore", name), turned), name), "encoded"


def encode_jpeg(image_hwc, name="picture", quality=95):
    """Encode (H, W, 3) uint8 RGB as JPEG, colour at full resolution, no metadata.

    quality: of JPEG, 1 ... 100. Raises BadImage for sides beyond 65,500 px.
    """
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    try:
        done, encoded = cv2.imencode(".jpg", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR), parameters)
    except cv2.error:
        done = False
    if not done:
        height, width = image_hwc.shape[:2]
        raise BadImage(f"{name}: {width} x {height} px cannot be written as JPEG; make it smaller")
    return encoded.tobytes()


def turn(image_hwc, orientation):
    """Turn a stored picture upright by its EXIF orientation 1 ... 8.

    image_hwc: (H, W, ...); returns (H, W, ...) for 1 ... 4 and (W, H, ...) for 5 ... 8, contiguous.
    Raises ValueError for another orientation. Source: EXIF 2.32, 4.6.5.
    """
    flip_x, flip_y, swap = _turning(orientation)
    image = image_hwc[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(image.swapaxes(0, 1) if swap else image)


def turn_points(points, orientation, stored_wh):
    """Move points of a stored picture to where `turn` brings them.

    points: (..., 2) stored px, pixel centres at integers; stored_wh: width and height as stored.
    Returns (..., 2) float64 upright px. Raises ValueError for an orientation outside 1 ... 8.
    """
    flip_x, flip_y, swap = _turning(orientation)
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    x = stored_wh[0] - 1 - x if flip_x else x
    y = stored_wh[1] - 1 - y if flip_y else y
    return np.stack([y, x] if swap else [x, y], -1)


def turn_size(stored_wh, orientation):
    """Return width and height of a picture of a stored size after `turn`."""
    swap = _turning(orientation)[2]
    return (stored_wh[1], stored_wh[0]) if swap else (stored_wh[0], stored_wh[1])


def thumbnail(image_hwc, size_wh):
    """Shrink a picture to a small grey one, averaging over areas; uint8 RGB to (h, w) uint8."""
    grey = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, size_wh, interpolation=cv2.INTER_AREA)


def warp_affine(image_hwc, matrix_23, size_wh, out=None):
    """Warp a picture by an affine matrix, bilinear, zero outside.

    image_hwc: uint8; matrix_23: picture px -> output px (`geometry.affine.udp_matrix`); size_wh: of
    the output; out: contiguous memory (h, w, C) for the result, such as its place in a batch.
    Returns (h, w, C) uint8. OpenCV 4 snaps coordinates to 1/32 px, so versions differ by up to 6
    grey levels (notes sapiens A4). Raises ValueError for another dtype or rank, a matrix that is
    not finite, or `out` of another shape.
    """
    matrix = np.asarray(matrix_23, np.float64)
    if image_hwc.dtype != np.uint8 or image_hwc.ndim != 3:
        raise ValueError(f"want a uint8 (H, W, C) picture, not {image_hwc.dtype} {image_hwc.shape}")
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
        raise ValueError("want a finite (2, 3) matrix; is the box without extent?")
    size = (int(size_wh[0]), int(size_wh[1]))
    warped = cv2.warpAffine(
        image_hwc, matrix, size, out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    if out is not None and not np.shares_memory(warped, out):
        raise ValueError(f"out must be contiguous uint8 {(size[1], size[0], image_hwc.shape[2])}")
    return warped.reshape(size[1], size[0], image_hwc.shape[2])


def warp_nearest(map_hwc, matrix_23, size_wh, outside):
    """Warp a map (H, W, ...) uint8 or fp32 by taking the nearest px, `outside` beyond its border.

    matrix_23, size_wh: as for `warp_affine`. Returns (h, w, ...) of the same dtype.
    """
    return cv2.warpAffine(
        map_hwc, np.asarray(matrix_23, np.float64), size_wh, flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 4,
    )  # fmt: skip


def _decode(data, flags, name):
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise BadImage(f"{name}: not a complete picture that OpenCV can read; copy it again")
    return image


def _turning(orientation):
    """(mirror x, mirror y, then swap axes) that bring a stored picture upright."""
    if orientation not in range(1, 9):
        raise ValueError(f"EXIF orientation must be 1 ... 8, not {orientation!r}")
    return orientation in (2, 3, 7, 8), orientation in (3, 4, 6, 7), orientation >= 5


def _strip(data):
    """Strip a JPEG that is common and sound; None for any other."""
    try:
        frame = jpeg.frame(data)
        common = frame.marker in COMMON_FRAMES and frame.bits == 8 and frame.channels in (1, 3)
        return jpeg.strip(data) if common and min(frame.size_wh) > 0 else None
    except ValueError:
        return None


def _check_jpeg(data, name):
    """Walk from segment to segment up to the end; return the number of channels."""
    # OpenCV 4 fills a truncated JPEG with stale memory and calls it good.
    try:
        channels = jpeg.frame(data).channels
    except ValueError:
        reason = "truncated or damaged JPEG; copy it again from its source"
        raise BadImage(f"{name}: {reason}") from None
    if channels == 4:
        raise UndefinedColours(f"{name}: CMYK JPEG; convert it to RGB first")
    return channels


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
        raise SeveralFrames(f"{name}: holds several frames; save the one you mean as JPEG or PNG")
    if image.ndim == 3 and image.shape[2] == 4 and np.issubdtype(image.dtype, np.integer):
        if image[..., 3].min() < np.iinfo(image.dtype).max:
            reason = "has transparent pixels (or is CMYK); flatten it to RGB first"
            raise UndefinedColours(f"{name}: {reason}")
