"""Contact sheets: no face, the right person in the right place, and always the same sheet."""

import dataclasses
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.evaluate import draw, sheets
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Lab, Person, Picture, Subject
from nkjax.lab.suspicious import Suspicion

COCO = skeletons.load("coco17")
FACE, BODY, GROUND = (250, 0, 250), (0, 60, 90), (230, 240, 200)
# A child, standing, 200 px high, feet at (0, 200).
CHILD = np.array([
    (0, 24), (7, 18), (-7, 18), (16, 21), (-16, 21), (22, 56), (-22, 56), (34, 82), (-34, 82),
    (40, 108), (-40, 108), (13, 110), (-13, 110), (14, 150), (-14, 150), (14, 190), (-14, 190),
], float)  # fmt: skip


def paint(*feet):
    """Paint children with faces in a colour of their own; RGB uint8 (400, 600)."""
    image = np.full((400, 600, 3), GROUND, np.uint8)
    for x, y in feet:
        points = CHILD + (x, y - 200)
        for a, b in COCO.limbs:
            cv2.line(image, *(tuple(int(v) for v in points[i]) for i in (a, b)), BODY, 9)
        cv2.ellipse(image, (x, y - 178), (17, 22), 0, 0, 360, FACE, cv2.FILLED)
    return image


def child(i, key, x, y, v=2, **changed):
    joints = np.concatenate([CHILD + (x, y - 200), np.full((17, 1), v)], 1).astype(np.float32)
    if not v:
        joints[:] = 0
    person = Person(i, i, key, joints, (x - 46.0, y - 200.0, 92.0, 200.0), "labels", 9752.0)
    return dataclasses.replace(person, **changed)


def save(path, image):
    cv2.imwrite(str(path), image[..., ::-1])
    return str(path)


def lab_of(tmp_path, images, people, skeleton=COCO, turn=1, subjects=None):
    """Make a Lab of pictures as stored; sizes are of the upright ones."""
    pictures = []
    for i, image in enumerate(images):
        size = image.shape[1::-1] if turn < 5 else image.shape[:2]
        path = save(tmp_path / f"Anna_Schmidt_{i}.png", image)
        subject = subjects[i] if subjects else Subject()
        pictures.append(Picture(f"{i}", path, tuple(size), turn, f"{i}", 0, i, subject))
    return Lab(skeleton, tuple(pictures), tuple(people), Findings())


def face_pixels(image):
    return int((np.abs(image.astype(int) - FACE).max(-1) < 60).sum())


def cell(sheet, i, columns=1, wh=sheets.CELL_WH):
    high = wh[1] + sheets.GAP + sheets.CAPTION_LINES * sheets.LINE_HEIGHT
    top = sheets.LEGEND_HEIGHT + i // columns * high
    left = sheets.GAP + i % columns * (wh[0] + sheets.GAP)
    return sheet[top : top + wh[1], left : left + wh[0]]


def in_cell(point, box, wh=sheets.CELL_WH):
    """Say where a point of the picture lies in a cell: the box 1.25 times as large, made 3:4."""
    x, y, width, height = box
    width, height = 1.25 * width, 1.25 * height
    width, height = max(width, height * 0.75), max(height, width / 0.75)
    left, top = x + box[2] / 2 - width / 2, y + box[3] / 2 - height / 2
    return ((point[0] - left) / width * (wh[0] - 1), (point[1] - top) / height * (wh[1] - 1))


CROWDED = (150, 300), (230, 320), (330, 310), (480, 330)


def test_every_face_of_the_picture_is_covered(tmp_path):
    image = paint(*CROWDED)
    people = [
        child(1, "0", *CROWDED[0]),
        child(2, "0", *CROWDED[1], v=0, ignore=True),  # nothing labelled
        child(3, "0", *CROWDED[2], ignore=True, box_xywh=(260.0, 90.0, 160.0, 250.0)),
    ]
    people[0].keypoints_k3[:5] = 0  # no head joint
    # The fourth is in nobody's box: a parent, say, whom nobody labelled.
    assert face_pixels(image) > 4 * 900
    lab = lab_of(tmp_path, [image], people)
    sheet = sheets.people_sheet(lab)
    shown = cell(sheet, 0)
    assert face_pixels(sheet) == 0 and face_pixels(sheets.suspicious_sheet(
        lab, [Suspicion("NK251", (1,), "why", 2.0, (7, 9))])) == 0  # fmt: skip
    # Coarse where nobody is labelled: cells of 25 px, so a face is one or two of them.
    hidden = sheets.hide_faces(image, people, COCO)
    assert face_pixels(hidden[:, :430]) == 0 and face_pixels(hidden) <= 2 * 25 * 25
    for y, x in ((125, 475), (150, 475), (150, 450)):
        assert len(np.unique(hidden[y : y + 25, x : x + 25].reshape(-1, 3), axis=0)) == 1
    assert np.abs(shown.astype(int) - BODY).max(-1).min() < 30  # but the child is there


def test_a_crowd_in_front_of_a_child_is_coarse(tmp_path):
    image = paint((300, 330), (430, 460))
    near = child(1, "0", 300, 330, box_xywh=(200.0, 130.0, 300.0, 200.0))
    crowd = child(2, "0", 430, 460, v=0, ignore=True, box_xywh=(350.0, 130.0, 150.0, 200.0))
    lone = sheets.hide_faces(image, [near], COCO)
    assert face_pixels(lone) > 900
    assert face_pixels(sheets.hide_faces(image, [near, crowd], COCO)) <= 2 * 25 * 25
    hidden = sheets.hide_faces(image, [near, crowd], COCO)[275:300, 425:450]
    assert len(np.unique(hidden.reshape(-1, 3), axis=0)) == 1


def test_joints_stand_where_they_belong_and_tell_occluded_from_visible(tmp_path):
    person = child(1, "0", 300, 330)
    person.keypoints_k3[[9, 10], 2] = (1, 2)
    person.keypoints_k3[15] = 0
    shown = cell(sheets.people_sheet(lab_of(tmp_path, [paint((300, 330))], [person])), 0)

    def colour(joint):
        x, y = in_cell(CHILD[joint] + (300, 130), person.box_xywh)
        return shown[round(y), round(x)].astype(int)

    np.testing.assert_allclose(colour(10), draw.SIDE_RGB["right"], atol=8)
    np.testing.assert_allclose(colour(9), (255, 255, 255), atol=8)  # a ring is empty
    x, y = in_cell(CHILD[9] + (300, 130), person.box_xywh)
    np.testing.assert_allclose(shown[round(y), round(x) + 4], draw.SIDE_RGB["left"], atol=60)
    np.testing.assert_allclose(colour(15), BODY, atol=12)  # not labelled, not drawn
    x, y = in_cell((CHILD[13] + (300, 130)) * 0.85, person.box_xywh)  # nor a shin to (0, 0)
    np.testing.assert_allclose(shown[round(y), round(x)], GROUND, atol=12)


def test_pictures_are_turned_as_their_exif_flag_says(tmp_path):
    upright = paint((300, 330))
    sideways = np.rot90(upright)  # a flag of 6 turns it back, clockwise
    plain = sheets.people_sheet(lab_of(tmp_path, [upright], [child(1, "0", 300, 330)]))
    lab = lab_of(tmp_path, [sideways], [child(1, "0", 300, 330)], turn=6)
    np.testing.assert_array_equal(sheets.people_sheet(lab), plain)


def test_only_the_joints_in_question_are_red(tmp_path):
    lab = lab_of(tmp_path, [paint((300, 330))], [child(7, "0", 300, 330)])
    found = [Suspicion("NK251", (7,), "left_elbow - left_wrist 2.1 x", 2.0, (7, 9))]
    sheet = cell(sheets.suspicious_sheet(lab, found), 0)
    red = np.argwhere(np.abs(sheet.astype(int) - draw.MARKED_RGB).max(-1) < 20)[:, ::-1]
    ends = [in_cell(CHILD[i] + (300, 130), (254.0, 130.0, 92.0, 200.0)) for i in (7, 9)]
    assert len(red) > 20
    assert (red >= np.min(ends, 0) - 9).all() and (red <= np.max(ends, 0) + 9).all()
    plain = cell(sheets.people_sheet(lab), 0)
    assert (np.abs(plain.astype(int) - draw.MARKED_RGB).max(-1) > 40).all()


def test_what_cannot_be_read_is_a_grey_cell(tmp_path):
    people = [child(i + 1, f"{i}", 300, 330) for i in range(3)]
    lab = lab_of(tmp_path, [paint((300, 330))] * 3, people)
    Path(lab.pictures[0].path).write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    Path(lab.pictures[1].path).unlink()
    broken = dataclasses.replace(lab.pictures[2], frame=4)
    lab = dataclasses.replace(lab, pictures=(*lab.pictures[:2], broken))
    sheet = sheets.people_sheet(lab)
    for i in range(3):
        grey = (cell(sheet, i, 3) == sheets.GREY_RGB).all(-1)
        assert 0.95 < grey.mean() < 1


def many(tmp_path, postures="abbbb", subjects=10, count=100):
    """A hundred people of ten subjects; four in five of one posture."""
    image = paint((300, 330))
    path = save(tmp_path / "one.png", image)
    pictures = [Picture(f"{i}", path, (600, 400), 1, "", 0, i, Subject(f"K{i % subjects}"))
                for i in range(count)]  # fmt: skip
    people = [child(i + 1, f"{i}", 300, 330, posture=postures[i // subjects % len(postures)])
              for i in range(count)]  # fmt: skip
    return Lab(COCO, tuple(pictures), tuple(people), Findings())


def captions(monkeypatch):
    written = []
    monkeypatch.setattr(draw, "write_text", lambda canvas, text, *_: written.append(text))
    return written


def test_people_are_a_spread_of_postures_and_subjects(tmp_path, monkeypatch):
    written = captions(monkeypatch)
    lab = many(tmp_path)
    sheets.people_sheet(lab, 20)
    shown = [text.split() for text in written if text.startswith("person")]
    assert len(shown) == 20
    assert [posture for *_, posture in shown].count("a") == 10
    for posture in "ab":
        subjects = [(int(i) - 1) % 10 for _, i, p in shown if p == posture]
        assert sorted(subjects) == list(range(10))


def test_captions_name_no_file_and_count_what_is_labelled(tmp_path, monkeypatch):
    written = captions(monkeypatch)
    person = child(41, "0", 300, 330, posture="Kriechen")
    person.keypoints_k3[:3, 2] = 1
    person.keypoints_k3[3] = 0
    lab = lab_of(tmp_path, [paint((300, 330))], [person])
    sheets.people_sheet(lab)
    sheets.suspicious_sheet(lab, [Suspicion("NK252", (41,), "left and right exchanged", 1.5)])
    assert "person 41  Kriechen" in written and "13 visible  3 occluded  1 none" in written
    assert "person 41  NK252" in written and "left and right exchanged" in written
    assert not any("Anna" in text or "png" in text for text in written)


def test_the_same_lab_gives_the_same_sheet_and_no_file_changes(tmp_path):
    lab = many(tmp_path, count=30)
    before = hashlib.sha256((tmp_path / "one.png").read_bytes()).digest()
    np.testing.assert_array_equal(sheets.people_sheet(lab, 9), sheets.people_sheet(lab, 9))
    assert hashlib.sha256((tmp_path / "one.png").read_bytes()).digest() == before


@pytest.mark.parametrize("count, wide, rows", [(0, 3, 0), (1, 3, 1), (6, 6, 1), (7, 6, 2)])
def test_sheets_of_any_number(tmp_path, count, wide, rows):
    sheet = sheets.people_sheet(many(tmp_path, count=count))
    assert sheet.dtype == np.uint8
    assert sheet.shape == (28 + rows * (320 + 4 + 45), wide * 244 + 4, 3)


def test_pairs_stand_side_by_side_and_are_never_parted(tmp_path, monkeypatch):
    written = captions(monkeypatch)
    lab = many(tmp_path, count=10)
    found = [Suspicion("NK253", (1, 5), "apart", 3.0), Suspicion("NK251", (2,), "long", 2.0),
             Suspicion("NK253", (3, 4), "apart", 1.5)]  # fmt: skip
    sheets.suspicious_sheet(lab, found, 4)
    assert [text.split()[1] for text in written if text.startswith("person")] == ["1", "5", "2"]


def test_dense_skeletons_have_larger_cells_and_smaller_dots(tmp_path):
    whole = skeletons.load("wholebody133")
    joints = np.zeros((133, 3), np.float32)
    joints[:17] = child(1, "0", 300, 330).keypoints_k3
    joints[91:112] = (340, 238, 2)
    person = child(1, "0", 300, 330, keypoints_k3=joints)
    shown = cell(sheets.people_sheet(lab_of(tmp_path, [paint((300, 330))], [person], whole)), 0,
                 wh=sheets.DENSE_CELL_WH)  # fmt: skip
    assert shown.shape == (560, 420, 3) and face_pixels(shown) == 0

    def dot(skeleton, points):
        canvas = np.zeros((300, 300, 3), np.uint8)
        draw.draw_skeleton(canvas, (0, 0, 300, 300), points, np.eye(len(points))[0], skeleton)
        return canvas.any(-1).sum()

    assert dot(whole, np.full((133, 2), 150.0)) < dot(COCO, np.full((17, 2), 150.0))


def test_words_in_any_script_can_be_written():
    canvas = np.zeros((40, 300, 3), np.uint8)
    draw.write_text(canvas, "Zo\u00eb k\u00f6nnte \u8d70\n\x00", (5, 20))
    assert canvas.any()


@pytest.mark.parametrize("angle", [0, 50, 90, 130, 180, 235, 270, 310])
def test_a_child_in_any_turn_without_face_joints_shows_no_face(tmp_path, angle):
    """Head down over a parent's shoulder, lying, diving: only trunk and limbs are labelled."""
    turn = np.radians(angle)
    image = np.full((500, 500, 3), GROUND, np.uint8)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (CHILD - (0, 110)) @ matrix.T + 250
    face = (np.array([0, 22]) - (0, 110)) @ matrix.T + 250
    for a, b in COCO.limbs:
        cv2.line(image, *(tuple(int(v) for v in points[i]) for i in (a, b)), BODY, 9)
    cv2.circle(image, tuple(int(v) for v in face), 20, FACE, cv2.FILLED)
    joints = np.concatenate([points, np.full((17, 1), 2)], 1).astype(np.float32)
    joints[:5] = 0
    everything = np.concatenate([points, [face - 24, face + 24]])
    low, size = everything.min(0), np.ptp(everything, 0)
    person = Person(1, 1, "0", joints, (*low.tolist(), *size.tolist()), "labels", 9000.0)
    shown = sheets.hide_faces(image, [person], COCO)
    assert (np.abs(shown.astype(int) - FACE).max(-1) < 60).sum() == 0
