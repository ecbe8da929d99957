"""Hands and what they hold, measured on posed joints and solids."""

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, grasps, poses
from tests.toddlersim.measured import T, distance, some_bodies

DIGITS = ("thumb", *grasps.NAMES)
HANDS = {
    "relaxed": grasps.relaxed, "open": grasps.open_hand, "flat": grasps.flat_hand,
    "fist_in": lambda rng: grasps.fist(rng, True), "fist_out": lambda rng: grasps.fist(rng, False),
    "palmar": grasps.palmar, "radial": grasps.radial, "pincer": grasps.pincer,
}  # fmt: skip
TODDLERS = some_bodies("toddler", 4)


def posed(body, hand, turn=None):
    arm = poses.Arm(np.array([20.0, 15, 5]), 40, np.array([30.0, 10, 5]), hand)
    leg = poses.Leg(np.zeros(3), 0, np.zeros(3))
    turn = np.eye(3) if turn is None else turn
    pose = poses.Pose(np.array([0, 0, 0.5]), turn, *np.zeros((2, 3)), np.zeros(2),
                      (arm, arm), (leg, leg))  # fmt: skip
    return poses.pose_body(body, pose)


def drawn(name, count=200):
    rng = np.random.default_rng(3)
    for i in range(count):
        body, side = TODDLERS[i % 4], i % 2
        figure = posed(body, HANDS[name](rng), poses.turn_z(37.0 * i))
        yield rng, body, side, figure, ("left", "right")[side]


def chain(figure, side, digit):
    return np.array([figure.joints[f"{side}_{digit}{i}"] for i in (1, 2, 3, 4)])


def along(joints):
    t = np.linspace(0, 1, 9)[:, None, None]
    return ((1 - t) * joints[:-1] + t * joints[1:]).reshape(-1, 3)


@pytest.mark.parametrize("name", HANDS)
def test_digits_go_through_each_other_in_no_hand(name):
    for _, body, side, figure, word in drawn(name):
        bones = {digit: along(chain(figure, word, digit)) for digit in DIGITS}
        bones["thumb"] = along(chain(figure, word, "thumb")[1:])
        for i, one in enumerate(DIGITS):
            for other in DIGITS[i + 1 :]:
                apart = np.linalg.norm(bones[one][:, None] - bones[other][None], axis=-1).min()
                assert apart > 0.055 * body.hand[side], (one, other)


@pytest.mark.parametrize("name", HANDS)
def test_no_finger_is_bent_backwards_or_further_than_fingers_go(name):
    rng = np.random.default_rng(0)
    for _ in range(200):
        hand = HANDS[name](rng)
        fingers, thumb = hand.fingers_43, hand.thumb_4
        assert hand.fingers_43.shape == (4, 3) and thumb.shape == (4,)
        assert fingers[:, 0].min() > (-13 if name == "open" else -3) and fingers[:, 0].max() < 92
        assert 0 <= fingers[:, 1].min() and fingers[:, 1].max() < 102
        assert np.abs(fingers[:, 2]).max() < 25
        assert -1 <= thumb[0] <= 135 and 0 <= thumb[2:].min() and thumb[2:].max() <= 80


def test_pincer_tips_meet_and_the_other_fingers_are_off():
    for rng, body, side, figure, word in drawn("pincer"):
        radii = bodies.radii(body)
        thumb, index = (figure.joints[f"{word}_{digit}4"] for digit in ("thumb", "forefinger"))
        gap = np.linalg.norm(thumb - index) - radii["finger"][side] - radii["thumb"][side]
        assert 0.002 < gap < 0.008
        for other in ("middle_finger", "ring_finger", "pinky_finger"):
            away = np.linalg.norm(thumb - figure.joints[f"{word}_{other}4"])
            assert away - radii["finger"][side] - radii["thumb"][side] > 0.006
        bead = grasps.toy_in(rng, body, figure, side, "pincer")
        assert len(bead.kind_p) == 1 and 0.004 < 2 * bead.size_p3.max() < 0.012
        assert abs(distance(index, bead)[0] - radii["finger"][side]) < 0.002
        assert abs(distance(thumb, bead)[0] - radii["thumb"][side]) < 0.002


def test_radial_thumb_faces_index_and_middle_finger_across_the_toy():
    for rng, body, side, figure, word in drawn("radial"):
        radii = bodies.radii(body)
        thumb, index, middle = (figure.joints[f"{word}_{digit}4"] for digit in DIGITS[:3])
        toy = grasps.toy_in(rng, body, figure, side, "radial")
        size = 2 * toy.size_p3[0, 0 if toy.kind_p[0] != solids.CONE else 1]
        assert 0.008 < size < 0.04
        for tip, part in ((thumb, "thumb"), (index, "finger"), (middle, "finger")):
            assert -0.002 < distance(tip, toy)[0] - radii[part][side] < 0.012
        for tip in (index, middle):
            flesh = radii["thumb"][side] + radii["finger"][side]
            assert np.linalg.norm(thumb - tip) - flesh < size + 0.006
        for bent in ("ring_finger", "pinky_finger"):
            knuckle, tip = (figure.joints[f"{word}_{bent}{i}"] for i in (1, 4))
            assert np.linalg.norm(tip - knuckle) < 0.34 * body.hand[side]


def test_palmar_closes_all_fingers_round_a_thing_in_the_palm():
    for rng, body, side, figure, word in drawn("palmar"):
        wrist, frame = figure.joints[f"{word}_wrist"], figure.frames[f"{word}_hand"]
        palm = wrist - 0.35 * body.hand[side] * frame[:, 2]
        toy = grasps.toy_in(rng, body, figure, side, "palmar")
        for digit in grasps.NAMES:
            tip = figure.joints[f"{word}_{digit}4"]
            assert np.linalg.norm(tip - palm) < 0.55 * body.hand[side]
            deep = distance(along(chain(figure, word, digit)), toy)
            assert deep.min() > 0.4 * bodies.radii(body)["finger"][side]
        centre = toy.centre_p3[0]
        if toy.kind_p[0] == solids.CONE:
            axis = centre + T[:, None] * toy.size_p3[0, 0] * toy.frame_p33[0, 0]
            centre = axis[np.linalg.norm(axis - palm, axis=1).argmin()]
        assert np.linalg.norm(centre - palm) < 0.45 * body.hand[side]
        inside = -poses.SIGN[side] * (frame.T @ (centre - wrist))[1]
        assert inside > 0.05 * body.hand[side]  # before the palm, not behind the hand


def test_thumb_of_a_fist_is_under_the_fingers_or_on_them():
    for name, under in (("fist_in", True), ("fist_out", False)):
        for _, body, side, figure, word in drawn(name, 100):
            frame, wrist = figure.frames[f"{word}_hand"], figure.joints[f"{word}_wrist"]
            own = {digit: (chain(figure, word, digit) - wrist) @ frame for digit in DIGITS}
            tip = own["thumb"][3] / body.hand[side] * (1, poses.SIGN[side], 1)
            bent = np.array([own[d] for d in grasps.NAMES]) / body.hand[side]
            outer = (bent[:, 1:3, 1] * poses.SIGN[side]).min()  # the most palmar
            assert (tip[1] > outer + 0.03) == under
            assert tip[0] < 0.1 if under else tip[0] < 0.25


def test_toys_belong_to_nobody_and_fit_either_hand():
    for grasp in grasps.GRASPS:
        hand = grasps.GRASP[grasp](np.random.default_rng(5))
        # The same hand on either side of a body whose sides are alike: mirror images.
        body = TODDLERS[0]._replace(hand=(0.1, 0.1), upper_arm=(0.14, 0.14), forearm=(0.11, 0.11))
        figure, made = posed(body, hand), []
        for side in (0, 1):
            toy = grasps.toy_in(np.random.default_rng(9), body, figure, side, grasp)
            assert set(toy.person_p) == {solids.NOBODY} and set(toy.paint_p) == {0}
            made.append(toy)
        if made[0].kind_p[0] != solids.CONE:
            mirrored = made[0].centre_p3 * (1, -1, 1)
            np.testing.assert_allclose(mirrored, made[1].centre_p3, atol=1e-12)
        np.testing.assert_allclose(made[0].size_p3, made[1].size_p3, atol=1e-12)


def test_same_generator_same_hand():
    for draw in HANDS.values():
        one, two = draw(np.random.default_rng(4)), draw(np.random.default_rng(4))
        assert one.fingers_43.tobytes() == two.fingers_43.tobytes()
        assert one.thumb_4.tobytes() == two.thumb_4.tobytes()
