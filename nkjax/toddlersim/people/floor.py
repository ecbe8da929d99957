"""Toddlers on the floor: crawling on knees or feet, and sitting and reaching.

Every function draws an act near the origin that faces roughly +x; the supports are put on the floor
first, the pelvis over them, and the limbs reach what they stand on. Source: notes method 6.5, 6.6.
"""

from collections.abc import Callable

import numpy as np

from nkjax.toddlersim.people import acts, bodies, flesh, grasps, poses, reaching, touching
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.playing import busy_hands
from nkjax.toddlersim.people.poses import SIGN, Figure, Leg, Pose
from nkjax.toddlersim.people.stance import (
    NAMES,
    TRIES,
    carriage,
    clipped,
    first_sound,
    trunk_of,
)
from nkjax.toddlersim.people.supports import (
    ankle_height,
    foot_frame,
    heading,
    lean_on,
    leg_on_floor,
    level_frame,
    look_about,
    trunk_pitch,
)

DORSIFLEXED = 24.0  # degrees that an ankle bends under a child's weight

# ---- crawling ----


def crawl(rng: np.random.Generator, body: Body) -> Act:
    """Draw crawling on hands and knees, somewhere in its diagonal gait."""
    return first_sound(body, lambda: _crawl(rng, body))


def _crawl(rng, body):
    phase, step = rng.uniform(0, 2 * np.pi), rng.uniform(0.08, 0.42)
    thigh, knee = np.array(body.thigh), np.array(bodies.radii(body)["knee"])
    swing = np.array([1, -1]) * step * np.cos(phase)
    knees = thigh * (swing + rng.normal(-0.02, 0.10))  # before the hips
    aside = thigh * np.clip(rng.normal(0.12, 0.10, 2), -0.08, 0.4)
    hips = knee + np.sqrt(thigh**2 - knees**2 - aside**2)
    roll = np.degrees(np.arcsin(np.clip((hips[0] - hips[1]) / body.hips, -0.4, 0.4)))
    pose = prone(rng, body, hips.mean(), roll, rng.uniform(0.84, 0.99), 0.4, 0)
    figure = trunk_of(body, pose)
    legs = [knee_down(rng, body, figure, side, knees[side], aside[side]) for side in (0, 1)]
    pose = pose._replace(legs=tuple(legs))
    return on_hands(rng, body, pose, "crawl", -swing, rng.uniform(0, 0.06))


def prone(rng: np.random.Generator, body: Body, height, roll, reach, ahead, bend) -> Pose:
    """Draw trunk and head of one who leans on the hands, limbs hanging.

    height: of the hips, metres; roll: of the pelvis, degrees; reach: of the shoulders over the
    floor, as share of the arm's length; ahead: how often one looks ahead and not at the floor;
    bend: of the spine, degrees forward, about.
    """
    forward = np.clip(rng.normal(bend, 12), bend - 25, bend + 28)
    arm = reach * min(u + f for u, f in zip(body.upper_arm, body.forearm, strict=True))
    pitch = trunk_pitch(body, forward, arm * rng.uniform(0.94, 0.99) + 0.02 - height)
    turn = poses.turn_z(rng.normal(0, 8)) @ poses.turn_x(roll) @ poses.turn_y(pitch)
    spine = np.array([forward, *np.clip(rng.normal(0, [6, 7]), -16, 16)])
    neck = look_about(rng, rng.uniform(-58, -30) if rng.random() < ahead else rng.uniform(-50, 15))
    neck[0] = np.clip(neck[0], -68, 40)
    pose = carriage(0, 0, turn, spine, neck, rng.uniform(0, 0.08, 2))
    return pose._replace(place_3=np.array([0, 0, height]))


def knee_down(rng: np.random.Generator, body: Body, figure: Figure, side, forward, aside) -> Leg:
    """Put a knee on the floor, so far before and beside its hip, metres, the shank lying behind it.

    figure: of the pose, legs aside.
    """
    name, sign = NAMES[side], SIGN[side]
    hip, way = figure.joints[f"{name}_hip"], level_frame(figure.frames["pelvis"])
    knee = hip + way @ (forward, sign * aside, 0)
    knee[2] = bodies.radii(body)["knee"][side]
    # Mostly on the back of the foot, sometimes on the toes.
    bent = rng.uniform(-74, -48) if rng.random() < 0.85 else rng.uniform(-15, 12)
    ankle_3 = np.array([bent, rng.normal(0, 8), rng.normal(0, 8)])
    behind = way @ heading(180 + rng.normal(-sign * 4, 10))
    height = bodies.radii(body)["ankle"][side]
    for _ in range(2):
        level = np.sqrt(body.shank[side] ** 2 - (knee[2] - height) ** 2)
        ankle = knee + level * behind
        ankle[2] = height
        leg = reaching.reach_leg(body, figure, side, ankle, knee - hip, np.eye(3))
        leg = leg._replace(ankle_3=ankle_3)
        height = ankle_height(body, side, foot_frame(figure, side, leg))
    return leg


def on_hands(
    rng: np.random.Generator, body: Body, pose: Pose, posture, swing, spread
) -> Act | None:
    """Put both hands on the floor below the shoulders; None where they do not reach it.

    swing: how far each is before the other, spread: how far apart, about, in lengths of the arm.
    """
    figure = trunk_of(body, pose)
    way, arms = level_frame(figure.frames["chest"]), []
    ahead = rng.normal(0.12, 0.08)
    for side, name in enumerate(NAMES):
        sign, long = SIGN[side], body.upper_arm[side] + body.forearm[side]
        offset = (0.6 * swing[side] + ahead, sign * rng.normal(spread, 0.06), 0)
        place = figure.joints[f"{name}_shoulder"] + long * (way @ offset)
        fingers_to = np.degrees(np.arctan2(way[1, 0], way[0, 0])) - sign * rng.normal(8, 12)
        elbow_to = way @ (-1, sign * rng.uniform(0.2, 1.2), 0.1)
        arms.append(lean_on(rng, body, figure, side, place[:2], fingers_to, elbow_to))
    if None in arms:
        return None
    return acts.act(posture, pose._replace(arms=tuple(arms)))


def bear_crawl(rng: np.random.Generator, body: Body) -> Act:
    """Draw crawling on hands and feet, knees off the floor and bottom high."""
    return first_sound(body, lambda: _bear_crawl(rng, body))


def _bear_crawl(rng, body):
    phase, step = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.3)
    legs_long = np.array(body.thigh) + body.shank
    swing = np.array([1, -1]) * step * np.cos(phase)
    feet = legs_long * (swing + rng.normal(0.02, 0.06))
    raised = np.where(rng.random(2) < 0.5, 0, rng.uniform(0, 35, 2)) + 40 * np.maximum(-swing, 0)
    frames = [poses.turn_z(SIGN[i] * rng.normal(10, 9)) @ poses.turn_y(raised[i]) for i in (0, 1)]
    ankles = np.array([ankle_height(body, i, frames[i]) for i in (0, 1)])
    reach = legs_long * rng.uniform(0.84, 0.985)
    height = (ankles + np.sqrt(reach**2 - feet**2)).min()
    pose = prone(rng, body, height, rng.normal(0, 4), rng.uniform(0.8, 0.99), 0.2, 0)
    figure, legs = trunk_of(body, pose), []
    way = level_frame(figure.frames["pelvis"])
    for side, name in enumerate(NAMES):
        aside = SIGN[side] * legs_long[side] * rng.uniform(0.0, 0.2)
        goal = figure.joints[f"{name}_hip"] + way @ (feet[side], aside, 0)
        goal[2] = ankles[side]
        knee_to, frame = way @ (1, SIGN[side] * rng.uniform(0, 0.5), 0.3), way @ frames[side]
        leg = reaching.reach_leg(body, figure, side, goal, knee_to, frame)
        if leg.ankle_3[0] > DORSIFLEXED:  # then the heel comes off the floor
            frame = frame @ poses.turn_y(leg.ankle_3[0] - rng.uniform(0.2, 1) * DORSIFLEXED)
            goal[2] = ankle_height(body, side, frame)
            leg = reaching.reach_leg(body, figure, side, goal, knee_to, frame)
        legs.append(leg)
    pose = pose._replace(legs=tuple(legs))
    return on_hands(rng, body, pose, "bear_crawl", -swing, rng.uniform(0, 0.06))


# ---- sitting ----

SITS = ("long", "ring", "side", "w")


def sit_reach(rng: np.random.Generator, body: Body) -> Act:
    """Draw sitting on the floor: legs long or in a V, a ring, to the side or in a W.

    Two of three hold a toy in one hand, with one of grasps.GRASPS; the other hands reach, lean
    on the floor or rest on a leg.
    """
    # In an order, as not every body can sit in every way: a W takes long thighs.
    kinds = rng.choice(SITS, 4, replace=False, p=[0.4, 0.26, 0.2, 0.14])
    draws = iter(np.repeat(kinds, TRIES // len(kinds)))
    grasp = grasps.GRASPS[rng.integers(3)] if rng.random() < 2 / 3 else "none"
    return first_of(lambda: _sit(rng, body, next(draws), grasp))


def first_of(draw: Callable[[], Act | None]) -> Act:
    """Return the first draw that is not None, all of which are sound; see stance.first_sound."""
    for _ in range(TRIES):
        act = draw()
        if act is not None:
            return act
    raise acts.NotSound(f"none of {TRIES} draws was sound")


def _sit(rng, body, kind, grasp):
    pitch, bend = clipped(rng, -3, 11, -28, 20), rng.uniform(-2, 42)
    if rng.random() < 0.4:  # so low that a hand reaches the floor beside or behind
        back = rng.random() < 0.5
        pitch, bend = rng.uniform(*([-42, -8], [-27, 10]) if back else ([0, 36], [18, 60]))
    pose = seated(rng, body, kind, pitch, bend)
    return None if pose is None else busy_hands(rng, body, pose, "sit_reach", grasp)


def seated(rng: np.random.Generator, body: Body, kind: str, pitch, bend) -> Pose | None:
    """Draw a pose sitting on the floor, one of SITS, arms to the sides.

    pitch: of the pelvis, bend: of the spine, degrees forward. None where a foot hangs in the air.
    """
    side_on = np.clip(rng.normal(0, [7, 10]), -18, 25)
    turn = poses.turn_z(rng.normal(0, 8)) @ poses.turn_x(rng.normal(0, 4)) @ poses.turn_y(pitch)
    neck = look_about(rng, np.clip(rng.normal(5 - 0.3 * bend, 14), -45, 40))
    pose = carriage(0, 0, turn, (bend, *side_on), neck, rng.uniform(-0.02, 0.1, 2))
    wide = pose.arms[0]._replace(shoulder_3=np.array([0, 90.0, 0]))
    pose = pose._replace(arms=(wide, wide))
    flat = flesh.solids_of(body, trunk_of(body, pose), ("pelvis",))
    seat = -touching.bottom(flat) - rng.uniform(0.001, 0.006)  # skin gives way
    pose = pose._replace(place_3=np.array([0, 0, seat]))
    figure = trunk_of(body, pose)
    other = rng.integers(2)  # whose leg goes behind in side sitting, or whose foot lies nearer
    legs = []
    for side in (0, 1):
        way = {"side": "w" if side == other else "ring"}.get(kind, kind)
        legs.append(_SEATED_LEG[way](rng, body, figure, side, side == other))
    if None in legs:
        return None
    return pose._replace(legs=tuple(legs))


def _hip(figure, side):
    return figure.joints[f"{NAMES[side]}_hip"][:2], level_frame(figure.frames["pelvis"])


def _long_leg(rng, body, figure, side, _) -> Leg | None:
    hip, way = _hip(figure, side)
    aside, share = rng.uniform(-2, 58), 1 - rng.beta(0.5, 4) * 0.45
    long = share * (body.thigh[side] + body.shank[side]) * 0.985
    ankle = hip + long * (way @ heading(SIGN[side] * aside))[:2]
    knee_to = way @ (0.1, SIGN[side] * rng.uniform(-0.1, 0.9), 1)
    return leg_on_floor(body, figure, side, ankle, knee_to, rng.normal([-22, 5, 4], [14, 8, 8]))


def _ring_leg(rng, body, figure, side, nearer) -> Leg | None:
    hip, way = _hip(figure, side)
    sign, long = SIGN[side], body.thigh[side] + body.shank[side]
    place = long * np.array([rng.uniform(0.34, 0.5), sign * rng.uniform(0.1, 0.25), 0])
    if not nearer:
        place += long * rng.uniform(0, 0.3) * np.array([1, -0.4 * sign, 0])
    place[1] -= sign * body.hips / 2
    knee_to = way @ (0.25, sign, rng.uniform(-0.15, 0.5))
    ankle = hip + (way @ place)[:2]
    return leg_on_floor(body, figure, side, ankle, knee_to, rng.normal([-20, 12, 0], [12, 9, 8]))


def _w_leg(rng, body, figure, side, _) -> Leg | None:
    hip, way = _hip(figure, side)
    sign, thigh = SIGN[side], bodies.radii(body)["hip"][side]
    place = (rng.uniform(-0.06, 0.05), sign * (thigh + rng.uniform(0.035, 0.075)), 0)
    knee_to = way @ (1, sign * rng.uniform(0.1, 0.7), rng.uniform(0, 0.2))
    ankle = hip + (way @ place)[:2]
    return leg_on_floor(body, figure, side, ankle, knee_to, rng.normal([-52, 0, 12], [10, 8, 9]))


_SEATED_LEG = {"long": _long_leg, "ring": _ring_leg, "w": _w_leg}
