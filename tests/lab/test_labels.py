"""Joints and boxes against a picture's true size: every rule at its edge, by hand-made numbers."""

import numpy as np
import pytest

from nkjax.lab import labels
from nkjax.lab.annotations import Row
from nkjax.lab.findings import Findings
from nkjax.lab.rows import Picture, Subject

SIZE = (100, 80)
CHILD = Subject("s", posture="walk", grasp="none")
PICTURES = {
    key: Picture(f"{key}.jpg", f"/lab/{key}.jpg", SIZE, 1, "", 0, key, CHILD) for key in (7, 8)
}


def row(points=((20, 20, 2), (40, 30, 1), (30, 60, 2), (0, 0, 0)), **changes):
    plain = {"source_id": 5, "image_id": 7, "joints_k3": np.array(points, float), "posture": "",
             "box_xywh": (10.0, 10.0, 40.0, 60.0), "area": 1000.0, "ignore": False,
             "grasp": ""}  # fmt: skip
    return Row(**plain | changes)


def clean(*rows):
    findings = Findings()
    people, _ = labels.clean(rows, PICTURES, findings)
    return people, {f.code: f.count for f in findings.listed()}, findings


def four(*first):
    """Return points of which the first are given, the others well inside the picture."""
    return [*first, *((30 + i, 30 + 2 * i, 2) for i in range(4 - len(first)))]


def test_a_good_person_comes_out_as_it_went_in():
    (person,), codes, _ = clean(row())
    assert codes == {} and person.id == 1 and person.source_id == 5 and person.picture == "7.jpg"
    assert person.keypoints_k3.dtype == np.float32
    # Visibility 0, 1 and 2 apart.
    np.testing.assert_array_equal(person.keypoints_k3, row().joints_k3)
    assert (person.box_xywh, person.box_source) == ((10, 10, 40, 60), "labels")
    assert person.area == 1000 and person.score == 1 and not person.ignore
    assert (person.posture, person.grasp) == ("walk", "none")
    # What an annotation says goes before the subjects file.
    (own,), *_ = clean(row(posture="sit", grasp="pincer"))
    assert (own.posture, own.grasp) == ("sit", "pincer")


@pytest.mark.parametrize("point, code, want", [
    ((99.5, 79.5, 2), None, (99.5, 79.5, 2)),
    ((-0.5, -0.5, 1), None, (-0.5, -0.5, 1)),
    ((99.6, 40, 2), "NK217", (99.5, 40, 2)),
    ((100.5, 40, 2), "NK217", (99.5, 40, 2)),
    ((40, -1.5, 1), "NK217", (40, -0.5, 1)),
    ((100.6, 40, 2), "NK214", (0, 0, 0)),
    ((40, -1.6, 2), "NK214", (0, 0, 0)),
    ((40, 400, 1), "NK214", (0, 0, 0)),
    ((-900000, 40, 1), "NK214", (0, 0, 0)),
    ((0, 0, 2), "NK203", (0, 0, 0)),
    ((0, 0, 1), "NK203", (0, 0, 0)),
    ((0, 1, 2), None, (0, 1, 2)),
    ((0, 0, 0), None, (0, 0, 0)),
])  # fmt: skip
def test_a_joint_at_or_over_the_edge(point, code, want):
    (person,), codes, _ = clean(row(four(point), box_xywh=(0.0, 0.0, 100.0, 80.0)))
    assert codes == ({code: 1} if code else {})
    np.testing.assert_array_equal(person.keypoints_k3[0], np.float32(want))
    np.testing.assert_array_equal(person.keypoints_k3[1:], four(point)[1:])


def test_a_person_with_most_joints_outside_is_left_out():
    far = (300, 40, 2)
    box = (0.0, 0.0, 100.0, 80.0)
    (person,), codes, _ = clean(row(four(far, far), box_xywh=box))
    assert codes == {"NK214": 2} and person.keypoints_k3[:, 2].tolist() == [0, 0, 2, 2]
    people, codes, findings = clean(row(four(far, far, far), box_xywh=box), row())
    assert codes == {"NK215": 1} and [p.id for p in people] == [1]
    assert findings.listed()[0].examples == (
        "7.jpg, annotation 5: 3 of 4 joints outside 100 x 80 px",
    )  # fmt: skip


def test_the_box_and_the_joints():
    # One of 5 outside the box is 20 %: not more than that. Two are.
    points = [(20, 20, 2), (25, 25, 2), (30, 30, 1), (35, 35, 2), (60, 20, 2)]
    assert clean(row(points))[1] == {}
    points[3] = (20, 75, 1)
    (person,), codes, _ = clean(row(points))
    assert codes == {"NK216": 1} and (person.keypoints_k3[:, 2] > 0).all()


@pytest.mark.parametrize("box, code, want, source", [
    # Tight box (20, 20) ... (40, 60), 1.25 times as large about (30, 40).
    ((10.0, 10.0, 0.0, 60.0), "NK221", (17.5, 15, 25, 50), "keypoints"),
    ((10.0, 10.0, 40.0, -6.0), "NK221", (17.5, 15, 25, 50), "keypoints"),
    ((10.0, 10.0, 0.5, 6.0), "NK221", (17.5, 15, 25, 50), "keypoints"),
    ((200.0, 10.0, 40.0, 60.0), "NK221", (17.5, 15, 25, 50), "keypoints"),
    (None, "NK223", (17.5, 15, 25, 50), "keypoints"),
    ((-5.0, 10.0, 60.0, 75.0), "NK225", (0, 10, 55, 70), "labels"),
    ((-0.5, -0.4, 100.9, 80.9), None, (-0.5, -0.4, 100.9, 80.9), "labels"),
    ((0.0, 0.0, 100.0, 80.6), "NK225", (0, 0, 100, 80), "labels"),
])  # fmt: skip
def test_a_box_is_cut_or_rebuilt(box, code, want, source):
    (person,), codes, _ = clean(row(box_xywh=box))
    assert codes == ({code: 1} if code else {})
    np.testing.assert_allclose(person.box_xywh, want)
    assert person.box_source == source


def test_a_rebuilt_box_stays_in_the_picture():
    (person,), _, _ = clean(row([(2, 2, 2), (98, 78, 2)], box_xywh=None))
    np.testing.assert_allclose(person.box_xywh, (0, 0, 100, 80))
    # Joints on a line: at least 1 px wide.
    (person,), _, _ = clean(row([(99, 10, 2), (99, 50, 2)], box_xywh=None))
    x, y, w, h = person.box_xywh
    assert w >= 1 and h == 50 and x + w <= 100


@pytest.mark.parametrize("points", [[(0, 0, 0)] * 4, [(30, 30, 2), (0, 0, 0)], [(0, 0, 2)] * 2])
@pytest.mark.parametrize("box", [None, (10.0, 10.0, 0.0, 0.0)])
def test_neither_box_nor_joints(points, box):
    people, codes, _ = clean(row(points, box_xywh=box))
    assert people == () and codes == {"NK224": 1}


def test_people_without_joints_and_crowds_are_kept_to_be_ignored():
    (person,), codes, _ = clean(row([(0, 0, 0)] * 4))
    assert person.ignore and codes == {"NK238": 1}
    (person,), codes, _ = clean(row([(0, 0, 0)] * 4, ignore=True))
    assert person.ignore and codes == {}


def test_a_missing_area_is_a_share_of_the_box():
    assert clean(row(area=None))[0][0].area == pytest.approx(0.53 * 40 * 60)


def test_boxes_of_corners_are_seen_in_the_file_as_a_whole():
    corners = [(60.0, 10.0, 90.0, 70.0), (55.0, 5.0, 80.0, 60.0), (10.0, 10.0, 30.0, 60.0)]
    rows = [row(box_xywh=box, source_id=i) for i, box in enumerate(corners)]
    people, codes, findings = clean(*rows, row(box_xywh=None))
    assert codes["NK222"] == 3 and [p.box_source for p in people] == ["keypoints"]
    assert "[60, 10, 90, 70] in 100 x 80" in findings.listed()[0].examples[0]
    # One such box among good ones is no pattern, and is cut.
    good = [row(box_xywh=(30.0, 20.0, 20.0, 30.0)) for _ in range(4)]
    people, codes, _ = clean(rows[0], *good)
    assert "NK222" not in codes and codes["NK225"] == 1 and len(people) == 5
    # Nor are boxes from the corner of the picture, the same either way.
    people, codes, _ = clean(*[row(box_xywh=(0.0, 0.0, 102.0, 82.0)) for _ in range(3)])
    assert codes == {"NK225": 3} and len(people) == 3


def test_what_it_takes_to_be_corners():
    corners, small = (60.0, 10.0, 90.0, 70.0), (40.0, 30.0, 10.0, 20.0)
    # One box is no file; and nine in ten must be possible as corners.
    assert not labels.look_like_corners([corners], [SIZE])
    assert labels.look_like_corners([corners] * 2, [SIZE] * 2)
    assert labels.look_like_corners([corners] * 9 + [small], [SIZE] * 10)
    assert not labels.look_like_corners([corners] * 8 + [small] * 2, [SIZE] * 10)
    # One in five must reach beyond its picture as a size.
    inside = (10.0, 10.0, 50.0, 60.0)
    assert labels.look_like_corners([corners] * 2 + [inside] * 8, [SIZE] * 10)
    assert not labels.look_like_corners([corners] * 2 + [inside] * 9, [SIZE] * 11)


def test_corners_are_told_from_sizes_on_random_boxes():
    rng = np.random.default_rng(0)
    sizes = [(640, 480)] * 200
    low = rng.uniform(0, 0.6, (200, 2)) * [640, 480]
    extent = rng.uniform(0.1, 1, (200, 2)) * ([640, 480] - low)
    xywh = [tuple(b) for b in np.concatenate([low, extent], 1)]
    xyxy = [tuple(b) for b in np.concatenate([low, low + extent], 1)]
    padded = [(x - 0.3 * w, y - 0.3 * h, 1.6 * w, 1.6 * h) for x, y, w, h in xywh]
    assert labels.look_like_corners(xyxy, sizes)
    assert labels.look_like_corners(xyxy[:6], sizes[:6])
    assert not labels.look_like_corners(xywh, sizes)
    assert not labels.look_like_corners(padded, sizes)
    assert not labels.look_like_corners([], [])


def test_people_come_by_picture_numbered_in_the_order_of_the_file():
    people, codes, _ = clean(row(image_id=8, source_id="b"), row(source_id="a"), row(image_id=9))
    assert [(p.id, p.source_id, p.picture) for p in people] == [
        (2, "a", "7.jpg"),
        (1, "b", "8.jpg"),
    ]
    assert codes == {"NK245": 1}


@pytest.mark.parametrize("values, lines", [
    ((0, 1, 2, 2), ["v=0 1 / v=1 1 / v=2 2"]),
    ((0, 2, 2, 2), ["v=0 1 / v=1 0 / v=2 3", "no joint is marked occluded (1)"]),
    ((0, 1, 1, 1), ["v=0 1 / v=1 3 / v=2 0", "no joint is marked visible (2)"]),
])  # fmt: skip
def test_the_histogram_of_visibility(values, lines):
    points = [(20 * (v > 0), 10 * (v > 0) * (i + 1), v) for i, v in enumerate(values)]
    people, _, findings = clean(row(points))
    labels.histogram(people, findings)
    (told,) = [f for f in findings.listed() if f.code == "NK201"]
    assert told.count == 4 and len(told.examples) == len(lines)
    for example, line in zip(told.examples, lines, strict=True):
        assert example.startswith(line)
