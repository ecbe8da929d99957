"""Decoding against pixels that are known, refusals in one line, warps against the reference."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax.data import images
from nkjax.geometry import affine

DATA = Path(__file__).parents[1] / "data"
GOLDEN = np.load(DATA / "codec" / "udp_codec.npz")
OPENCV_5 = int(cv2.__version__.split(".")[0]) >= 5

# A picture whose corners tell every rotation and mirroring, and red from blue.
UPRIGHT = np.zeros((48, 64, 3), np.uint8)
UPRIGHT[:24, :32], UPRIGHT[:24, 32:], UPRIGHT[24:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def encode(suffix, image, *parameters):
    return cv2.imencode(suffix, image[..., ::-1] if image.ndim == 3 else image, *parameters)[1]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def exif(orientation, order=">"):
    mark = b"MM" if order == ">" else b"II"
    entry = struct.pack(order + "HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "HI", 42, 8) + entry + bytes(4)


def with_exif(data, tiff):
    if data.startswith(b"\x89PNG"):
        return data[:33] + chunk(b"eXIf", tiff) + data[33:]
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


# What a camera stores for each orientation, so that applying it gives UPRIGHT (EXIF 2.32, 4.6.5).
STORED = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.transpose(1, 0, 2),
    6: UPRIGHT.transpose(1, 0, 2)[::-1],
    7: UPRIGHT.transpose(1, 0, 2)[::-1, ::-1],
    8: UPRIGHT.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".webp", ".jpg"])
def test_pixels_come_back_as_rgb(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    parameters = [[cv2.IMWRITE_WEBP_QUALITY, 101]] if suffix == ".webp" else []
    path.write_bytes(encode(suffix, UPRIGHT, *parameters))
    before = path.read_bytes()
    image = images.read_rgb(path)
    assert image.dtype == np.uint8 and image.flags["C_CONTIGUOUS"]
    off_edges = np.abs(np.int32(image) - UPRIGHT)[4:20, 4:28]
    assert image.shape == UPRIGHT.shape and off_edges.max() <= (6 if suffix == ".jpg" else 0)
    np.testing.assert_array_equal(images.read_rgb(str(path)), image)
    assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied_or_ignored(suffix, order, orientation):
    stored = STORED[orientation]
    data = with_exif(encode(suffix, stored).tobytes(), exif(orientation, order))
    for mode, want in (("apply", UPRIGHT), ("ignore", stored)):
        got = images.decode_rgb(data, mode)
        assert got.shape == want.shape
        assert np.abs(np.int32(got) - want).mean() < 3
    np.testing.assert_array_equal(images.decode_rgb(data), images.decode_rgb(data, "apply"))


def test_exif_must_be_apply_or_ignore():
    with pytest.raises(ValueError, match="'apply' or 'ignore', not 'auto'"):
        images.decode_rgb(encode(".png", UPRIGHT).tobytes(), exif="auto")


def test_grey_palette_and_deep_pictures():
    grey = UPRIGHT[..., 0]
    got = images.decode_rgb(encode(".png", grey).tobytes())
    np.testing.assert_array_equal(got, np.repeat(grey[..., None], 3, -1))
    deep = np.arange(48 * 64 * 3, dtype=np.uint16).reshape(48, 64, 3) * 7
    for suffix in (".png", ".tiff"):
        got = images.decode_rgb(encode(suffix, deep).tobytes())
        np.testing.assert_array_equal(got, np.round(deep / 257))
    palette = chunk(b"PLTE", bytes([1, 2, 3, 250, 130, 10]))
    rows = zlib.compress(b"\0\x40\0\x80")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 1, 3, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    got = images.decode_rgb(data)
    np.testing.assert_array_equal(got, [[[1, 2, 3], [250, 130, 10]], [[250, 130, 10], [1, 2, 3]]])


def test_only_an_alpha_channel_without_effect_is_dropped():
    alpha = np.full((48, 64), 255, np.uint8)
    data = cv2.imencode(".png", np.dstack([UPRIGHT[..., ::-1], alpha]))[1].tobytes()
    np.testing.assert_array_equal(images.decode_rgb(data), UPRIGHT)
    alpha[5, 5] = 254
    data = cv2.imencode(".png", np.dstack([UPRIGHT[..., ::-1], alpha]))[1].tobytes()
    with pytest.raises(images.BadImage, match="a.png: has transparent pixels"):
        images.decode_rgb(data, name="a.png")


def bad_files():
    """(name, bytes, part of the message); noise, so that a cut falls inside the pixels."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    jpeg, png = encode(".jpg", noise).tobytes(), encode(".png", noise).tobytes()
    thumbnail = encode(".jpg", noise[:40, :40]).tobytes()
    with_thumbnail = with_exif(jpeg, exif(1) + thumbnail)
    progressive = encode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]).tobytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(99)))
    frames = chunk(b"acTL", struct.pack(">II", 2, 0))
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    cut = {"jpg": jpeg, "thumb.jpg": with_thumbnail, "prog.jpg": progressive, "png": png}
    cut |= {suffix: encode(f".{suffix}", noise).tobytes() for suffix in ("bmp", "webp", "tiff")}
    yield "empty.jpg", b"", "not a complete picture of a known format"
    yield "page.jpg", b"<html>404</html>", "of a known format"
    yield "a.jp2", encode(".jp2", noise).tobytes(), "of a known format; save it as JPEG"
    yield "start.jpg", b"\xff\xd8\xff", "truncated or damaged JPEG"
    yield "bomb.png", bomb + chunk(b"IEND", b""), "not a complete picture"
    yield "flipped.png", bytes(flipped), "not a complete picture"
    yield "frames.png", png[:33] + frames + png[33:], "holds several frames"
    yield "cmyk.jpg", (DATA / "images" / "cmyk.jpg").read_bytes(), "CMYK JPEG"
    yield "float.tiff", encode(".tiff", np.float32(noise)).tobytes(), "float32 values"
    for name, data in cut.items():
        reason = "truncated or damaged JPEG" if name.endswith("jpg") else "not a complete picture"
        for share in (0.1, 0.5, 0.98):
            yield f"cut_{share}.{name}", data[: int(len(data) * share)], reason
    yield "no_end.jpg", jpeg[:-2], "truncated or damaged JPEG"
    # OpenCV only prints a warning, and hands out a picture half grey.
    hit = jpeg[:2000] + b"\xff\x37" + jpeg[2002:]
    yield "hit.jpg", hit, "truncated or damaged JPEG"


BAD_FILES = list(bad_files())


@pytest.mark.parametrize("name, data, reason", BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_a_bad_file_is_refused_in_one_line(tmp_path, name, data, reason):
    path = tmp_path / name
    path.write_bytes(data)
    # A whole picture first: an OpenCV 4 decoder leaves it in memory, where a cut one picks it up.
    whole = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    images.decode_rgb(encode(".jpg", whole).tobytes())
    with pytest.raises(images.BadImage, match=reason) as caught:
        images.read_rgb(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path):
    for path in (tmp_path / "no.jpg", tmp_path):
        with pytest.raises(images.BadImage, match="cannot be opened") as caught:
            images.read_rgb(path)
        assert str(caught.value).startswith(f"{path}: ")


def test_bytes_after_the_end_are_no_harm():
    data = encode(".jpg", UPRIGHT).tobytes()
    want = images.decode_rgb(data)
    np.testing.assert_array_equal(images.decode_rgb(data + b"motion photo" * 9), want)


def golden_crop(turn):
    size = tuple(int(v) for v in GOLDEN["warp/out_size_wh"])
    center, scale = affine.box_to_center_scale(GOLDEN["warp/bbox_xyxy"], size[0] / size[1])
    return affine.udp_matrix(center, scale, turn, size), size


@pytest.mark.parametrize("name", ["warp_norot", "warp_rot"])
def test_warp_golden(name):
    matrix, size = golden_crop(GOLDEN["warp/rot_deg"] if name == "warp_rot" else 0.0)
    got = images.warp_affine(GOLDEN["warp/image_bgr_u8"], matrix, size)
    difference = np.abs(np.int32(got) - GOLDEN[f"{name}/warped_bgr_u8"])
    assert got.dtype == np.uint8
    assert difference.max() <= 6 and difference.mean() <= 0.5


def test_warp_against_exact_bilinear():
    matrix, (width, height) = golden_crop(-27.5)
    image = GOLDEN["warp/image_bgr_u8"]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2)
    points = affine.transform_points(affine.invert(matrix), grid)
    rows = np.maximum(0, 1 - np.abs(np.arange(image.shape[0]) - points[:, 1:]))
    columns = np.maximum(0, 1 - np.abs(np.arange(image.shape[1]) - points[:, :1]))
    exact = np.einsum("nh,nw,hwc->nc", rows, columns, np.float64(image), optimize=True)
    got = images.warp_affine(image, matrix, (width, height)).reshape(-1, 3)
    # OpenCV 5 rounds to the nearest grey level; OpenCV 4 also snaps coordinates to 1/32 px.
    assert np.abs(got - exact).max() <= (0.51 if OPENCV_5 else 6)


def test_warp_keeps_the_channel_axis_and_does_not_depend_on_threads():
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 1), dtype=np.uint8)
    matrix = affine.udp_matrix((200.0, 150.0), (300.0, 400.0), 20.0, (384, 512))
    assert cv2.getNumThreads() == 1
    alone = images.warp_affine(image, matrix, (384, 512))
    cv2.setNumThreads(2)
    try:
        np.testing.assert_array_equal(images.warp_affine(image, matrix, (384, 512)), alone)
    finally:
        cv2.setNumThreads(0)
    assert alone.shape == (512, 384, 1)


def test_warp_refuses_what_opencv_would_misread():
    matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    with pytest.raises(ValueError, match="uint8"):
        images.warp_affine(np.float32(UPRIGHT), matrix, (8, 8))
    with pytest.raises(ValueError, match="uint8"):
        images.warp_affine(UPRIGHT[..., 0], matrix, (8, 8))
    with pytest.raises(ValueError, match="finite"):
        images.warp_affine(UPRIGHT, matrix * np.nan, (8, 8))


def smooth(size_wh, seed=0):
    """A picture without sharp edges, so that JPEG keeps it to a few levels."""
    small = np.random.default_rng(seed).integers(0, 255, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, size_wh, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("orientation", STORED)
def test_turn_and_its_points(orientation):
    stored = STORED[orientation]
    np.testing.assert_array_equal(images.turn(stored, orientation), UPRIGHT)
    assert images.turn(stored, orientation).flags["C_CONTIGUOUS"]
    stored_wh = (stored.shape[1], stored.shape[0])
    assert images.turn_size(stored_wh, orientation) == (64, 48)
    # A dot at every corner and one inside goes where the pixel goes.
    points = np.array([[0, 0], [stored_wh[0] - 1, 0], [0, stored_wh[1] - 1], [7, 11]])
    for (x, y), (u, v) in zip(
        points, images.turn_points(points, orientation, stored_wh), strict=True
    ):
        dotted = np.zeros(stored.shape, np.uint8)
        dotted[y, x] = 255
        assert np.argwhere(images.turn(dotted, orientation)[..., 0]).tolist() == [[v, u]]
    half = images.turn_points(np.array([[[0.25, 0.5]]]), orientation, stored_wh)
    assert half.shape == (1, 1, 2) and half.dtype == np.float64


def test_turn_by_hand():
    # Stored 3 wide, 2 high; 6 turns it clockwise: the left column becomes the top row, from below.
    stored = np.array([[[1], [2], [3]], [[4], [5], [6]]], np.uint8)
    assert images.turn(stored, 6)[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]
    assert images.turn_points([0.0, 1.0], 6, (3, 2)).tolist() == [0, 0]
    assert images.turn_points([2.0, 0.5], 8, (3, 2)).tolist() == [0.5, 0]
    for orientation in (0, 9, None):
        with pytest.raises(ValueError, match="1 ... 8"):
            images.turn(stored, orientation)


@pytest.mark.parametrize("channels", ["colour", "grey"])
@pytest.mark.parametrize("flags", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]])
def test_a_jpeg_without_a_turn_is_only_stripped(channels, flags):
    image = smooth((101, 75)) if channels == "colour" else smooth((101, 75))[..., 0]
    plain = encode(".jpg", image, flags).tobytes()
    data = with_exif(plain, exif(6) + b"GPS")
    stripped, how = images.canonical_jpeg(data, 1, "a.jpg")
    assert (stripped, how) == (plain, "stripped")
    again, how = images.canonical_jpeg(data, 6, "a.jpg")
    want = images.decode_rgb(data, "apply")
    assert how == "encoded" and b"Exif" not in again and b"GPS" not in again
    got = images.decode_rgb(again)
    assert got.shape == want.shape == (101, 75, 3)
    assert np.abs(np.int32(got) - want).max() <= 6
    assert images.canonical_jpeg(data, 6, "b.jpg")[0] == again


def test_whatever_is_no_common_jpeg_is_encoded():
    image = smooth((101, 75))
    jpeg = encode(".jpg", image).tobytes()
    wide = encode(".png", image.astype(np.uint16) * 257).tobytes()
    arithmetic = jpeg.replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert images._strip(arithmetic) is None and images._strip(jpeg[:-2]) is None
    sources = {"png": encode(".png", image).tobytes(), "16 bit": wide}
    sources["bmp"] = encode(".bmp", image).tobytes()
    for name, data in sources.items():
        got, how = images.canonical_jpeg(data, 1, name)
        assert how == "encoded", name
        assert np.abs(np.int32(images.decode_rgb(got)) - image).max() <= 10, name
        # Colour at full resolution: three components of sampling 1 x 1 each.
        frame = got.index(b"\xff\xc0")
        assert [got[frame + 11 + 3 * i] for i in range(3)] == [0x11] * 3
    with pytest.raises(images.UndefinedColours, match="c.jpg: CMYK"):
        images.canonical_jpeg((DATA / "images" / "cmyk.jpg").read_bytes(), 1, "c.jpg")
    with pytest.raises(images.BadImage, match="a.png: 65501 x 1 px cannot be written as JPEG"):
        images.encode_jpeg(np.zeros((1, 65501, 3), np.uint8), "a.png")


@pytest.mark.parametrize("size_wh", [(640, 480), (641, 479), (643, 485)])
@pytest.mark.parametrize("factor", images.FACTORS)
def test_a_reduced_picture_is_where_its_docstring_says(size_wh, factor):
    x, y = np.meshgrid(*map(np.arange, size_wh))
    slopes = np.stack([x / 4, y / 3, 200 - x / 8 - y / 8], -1)
    data = encode(".jpg", np.uint8(np.round(slopes + 20)), [cv2.IMWRITE_JPEG_QUALITY, 98]).tobytes()
    got = images.decode_reduced(data, factor)
    assert got.shape == (-(-size_wh[1] // factor), -(-size_wh[0] // factor), 3)
    assert got.flags["C_CONTIGUOUS"] and got.dtype == np.uint8
    u, v = np.meshgrid(np.arange(got.shape[1]), np.arange(got.shape[0]))
    x, y = ((w + 0.5) * factor - 0.5 for w in (u, v))
    want = np.stack([x / 4, y / 3, 200 - x / 8 - y / 8], -1) + 20
    # The slopes tell 0.1 px: away from the edges, where JPEG repeats the last row and column.
    error = (got - want)[4:-4, 4:-4]
    assert np.abs(error.mean((0, 1))).max() < 0.1 * factor / 4 + 0.03
    assert np.abs(error).max() < 4


def test_a_reduced_picture_is_not_turned_and_a_cut_one_refused():
    data = with_exif(encode(".jpg", STORED[6]).tobytes(), exif(6))
    np.testing.assert_array_equal(images.decode_reduced(data, 1), images.decode_rgb(data, "ignore"))
    assert images.decode_reduced(data, 4).shape == (16, 12, 3)
    for cut in (data[:-1], data[: len(data) // 2], b""):
        with pytest.raises(images.BadImage, match="row 7: truncated or damaged JPEG"):
            images.decode_reduced(cut, 2, "row 7")
    for junk in (b"\xff\xd9", b"junk\xff\xd9"):
        with pytest.raises(images.BadImage, match="row 7: not a complete picture"):
            images.decode_reduced(junk, 2, "row 7")


def test_mode_of_a_picture():
    image = smooth((64, 48))
    rgba = np.dstack([image, np.full((48, 64), 255, np.uint8)])
    wide = image.astype(np.uint16) * 257
    modes = {
        "rgb": [encode(s, image).tobytes() for s in (".jpg", ".png", ".bmp", ".webp", ".tiff")],
        "grey": [encode(s, image[..., 0]).tobytes() for s in (".jpg", ".png", ".tiff")],
        "rgba": [cv2.imencode(s, rgba)[1].tobytes() for s in (".png", ".tiff")],
        "16 bit": [encode(s, w).tobytes() for s in (".png", ".tiff") for w in (wide, wide[..., 0])],
    }
    for mode, sources in modes.items():
        assert [images.mode(data) for data in sources] == [mode] * len(sources)


def test_a_thumbnail_averages_areas():
    image = np.zeros((80, 90, 3), np.uint8)
    image[:10, :10], image[10:20, 80:] = (255, 255, 255), (0, 255, 0)
    image[70, 40:90:10] = 200  # 1 px of 100
    want = np.zeros((8, 9))
    want[0, 0], want[1, 8] = 255, 150  # 0.587 of green (BT.601)
    want[7, 4:] = 2
    np.testing.assert_array_equal(images.thumbnail(image, (9, 8)), want)


def test_warp_into_given_memory():
    matrix = np.array([[1.0, 0, 3], [0, 1, 2]])
    batch = np.ones((2, 30, 40, 3), np.uint8)
    got = images.warp_affine(UPRIGHT, matrix, (40, 30), batch[1])
    assert np.shares_memory(got, batch) and (batch[0] == 1).all()
    np.testing.assert_array_equal(batch[1], images.warp_affine(UPRIGHT, matrix, (40, 30)))
    with pytest.raises(ValueError, match="out must be contiguous"):
        images.warp_affine(UPRIGHT, matrix, (40, 30), np.ones((30, 41, 3), np.uint8))
