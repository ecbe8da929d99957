"""Inverse kinematics: the angles that bring a wrist or an ankle to a place, in closed form."""

import numpy as np

from nkjax.toddlersim.people import poses
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Figure, Hand, Leg

STRAIGHT = 0.9995  # of its full length, that is how far a limb reaches


def reach_leg(body: Body, figure: Figure, side, ankle_3, knee_to_3, foot_33) -> Leg:
    """Bring an ankle to a place in the world, the foot in a frame, the knee towards a direction.

    figure: of the pose that the leg is for, legs aside. ankle_3: metres; one further away than the
    leg reaches is approached in a straight line. knee_to_3: direction to which the knee points.
    foot_33: frame of the foot.
    """
    name = ("left", "right")[side]
    upper, lower = body.thigh[side], body.shank[side]
    hip = figure.joints[f"{name}_hip"]
    knee, ankle_3 = _bend(hip, ankle_3, upper, lower, knee_to_3)
    thigh = _frame(hip - knee, knee - ankle_3, np.asarray(knee_to_3, float), sign_of_bend=1)
    flexion = _angle(hip - knee, knee - ankle_3)
    hip_3 = poses.ball_angles(figure.frames["pelvis"].T @ thigh, SIGN[side])
    shank = thigh @ poses.turn_y(flexion)
    ankle_3 = poses.ankle_angles(shank.T @ foot_33, SIGN[side])
    return Leg(hip_3, flexion, ankle_3)


def reach_arm(body: Body, figure: Figure, side, wrist_3, elbow_to_3, hand: Hand, hand_33) -> Arm:
    """Bring a wrist to a place in the world, the hand in a frame, the elbow towards a direction.

    figure: of the pose that the arm is for, arms aside. wrist_3: metres, see reach_leg. elbow_to_3:
    direction to which the elbow points. hand_33: frame of the hand, or None: as the forearm.
    """
    name = ("left", "right")[side]
    shoulder = figure.joints[f"{name}_shoulder"]
    upper, lower = body.upper_arm[side], body.forearm[side]
    elbow, wrist_3 = _bend(shoulder, wrist_3, upper, lower, elbow_to_3)
    frame = _frame(shoulder - elbow, elbow - wrist_3, -np.asarray(elbow_to_3, float), -1)
    flexion = _angle(shoulder - elbow, elbow - wrist_3)
    shoulder_3 = poses.ball_angles(figure.frames["chest"].T @ frame, SIGN[side])
    fore = frame @ poses.turn_y(-flexion)
    turn = np.zeros(3) if hand_33 is None else poses.wrist_angles(fore.T @ hand_33, SIGN[side])
    return Arm(shoulder_3, flexion, turn, hand)


def _bend(root, target, upper, lower, towards):
    """Return where the middle joint and the end of a two-bone limb are; the end may fall short."""
    root, way = np.asarray(root, float), np.asarray(target, float) - root
    distance = np.linalg.norm(way)
    shortest = abs(upper - lower) + 1e-3 * (upper + lower)
    reached = np.clip(distance, shortest, STRAIGHT * (upper + lower))
    way = way / max(distance, 1e-9)
    along = (upper**2 - lower**2 + reached**2) / (2 * reached)
    out = np.asarray(towards, float) - (way @ towards) * way
    out /= np.linalg.norm(out)
    middle = root + along * way + np.sqrt(max(upper**2 - along**2, 0.0)) * out
    return middle, root + reached * way


def _frame(upper_3, lower_3, front_3, sign_of_bend):
    """Return the frame of the upper bone: z along it upwards, y the hinge, x to the front."""
    z = upper_3 / np.linalg.norm(upper_3)
    # A knee bends the lower bone backwards, an elbow forwards; the plane of both bones holds x.
    x = sign_of_bend * (lower_3 - (lower_3 @ z) * z)
    if np.linalg.norm(x) < 1e-6 * np.linalg.norm(lower_3):
        x = front_3 - (front_3 @ z) * z
    x /= np.linalg.norm(x)
    return np.stack([x, poses.cross(z, x), z], 1)


def _angle(a_3, b_3) -> float:
    cross = np.linalg.norm(poses.cross(a_3, b_3))
    return float(np.degrees(np.arctan2(cross, a_3 @ b_3)))
