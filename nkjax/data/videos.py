"""Decode videos frame by frame, upright, RGB."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv")

# OpenCV and FFmpeg would print between our lines; what is wrong stands in BadVideo.
(cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2).setLogLevel(0)  # silent
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


class BadVideo(ValueError):
    """A video that cannot be used; the message is one line with file, reason and remedy."""


def frames(path) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield (index, time in s, picture) for every frame that decodes, in order.

    index: 0, 1, ...; time: as the file says, from its start, else index / frame rate; picture:
    (H, W, 3) uint8 RGB, turned upright by the file's rotation flag, its own memory. A video that
    breaks off just ends; compare with `expected_frames`. Raises BadVideo where no frame decodes.
    """
    capture = _open(path)
    try:
        rate = capture.get(cv2.CAP_PROP_FPS)
        rate = rate if np.isfinite(rate) and rate > 0 else 25.0
        index, time_s = 0, -1.0
        while True:
            try:
                there, bgr = capture.read()
            except cv2.error:
                there = False
            if not there:
                break
            said = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # Files without time stamps say 0, or nothing sensible, at every frame.
            time_s = said if np.isfinite(said) and said > time_s else index / rate
            yield index, time_s, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        capture.release()
    if index == 0:
        raise BadVideo(f"{path}: no frame of it decodes; copy it again from its source")


def rotation(path) -> int:
    """Return the clockwise turn in degrees that the file asks for: 0, 90, 180 or 270."""
    return int(_look_up(path, cv2.CAP_PROP_ORIENTATION_META)) % 360


def expected_frames(path) -> int:
    """Return how many frames the header promises, 0 where it does not say; often an estimate."""
    count = _look_up(path, cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if 0 < count < 1e9 else 0


def _look_up(path, what) -> float:
    capture = _open(path)
    try:
        value = capture.get(what)
        return value if np.isfinite(value) else 0.0
    finally:
        capture.release()


def _open(path):
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe would wait for ever
            raise ValueError("no regular file")
        with open(path, "rb") as file:
            start = file.read(400)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadVideo(f"{path}: cannot be opened ({reason}); check the path") from None
    if not _is_container(start):
        raise BadVideo(f"{path}: no video that we know; save it as MP4")
    # By its absolute path: FFmpeg takes 'a:b.mp4' for a protocol.
    capture = cv2.VideoCapture(str(Path(path).absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise BadVideo(f"{path}: not a whole video; copy it again from its source")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _is_container(start: bytes) -> bool:
    """Tell a video from a play list, through which FFmpeg would open other files and addresses."""
    return (
        start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
        or (start[:4] == b"RIFF" and start[8:12] == b"AVI ")
        or start.startswith((b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"0&\xb2u"))
        or (start[:1] == b"G" and start[188:189] == b"G")
        or (start[4:5] == b"G" and start[196:197] == b"G")
    )
