"""Overlays: every face gone, everything else still there, joints where they belong."""

import cv2
import numpy as np
import pytest

from nkjax import skeleton
from nkjax.evaluate import draw
from nkjax.evaluate.topdown import Person

COCO = skeleton.load("coco17")
FACE, BODY, GROUND = (250, 0, 250), (0, 60, 90), (240, 240, 230)
# A child, standing, 200 px high, feet at (0, 200); its head is an ellipse of 34 x 44 px.
CHILD = np.array([
    (0, 24), (7, 18), (-7, 18), (16, 21), (-16, 21), (22, 56), (-22, 56), (34, 82), (-34, 82),
    (40, 108), (-40, 108), (13, 110), (-13, 110), (14, 150), (-14, 150), (14, 190), (-14, 190),
], float)  # fmt: skip
BOX = (-46.0, 0.0, 92.0, 200.0)
HEAD = [0, 1, 2, 3, 4]


def picture(*feet, turn=None):
    """Paint children and return the picture and their people; turn: degrees about the hip."""
    image = np.full((400, 600, 3), GROUND, np.uint8)
    people = []
    for x, y in feet:
        matrix = cv2.getRotationMatrix2D((0, 110), turn or 0, 1)
        matrix[:, 2] += x, y - 200
        points = CHILD @ matrix[:, :2].T + matrix[:, 2]
        for a, b in COCO.limbs:
            cv2.line(image, *(tuple(int(v) for v in points[i]) for i in (a, b)), BODY, 9)
        center = matrix @ (0, 22, 1)
        cv2.ellipse(image, (tuple(center), (34, 44), -(turn or 0)), FACE, cv2.FILLED)
        shown = np.argwhere(~(image == GROUND).all(-1))
        box = (x + BOX[0], y - 200 + BOX[1], *BOX[2:])
        if turn:
            low, high = shown.min(0)[::-1], shown.max(0)[::-1]
            box = (*map(float, low), *map(float, high - low))
        people.append(Person(box, 0.9, points, np.full(17, 0.9)))
    return image, people


def with_scores(person, indices, score):
    scores = person.scores_k.copy()
    scores[indices] = score
    return Person(person.box_xywh, 0.9, person.points_k2, scores)


def moved(person, indices, offset):
    points = person.points_k2.copy()
    points[indices] += offset
    return Person(person.box_xywh, 0.9, points, person.scores_k)


def face_pixels(image):
    return int((np.abs(image.astype(int) - FACE).max(-1) < 40).sum())


def test_a_certain_head_is_covered_and_nothing_else():
    image, people = picture((150, 300), (400, 320))
    before = image.copy()
    assert face_pixels(image) > 1500
    out = draw.overlay(image, people, [], COCO)
    assert face_pixels(out) == 0
    np.testing.assert_array_equal(image, before)
    circle, certain = draw.head_circle(
        people[0].box_xywh, people[0].points_k2, people[0].scores_k, COCO
    )
    # 1.5 times a head of 44 px, around its middle.
    assert certain and circle[1] == pytest.approx(33, abs=6)
    np.testing.assert_allclose(circle[0], (150, 122), atol=3)
    below = np.s_[200:, :]
    changed = (out[below] != image[below]).any(-1)
    assert changed.mean() < 0.05


def wild(person):
    """Joints as random weights give them: anywhere, with high scores."""
    points = np.random.default_rng(5).uniform(0, 600, (17, 2))
    return Person(person.box_xywh, 0.9, points, np.full(17, 5.0))


UNCERTAIN = {
    "no head joint": lambda p: with_scores(p, HEAD, 0.1),
    "one head joint": lambda p: with_scores(p, HEAD[1:], 0.1),
    "joints that are no number": lambda p: moved(p, HEAD, np.nan),
    "head joints on the ground": lambda p: moved(p, HEAD, (0, 300)),
    "head joints beside the box": lambda p: moved(p, HEAD, (200, 40)),
    "an ear at the foot": lambda p: moved(p, [3], (0, 170)),
    "all in one point": lambda p: Person(
        p.box_xywh, 0.9, np.full((17, 2), p.points_k2[10]), p.scores_k
    ),
    "random joints": wild,
}


@pytest.mark.parametrize("case", UNCERTAIN)
@pytest.mark.parametrize("turn", [0, 90, -90])
def test_without_a_certain_head_the_face_is_covered_by_the_box(case, turn):
    image, people = picture((300, 330), turn=turn)
    assert face_pixels(image) > 700
    person = UNCERTAIN[case](people[0])
    out = draw.overlay(image, [person], [], COCO)
    # A line of the skeleton may be painted over the mask, never the face.
    assert face_pixels(out) == 0


@pytest.mark.parametrize("turn", [0, 45, 90, 180, 250])
def test_a_child_in_any_posture_has_its_face_covered(turn):
    image, people = picture((300, 300), turn=turn)
    assert face_pixels(image) > 700
    assert face_pixels(draw.overlay(image, people, [], COCO)) == 0


@pytest.mark.parametrize("seen, tell_the_size", [
    ((0, 1, 3), True), ((3, 4), True), ((1, 2), True), ((0, 3), True),
    ((1, 3), False), ((2, 4), False), ((0, 2), False),
])  # fmt: skip
@pytest.mark.parametrize("sitting", [False, True])
def test_a_few_head_joints_cover_the_whole_face(seen, tell_the_size, sitting):
    """Of a turned head only some are trusted; one shoulder hides the other."""
    image, people = picture((300, 330))
    person = with_scores(people[0], [i for i in HEAD if i not in seen], 0.1)
    person.points_k2[[5, 6]] = person.points_k2[[5, 6]].mean(0)
    if sitting:  # the head takes more of the box
        x, y, width, height = person.box_xywh
        person = Person((x, y, width, height * 0.6), 0.9, person.points_k2, person.scores_k)
    _, certain = draw.head_circle(person.box_xywh, person.points_k2, person.scores_k, COCO)
    assert certain == tell_the_size
    assert face_pixels(draw.overlay(image, [person], [], COCO)) == 0


def test_a_box_without_keypoints_is_masked_too():
    image, people = picture((150, 300), (400, 320))
    out = draw.overlay(image, people[:1], [people[1].box_xywh], COCO)
    assert face_pixels(out) == 0
    assert face_pixels(draw.overlay(image, people[:1], [], COCO)) > 700


def test_a_second_box_around_a_certain_head_covers_nothing_more():
    image, people = picture((300, 330))
    x, y, width, height = people[0].box_xywh
    twin = (x + 3, y - 4, width + 6, height)
    alone = draw.overlay(image, people, [], COCO)
    np.testing.assert_array_equal(draw.overlay(image, people, [twin], COCO), alone)
    # A child held in front of the parent is smaller: never the same box.
    held = (x, y + 60, width, height / 2)
    assert (draw.overlay(image, people, [held], COCO) != alone).any()
    # And an uncertain head vouches for nobody.
    uncertain = with_scores(people[0], HEAD, 0.1)
    out = draw.overlay(image, [uncertain], [twin], COCO)
    assert (out != draw.overlay(image, [uncertain], [], COCO)).any()


def test_boxes_overlap_by_the_formula():
    assert draw.iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert draw.iou((0, 0, 10, 10), (20, 0, 10, 10)) == 0


def test_nobody_looked_for_people_so_nothing_can_be_recognised():
    image, people = picture((150, 300), (400, 320))
    noise = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    out = draw.overlay(noise, people[:1], [], COCO, blur=True)
    # Cells of 25 px, each of one colour.
    cell = out[350:375, 500:525].reshape(-1, 3)
    assert len(np.unique(cell, axis=0)) == 1
    assert face_pixels(draw.overlay(image, people[:1], [], COCO, blur=True)) == 0


def test_faces_are_shown_on_demand_and_the_picture_says_so():
    image, people = picture((300, 330))
    out = draw.overlay(image, people, [], COCO, faces="show", blur=True)
    assert face_pixels(out) > 700
    corner = out[:12, :120].reshape(-1, 3)
    assert (corner == 0).all(-1).any() and (corner[:, 0] > 150).any()
    masked = draw.overlay(image, people, [], COCO)
    assert (masked[:12, :120] == GROUND).all()


def test_every_joint_is_drawn_at_x_y_in_the_colour_of_its_side():
    image, people = picture((150, 300))
    out = draw.overlay(image, people, [], COCO)
    for joint, side in ((9, "left"), (10, "right"), (0, "middle"), (15, "left"), (16, "right")):
        x, y = people[0].points_k2[joint].astype(int)
        assert tuple(out[y, x]) == draw.SIDE_RGB[side]
    # Half-way along: left forearm, right shin, across the hips; smoothed at the edges.
    for a, b, side in ((7, 9, "left"), (14, 16, "right"), (11, 12, "middle")):
        x, y = people[0].points_k2[[a, b]].mean(0).astype(int)
        np.testing.assert_allclose(out[y, x], draw.SIDE_RGB[side], atol=40)


def test_weak_and_missing_joints_are_not_drawn():
    image, people = picture((150, 300))
    weak = with_scores(people[0], [9], 0.29)
    weak.points_k2[10] = np.nan
    out = draw.overlay(image, [weak], [], COCO)
    x, y = people[0].points_k2[9].astype(int)
    assert tuple(out[y, x]) == BODY
    draw.overlay(image, [moved(people[0], [9, 10], 1e12)], [], COCO)


def test_sides_follow_the_names():
    sides = dict(zip(COCO.keypoints, draw.joint_sides(COCO), strict=True))
    assert sides["nose"] == "middle" and sides["left_ear"] == "left"
    assert sides["right_ankle"] == "right"
    goliath = skeleton.load("goliath308")
    sides = dict(zip(goliath.keypoints, draw.joint_sides(goliath), strict=True))
    assert sides["l_inner_end_of_upper_lash_line"] == "left"
    assert sides["upper_startpoint_of_r_eyebrow"] == "right"
    assert sides["tip_of_chin"] == "middle"
    own = skeleton.parse({"name": "own", "keypoints": ["KneeL", "KneeR", "p1", "p2"],
                          "flip_pairs": [["p1", "p2"]]}, "own")  # fmt: skip
    assert draw.joint_sides(own) == ("left", "right", "middle", "middle")


def test_a_skeleton_without_a_head_falls_back_to_the_box():
    legs = skeleton.parse({"name": "legs", "keypoints": ["left_knee", "right_knee"]}, "legs")
    image, people = picture((300, 330))
    person = Person(people[0].box_xywh, 0.9, people[0].points_k2[13:15], np.ones(2))
    assert face_pixels(draw.overlay(image, [person], [], legs)) == 0


def test_jpegs_carry_no_metadata():
    image, _ = picture((300, 330))
    data = draw.encode_jpeg(image)
    back = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(back.astype(int) - image).mean() < 4
    assert b"Exif" not in data and b"\xff\xe1" not in data[: data.index(b"\xff\xda")]
    wide = draw.encode_jpeg(np.zeros((4, 70_000, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(wide, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 65_000
