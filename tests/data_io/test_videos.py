"""Frames of small videos written here: order, times, rotation, and files that are none."""

import os
import struct

import cv2
import numpy as np
import pytest

from nkjax.data import videos

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


def write_video(path, frames, rate=12.5):
    """Write (H, W, 3) uint8 RGB frames with the codec of the ending."""
    height, width = frames[0].shape[:2]
    codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
    writer = cv2.VideoWriter(str(path), codec, rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def rotated(path, degrees):
    """Write the rotation into the track header of an MP4 (ISO 14496-12, 8.3.2), clockwise."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    a, b, c, d = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    one = 1 << 16
    matrix = (a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def counting(count, size_wh=(64, 48)):
    """Frames that are red in the upper left quarter and get brighter in the lower right one."""
    frames = np.zeros((count, size_wh[1], size_wh[0], 3), np.uint8)
    frames[:, : size_wh[1] // 2, : size_wh[0] // 2] = (250, 0, 0)
    for i in range(count):
        frames[i, size_wh[1] // 2 :, size_wh[0] // 2 :] = 20 + 30 * i
    return frames


@pytest.mark.parametrize("suffix", CODECS)
def test_every_frame_in_order_with_its_time(tmp_path, suffix):
    path = write_video(tmp_path / f"a{suffix}", counting(7))
    before = path.read_bytes()
    found = list(videos.frames(path))
    assert [index for index, _, _ in found] == list(range(7))
    np.testing.assert_allclose([t for _, t, _ in found], np.arange(7) / 12.5, atol=1e-6)
    for i, (_, _, rgb) in enumerate(found):
        assert rgb.shape == (48, 64, 3) and rgb.dtype == np.uint8 and rgb.flags["C_CONTIGUOUS"]
        assert abs(float(rgb[40, 48].mean()) - (20 + 30 * i)) < 12
        assert rgb[8, 8, 0] > 200 and rgb[8, 8, 2] < 60
    assert not np.shares_memory(found[0][2], found[1][2])
    assert videos.rotation(path) == 0 and videos.expected_frames(path) == 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("degrees, red", [(90, (8, -8)), (180, (-8, -8)), (270, (-8, 8))])
def test_a_rotation_flag_is_applied(tmp_path, degrees, red):
    path = rotated(write_video(tmp_path / "a.mp4", counting(2)), degrees)
    assert videos.rotation(path) == degrees
    _, _, rgb = next(iter(videos.frames(path)))
    assert rgb.shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    places = [(y, x) for y in (8, -8) for x in (8, -8) if rgb[y, x, 0] > 200 > rgb[y, x, 1] + 100]
    assert places == [red]


def test_a_video_that_breaks_off_has_fewer_frames_than_its_header_says(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
    data = write_video(tmp_path / "a.avi", noise).read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    found = list(videos.frames(tmp_path / "cut.avi"))
    assert 5 < len(found) < 20 and videos.expected_frames(tmp_path / "cut.avi") == 30


def bad_files(folder):
    whole = write_video(folder / "whole.mp4", counting(3)).read_bytes()
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nwhole.mp4\n#EXT-X-ENDLIST\n"
    contents = {
        "empty.mp4": (b"", "no video that we know"),
        "junk.mp4": (b"junk" * 200, "no video that we know"),
        "list.mp4": (playlist, "no video that we know"),
        "concat.avi": (b"ffconcat version 1.0\nfile whole.mp4\n", "no video that we know"),
        "cut.mp4": (whole[:600], "not a whole video"),
        "head.avi": (b"RIFF\0\0\0\0AVI LIST", "not a whole video"),
        "junk.mkv": (b"\x1aE\xdf\xa3" + b"junk" * 200, "not a whole video"),
    }
    for name, (data, reason) in contents.items():
        (folder / name).write_bytes(data)
        yield folder / name, reason
    yield folder / "no.mp4", "cannot be opened"
    yield folder, "cannot be opened"
    os.mkfifo(folder / "pipe.mp4")
    yield folder / "pipe.mp4", "cannot be opened"
    yield "a\0b.mp4", "cannot be opened"


def test_what_is_no_video_is_refused_in_one_line(tmp_path, capfd):
    for path, reason in bad_files(tmp_path):
        for use in (lambda p: list(videos.frames(p)), videos.rotation, videos.expected_frames):
            with pytest.raises(videos.BadVideo, match=reason) as caught:
                use(path)
            assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_odd_names_are_files_and_nothing_else(tmp_path, monkeypatch):
    data = write_video(tmp_path / "a.mp4", counting(2)).read_bytes()
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "http:a.mp4", "%02d.mp4", "é ß.MP4", "-i.mp4"):
        (tmp_path / name).write_bytes(data)
        assert len(list(videos.frames(name))) == 2
