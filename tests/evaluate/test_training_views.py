"""The sheet of training views: every kind of view, and no face of anybody."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import images, records
from nkjax.evaluate import training_views
from nkjax.lab import layout, pack
from nkjax.lab.rows import Person
from tests.data_io import packed
from tests.data_io.test_samples import hand
from tests.evaluate.test_sheets import COCO, FACE, GROUND, child, lab_of, paint

ROOT = Path(__file__).parents[2]
SHOW = str(ROOT / "scripts" / "show_data.py")


def face_px(image):
    """How many pixels have the colour of the painted faces, JPEG's changes allowed for."""
    return int((np.abs(image.astype(int) - FACE).max(-1) < 60).sum())


def packed_lab(tmp_path, pictures, people, split="train", skeleton=COCO):
    lab = lab_of(tmp_path, pictures, people, skeleton)
    lab = dataclasses.replace(lab, pictures=tuple(
        dataclasses.replace(p, sha256=hashlib.sha256(Path(p.path).read_bytes()).hexdigest())
        for p in lab.pictures
    ))  # fmt: skip
    plan = layout.plan(lab, {p.key: split for p in lab.pictures}, bytes(32), {}, {})
    pack.write(plan, tmp_path / "data")
    return records.read_manifest(tmp_path / "data")


def whole_picture(i, key, size_wh, source):
    nobody = np.zeros((17, 3), np.float32)
    return Person(i, None, key, nobody, (0.0, 0.0, *map(float, size_wh)), source, 1.0)


def test_no_face_of_anybody_is_in_the_pictures_that_views_are_cut_from(tmp_path):
    portrait = np.full((640, 360, 3), GROUND, np.uint8)  # far below the top of the picture
    cv2.circle(portrait, (180, 430), 60, FACE, cv2.FILLED)
    portrait[:, ::8], portrait[:, 1::8], portrait[:, 2::8] = GROUND, GROUND, GROUND  # its features
    portrait[:, 3::8] = GROUND
    three = paint((120, 300), (300, 320), (480, 310))
    people = [
        child(1, "0", 120, 300), child(2, "0", 300, 320, v=0), child(3, "0", 480, 310, ignore=True),
        whole_picture(4, "1", (360, 640), "picture"),
    ]  # fmt: skip
    manifest = packed_lab(tmp_path, [three, portrait], people)
    rows = records.Rows(manifest, "train")
    assert len(rows) == 3
    for number in range(3):
        assert face_px(images.decode_reduced(rows[number]["image"], 1)) > 700
        masked = training_views.mask_row(rows, number)
        shown = images.decode_reduced(masked["image"], 1)
        assert face_px(shown) == 0
        assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 10  # and not all is covered
    assert face_px(training_views.views_sheet(manifest, "train", 3)) == 0


def test_a_row_of_views_per_person_and_the_hands_of_those_who_have_labelled_ones(tmp_path):
    wholebody = skeletons.load("wholebody133")
    picture = np.full((180, 240, 3), 90, np.uint8)
    rows = []
    for number, side in enumerate(("left", "right")):
        keypoints = hand(side, (150.0, 90.0), 40.0)
        keypoints[0] = 0
        rows.append((
            packed.person_row(keypoints, (20, 20, 200, 150), number),
            packed.picture_row(packed.jpeg(picture), (240, 180), number),
        ))  # fmt: skip
    manifest = packed.write(tmp_path, {"val": rows}, wholebody)
    sheet = training_views.views_sheet(manifest, "val")
    wide, high = training_views.CELL_WH
    columns, lines = 4 + 2, 2
    assert sheet.shape[1] == columns * (wide + training_views.GAP) + training_views.GAP
    assert sheet.shape[0] // high == lines
    np.testing.assert_array_equal(sheet, training_views.views_sheet(manifest, "val"))
    assert (sheet != training_views.views_sheet(manifest, "val", seed=1)).any()


def test_people_who_cannot_be_read_are_passed_over(tmp_path):
    rows = packed.drawn_rows(3)
    rows[1][1]["image"] = rows[1][1]["image"][:200]
    manifest = packed.write(tmp_path / "a", {"train": rows}, shards=1)
    sheet = training_views.views_sheet(manifest, "train", 3)
    assert sheet.shape[0] // training_views.CELL_WH[1] == 2
    bad = packed.write(tmp_path / "b", {"train": rows[1:2], "val": []}, shards=1)
    for split in ("train", "val"):
        with pytest.raises(records.BadData, match=f"nobody of split {split} can be read"):
            training_views.views_sheet(bad, split)


def show(*options):
    return subprocess.run(
        [sys.executable, SHOW, *map(str, options)], capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def test_the_command(tmp_path):
    packed.write(tmp_path / "data", {"train": packed.drawn_rows(2)}, shards=1)
    out = tmp_path / "deep" / "views.jpg"
    done = show("--data", tmp_path / "data", "--out", out, "--count", 2)
    assert done.returncode == 0 and f"wrote {out}" in done.stdout, done.stderr
    assert min(cv2.imread(str(out)).shape[:2]) > 300
    for options, rule in (
        (("--data", tmp_path / "data", "--out", out), "exists already"),
        (("--data", tmp_path, "--out", tmp_path / "b.jpg"), "manifest.json: cannot be opened"),
        (("--data", tmp_path / "data", "--split", "val", "--out", tmp_path / "b.jpg"), "no split"),
        (("--data", tmp_path / "data", "--out", tmp_path / "b.png"), "must end in .jpg"),
    ):
        done = show(*options)
        assert done.returncode == 2 and rule in done.stderr and "Traceback" not in done.stderr
