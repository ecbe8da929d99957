"""Atypical gaits: outside what any typical posture of toddlers on their feet shows."""

import numpy as np
import pytest

from nkjax.toddlersim.people import atypical, standing, walking
from tests.toddlersim import upright
from tests.toddlersim.upright import SIDES

POSTURES = (atypical.toe_walking, atypical.scissor_gait, atypical.hemiplegic_arm)
TYPICAL = (walking.high_guard_walk, walking.medium_guard_walk, standing.cruise,
           standing.squat, standing.fall)  # fmt: skip


def typical(but=()):
    return [drawn for posture in TYPICAL if posture not in but
            for drawn in upright.draws(posture, "toddler")]  # fmt: skip


def atypically(posture):
    return upright.draws(posture, "toddler", seed=1)


@pytest.mark.parametrize("posture", POSTURES)
def test_bodies_are_bodies(posture):
    upright.assert_sound(posture, atypically(posture))


@pytest.mark.parametrize("posture", POSTURES)
def test_draws_are_varied_symmetric_and_repeatable(posture):
    found = atypically(posture)
    upright.assert_symmetric(found)
    upright.assert_varied(found)
    upright.assert_deterministic(posture, "toddler")


@pytest.mark.parametrize("posture", POSTURES)
def test_most_draws_are_sound_at_once(posture, monkeypatch):
    upright.assert_seldom_refused(posture, "toddler", monkeypatch)


@pytest.mark.parametrize("posture", POSTURES)
def test_some_foot_carries_the_weight(posture):
    for body, _, figure in atypically(posture):
        assert abs(upright.soles(body, figure).min()) < 0.005


def lower_heel(body, figure):
    """How far the less raised heel is over the toes of its foot, in lengths of the foot."""
    soles = upright.soles(body, figure)
    return ((soles[:, 0] - soles[:, 1:].min(1)) / body.foot).min()


def test_toe_walkers_raise_both_heels_and_others_upright_do_not():
    raised = [lower_heel(body, figure) for body, _, figure in atypically(atypical.toe_walking)]
    # Who falls forward may leave the floor with both heels; a trunk tilted by 25 degrees tells.
    others = [lower_heel(body, figure) for body, _, figure in typical(but=[standing.fall])]
    assert min(raised) > 0.27
    assert max(others) < 0.22
    for _, _, figure in atypically(atypical.toe_walking):
        assert np.degrees(np.arccos(figure.frames["chest"][2, 2])) < 25


def test_scissoring_feet_cross_and_others_do_not():
    widths = [upright.step_ratio(body, figure)
              for body, _, figure in atypically(atypical.scissor_gait)]  # fmt: skip
    others = [upright.step_ratio(body, figure) for body, _, figure in typical(but=[standing.fall])]
    assert max(widths) <= 0.3 and min(widths) > -0.9
    assert np.mean(np.array(widths) < 0) > 0.4
    assert min(others) > 0.8


def test_scissoring_knees_are_close_and_feet_turned_in():
    close, turned = [], []
    for body, _, figure in atypically(atypical.scissor_gait):
        close.append(abs((figure.joints["left_knee"] - figure.joints["right_knee"])[1]) / body.hips)
        for side, sign in zip(SIDES, (1, -1), strict=True):
            foot = figure.frames[f"{side}_foot"][:, 0]
            turned.append(sign * np.degrees(np.arctan2(foot[1], foot[0])))
    assert max(close) < 0.9
    assert np.percentile(turned, 95) < 0


def drawn_up(body, act, figure, side):
    """How far an arm is over the bounds of a hemiplegic one, the lesser, degrees; from joints."""
    i = SIDES.index(side)
    shoulder, elbow, wrist = upright.arm_of(figure, side)
    upper, fore = elbow - shoulder, wrist - elbow
    cos = upper @ fore / np.linalg.norm(upper) / np.linalg.norm(fore)
    # Fingers fall to the palm side (-y of a left hand) of where the forearm points.
    hand = figure.frames[f"{side}_hand"]
    along = fore / np.linalg.norm(fore)
    palmar = np.degrees(np.arcsin(np.clip(-hand[:, 1] @ along * (-1, 1)[i], -1, 1)))
    return min(np.degrees(np.arccos(cos)) - 90, palmar - 40)


def test_hemiplegic_arm_is_bent_at_elbow_and_wrist_and_no_other_is():
    sides, thumbs_in = [], []
    for body, act, figure in atypically(atypical.hemiplegic_arm):
        bent = [drawn_up(body, act, figure, side) for side in SIDES]
        assert sum(value >= -3 for value in bent) == 1
        side = int(np.argmax(bent))
        sides.append(side)
        assert_drawn_arm(act.pose.arms[side], figure, SIDES[side], (1, -1)[side])
        thumbs_in.append(thumb_in(figure, SIDES[side], (1, -1)[side]))
    assert 0.35 < np.mean(sides) < 0.65
    assert np.mean(thumbs_in) > 0.95
    others = [drawn_up(*drawn, side) for drawn in typical() for side in SIDES]
    assert max(others) < -3


def assert_drawn_arm(arm, figure, side, sign):
    assert 90 <= arm.elbow <= 140
    assert 40 <= arm.wrist_3[1] <= 70
    assert arm.wrist_3[0] > 40
    # Adducted: the elbow hangs by the trunk. Turned in: the forearm crosses to the other side.
    shoulder, elbow, wrist = upright.arm_of(figure, side)
    chest = figure.frames["chest"]
    _, out, up = (elbow - shoulder) @ chest
    assert np.degrees(np.arctan2(sign * out, -up)) < 30
    assert sign * ((wrist - elbow) @ chest)[1] < 0
    assert np.mean(np.asarray(arm.hand.fingers_43)[:, 1]) > 55


def thumb_in(figure, side, sign):
    """Whether the tip of the thumb is nearer to the palm than the bent fingers are."""
    wrist_at, frame = figure.joints[f"{side}_wrist"], figure.frames[f"{side}_hand"]
    depth = {name: -sign * ((figure.joints[f"{side}_{name}"] - wrist_at) @ frame)[1]
             for name in ("thumb4", "middle_finger2", "middle_finger3")}  # fmt: skip
    return depth["thumb4"] < max(depth["middle_finger2"], depth["middle_finger3"])


def test_the_leg_of_that_side_is_stiffer_and_on_its_toes():
    stiff, other = [], []
    for body, act, figure in atypically(atypical.hemiplegic_arm):
        side = int(np.argmax([drawn_up(body, act, figure, side) for side in SIDES]))
        soles = upright.soles(body, figure)
        heels = soles[:, 0] - soles[:, 1:].min(1)
        stiff.append((act.pose.legs[side].knee, heels[side]))
        other.append((act.pose.legs[1 - side].knee, heels[1 - side]))
    # In its swing, when knees bend most.
    assert np.percentile(stiff, 90, axis=0)[0] < np.percentile(other, 90, axis=0)[0] - 5
    assert min(heel for _, heel in stiff) > 0.005
    assert np.median([heel for _, heel in other]) < 0.02
