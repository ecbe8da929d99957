"""Toddlers held by an adult who stands or sits: on the hip, before the chest, or on the lap.

The child is moved towards the adult until their trunks touch, its limbs are drawn until they go
through nobody, and the adult's arms are then laid round it.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, flesh, grasps, poses, reaching, touching
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.embracing import embrace
from nkjax.toddlersim.people.poses import SIGN, Arm, Figure, Leg, Pose
from nkjax.toddlersim.people.stance import (
    NAMES,
    carriage,
    clipped,
    foot_at,
    sound,
    stand_on,
    trunk_of,
    with_legs,
)
from nkjax.toddlersim.people.supports import heading, look_about
from nkjax.toddlersim.people.touching import Surface
from nkjax.toddlersim.solids import Solids

TRIES = 80
WAYS = ("hip", "front", "outwards", "lap")
PRESSED = 0.018  # m that two people may be in each other: flesh and clothes give way
ASTRIDE = 0.026  # m likewise, of thighs round a waist
FURTHEST = 0.96  # of the arm's length, from shoulder to hips of the child: none reached so far
HEAD_ROOM = 0.33  # of the head's height, from its middle: a cheek on the shoulder
TRUNK = ("chest", "belly", "pelvis")
FIRM = (*TRUNK, "skull", "face", "neck", "thigh", "shank")  # of the adult, besides the arms
OWN = ("skull", "face", "chest", "belly", "thigh", "shank")  # of the child, where hands may not be
LIMBS = (*FIRM, "upper_arm", "forearm")


def held(rng: np.random.Generator, body: Body, adult: Body) -> Act:
    """Draw a child and the adult who holds it; both in the world, the adult at the origin.

    One arm of the adult is under the child's bottom, the other hand on its back or chest.
    """
    # In an order, as some adults are too wide for some children.
    ways = rng.choice(WAYS, 4, replace=False, p=[0.3, 0.27, 0.23, 0.2])
    for tried, way in enumerate(np.repeat(ways, TRIES // len(ways))):
        if tried % 4 == 0:  # and some stand so that nobody fits
            waiting = _waiting(rng, adult, way)
        found = _held(rng, body, adult, waiting, way)
        if found is not None:
            return found
    raise acts.NotSound(f"no sound way to hold in {TRIES} tries")


def _held(rng, body, adult, waiting, way) -> Act | None:
    side = rng.integers(2)
    pose = _placed(rng, body, adult, waiting, way, side)
    if pose is None or _out_of_reach(adult, waiting.figure, pose):
        return None
    pose = _with_limbs(rng, body, pose, waiting, way)
    if pose is None or acts.beyond_range(pose):
        return None
    small = poses.pose_body(body, pose)
    round_child = flesh.solids_of(body, small, LIMBS)
    big = embrace(rng, adult, waiting.pose, waiting.firm, small, round_child, way, side)
    if big is None or acts.lowest(body, small) < 0.02 or acts.overlaps(body, small):
        return None
    if not sound(adult, acts.act("held", big, things=waiting.things)):
        return None
    return acts.act("held", pose, things=waiting.things, holder=(adult, big))


# ---- the adult, arms hanging ----


class Waiting(NamedTuple):
    """An adult, arms hanging. things: what it sits on. firm, trunk: of the segments named so."""

    pose: Pose
    things: Solids
    figure: Figure
    firm: Surface
    trunk: Surface


def _waiting(rng, adult, way) -> Waiting:
    pose, things = _sitting(rng, adult) if way == "lap" else (_standing(rng, adult), solids.none())
    figure = poses.pose_body(adult, pose)
    made = flesh.solids_of(adult, figure, FIRM)
    trunk = touching.surface(touching.of_segments(made, TRUNK))
    return Waiting(pose, things, figure, touching.surface(made), trunk)


def _standing(rng, adult) -> Pose:
    feet = [foot_at(adult, i, rng.normal(0, 0.04), SIGN[i] * clipped(rng, 0.1, 0.03, 0.06, 0.17),
                    rng.uniform(0, 22)) for i in (0, 1)]  # fmt: skip
    turn = poses.turn_x(rng.normal(0, 2.5)) @ poses.turn_y(rng.uniform(-8, 3))
    spine = (rng.uniform(-8, 4), *np.clip(rng.normal(0, [4, 5]), -10, 10))
    neck = look_about(rng, rng.uniform(-5, 25))
    pose = carriage(0, 0, turn, spine, neck, rng.uniform(0, 0.04, 2))
    return stand_on(adult, pose, feet, rng.uniform(8, 22, 2), rng.uniform(0, 15, 2))


def _sitting(rng, adult) -> tuple[Pose, Solids]:
    """Draw an adult on a bench, and the bench."""
    high = min(adult.shank) * rng.uniform(0.85, 1.08)
    thigh, hip = min(adult.thigh), max(bodies.radii(adult)["hip"])
    turn = poses.turn_y(rng.uniform(-16, 4))
    spine = (rng.uniform(-4, 14), *np.clip(rng.normal(0, [4, 5]), -10, 10))
    neck = look_about(rng, rng.uniform(-5, 25))
    pose = carriage(0, 0, turn, spine, neck, rng.uniform(0, 0.04, 2))
    pose = pose._replace(place_3=np.array([0, 0, high + 1.08 * hip]))
    ahead, aside, out = rng.uniform([[0.85], [0.08], [0]], [[1.15], [0.2], [20]], (3, 2))
    feet = [foot_at(adult, i, thigh * ahead[i], SIGN[i] * aside[i], out[i]) for i in (0, 1)]
    back, front, wide = rng.uniform([0.16, 0.45 * thigh, 0.22], [0.25, 0.8 * thigh, 0.7])
    bench = solids.make(solids.BOX, [(front - back) / 2, 0, high / 2], np.eye(3),
                        [(front + back) / 2, wide, high / 2])  # fmt: skip
    return with_legs(adult, pose, feet, rng.uniform(5, 20, 2)), bench


# ---- the child ----


def _placed(rng, body, adult, waiting, way, side) -> Pose | None:
    """Draw the child's trunk and head, and move it until it touches the adult; limbs hang."""
    aside = SIGN[side] * rng.uniform(58, 100) if way == "hip" else rng.normal(0, 12)
    facing = aside + {"outwards": 0, "lap": rng.normal(0, 40)}.get(way, 180)
    pitch = {"hip": rng.uniform(-6, 14), "front": rng.uniform(-2, 16),
             "outwards": rng.uniform(-12, 6), "lap": rng.uniform(-12, 8)}[way]  # fmt: skip
    turn = poses.turn_z(facing + rng.normal(0, 10)) @ poses.turn_x(rng.normal(0, 5))
    spine = (rng.uniform(-4, 18), *np.clip(rng.normal(0, [5, 6]), -14, 14))
    neck = look_about(rng, rng.uniform(-12, 12))
    figure, firm = waiting.figure, waiting.firm
    # It starts well before the adult, and is pushed against the trunk.
    start = figure.joints["waist"] * (1, 1, 0) + 0.5 * heading(aside)
    rise = 0.17 if way == "lap" else adult.trunk * rng.uniform(0.02, 0.28)
    start = start + (0, 0, figure.joints["pelvis"][2] + rise)
    for away in (0, 9, 18):  # leaning away until the head has room
        leaning = pitch + (away if way in ("outwards", "lap") else -away)
        pose = carriage(*start[:2], turn @ poses.turn_y(leaning), spine, neck)
        pose = pose._replace(place_3=start)
        hung = trunk_of(body, pose)
        skin = touching.skin(flesh.solids_of(body, hung, TRUNK))
        shift = _push(skin, waiting.trunk, -heading(aside))
        if way == "lap":
            shift = shift + _push(skin + shift, firm, np.array([0, 0, -1.0]))
        up = (hung.frames["chest"] @ poses.spine(neck))[:, 2]
        head = (hung.joints["neck"] + (body.neck + 0.5 * body.head) * up + shift)[None]
        if touching.distance(head, firm)[0] > HEAD_ROOM * body.head:
            return pose._replace(place_3=start + shift)
    return None


def _out_of_reach(adult, figure, pose) -> bool:
    """Return whether neither hand of the adult can come under the child."""
    shoulders = np.array([figure.joints[f"{name}_shoulder"] for name in NAMES])
    long = np.add(adult.upper_arm, adult.forearm)
    return bool((np.linalg.norm(shoulders - pose.place_3, axis=1) > FURTHEST * long).all())


def _push(skin, things, way_3) -> np.ndarray:
    """Return the shift along a direction after which points just touch solids."""
    total = 0.003  # skin gives way
    for _ in range(9):
        gap = touching.distance(skin + total * way_3, things).min()
        total += 0.85 * gap
        if abs(gap) < 5e-4:
            break
    return total * way_3


def _with_limbs(rng, body, pose, waiting, way) -> Pose | None:
    """Draw each limb of the child until it goes through nothing of the adult."""
    trunk, limbs = trunk_of(body, pose), {"legs": [], "arms": []}
    figure, firm = waiting.figure, waiting.firm
    for side in (0, 1):
        limbs["legs"].append(_clear_leg(rng, body, trunk, side, firm, way))
    if None in limbs["legs"]:
        return None
    pose = pose._replace(legs=tuple(limbs["legs"]))
    own = touching.surface(flesh.solids_of(body, poses.pose_body(body, pose), OWN))
    for side in (0, 1):
        limbs["arms"].append(_clear_arm(rng, body, trunk, side, figure, firm, own, way))
    if None in limbs["arms"]:
        return None
    return pose._replace(arms=tuple(limbs["arms"]))


def _clear_leg(rng, body, trunk, side, firm, way) -> Leg | None:
    for _ in range(30):
        leg = _leg(rng, way)
        places, radii = touching.leg_balls(body, trunk, side, leg)
        if (touching.distance(places, firm) - radii).min() > -ASTRIDE:
            return leg
    return None


def _clear_arm(rng, body, trunk, side, figure, firm, own, way) -> Arm | None:
    for _ in range(12):
        arm = _arm(rng, body, trunk, side, figure, firm, way)
        places, radii = touching.arm_balls(body, trunk, side, arm)
        below_elbow = touching.distance(places[6:], own) - radii[6:]
        if below_elbow.min() > 0 and (touching.distance(places, firm) - radii).min() > -PRESSED:
            return arm
    return None


def _leg(rng, way) -> Leg:
    if way in ("hip", "front"):  # astride
        hip, knee = rng.uniform([60, 24, -10], [100, 50, 30]), rng.uniform(25, 105)
    else:
        least = 45 if way == "outwards" else 72
        hip, knee = rng.uniform([least, 0, -15], [100, 28, 20]), rng.uniform(45, 110)
    foot = np.clip(rng.normal([-18, 4, 3], [13, 8, 8]), -45, 20)
    return Leg(hip, knee, foot)


def _arm(rng, body, trunk, side, figure, firm, way) -> Arm:
    """Draw an arm on the adult's shoulder or neck, or hanging, or reaching out."""
    sign, hand = SIGN[side], grasps.relaxed(rng)
    wrist = rng.uniform([-10, -30, -14], [90, 35, 12])
    if way in ("hip", "front") and rng.random() < 0.65:
        shoulder = trunk.joints[f"{NAMES[side]}_shoulder"]
        at = figure.joints["neck"] + rng.uniform([-0.05, -0.06, -0.16], [0.05, 0.06, 0.04])
        at = at + rng.uniform(0.5, 2.0) * (shoulder - trunk.joints["neck"]) * (1, 1, 0)
        towards = shoulder - at + rng.normal(0, 0.05, 3)
        places, normals = touching.onto(firm, at, towards[None])
        place = places[0] + (bodies.radii(body)["wrist"][side] + 0.004) * normals[0]
        out = trunk.frames["chest"] @ (-0.3, sign * rng.uniform(0.4, 1.5), -0.8)
        return reaching.reach_arm(body, trunk, side, place, out, hand, None)._replace(wrist_3=wrist)
    if rng.random() < 0.5:  # hanging
        shoulder, elbow = rng.uniform([-20, 4, -20], [35, 35, 30]), rng.uniform(5, 80)
    else:
        shoulder, elbow = rng.uniform([30, 5, -20], [110, 70, 40]), rng.uniform(5, 90)
        hand = grasps.open_hand(rng) if rng.random() < 0.5 else hand
    return Arm(shoulder, elbow, wrist, hand)
