"""Scanning of picture files: codes, EXIF decisions, reuse, and no dependence on threads."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax.data import fingerprints, images
from nkjax.lab import scan
from tests.data_io.test_images import DATA, STORED, chunk, encode, exif, with_exif

NOISE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
JPEG, PNG = encode(".jpg", NOISE).tobytes(), encode(".png", NOISE).tobytes()
TWO = PNG[:33] + chunk(b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])) + PNG[33:]
CLEAR = cv2.imencode(".png", np.dstack([NOISE, NOISE[..., :1]]))[1].tobytes()
WIDE = encode(".png", NOISE.astype(np.uint16) * 257).tobytes()


@pytest.mark.parametrize("data, code, failure, form, mode", [
    (JPEG, "", "", "jpeg", "rgb"),
    (encode(".jpg", NOISE[..., 0]).tobytes(), "", "", "jpeg", "grey"),
    (PNG, "", "", "png", "rgb"),
    (WIDE, "", "", "png", "16 bit"),
    (encode(".webp", NOISE).tobytes(), "", "", "webp", "rgb"),
    (encode(".bmp", NOISE).tobytes(), "", "", "bmp", "rgb"),
    (encode(".tiff", NOISE).tobytes(), "", "", "tiff", "rgb"),
    (JPEG[:-2], "NK101", "truncated or damaged JPEG; copy it again from its source", "jpeg", ""),
    (PNG[:-40], "NK101", "not a complete picture that OpenCV can read", "png", ""),
    (b"", "NK101", "not a complete picture of a known format", "other", ""),
    (b"<html>", "NK101", "not a complete picture of a known format", "other", ""),
    (TWO, "NK102", "holds several frames", "png", ""),
    ((DATA / "images" / "cmyk.jpg").read_bytes(), "NK103", "CMYK JPEG", "jpeg", ""),
    (CLEAR, "NK103", "has transparent pixels", "png", ""),
])  # fmt: skip
def test_a_scan_tells_what_a_file_holds(tmp_path, data, code, failure, form, mode):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    before = path.stat()
    got = scan.scan_file(path)
    assert (got.code, got.format, got.mode) == (code, form, mode)
    assert got.failure.startswith(failure) and bool(got.failure) == bool(failure)
    assert "\n" not in got.failure and str(tmp_path) not in got.failure
    assert (got.bytes, got.mtime_ns) == (len(data), before.st_mtime_ns)
    assert got.sha256 == hashlib.sha256(data).hexdigest() and path.read_bytes() == data
    assert got.stored_wh == ((0, 0) if code else (80, 60))
    assert (got.phash == 0) == bool(code)


def test_a_missing_file_is_a_finding_too(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "no.jpg", tmp_path, Path("a\0b"), tmp_path / "pipe.jpg"):
        got = scan.scan_file(path)
        assert got.code == "NK101" and got.failure.startswith("cannot be opened (")
        assert (got.bytes, got.sha256, got.stored_wh) == (0, "", (0, 0))


def test_the_hash_is_of_the_upright_picture(tmp_path):
    blocks = cv2.resize(NOISE[:8, :9], (90, 80), interpolation=cv2.INTER_NEAREST)
    hashes, turned = set(), set()
    for orientation, stored_by in ((1, lambda p: p), (6, lambda p: p.transpose(1, 0, 2)[::-1])):
        data = with_exif(encode(".png", stored_by(blocks)).tobytes(), exif(orientation))
        (tmp_path / "a.png").write_bytes(data)
        got = scan.scan_file(tmp_path / "a.png")
        assert got.orientation == orientation
        assert got.stored_wh == ((90, 80) if orientation == 1 else (80, 90))
        hashes.add(got.phash)
        turned.add(got.phash_stored)
    assert len(turned) == 2 and hashes < turned
    grey = np.round(NOISE[:8, :9] @ [0.299, 0.587, 0.114]).astype(np.uint8)
    assert hashes == {fingerprints.dhash(grey)}


def some_files(folder):
    paths = {}
    for i in range(7):
        path = folder / f"{i}.jpg"
        data = encode(".jpg", np.roll(NOISE, 7 * i, 1)).tobytes()
        path.write_bytes(data if i % 3 else data[:-2])
        paths[f"key {6 - i}"] = path
    return paths


def test_many_files_in_any_number_of_threads(tmp_path):
    paths, seen = some_files(tmp_path), []

    def progress(iterable, total, what):
        for item in iterable:
            seen.append((total, what))
            yield item

    alone = scan.scan_files(paths)
    assert list(alone) == list(paths)
    assert alone == {key: scan.scan_file(path) for key, path in paths.items()}
    assert scan.scan_files(paths, 3, progress) == alone and seen == [(7, "pictures")] * 7
    assert list(scan.scan_files(paths, 3)) == list(paths)
    assert scan.scan_files({}) == {}


def test_few_pictures_are_under_way_at_once():
    started, done = [], 0
    for done, _ in enumerate(scan.in_threads(started.append, range(100), 2, 8), 1):  # noqa: B007
        assert len(started) <= done + 4 * 2 + 2
    assert done == 100


def test_known_scans_are_reused_while_the_file_is_the_same(tmp_path):
    paths = some_files(tmp_path)
    first = scan.scan_files(paths)
    known = {key: dataclasses.replace(s, failure="reused") for key, s in first.items()}
    assert {s.failure for s in scan.scan_files(paths, known=known).values()} == {"reused"}
    changed, touched = paths["key 0"], paths["key 1"]
    changed.write_bytes(changed.read_bytes() + b"x")
    os.utime(touched, ns=(0, 12345))
    again = scan.scan_files(paths, 2, known=known)
    fresh = {key for key, s in again.items() if s.failure != "reused"}
    assert fresh == {"key 0", "key 1"}
    assert again["key 1"].mtime_ns == 12345
    paths["key 0"].unlink()
    assert scan.scan_files(paths, known=known)["key 0"].failure.startswith("cannot be opened")


def test_scans_survive_as_json_lines_and_damaged_lines_do_not(tmp_path):
    scans = scan.scan_files(some_files(tmp_path)) | {"caf\udce9/ü\n.jpg": scan.scan_file("no")}
    text = scan.to_json(scans)
    assert scan.from_json(text) == scans and text.isascii() and text.count("\n") == 8
    row = json.loads(text.splitlines()[0]) | {"key": "wrong"}
    wrong = [
        {}, [], 7, None, row | {"bytes": "7"}, row | {"phash": -1}, row | {"phash": 1 << 64},
        row | {"phash_stored": -1}, row | {"brightest": 2.5},
        {k: v for k, v in row.items() if k != "phash_stored"},
        row | {"orientation": 9}, row | {"orientation": True}, row | {"stored_wh": [1]},
        row | {"stored_wh": None}, row | {"stored_wh": [1, 2.5]}, row | {"more": 1},
        row | {"key": 3}, row | {"sha256": None}, {k: v for k, v in row.items() if k != "code"},
    ]  # fmt: skip
    lines = [json.dumps(w) for w in wrong] + ["", "[" * 100_000, text[:50], "9" * 5000, "\x00"]
    assert scan.from_json("\n".join(lines) + "\n" + text) == scans


def scanned(orientation, stored_wh=(80, 60)):
    return scan.Scan(1, 1, "", "jpeg", "rgb", stored_wh, orientation, 1, 2, 255, "", "")


UPRIGHT, STORED_WH, OTHER, SQUARE = (60, 80), (80, 60), (81, 60), (60, 60)


@pytest.mark.parametrize("mode, orientation, stored_wh, json_wh, want", [
    ("auto", 1, STORED_WH, STORED_WH, (1, "")),
    ("auto", 1, STORED_WH, None, (1, "")),
    ("auto", 1, STORED_WH, UPRIGHT, (1, "NK123")),
    ("auto", 6, STORED_WH, UPRIGHT, (6, "NK124")),
    ("auto", 8, STORED_WH, UPRIGHT, (8, "NK124")),
    ("auto", 5, STORED_WH, STORED_WH, (1, "NK121")),
    ("auto", 7, STORED_WH, OTHER, (1, "NK123")),
    ("auto", 6, STORED_WH, None, (1, "NK122")),
    ("auto", 3, STORED_WH, STORED_WH, (1, "NK122")),
    ("auto", 2, STORED_WH, None, (1, "NK122")),
    ("auto", 4, STORED_WH, UPRIGHT, (1, "NK123")),
    ("auto", 6, SQUARE, SQUARE, (1, "NK122")),
    ("auto", 6, SQUARE, OTHER, (1, "NK123")),
    ("apply", 1, STORED_WH, STORED_WH, (1, "")),
    ("apply", 1, STORED_WH, OTHER, (1, "NK123")),
    ("apply", 6, STORED_WH, UPRIGHT, (6, "NK124")),
    ("apply", 6, STORED_WH, None, (6, "NK124")),
    ("apply", 3, STORED_WH, STORED_WH, (3, "NK124")),
    ("apply", 6, SQUARE, SQUARE, (6, "NK124")),
    # The option says only what the size leaves open.
    ("apply", 6, STORED_WH, STORED_WH, (1, "NK121")),
    ("apply", 6, STORED_WH, OTHER, (1, "NK123")),
    ("apply", 3, STORED_WH, UPRIGHT, (1, "NK123")),
    ("ignore", 1, STORED_WH, None, (1, "")),
    ("ignore", 6, STORED_WH, STORED_WH, (1, "NK121")),
    ("ignore", 6, STORED_WH, None, (1, "NK121")),
    ("ignore", 2, STORED_WH, STORED_WH, (1, "NK121")),
    ("ignore", 6, SQUARE, SQUARE, (1, "NK121")),
    ("ignore", 6, STORED_WH, UPRIGHT, (6, "NK124")),
    ("ignore", 6, STORED_WH, OTHER, (1, "NK123")),
])  # fmt: skip
def test_the_turn_is_decided_by_the_size_of_the_json(mode, orientation, stored_wh, json_wh, want):
    assert scan.decide_turn(scanned(orientation, stored_wh), json_wh, mode) == want
    if json_wh is not None:  # sizes may come as floats
        as_floats = tuple(map(float, json_wh))
        assert scan.decide_turn(scanned(orientation, stored_wh), as_floats, mode) == want


def test_the_decided_turn_brings_the_pixels_to_the_size_of_the_json():
    for orientation in range(5, 9):
        turn, _ = scan.decide_turn(scanned(orientation, (48, 64)), (64, 48), "auto")
        assert images.turn(STORED[orientation], turn).shape == (48, 64, 3)
