"""Adults: joints and flesh of drawn acts measured against what the issue asks."""

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import adults, grasps
from tests.toddlersim import upright
from tests.toddlersim.upright import SIDES

POSTURES = (adults.walk, adults.stand, adults.reach, adults.sit)


def chest_tilt(figure):
    return np.degrees(np.arccos(figure.frames["chest"][2, 2]))


@pytest.mark.parametrize("posture", POSTURES)
def test_bodies_are_bodies(posture):
    upright.assert_sound(posture, upright.draws(posture, "adult"))


@pytest.mark.parametrize("posture", POSTURES)
def test_draws_are_varied_symmetric_and_repeatable(posture):
    found = upright.draws(posture, "adult")
    upright.assert_symmetric(found)
    upright.assert_varied(found)
    upright.assert_deterministic(posture, "adult")


@pytest.mark.parametrize("posture", [adults.walk, adults.stand])
def test_base_is_narrow(posture):
    found = upright.draws(posture, "adult")
    ratios = [upright.step_ratio(body, figure) for body, _, figure in found]
    assert 0.45 <= min(ratios) and max(ratios) <= 0.75
    assert abs(np.mean(ratios) - 0.6) < 0.02
    assert np.std(ratios) > 0.03


def test_walkers_step_long_from_heel_to_toe():
    ahead, heel_first, toe_last, on_heels = [], 0, 0, 0
    for body, _, figure in upright.draws(adults.walk, "adult"):
        soles = upright.soles(body, figure)
        assert soles.min() > -1e-9
        assert soles.min(1).min() < 0.005
        front = int(figure.joints["right_heel"][0] > figure.joints["left_heel"][0])
        # Heel, big toe: toes of the foot in front are up, the heel of the one behind is.
        heel_first += soles[front, 0] < 0.005 and soles[front, 1] > 0.02
        toe_last += soles[1 - front, 1] < 0.005 and soles[1 - front, 0] > 0.03
        on_heels += soles[1 - front, 0] < 0.005 and soles[1 - front, 1] > 0.02
        way = figure.joints["left_ankle"] - figure.joints["right_ankle"]
        ahead.append(abs(way[0]) / body.stature)
    assert 0.25 < np.percentile(ahead, 90) < 0.45
    assert heel_first > 10 and toe_last > 30 and on_heels == 0


def test_arms_swing_against_the_legs():
    rows = []
    for body, _, figure in upright.draws(adults.walk, "adult"):
        arm = figure.joints["left_wrist"] - figure.joints["right_wrist"]
        leg = figure.joints["left_ankle"] - figure.joints["right_ankle"]
        rows.append((arm[0] / body.stature, leg[0] / body.stature))
    assert np.corrcoef(np.transpose(rows))[0, 1] < -0.6


@pytest.mark.parametrize("posture", [adults.stand, adults.reach, adults.sit])
def test_feet_are_flat_on_the_floor(posture):
    for body, _, figure in upright.draws(posture, "adult"):
        assert np.abs(upright.soles(body, figure)).max() < 0.005


def test_standing_is_upright_with_arms_at_different_things():
    hanging, hips, high = 0, 0, 0
    for body, _, figure in upright.draws(adults.stand, "adult"):
        assert chest_tilt(figure) < 25
        for side in SIDES:
            shoulder, elbow, wrist = upright.arm_of(figure, side)
            hip = figure.joints[f"{side}_hip"]
            hanging += wrist[2] < hip[2] + 0.03 * body.stature
            near = abs(wrist[2] - hip[2]) < 0.15 * body.stature
            hips += near and elbow[2] - wrist[2] > 0.03 and abs(elbow[1]) > abs(wrist[1]) + 0.03
            high += wrist[2] > elbow[2]
    count = 2 * upright.COUNT
    assert 0.3 < hanging / count < 0.7
    assert hips / count > 0.04
    assert high / count > 0.08


def test_reaching_goes_up_forward_and_down_with_the_arm_out():
    slopes = []
    for body, act, figure in upright.draws(adults.reach, "adult"):
        arms = [at[2] - at[0] for at in (upright.arm_of(figure, side) for side in SIDES)]
        lengths = np.array(body.upper_arm) + np.array(body.forearm)
        far = max(arms, key=lambda arm: arm[0] + max(arm[2], 0))
        assert max(np.linalg.norm(arms, axis=1) / lengths) > 0.7
        slopes.append(np.degrees(np.arctan2(far[2], np.hypot(far[0], far[1]))))
        if act.grasp == "none":
            assert not len(act.toy.kind_p)
            continue
        wrists = [figure.joints[f"{side}_wrist"] for side in SIDES]
        tips = [figure.joints[f"{side}_middle_finger3"] for side in SIDES]
        # A stick is a cone, from its centre along its first axis.
        toy = act.toy.centre_p3[0] + np.linspace(0, 1, 20)[:, None] * act.toy.frame_p33[0, 0] * (
            act.toy.size_p3[0, 0] if act.toy.kind_p[0] == solids.CONE else 0)  # fmt: skip
        near = np.linalg.norm(toy[:, None] - np.array(wrists + tips), axis=-1)
        assert near.min() < 0.6 * max(body.hand)
    up, ahead, down = np.histogram(slopes, [-90, -30, 30, 90])[0][::-1] / len(slopes)
    assert min(up, ahead, down) > 0.15
    held = {act.grasp for _, act, _ in upright.draws(adults.reach, "adult")}
    assert held == {"none", *grasps.GRASPS}


def test_sitters_sit_on_their_chair():
    backs = 0
    for body, act, figure in upright.draws(adults.sit, "adult"):
        joints, things = figure.joints, act.things
        for side in SIDES:
            thigh = joints[f"{side}_knee"] - joints[f"{side}_hip"]
            assert abs(np.degrees(np.arctan2(thigh[2], np.hypot(*thigh[:2])))) < 20
        seat = things.centre_p3[0, 2] + things.size_p3[0, 2]
        assert abs(upright.lowest_of(body, figure, "pelvis") - seat) < 0.01
        under = np.abs(joints["pelvis"] - things.centre_p3[0])[:2]
        assert (under < things.size_p3[0, :2]).all()
        limbs = [joints[name] for name in joints if name not in ("pelvis",)]
        assert upright.in_boxes(np.array(limbs), things).max() < 0.005
        assert (things.centre_p3[:, 2] - things.size_p3[:, 2] > -1e-9).all()
        backs += len(things.kind_p) == 6
    assert 0.2 < backs / upright.COUNT < 0.5


@pytest.mark.parametrize("posture", POSTURES)
def test_most_draws_are_sound_at_once(posture, monkeypatch):
    upright.assert_seldom_refused(posture, "adult", monkeypatch)
