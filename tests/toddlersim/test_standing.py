"""Toddlers upright: joints and flesh of drawn acts measured against what the issue asks."""

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, stance, standing, walking
from tests.toddlersim import upright
from tests.toddlersim.upright import SIDES

POSTURES = (walking.high_guard_walk, walking.medium_guard_walk, standing.cruise,
            standing.squat, standing.fall)  # fmt: skip
WALKS = POSTURES[:2]


@pytest.mark.parametrize("posture", POSTURES)
def test_bodies_are_bodies(posture):
    upright.assert_sound(posture, upright.draws(posture, "toddler"))


@pytest.mark.parametrize("posture", POSTURES)
def test_draws_are_varied_symmetric_and_repeatable(posture):
    found = upright.draws(posture, "toddler")
    upright.assert_symmetric(found)
    upright.assert_varied(found)
    upright.assert_deterministic(posture, "toddler")


@pytest.mark.parametrize(
    ("posture", "middle", "spread"), [(WALKS[0], 1.8, 0.2), (WALKS[1], 1.3, 0.15)]
)
def test_steps_are_as_wide_as_at_that_age(posture, middle, spread):
    found = upright.draws(posture, "toddler")
    ratios = [upright.step_ratio(body, figure) for body, _, figure in found]
    assert middle - spread <= min(ratios) and max(ratios) <= middle + spread
    assert abs(np.mean(ratios) - middle) < 0.03
    assert np.std(ratios) > 0.04


@pytest.mark.parametrize(("posture", "longest"), [(WALKS[0], 0.18), (WALKS[1], 0.26)])
def test_walkers_carry_their_weight_on_a_foot_and_use_the_whole_stride(posture, longest):
    ahead, swinging = [], 0
    for body, _, figure in upright.draws(posture, "toddler"):
        soles = upright.soles(body, figure)
        assert soles.min() > -1e-9
        assert soles.min(1).min() < 0.005
        swinging += soles.min(1).max() > 0.01
        ahead.append(figure.joints["left_ankle"][0] - figure.joints["right_ankle"][0])
    assert 0.3 < swinging / len(ahead) < 0.9
    assert max(np.abs(ahead)) < longest
    # Every part of the stride is there, on both sides.
    shares = np.histogram(ahead, [-1, -0.4 * longest, 0, 0.4 * longest, 1])[0] / len(ahead)
    assert shares.min() > 0.1


def test_high_guard_is_high():
    for _, _, figure in upright.draws(walking.high_guard_walk, "toddler"):
        chest = figure.frames["chest"]
        for side, sign in zip(SIDES, (1, -1), strict=True):
            shoulder, elbow, wrist = upright.arm_of(figure, side)
            assert wrist[2] > shoulder[2] - 0.02
            _, out, up = (elbow - shoulder) @ chest
            assert 60 <= np.degrees(np.arctan2(sign * out, -up)) <= 90
            upper, fore = elbow - shoulder, wrist - elbow
            cos = upper @ fore / np.linalg.norm(upper) / np.linalg.norm(fore)
            assert np.degrees(np.arccos(cos)) > 50


def test_high_guard_feet_turn_out_and_knees_bend():
    turned, bent = [], []
    for _, act, figure in upright.draws(walking.high_guard_walk, "toddler"):
        for side, sign in zip(SIDES, (1, -1), strict=True):
            foot = figure.frames[f"{side}_foot"][:, 0]
            turned.append(sign * np.degrees(np.arctan2(foot[1], foot[0])))
        bent += [leg.knee for leg in act.pose.legs]
    medium = [leg.knee for _, act, _ in upright.draws(walking.medium_guard_walk, "toddler")
              for leg in act.pose.legs]  # fmt: skip
    assert 12 < np.mean(turned) < 25
    assert np.median(bent) > np.median(medium) + 2


def test_medium_guard_is_at_the_waist():
    for _, _, figure in upright.draws(walking.medium_guard_walk, "toddler"):
        for side in SIDES:
            hip, shoulder = figure.joints[f"{side}_hip"][2], figure.joints[f"{side}_shoulder"][2]
            assert hip < figure.joints[f"{side}_wrist"][2] < shoulder


def test_cruisers_hands_lie_on_the_furniture():
    together = 0
    for body, act, figure in upright.draws(standing.cruise, "toddler"):
        top = act.things.centre_p3[0, 2] + act.things.size_p3[0, 2]
        edge = (act.things.centre_p3[:, 0] - act.things.size_p3[:, 0]).min()
        joints = figure.joints
        assert joints["pelvis"][2] < top < joints["left_shoulder"][2]
        on = []
        for side in SIDES:
            low = upright.lowest_of(body, figure, f"{side}_hand")
            hand = np.array([place for name, place in joints.items()
                             if name.startswith(side) and name[-1] in "1234"])  # fmt: skip
            assert upright.in_boxes(hand, act.things).max() < 0.004
            over = joints[f"{side}_middle_finger2"][0] > edge
            on.append(over and top - 0.006 < low < top + 0.015)
        assert any(on)
        together += all(on)
        trunk = np.array([joints[name] for name in ("pelvis", "waist", "neck", "head")])
        limbs = [joints[f"{side}_{part}"] for side in SIDES
                 for part in ("elbow", "knee", "ankle", "big_toe", "small_toe")]  # fmt: skip
        assert upright.in_boxes(np.concatenate([trunk, limbs]), act.things).max() < 0
    assert 0.5 < together / upright.COUNT < 0.8


def test_squatters_sit_on_their_heels_with_flat_feet():
    for body, act, figure in upright.draws(standing.squat, "toddler"):
        assert np.abs(upright.soles(body, figure)).max() < 0.005
        bottom = upright.lowest_of(body, figure, "pelvis")
        assert 0.003 < bottom < 0.13 * body.stature
        assert all(leg.knee > 100 for leg in act.pose.legs)
        hands = [upright.lowest_of(body, figure, f"{side}_hand") for side in SIDES]
        assert -0.006 < min(hands) < 0.07
        toes = max(figure.joints[f"{side}_big_toe"][0] for side in SIDES)
        heels = min(figure.joints[f"{side}_heel"][0] for side in SIDES)
        # It balances: most of the weight, trunk and head, is over or near the feet.
        weight = 0.6 * figure.joints["waist"][0] + 0.4 * figure.joints["head"][0]
        assert heels - 0.06 < weight < toes + 0.06


def test_falls_go_all_ways_with_arms_out():
    ways = []
    for body, _, figure in upright.draws(standing.fall, "toddler"):
        up = figure.frames["chest"][:, 2]
        assert 25 <= np.degrees(np.arccos(up[2])) <= 60
        ways.append(np.arctan2(up[1], up[0]))
        for i, side in enumerate(SIDES):
            arm = figure.joints[f"{side}_wrist"] - figure.joints[f"{side}_shoulder"]
            assert np.linalg.norm(arm) > 0.6 * (body.upper_arm[i] + body.forearm[i])
    quarters = np.histogram(ways, np.radians([-180, -135, -45, 45, 135, 180]))[0] / len(ways)
    forward, sideways, back = quarters[2], quarters[[1, 3]], quarters[0] + quarters[4]
    assert min(forward, *sideways, back) > 0.15


def test_some_falls_end_on_the_bottom():
    low = [upright.lowest_of(body, figure, "pelvis") < 0.05
           for body, _, figure in upright.draws(standing.fall, "toddler")]  # fmt: skip
    assert 0.05 < np.mean(low) < 0.4


@pytest.mark.parametrize("posture", POSTURES)
def test_most_draws_are_sound_at_once(posture, monkeypatch):
    upright.assert_seldom_refused(posture, "toddler", monkeypatch)


def test_what_cannot_be_is_refused():
    body = bodies.draw(np.random.default_rng(0), "toddler", 20, False)
    act = standing.squat(np.random.default_rng(0), body)
    assert stance.sound(body, act)
    lower = act.pose._replace(place_3=act.pose.place_3 - (0, 0, 0.05))
    stiff = act.pose.legs[0]._replace(knee=-20.0)
    wall = solids.make(solids.BOX, act.pose.place_3 + (0, 0, 0.2), np.eye(3), 0.1)
    for wrong in (
        act._replace(pose=lower),
        act._replace(pose=act.pose._replace(legs=(stiff, act.pose.legs[1]))),
        act._replace(things=wall),
    ):
        assert not stance.sound(body, wrong)
        with pytest.raises(RuntimeError, match="squat"):
            stance.first_sound(body, lambda wrong=wrong: wrong)
    # Both legs through each other.
    walk = walking.medium_guard_walk(np.random.default_rng(0), body)
    legs = (leg._replace(hip_3=np.array([0, -12.0, 0]), knee=0.0) for leg in walk.pose.legs)
    crossed = walk.pose._replace(legs=tuple(legs))
    assert not stance.sound(body, walk._replace(pose=crossed))
