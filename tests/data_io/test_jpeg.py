"""Metadata of JPEG files: read as OpenCV reads it, removed without touching a pixel."""

import struct

import cv2
import numpy as np
import pytest

from nkjax.data import jpeg
from tests.data_io.test_images import STORED, chunk, encode, exif, with_exif

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (75, 101, 3), dtype=np.uint8)
GPS = b"GPS 47.3769 N 8.5417 E"
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restart": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "progressive restart": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 3],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "4:4:4": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "grey": None,
}


def segment(marker, body):
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def plain(kind):
    image = NOISE if KINDS[kind] is not None else NOISE[..., 0]
    return encode(".jpg", image, KINDS[kind] or []).tobytes()


def loaded(kind):
    """A JPEG with everything that phones and cameras add; OpenCV's own begins with JFIF."""
    data = plain(kind)
    assert data[2:4] == b"\xff\xe0" and data[6:11] == b"JFIF\0"
    after_jfif = 4 + int.from_bytes(data[4:6], "big")
    thumbnail = encode(".jpg", NOISE[:40, :40]).tobytes()
    extra = [
        segment(0xE1, b"Exif\0\0" + exif(6) + thumbnail + GPS),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x>" + GPS + b"</x>"),
        segment(0xE0, b"JFXX\0\x10" + thumbnail),
        segment(0xE2, b"ICC_PROFILE\0\x01\x01" + GPS),
        segment(0xE2, b"MPF\0" + GPS),
        segment(0xED, b"Photoshop 3.0\0" + GPS),
        b"\xff\xff\xff" + segment(0xEE, b"Adobe\0\x64\0\0\0\0\x01" + GPS),
        segment(0xEE, b"Ducky" + GPS),
        segment(0xFE, b"comment " + GPS),
    ]
    if kind == "grey":  # Adobe's colour transform means nothing for it
        extra.pop(6)
    trailing = thumbnail + b"\0\0ftypmp42" + GPS
    return data[:after_jfif] + b"".join(extra) + data[after_jfif:] + trailing


def markers(data):
    return [marker for marker, _, _ in jpeg._segments(data)]


def pixels(data):
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


@pytest.mark.parametrize("kind", KINDS)
def test_strip_leaves_only_what_pixels_need(kind):
    data = loaded(kind)
    assert data.count(GPS) >= 7 and jpeg.orientation(data) == 6
    stripped = jpeg.strip(data)
    assert GPS not in stripped and b"Exif" not in stripped and b"JFXX" not in stripped
    assert not {0xE1, 0xE2, 0xED, 0xFE}.intersection(markers(stripped))
    assert markers(stripped).count(0xE0) == 1 and markers(stripped).count(0xEE) <= 1
    assert stripped.startswith(b"\xff\xd8") and stripped.endswith(b"\xff\xd9")
    assert jpeg.orientation(stripped) == 1 and jpeg.strip(stripped) == stripped
    np.testing.assert_array_equal(pixels(stripped), pixels(data))
    # From the first table on, byte for byte what the encoder wrote.
    rest = plain(kind)[20:]
    assert stripped.endswith(rest) and len(rest) > 0.9 * len(plain(kind))


def test_strip_keeps_the_colour_transform_but_no_thumbnail_of_jfif():
    data = plain("baseline")
    as_rgb = data[:2] + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + data[20:]
    np.testing.assert_array_equal(pixels(jpeg.strip(as_rgb)), pixels(as_rgb))
    assert np.abs(np.int32(pixels(as_rgb)) - pixels(data)).mean() > 20
    jfif = segment(0xE0, data[6:18] + b"\x02\x01" + b"secret")
    stripped = jpeg.strip(data[:2] + jfif + data[20:])
    assert b"secret" not in stripped and stripped == data


def test_strip_refuses_what_it_does_not_understand():
    data = plain("progressive restart")
    assert jpeg.strip(data) == data
    for cut in [*range(0, 30), *range(30, len(data), 97), len(data) - 1]:
        with pytest.raises(ValueError, match="JPEG") as caught:
            jpeg.strip(data[:cut])
        assert "\n" not in str(caught.value)
    bad = {
        "between segments": data[:20] + b"\0\0" + data[20:],
        "unknown marker": data[:20] + segment(0xF7, b"x") + data[20:],
        "reserved marker": data[:20] + segment(0x40, b"x") + data[20:],
        "length below 2": data[:20] + b"\xff\xe5\0\1" + data[20:],
        "no pixels": b"\xff\xd8\xff\xd9",
        "png": encode(".png", NOISE).tobytes(),
    }
    for name, content in bad.items():
        with pytest.raises(ValueError, match="JPEG"):
            pytest.fail(f"{name}: {jpeg.strip(content)[:9]}")


def test_a_wild_file_raises_nothing_but_value_errors():
    data = loaded("restart")
    for _ in range(300):
        wild = bytearray(data[: RNG.integers(0, len(data))])
        for place in RNG.integers(0, max(1, min(600, len(wild))), 5 if wild else 0):
            wild[place] = RNG.integers(256)
        assert 1 <= jpeg.orientation(bytes(wild)) <= 8
        for function in (jpeg.strip, jpeg.frame):
            try:
                function(bytes(wild))
            except ValueError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_the_frame_header(kind):
    found = jpeg.frame(loaded(kind))
    assert found.size_wh == jpeg.size_wh(loaded(kind)) == (101, 75) and found.bits == 8
    assert found.marker == (0xC2 if kind.startswith("progressive") else 0xC0)
    assert found.channels == (1 if kind == "grey" else 3)


def turned_by_opencv(data, stored):
    """The orientation that OpenCV applies, told from the pixels; STORED[o] is stored upright."""
    got = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    # Turning what is stored for 6 by o gives UPRIGHT only for o = 6; all eight are different.
    alike = [o for o in STORED if got.shape == turn(stored, o).shape
             and np.abs(np.int32(got) - turn(stored, o)).mean() < 3]  # fmt: skip
    assert len(alike) == 1
    return alike[0]


def turn(stored, orientation):
    """By OpenCV's own words for the eight cases, not by ours."""
    t, f, r = cv2.transpose, cv2.flip, cv2.rotate
    return {
        1: lambda: stored, 2: lambda: f(stored, 1), 3: lambda: r(stored, cv2.ROTATE_180),
        4: lambda: f(stored, 0), 5: lambda: t(stored),
        6: lambda: r(stored, cv2.ROTATE_90_CLOCKWISE),
        7: lambda: r(t(stored), cv2.ROTATE_180),
        8: lambda: r(stored, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }[orientation]()  # fmt: skip


def tag(kind, count, value, order=">", name=0x0112):
    return struct.pack(order + "HHIHH", name, kind, count, value, 0)


def tiff(*tags, order=">", tail=bytes(4)):
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(tags)) + b"".join(tags) + tail


EXIF_BLOCKS = {
    **{f"{o} {order}": (exif(o, order), o) for o in range(1, 9) for order in "<>"},
    "0": (exif(0), 1),
    "9": (exif(9), 1),
    "behind others": (tiff(tag(3, 1, 3, name=0x0103), tag(3, 1, 8)), 8),
    "twice": (tiff(tag(3, 1, 6), tag(3, 1, 3)), 6),
    "no tag": (tiff(tag(3, 1, 6, name=0x0100)), 1),
    "cut tag": (tiff(tag(3, 1, 6))[:-9], 1),
    "no next directory": (tiff(tag(3, 1, 6), tail=b""), 6),
    "far directory": (b"MM" + struct.pack(">HI", 42, 4_000_000_000), 1),
    "no 42": (b"MM\0\x2b" + exif(6)[4:], 1),
    "empty": (b"", 1),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("block", EXIF_BLOCKS)
def test_orientation_is_what_opencv_turns_by(suffix, block):
    content, want = EXIF_BLOCKS[block]
    data = with_exif(encode(suffix, STORED[6]).tobytes(), content)
    assert jpeg.orientation(data) == want == turned_by_opencv(data, STORED[6])


def test_orientation_behind_xmp_and_in_webp_and_nowhere():
    plain_jpeg = encode(".jpg", STORED[6]).tobytes()
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
    first = segment(0xE1, b"Exif\0\0" + exif(6))
    for parts in ([xmp, first], [first, xmp], [first, segment(0xE1, b"Exif\0\0" + exif(3))]):
        data = plain_jpeg[:2] + b"".join(parts) + plain_jpeg[2:]
        assert jpeg.orientation(data) == 6
    assert jpeg.orientation(plain_jpeg) == 1
    assert jpeg.orientation(with_exif(plain_jpeg, b"MI" + exif(6)[2:])) == 1  # neither byte order
    assert jpeg.orientation(b"") == jpeg.orientation(b"\x89PNG\r\n\x1a\n") == 1
    assert jpeg.orientation(encode(".bmp", NOISE).tobytes()) == 1
    png = encode(".png", STORED[6]).tobytes()
    late = png[:-12] + chunk(b"eXIf", exif(6)) + png[-12:]
    assert jpeg.orientation(late) == 6 == turned_by_opencv(late, STORED[6])
    for extra in (b"", b"x"):  # the block before it has an even, then an odd length
        data = webp_with_exif(STORED[6], 6, extra)
        assert jpeg.orientation(data) == 6
    if int(cv2.__version__.split(".")[0]) >= 5:  # 4.10 does not look
        assert turned_by_opencv(webp_with_exif(STORED[6], 6), STORED[6]) == 6


def webp_with_exif(image, orientation, extra=b""):
    """Wrap a lossless WebP into the extended format (RFC 9649, 2.7)."""
    picture = encode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101]).tobytes()[12:]
    height, width = image.shape[:2]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    block = exif(orientation)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + picture
    if extra:
        body += b"abcd" + struct.pack("<I", len(extra)) + extra + bytes(len(extra) % 2)
    body += b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body
