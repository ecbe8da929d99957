"""Children in arms: who touches whom, measured on solids by distances of the test's own."""

import functools

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, flesh, holding, poses, stance, touching
from tests.toddlersim import measured

TRUNK = ("chest", "belly", "pelvis")
BODY = (*TRUNK, "skull", "face", "neck", "thigh", "shank", "upper_arm", "forearm")
DEEP, NEAR = 0.02, 0.02


@functools.cache
def drawn():
    """200 of (body, act, figure, adult, figure of the adult)."""
    rng, found = np.random.default_rng(2), []
    children, adults = measured.some_bodies("toddler", 200), measured.some_bodies("adult", 200)
    for body, adult in zip(children, adults, strict=True):
        act = holding.held(rng, body, adult)
        assert act.holder[0] is adult
        figure = poses.pose_body(*act.holder)
        found.append((body, act, poses.pose_body(body, act.pose), adult, figure))
    return found


def forearm_and_hand(adult, figure, side):
    """Gaps of points along a forearm and of a hand's joints: (places, radii)."""
    made = measured.chosen(adult, figure, f"{side}_forearm", f"{side}_hand")
    cones = made.kind_p == solids.CONE
    t = np.linspace(0, 1, 7)[:, None]
    places, radii = [], []
    for centre, frame, size in zip(*(f[cones] for f in made[1:4]), strict=True):
        places.append(centre + t * size[0] * frame[0])
        radii.append(size[1] + t[:, 0] * (size[2] - size[1]))
    return np.concatenate(places), np.concatenate(radii)


def test_both_are_sound():
    for body, act, figure, adult, big in drawn():
        assert act.posture == "held" and act.grasp == "none"
        assert acts.beyond_range(act.pose) == [] and acts.overlaps(body, figure) == []
        assert acts.beyond_range(act.holder[1]) == [] and acts.overlaps(adult, big) == []
        for who, what in ((body, figure), (adult, big)):
            measured.bones_keep_their_length(who, what)
            assert all(measured.knee_bend(what, side) > -0.01 for side in ("left", "right"))


def test_the_child_is_off_the_floor_and_the_adult_on_it():
    for body, act, figure, adult, big in drawn():
        assert measured.lowest(flesh.solids_of(body, figure)) > 0.02
        for side in ("left", "right"):
            feet = measured.lowest(measured.chosen(adult, big, f"{side}_foot"))
            assert abs(feet) < 0.012
        if len(act.things.kind_p):
            assert stance.into_things(adult, big, act.things) <= stance.INTO_THINGS
            assert big.joints["pelvis"][2] < 0.75 * adult.thigh[0] + adult.shank[0]


def test_their_trunks_touch_and_are_not_in_each_other():
    for body, _, figure, adult, big in drawn()[:100]:
        skin = measured.chosen(body, figure, *TRUNK)
        balls = [field[skin.kind_p == solids.BALL] for field in skin]
        points = (balls[1][:, None] + (measured.ROUND[:300] * balls[3][:, None]) @ balls[2])
        gap = measured.distance(points.reshape(-1, 3), measured.chosen(adult, big, *TRUNK)).min()
        assert -0.026 < gap < 0.012


def test_arms_of_the_adult_hold_and_go_through_nobody():
    for body, _, figure, adult, big in drawn():
        child = measured.chosen(body, figure, *BODY)
        seat = measured.chosen(body, figure, "pelvis", "thigh")
        trunk = measured.chosen(body, figure, *TRUNK, "thigh")
        carries = holds = 0
        for side in ("left", "right"):
            places, radii = forearm_and_hand(adult, big, side)
            gaps = measured.distance(places, child) - radii
            assert -DEEP < gaps.min() < NEAR
            low = places[:, 2] < figure.joints["pelvis"][2]
            under = measured.distance(places, seat) - radii
            carries += bool((low & (np.abs(under) < NEAR)).any())
            holds += bool((measured.distance(places, trunk) - radii).min() < NEAR)
        assert carries >= 1 and holds == 2


def test_the_child_goes_through_no_part_of_the_adult():
    for body, _, figure, adult, big in drawn()[:100]:
        firm = measured.chosen(adult, big, *TRUNK, "skull", "face", "neck", "thigh", "shank")
        made = measured.chosen(body, figure, "thigh", "shank", "forearm", "upper_arm")
        ends = made.centre_p3 + made.size_p3[:, :1] * made.frame_p33[:, 0]
        for places, radii in ((made.centre_p3, made.size_p3[:, 1]), (ends, made.size_p3[:, 2])):
            assert (measured.distance(places, firm) - radii).min() > -0.03
        head = figure.joints["head"]
        assert measured.distance(head, firm)[0] > 0.3 * body.head


def test_children_are_held_in_four_ways():
    facing, sitting, aside = [], [], []
    for _, act, figure, _, big in drawn():
        adult_x, child_x = big.frames["chest"][:, 0], figure.frames["chest"][:, 0]
        facing.append(adult_x @ child_x)
        sitting.append(len(act.things.kind_p) > 0)
        way = figure.joints["waist"] - big.joints["waist"]
        aside.append(way @ big.frames["chest"][:, 1])
    facing, sitting, aside = np.array(facing), np.array(sitting), np.array(aside)
    assert 0.1 < sitting.mean() < 0.3
    assert 0.13 < ((facing > 0.6) & ~sitting).mean() < 0.35  # outwards
    assert 0.17 < ((facing < -0.6) & ~sitting).mean() < 0.45  # to the adult's front
    hip = ~sitting & (np.abs(aside) > 0.1)
    assert 0.2 < hip.mean() < 0.4
    assert 0.25 < (aside[hip] > 0).mean() < 0.75


def test_left_and_right_are_alike_and_no_two_draws_are():
    made = [act for _, act, *_ in drawn()]
    measured.assert_mirrored(made)
    measured.assert_mirrored([act._replace(pose=act.holder[1]) for act in made])
    measured.assert_all_different(made, 5)


def test_same_generator_same_act():
    body, adult = measured.some_bodies("toddler", 1)[0], measured.some_bodies("adult", 1)[0]
    one, two = (holding.held(np.random.default_rng(3), body, adult) for _ in range(2))
    for a, b in ((one.pose, two.pose), (one.holder[1], two.holder[1])):
        assert a.place_3.tobytes() == b.place_3.tobytes()
        for x, y in zip(measured.angles(a), measured.angles(b), strict=True):
            assert x.tobytes() == y.tobytes()


def test_distances_are_those_measured_by_brute_force():
    rng = np.random.default_rng(0)
    cone = solids.cone((0.1, 0, 0), (0.3, 0.1, -0.2), 0.05, 0.02)
    ball = solids.make(solids.BALL, [0, 0.1, 0], poses.turn_x(30), [0.1, 0.1, 0.1])
    points = rng.normal(0, 0.3, (200, 3))
    for thing in (cone, ball):
        found = touching.distance(points, touching.surface(thing))
        expected = measured.distance(points, thing)
        np.testing.assert_allclose(found, expected, atol=0.004)
    # To first order near the surface of a long ellipsoid: along its axes exactly known.
    egg = solids.make(solids.BALL, [0, 0, 0], np.eye(3), [0.1, 0.05, 0.2])
    near = np.array([[0.104, 0, 0], [0, -0.047, 0], [0, 0, 0.206]])
    found = touching.distance(near, touching.surface(egg))
    np.testing.assert_allclose(found, [0.004, -0.003, 0.006], atol=2e-4)
