"""Atypical toddlers on the floor: sound, and outside of what typical ones do."""

import functools

import numpy as np
import pytest

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, atypical_floor, bodies, floor
from tests.toddlersim import measured

SIDES = ("left", "right")
ATYPICAL = {
    "asymmetric_crawl": atypical_floor.asymmetric_crawl,
    "commando_drag": atypical_floor.commando_drag,
    "persistent_palmar": atypical_floor.persistent_palmar,
}
TYPICAL = (floor.crawl, floor.bear_crawl, floor.sit_reach)


@functools.cache
def drawn(draw):
    return measured.draws(draw)


def trunk_height(body, figure):
    return measured.lowest(measured.chosen(body, figure, "chest", "belly", "pelvis"))


def uneven_knees(body, figure):
    """Whether one knee is down and the other 8 cm up, or one bends 75 degrees more; prone."""
    if trunk_height(body, figure) < 0.02:
        return False
    up = [figure.joints[f"{side}_knee"][2] - bodies.radii(body)["knee"][i]
          for i, side in enumerate(SIDES)]  # fmt: skip
    bends = [measured.knee_bend(figure, side) for side in SIDES]
    return (min(up) < 0.01 and max(up) - min(up) >= 0.08) or abs(bends[0] - bends[1]) >= 75


def drags_on_belly(body, figure):
    facing_down = np.degrees(np.arcsin(-figure.frames["pelvis"][2, 0]))
    return trunk_height(body, figure) < 0.01 and facing_down > 60


def bent_wrists(figure):
    """Whether both wrists are bent to the palm by 39 degrees or more, from hands and forearms."""
    found = []
    for sign, side in zip((1, -1), SIDES, strict=True):
        forearm = figure.joints[f"{side}_wrist"] - figure.joints[f"{side}_elbow"]
        hand = figure.frames[f"{side}_hand"]
        out_of_palm = forearm / np.linalg.norm(forearm) @ hand[:, 1] * sign
        found.append(np.degrees(np.arcsin(out_of_palm)))
    return min(found) >= 30


OUTSIDE = {
    "asymmetric_crawl": uneven_knees,
    "commando_drag": drags_on_belly,
    "persistent_palmar": lambda body, figure: bent_wrists(figure),
}


@pytest.mark.parametrize("posture", ATYPICAL)
def test_every_draw_is_sound(posture):
    for body, act, figure in drawn(ATYPICAL[posture]):
        assert act.posture == posture
        assert acts.beyond_range(act.pose) == [] and acts.overlaps(body, figure) == []
        measured.bones_keep_their_length(body, figure)
        assert all(measured.knee_bend(figure, side) > -0.01 for side in SIDES)
        assert acts.lowest(body, figure) >= -acts.FLOOR_SLACK


@pytest.mark.parametrize("posture", ATYPICAL)
def test_atypical_is_outside_of_what_typical_toddlers_do(posture):
    outside = OUTSIDE[posture]
    assert all(outside(body, figure) for body, _, figure in drawn(ATYPICAL[posture]))
    for typical in TYPICAL:
        assert not any(outside(body, figure) for body, _, figure in drawn(typical))


def test_hitching_crawlers_lean_on_both_hands_and_a_knee():
    for body, _, figure in drawn(atypical_floor.asymmetric_crawl):
        radii = bodies.radii(body)
        knees = [figure.joints[f"{side}_knee"][2] - radii["knee"][i]
                 for i, side in enumerate(SIDES)]  # fmt: skip
        assert abs(min(knees)) < 0.012
        for side in SIDES:
            hand = measured.lowest(measured.chosen(body, figure, f"{side}_hand"))
            assert abs(hand) < 0.01


def test_commandos_pull_on_forearms_with_legs_trailing_and_head_up():
    for body, _, figure in drawn(atypical_floor.commando_drag):
        radii = bodies.radii(body)
        for i, side in enumerate(SIDES):
            for part in ("elbow", "wrist"):
                assert abs(figure.joints[f"{side}_{part}"][2] - radii[part][i]) < 0.015
            way = figure.joints[f"{side}_ankle"] - figure.joints[f"{side}_hip"]
            assert way @ figure.frames["pelvis"][:, 2] < -0.6 * np.linalg.norm(way)
        assert figure.frames["head"][2, 2] > figure.frames["chest"][2, 2] + 0.05


def test_persistent_palmar_reaches_for_a_bead_with_fists():
    for body, act, figure in drawn(atypical_floor.persistent_palmar):
        assert act.grasp == "persistent_palmar"
        assert len(act.toy.kind_p) == 1 and act.toy.size_p3.max() < 0.008
        bead, away = act.toy.centre_p3[0], []
        for i, side in enumerate(SIDES):
            assert 40 <= act.pose.arms[i].wrist_3[1] <= 70
            away.append(np.linalg.norm((figure.joints[f"{side}_middle_finger2"] - bead)[:2]))
            tips = [figure.joints[f"{side}_{f}4"] for f in ("forefinger", "middle_finger")]
            palm = figure.joints[f"{side}_wrist"] - 0.35 * body.hand[i] * (
                figure.frames[f"{side}_hand"][:, 2]
            )
            assert all(np.linalg.norm(tip - palm) < 0.55 * body.hand[i] for tip in tips)
        assert min(away) < 0.04
        below = bead[2] - act.toy.size_p3[0, 0]
        top = 0.0
        if len(act.things.kind_p):
            assert act.things.kind_p[0] == solids.BOX
            top = act.things.centre_p3[0, 2] + act.things.size_p3[0, 2]
        assert abs(below - top) < 1e-9
        assert abs(measured.lowest(measured.chosen(body, figure, "pelvis"))) < 0.01


@pytest.mark.parametrize("posture", ATYPICAL)
def test_left_and_right_are_alike_and_no_two_draws_are(posture):
    made = [act for _, act, _ in drawn(ATYPICAL[posture])]
    measured.assert_mirrored(made)
    measured.assert_all_different(made, 4)


@pytest.mark.parametrize("posture", ATYPICAL)
def test_same_generator_same_act(posture):
    body = measured.some_bodies("toddler", 1)[0]
    one, two = (ATYPICAL[posture](np.random.default_rng(7), body) for _ in range(2))
    for a, b in zip(measured.angles(one.pose), measured.angles(two.pose), strict=True):
        assert a.tobytes() == b.tobytes()
    assert one.things.centre_p3.tobytes() == two.things.centre_p3.tobytes()
