"""Boxes of hands against numbers worked out by hand."""

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import crops

WHOLEBODY = skeletons.load("wholebody133")
COCO17 = skeletons.load("coco17")


def arm(side, shoulder, elbow, wrist, skeleton=WHOLEBODY):
    points = np.full((len(skeleton.keypoints), 2), -1000.0)
    for joint, at in (("shoulder", shoulder), ("elbow", elbow), ("wrist", wrist)):
        points[skeleton.keypoints.index(f"{side}_{joint}")] = at
    return points


@pytest.mark.parametrize("side", crops.SIDES)
def test_the_hand_of_an_arm_lies_beyond_the_wrist(side):
    # Forearm 50 px (30, 40), upper arm 40 px: 1.5 x 50 px around wrist + .33 (30, 40).
    points = arm(side, (100, 60), (100, 100), (130, 140))
    box = crops.hand_box_from_arm(points, WHOLEBODY, side)
    np.testing.assert_allclose(box, (139.9 - 37.5, 153.2 - 37.5, 75, 75))


def test_a_foreshortened_forearm_does_not_shrink_the_hand():
    # Forearm 10 px, upper arm 80: 1.5 x .9 x 80.
    points = arm("left", (0, 0), (80, 0), (90, 0))
    assert crops.hand_box_from_arm(points, WHOLEBODY, "left")[2] == pytest.approx(108)


def test_arms_that_say_nothing_give_no_box():
    nowhere = arm("left", (5, 5), (5, 5), (5, 5))
    assert crops.hand_box_from_arm(nowhere, WHOLEBODY, "left") is None
    nowhere[:] = np.nan
    assert crops.hand_box_from_arm(nowhere, WHOLEBODY, "left") is None
    feet = skeletons.parse({"name": "feet", "keypoints": ["left_heel", "right_heel"]}, "feet")
    assert crops.hand_box_from_arm(np.zeros((2, 2)), feet, "left") is None


def test_a_hand_s_box_is_square_around_its_labelled_joints():
    keypoints = np.zeros((133, 3))
    joints = list(WHOLEBODY.groups["right_hand"])[:6]
    keypoints[joints] = [(10 + 4 * i, 50 + i, 2 - i % 2) for i in range(6)]
    # x 10 ... 30, y 50 ... 55: 20 px around (20, 52.5).
    assert crops.hand_box(keypoints, WHOLEBODY, "right") == (10, 42.5, 20, 20)
    assert crops.hand_box(keypoints, WHOLEBODY, "left") is None
    keypoints[joints[0], 2] = 0
    assert crops.hand_box(keypoints, WHOLEBODY, "right") is None


def test_hands_of_both_sides_are_in_one_order():
    left, right = (crops.hand_joints(WHOLEBODY, side) for side in crops.SIDES)
    names = [[WHOLEBODY.keypoints[i] for i in hand] for hand in (left, right)]
    assert len(left) == 22 and names[0][-1] == "left_wrist"
    assert [name.replace("left", "right") for name in names[0]] == names[1]
    assert crops.hand_joints(COCO17, "left") == ()
    assert crops.hand_box(np.ones((17, 3)), COCO17, "left") is None


def test_crops_grow_to_the_aspect_and_by_the_padding():
    center, scale = crops.center_scale((10, 20, 30, 80), 3 / 4, 1.25)
    np.testing.assert_allclose(center, (25, 60))
    np.testing.assert_allclose(scale, (75, 100))
