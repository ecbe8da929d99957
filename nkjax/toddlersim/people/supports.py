"""Supports: hands and feet on the floor, and where head and shoulders go over them."""

import numpy as np

from nkjax.toddlersim.people import bodies, grasps, poses, reaching
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Figure, Leg
from nkjax.toddlersim.people.stance import NAMES, hand_frame

SETTLED = 0.004  # m: how near the floor a foot has to be


def level_frame(frame_33) -> np.ndarray:
    """Return the level frame that faces where a prone or upright pelvis does."""
    left = frame_33[:, 1] * (1, 1, 0)
    left /= np.linalg.norm(left)
    return np.stack([poses.cross(left, (0, 0, 1.0)), left, (0, 0, 1.0)], 1)


def look_about(rng: np.random.Generator, forward) -> np.ndarray:
    """Draw a neck: bent forward by about so many degrees, turned anywhere."""
    wide = np.clip(rng.normal(0, [10, 9, 24]), [-25, -24, -62], [25, 24, 62])
    return np.array([forward, 0, 0]) + wide


def heading(degrees) -> np.ndarray:
    """Return the level direction at so many degrees from +x towards +y."""
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), 0.0])


def palm_down(body: Body, side, place_xy, fingers_to, tilt) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the wrist and the frame of a flat hand that lies on the floor.

    place_xy: metres, below the wrist. fingers_to: degrees from +x. tilt: degrees by which the
    fingers point down; where the wrist is too thick for it, more.
    """
    fingertip, wrist = (bodies.radii(body)[part][side] for part in ("finger", "wrist"))
    tilt = np.radians(tilt)
    least = np.arcsin(max(0.0, wrist - fingertip - 0.002) / body.hand[side])
    tilt = max(tilt, least)
    fingers = np.cos(tilt) * heading(fingers_to) - (0, 0, np.sin(tilt))
    height = fingertip + body.hand[side] * np.sin(tilt)
    return np.array([*place_xy, height]), hand_frame(side, fingers, (0, 0, -1))


def lean_on(rng, body: Body, figure: Figure, side, place_xy, fingers_to, elbow_to_3) -> Arm | None:
    """Bring a hand flat onto the floor; None where it does not reach it."""
    wrist, frame = palm_down(body, side, place_xy, fingers_to, rng.uniform(3, 11))
    hand = grasps.flat_hand(rng)
    if not _reaches(body, figure, side, wrist):
        return None
    return reaching.reach_arm(body, figure, side, wrist, elbow_to_3, hand, frame)


def _reaches(body, figure, side, wrist_3) -> bool:
    shoulder = figure.joints[f"{NAMES[side]}_shoulder"]
    longest = reaching.STRAIGHT * (body.upper_arm[side] + body.forearm[side])
    return bool(np.linalg.norm(wrist_3 - shoulder) < longest)


def leg_on_floor(
    body: Body, figure: Figure, side, ankle_xy, knee_to_3, ankle_3
) -> Leg | None:
    """Bring a leg to a place on the floor so that foot or ankle touches it; None if none does.

    figure: of the pose, legs aside. ankle_xy: metres. ankle_3: angles of the foot on the shank.
    """
    height, slope = bodies.radii(body)["ankle"][side], -1.9  # about what it is, mostly
    before = None
    for _ in range(5):  # the foot turns with the shank, which turns with the height
        goal = np.array([*ankle_xy, height])
        leg = reaching.reach_leg(body, figure, side, goal, knee_to_3, np.eye(3))
        leg = leg._replace(ankle_3=np.asarray(ankle_3, float))
        off = ankle_height(body, side, foot_frame(figure, side, leg)) - height
        if abs(off) < SETTLED:
            return leg
        if before is not None:  # Newton's steps, with the slope between the last two heights
            slope = min((off - before[1]) / (height - before[0]), -0.5)
        before = height, off
        height = height - off / slope
    return None


def foot_frame(figure: Figure, side, leg: Leg) -> np.ndarray:
    """Return the frame of the foot of a leg that hangs on this figure's pelvis."""
    shank = poses.ball_joint(leg.hip_3, SIGN[side]) @ poses.turn_y(leg.knee)
    return figure.frames["pelvis"] @ shank @ poses.ankle(leg.ankle_3, SIGN[side])


def ankle_height(body: Body, side, foot_33) -> float:
    """Return how high an ankle is whose foot, in this frame, touches the floor; metres."""
    low = min((foot_33 @ own)[2] for own in poses.foot_points(body, side).values())
    radii = bodies.radii(body)
    return max(radii["heel"][side] - low, radii["ankle"][side])


def trunk_pitch(body: Body, spine_forward, rise) -> float:
    """Return the forward pitch of the pelvis, degrees, with the shoulders `rise` over the hips."""
    # Waist and shoulders are .3 and .66 of the trunk along pelvis and chest: two turned arrows.
    arrow = 0.3 + 0.66 * np.exp(1j * np.radians(spine_forward))
    cos = np.clip(rise / (body.trunk * np.abs(arrow)), -1, 1)
    return float(np.degrees(np.arccos(cos) - np.angle(arrow)))
