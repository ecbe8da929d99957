"""What the hands of a sitting child do: hold a toy, reach, lean on the floor, rest."""

import numpy as np

from nkjax.toddlersim.people import acts, bodies, grasps, poses, reaching, touching
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Pose
from nkjax.toddlersim.people.stance import NAMES, hand_frame, into_legs, sound
from nkjax.toddlersim.people.supports import heading, lean_on, level_frame

TRIES = 6


def busy_hands(rng: np.random.Generator, body: Body, pose: Pose, posture: str, grasp) -> Act | None:
    """Give a sitting pose its arms, one of which holds a toy unless grasp is 'none'; a sound act.

    None where that was not sound a few times: these legs leave little room.
    """
    figure = poses.pose_body(body, pose)
    if acts.beyond_range(pose) or into_legs(body, figure) > 0:
        return None
    for _ in range(TRIES):
        act = _busy_hands(rng, body, pose, figure, posture, grasp)
        if act is not None:
            return act
    return None


def _busy_hands(rng, body, pose, figure, posture, grasp) -> Act | None:
    busy, arms = rng.integers(2), []
    for side in (0, 1):
        does = _OTHER[rng.choice(3, p=[0.2, 0.5, 0.3])]
        if side == busy:
            does = _hold if grasp != "none" else _OTHER[rng.choice(3, p=[0.5, 0.35, 0.15])]
        hand = grasps.GRASP[grasp](rng) if does is _hold else None
        arms.append(does(rng, body, figure, side, hand))
    found = acts.act(posture, pose._replace(arms=tuple(arms)), grasp)
    if not sound(body, found):
        return None
    if grasp == "none":
        return found
    toy = grasps.toy_in(rng, body, poses.pose_body(body, found.pose), busy, grasp)
    return None if touching.bottom(toy) < -0.002 else found._replace(toy=toy)


def _before(rng, body, figure, side):
    """Draw a place for the wrist: before the chest, or, if it reaches so far, over the floor."""
    sign, long = SIGN[side], body.upper_arm[side] + body.forearm[side]
    way, shoulder = level_frame(figure.frames["chest"]), figure.joints[f"{NAMES[side]}_shoulder"]
    if rng.random() < 0.5:
        ahead, aside = rng.uniform([0.25, -0.35], [1.0, 0.5])
        place = shoulder + long * (way @ (ahead, sign * aside, 0))
        place[2] = rng.uniform(0.4, 1.3) * body.hand[side]
        return place
    aside, up = sign * rng.uniform(-40, 50), np.radians(rng.uniform(-60, 25))
    flat = np.cos(up) * heading(aside)
    return shoulder + rng.uniform(0.45, 0.98) * long * (way @ (flat + (0, 0, np.sin(up))))


def _hold(rng, body, figure, side, hand) -> Arm:
    """Bring a hand before the chest or to the floor."""
    way = level_frame(figure.frames["chest"])
    elbow_to = way @ (-0.6, SIGN[side] * rng.uniform(0.2, 1.2), -0.6)
    place = _before(rng, body, figure, side)
    arm = reaching.reach_arm(body, figure, side, place, elbow_to, hand, None)
    return arm._replace(wrist_3=rng.uniform([-15, -35, -18], [88, 32, 14]))


def _reach(rng, body, figure, side, _) -> Arm:
    hand = grasps.open_hand(rng) if rng.random() < 0.5 else grasps.relaxed(rng)
    return _hold(rng, body, figure, side, hand)


def _lean(rng, body, figure, side, _) -> Arm:
    """Lean on the floor beside, behind or before the seat; rest where it is out of reach."""
    way, shoulder = level_frame(figure.frames["chest"]), figure.joints[f"{NAMES[side]}_shoulder"]
    sign, long = SIGN[side], body.upper_arm[side] + body.forearm[side]
    away = way @ (rng.uniform(-0.6, 0.55), sign * rng.uniform(0.0, 0.55), 0)
    far = np.sqrt(max(0.96 * long**2 - shoulder[2] ** 2, 0)) / long / np.linalg.norm(away)
    place = shoulder + long * min(far, 1) * away
    fingers_to = np.degrees(np.arctan2(away[1], away[0])) + rng.normal(0, 20)
    elbow_to = -away + 0.15 * way @ (0, sign, 0)
    arm = lean_on(rng, body, figure, side, place[:2], fingers_to, elbow_to)
    return _rest(rng, body, figure, side, None) if arm is None else arm


def _rest(rng, body, figure, side, _) -> Arm:
    """Lay a hand on the own thigh or knee."""
    name, radii = NAMES[side], bodies.radii(body)
    t = rng.uniform(0.45, 1.0)
    place = (1 - t) * figure.joints[f"{name}_hip"] + t * figure.joints[f"{name}_knee"]
    thick = (1 - t) * radii["hip"][side] + t * radii["knee"][side] + radii["wrist"][side]
    place = place + (0, 0, thick + rng.uniform(-0.004, 0.03))
    way = level_frame(figure.frames["chest"])
    elbow_to = way @ (-0.7, SIGN[side] * rng.uniform(0.3, 1.3), -0.3)
    fingers = way @ heading(-SIGN[side] * rng.uniform(-30, 80)) + (0, 0, rng.uniform(-0.2, 0.2))
    frame = hand_frame(side, fingers, (0, 0, -1))
    arm = reaching.reach_arm(body, figure, side, place, elbow_to, grasps.relaxed(rng), frame)
    # As far as the wrist goes at ease; the palm then turns off the leg a little.
    return arm._replace(wrist_3=np.clip(arm.wrist_3, [-20, -60, -20], [98, 35, 16]))


_OTHER = (_reach, _lean, _rest)
