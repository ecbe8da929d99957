"""Crawling and sitting toddlers, measured on posed joints and solids."""

import functools

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, floor, grasps, poses, touching
from tests.toddlersim import measured

SIDES = ("left", "right")
POSTURES = {"crawl": floor.crawl, "bear_crawl": floor.bear_crawl, "sit_reach": floor.sit_reach}
FINGERS = [f"{digit}{i}" for digit in ("thumb", *grasps.NAMES) for i in (1, 2, 3, 4)]


@functools.cache
def drawn(posture):
    return measured.draws(POSTURES[posture])


def hand_height(body, figure, side):
    """Of the lowest flesh of a hand, metres."""
    return measured.lowest(measured.chosen(body, figure, f"{SIDES[side]}_hand"))


@pytest.mark.parametrize("posture", POSTURES)
def test_every_draw_is_sound(posture):
    for body, act, figure in drawn(posture):
        assert act.posture == posture and act.holder is None
        assert acts.beyond_range(act.pose) == []
        assert acts.overlaps(body, figure) == []
        measured.bones_keep_their_length(body, figure)
        for side in SIDES:
            assert measured.knee_bend(figure, side) > -0.01


@pytest.mark.parametrize("posture", POSTURES)
def test_nothing_is_below_the_floor(posture):
    for body, act, figure in drawn(posture)[:100]:
        parts = measured.chosen(
            body, figure, "chest", "belly", "pelvis", "thigh", "shank", "foot", "hand", "forearm"
        )
        assert measured.lowest(parts) > -0.015
        if len(act.toy.kind_p):
            assert measured.lowest(act.toy) > -0.004


def test_crawlers_are_on_hands_and_knees():
    for body, _, figure in drawn("crawl"):
        radii = bodies.radii(body)
        for i, side in enumerate(SIDES):
            assert abs(figure.joints[f"{side}_knee"][2] - radii["knee"][i]) < 0.01
            assert abs(figure.joints[f"{side}_ankle"][2] - radii["ankle"][i]) < 0.10
            assert abs(hand_height(body, figure, i)) < 0.01
            assert figure.joints[f"{side}_wrist"][2] < 0.045
            assert -SIDE_PALM[i] * figure.frames[f"{side}_hand"][2, 1] < -0.9  # palm down
        assert figure.joints["pelvis"][2] > figure.joints["left_knee"][2] + 0.08
        assert figure.frames["chest"][0, 2] > 0.7  # the trunk lies forward


SIDE_PALM = (1, -1)


def test_arms_and_legs_of_crawlers_move_diagonally():
    """The hand is ahead on the side where the knee is behind."""
    hands, knees = [], []
    for _, _, figure in drawn("crawl"):
        ahead = figure.frames["pelvis"][:, 1][[1, 0]] * (1, -1)
        for found, part in ((hands, "wrist"), (knees, "knee")):
            way = figure.joints[f"left_{part}"] - figure.joints[f"right_{part}"]
            found.append(way[:2] @ ahead)
    assert np.corrcoef(hands, knees)[0, 1] < -0.4


def test_bears_are_on_hands_and_feet_with_the_bottom_high():
    for body, _, figure in drawn("bear_crawl"):
        for i, side in enumerate(SIDES):
            foot = measured.chosen(body, figure, f"{side}_foot")
            assert abs(measured.lowest(foot)) < 0.01
            assert abs(hand_height(body, figure, i)) < 0.01
            assert figure.joints[f"{side}_knee"][2] > bodies.radii(body)["knee"][i] + 0.03
        hips, shoulders = (np.mean([figure.joints[f"{s}_{part}"][2] for s in SIDES])
                           for part in ("hip", "shoulder"))  # fmt: skip
        assert hips > shoulders - 0.02


def test_sitters_have_their_bottom_on_the_floor_and_are_upright():
    for body, _, figure in drawn("sit_reach"):
        assert abs(measured.lowest(measured.chosen(body, figure, "pelvis"))) < 0.01
        assert figure.frames["pelvis"][2, 2] > 0.7
        for side in SIDES:
            assert measured.lowest(measured.chosen(body, figure, f"{side}_foot")) < 0.01


def test_two_of_three_sitters_hold_something_with_each_grasp_alike():
    found = [act.grasp for _, act, _ in drawn("sit_reach")]
    share = {grasp: found.count(grasp) / len(found) for grasp in ("none", *grasps.GRASPS)}
    assert sum(share.values()) == pytest.approx(1)
    assert abs(share["none"] - 1 / 3) < 0.10
    for grasp in grasps.GRASPS:
        assert abs(share[grasp] - 2 / 9) < 0.09, share


def test_a_toy_is_in_a_hand_exactly_where_a_grasp_is_named():
    for body, act, figure in drawn("sit_reach"):
        assert (len(act.toy.kind_p) > 0) == (act.grasp != "none")
        if act.grasp == "none":
            continue
        gaps = []
        for i, side in enumerate(SIDES):
            places = [figure.joints[f"{side}_{part}"] for part in FINGERS]
            gaps.append(measured.distance(places, act.toy).min() - bodies.radii(body)["finger"][i])
        assert min(gaps) < 0.008


def test_sitters_lean_reach_and_rest_in_many_ways():
    knees = np.array([[leg.knee for leg in act.pose.legs] for _, act, _ in drawn("sit_reach")])
    assert (knees.max(1) < 45).mean() > 0.06  # long sitting
    assert (knees.min(1) > 110).mean() > 0.05  # W sitting
    on_floor = [min(hand_height(body, figure, i) for i in (0, 1)) < 0.008
                for body, _, figure in drawn("sit_reach")]  # fmt: skip
    assert 0.05 < np.mean(on_floor) < 0.8


@pytest.mark.parametrize("posture", POSTURES)
def test_left_and_right_are_alike_and_no_two_draws_are(posture):
    made = [act for _, act, _ in drawn(posture)]
    measured.assert_mirrored(made)
    measured.assert_all_different(made, 5)


@pytest.mark.parametrize("posture", POSTURES)
def test_same_generator_same_act(posture):
    body = measured.some_bodies("toddler", 1)[0]
    one, two = (POSTURES[posture](np.random.default_rng(7), body) for _ in range(2))
    for a, b in zip(measured.angles(one.pose), measured.angles(two.pose), strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.pose.place_3.tobytes() == two.pose.place_3.tobytes()
    assert one.toy.centre_p3.tobytes() == two.toy.centre_p3.tobytes()


def test_bottom_of_toys():
    made = solids
    tilted = poses.turn_x(90)
    assert touching.bottom(made.make(made.BALL, [0, 0, 0.5], np.eye(3), [0.1, 0.1, 0.2])) == 0.3
    assert touching.bottom(made.make(made.BOX, [0, 0, 0.5], tilted, [0.1, 0.3, 0.2])) == 0.2
    stick = made.cone((0, 0, 0.5), (0.3, 0, 0.1), 0.02, 0.03)
    assert touching.bottom(stick) == pytest.approx(0.07)
