"""Poses: joint angles, what they do to a body (forward), and angles that reach a place (inverse).

A person's own frame: x forward, y to the person's left, z up. Neutral: upright, arms hanging,
palms to the thighs. Every part has a frame, a matrix whose COLUMNS are its own axes in the world;
in the neutral pose all of them are the person's own axes. Angles are degrees, signs the
clinician's: flexion, abduction, external rotation, pronation, palmar flexion, radial deviation,
dorsiflexion and inversion are positive, on both sides.

Lengths come from the body alone, so bones keep their length in every pose.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.people.bodies import Body

LEFT, RIGHT = 0, 1
SIGN = (1.0, -1.0)  # y of a side

# Where the hand's bones start in its own frame, in hand lengths (wrist to tip of the middle
# finger): of the left hand, thumb forward (x), palm to the right (-y), fingers down (-z). Index to
# little finger.
KNUCKLES = np.array([
    [0.13, 0, -0.49], [0.04, 0.01, -0.52], [-0.05, 0.01, -0.49], [-0.13, 0, -0.44],
])  # fmt: skip
FINGERS = np.array([[0.21, 0.12, 0.10], [0.23, 0.14, 0.11], [0.21, 0.13, 0.10], [0.16, 0.10, 0.09]])
THUMB_ROOT = np.array([0.11, -0.03, -0.12])
THUMB = np.array([0.22, 0.16, 0.13])

# In head heights from the middle of the head (half way from chin to vertex); of the left side. An
# adult's head is narrower for its height.
FACE = {"nose": (0.455, 0.0, -0.18), "eye": (0.375, 0.155, -0.02), "ear": (-0.02, 0.39, -0.08)}
HEAD_SHAPE = {"toddler": np.array([1.0, 1.0, 1.0]), "adult": np.array([0.95, 0.9, 1.0])}
EYES_OVER_MIDDLE = {"toddler": -0.03, "adult": 0.0}


class Hand(NamedTuple):
    """fingers_43: index to little: flexion at the knuckle, flexion at the middle joint (the last
    joint bends by 0.6 of it), spread away from the middle finger (index: to the thumb).

    thumb_4: opposition (0 beside the palm, 90 in front of it), angle to the hand's long axis,
    flexion of its middle and of its last joint.
    """

    fingers_43: np.ndarray
    thumb_4: np.ndarray


class Arm(NamedTuple):
    """shoulder_3: flexion, abduction, external rotation. wrist_3: pronation (of the forearm),
    palmar flexion, radial deviation."""

    shoulder_3: np.ndarray
    elbow: float
    wrist_3: np.ndarray
    hand: Hand


class Leg(NamedTuple):
    """hip_3: flexion, abduction, external rotation. ankle_3: dorsiflexion, inversion, turn out."""

    hip_3: np.ndarray
    knee: float
    ankle_3: np.ndarray


class Pose(NamedTuple):
    """place_3: middle of the hip joints, metres, world. turn_33: frame of the pelvis.

    spine_3: chest on pelvis, neck_3: head on chest: bend forward, bend to the left, turn to the
    left.
    shrug_2: how far each shoulder is raised, in shoulder widths.
    """

    place_3: np.ndarray
    turn_33: np.ndarray
    spine_3: np.ndarray
    neck_3: np.ndarray
    shrug_2: np.ndarray
    arms: tuple[Arm, Arm]
    legs: tuple[Leg, Leg]


class Figure(NamedTuple):
    """A posed body: joints (m, world) and frames (columns own axes) by name.

    joints: the 65 names of world.SKELETON, and pelvis, waist, neck, head (its middle). frames:
    pelvis, chest, head, and <side>_upper_arm, _forearm, _hand, _thigh, _shank, _foot.
    """

    joints: dict[str, np.ndarray]
    frames: dict[str, np.ndarray]


# ---- turns ----


def turn_x(degrees) -> np.ndarray:
    """Return the turn about x that takes y to z."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def turn_y(degrees) -> np.ndarray:
    """Return the turn about y that takes z to x."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def turn_z(degrees) -> np.ndarray:
    """Return the turn about z that takes x to y."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def cross(a_3, b_3) -> np.ndarray:
    """Return the cross product of two single vectors; np.cross takes ten times as long for them."""
    (ax, ay, az), (bx, by, bz) = a_3, b_3
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def ball_joint(angles_3, sign) -> np.ndarray:
    """Return the turn of a shoulder or hip at flexion, abduction, external rotation."""
    flexion, abduction, rotation = angles_3
    return turn_y(-flexion) @ turn_x(sign * abduction) @ turn_z(sign * rotation)


def ball_angles(turn_33, sign) -> np.ndarray:
    """Return the angles that `ball_joint` takes to this turn; abduction within 90 degrees."""
    # turn = Ry(-f) Rx(s a) Rz(s r): its last row and column tell the angles one by one.
    abduction = np.arcsin(np.clip(-turn_33[1, 2], -1, 1))
    flexion = np.arctan2(-turn_33[0, 2], turn_33[2, 2])
    rotation = np.arctan2(turn_33[1, 0], turn_33[1, 1])
    return np.degrees([flexion, sign * abduction, sign * rotation])


def spine(angles_3) -> np.ndarray:
    """Return the turn of chest on pelvis, or head on chest: forward, left, turn to the left."""
    forward, left, turn = angles_3
    return turn_y(forward) @ turn_x(-left) @ turn_z(turn)


def wrist(angles_3, sign) -> np.ndarray:
    """Return the turn of a hand on a forearm of pronation 0: pronation, palmar flexion, radial."""
    pronation, palmar, radial = angles_3
    return turn_z(-sign * pronation) @ turn_x(-sign * palmar) @ turn_y(-radial)


def ankle(angles_3, sign) -> np.ndarray:
    """Return the turn of the foot on the shank: dorsiflexion, inversion, outward turn."""
    up, inward, outward = angles_3
    return turn_z(sign * outward) @ turn_x(sign * inward) @ turn_y(-up)


def wrist_angles(turn_33, sign) -> np.ndarray:
    """Return the angles that `wrist` takes to this turn; palmar flexion within 90 degrees."""
    a, b, c = _angles_zxy(turn_33)
    return np.array([-sign * a, -sign * b, -c])


def ankle_angles(turn_33, sign) -> np.ndarray:
    """Return the angles that `ankle` takes to this turn; inversion within 90 degrees."""
    a, b, c = _angles_zxy(turn_33)
    return np.array([-c, sign * b, sign * a])


def _angles_zxy(turn_33):
    """Return a, b, c in degrees with turn = Rz(a) Rx(b) Ry(c)."""
    b = np.arcsin(np.clip(turn_33[2, 1], -1, 1))
    a = np.arctan2(-turn_33[0, 1], turn_33[1, 1])
    c = np.arctan2(-turn_33[2, 0], turn_33[2, 2])
    return np.degrees([a, b, c])


# ---- forward ----


def pose_body(body: Body, pose: Pose) -> Figure:
    """Put every joint of a body where the pose's angles bring it."""
    joints, frames = {"pelvis": np.asarray(pose.place_3, float)}, {"pelvis": pose.turn_33}
    frames["chest"] = pose.turn_33 @ spine(pose.spine_3)
    frames["head"] = frames["chest"] @ spine(pose.neck_3)
    joints["waist"] = joints["pelvis"] + pose.turn_33 @ (0, 0, 0.3 * body.trunk)
    joints["neck"] = joints["waist"] + frames["chest"] @ (0, 0, 0.7 * body.trunk)
    joints["head"] = joints["neck"] + frames["head"] @ (0, 0, body.neck + 0.5 * body.head)
    _put_face(body, joints, frames["head"])
    for side, name in enumerate(("left", "right")):
        sign = SIGN[side]
        _put_leg(body, pose.legs[side], side, name, sign, joints, frames)
        joints[f"{name}_shoulder"] = shoulder(body, joints, frames, pose.shrug_2[side], sign)
        _put_arm(body, pose.arms[side], side, name, sign, joints, frames)
    return Figure(joints, frames)


def shoulder(body: Body, joints, frames, shrug, sign) -> np.ndarray:
    """Return where a shoulder joint is, raised by `shrug` shoulder widths."""
    own = (0, sign * body.shoulders / 2, -0.04 * body.trunk + shrug * body.shoulders)
    return joints["neck"] + frames["chest"] @ own


def _put_face(body, joints, frame):
    places = {"nose": FACE["nose"]}
    for sign, name in zip(SIGN, ("left", "right"), strict=True):
        for part in ("eye", "ear"):
            x, y, z = FACE[part]
            lift = EYES_OVER_MIDDLE[body.kind] if part == "eye" else 0
            places[f"{name}_{part}"] = (x, sign * y, z + lift)
    for name, place in places.items():
        own = body.head * HEAD_SHAPE[body.kind] * place
        joints[name] = joints["head"] + frame @ own


def _put_leg(body, leg, side, name, sign, joints, frames):
    thigh = frames["pelvis"] @ ball_joint(leg.hip_3, sign)
    shank = thigh @ turn_y(leg.knee)
    foot = shank @ ankle(leg.ankle_3, sign)
    hip = joints["pelvis"] + frames["pelvis"] @ (0, sign * body.hips / 2, 0)
    knee = hip - body.thigh[side] * thigh[:, 2]
    ankle_at = knee - body.shank[side] * shank[:, 2]
    frames |= {f"{name}_thigh": thigh, f"{name}_shank": shank, f"{name}_foot": foot}
    joints |= {f"{name}_hip": hip, f"{name}_knee": knee, f"{name}_ankle": ankle_at}
    for point, own in foot_points(body, side).items():
        joints[f"{name}_{point}"] = ankle_at + foot @ own


def foot_points(body: Body, side) -> dict[str, np.ndarray]:
    """Return big toe, small toe and heel, at the height of their bones, in the foot's frame."""
    length, low, sign = body.foot[side], -0.65 * body.foot_height, SIGN[side]
    return {
        "big_toe": np.array([0.66 * length, -sign * 0.10 * length, low]),
        "small_toe": np.array([0.54 * length, sign * 0.19 * length, low]),
        "heel": np.array([-0.14 * length, 0, low]),
    }


def _put_arm(body, arm, side, name, sign, joints, frames):
    upper = frames["chest"] @ ball_joint(arm.shoulder_3, sign)
    fore = upper @ turn_y(-arm.elbow)
    hand = fore @ wrist(arm.wrist_3, sign)
    elbow = joints[f"{name}_shoulder"] - body.upper_arm[side] * upper[:, 2]
    wrist_at = elbow - body.forearm[side] * fore[:, 2]
    frames |= {f"{name}_upper_arm": upper, f"{name}_forearm": fore, f"{name}_hand": hand}
    joints |= {f"{name}_elbow": elbow, f"{name}_wrist": wrist_at, f"{name}_hand_root": wrist_at}
    for joint, own in hand_points(arm.hand).items():
        own = own * (1, sign, 1)  # modelled as a left hand
        joints[f"{name}_{joint}"] = wrist_at + hand @ (body.hand[side] * own)


def hand_points(hand: Hand) -> dict[str, np.ndarray]:
    """Return the 20 joints of a left hand from its wrist, in hand lengths."""
    points = {}
    opposition, along, middle, last = np.radians(hand.thumb_4)
    away = np.array([np.cos(opposition), -np.sin(opposition), 0.0])
    angles = along - np.array([0, middle, middle + last])
    bones = np.sin(angles)[:, None] * away - np.cos(angles)[:, None] * (0, 0, 1.0)
    chain = THUMB_ROOT + np.concatenate([np.zeros((1, 3)), np.cumsum(bones * THUMB[:, None], 0)])
    points |= {f"thumb{i + 1}": point for i, point in enumerate(chain)}
    names = ("forefinger", "middle_finger", "ring_finger", "pinky_finger")
    knuckle, bend, spread = np.radians(np.asarray(hand.fingers_43, float)).T
    curls = knuckle[:, None] + np.stack([0 * bend, bend, 1.6 * bend], 1)
    # The index spreads to the thumb (x), ring and little finger away from it.
    spread = spread * (1, 0, -1, -1)
    for i, name in enumerate(names):
        sideways = np.array([np.sin(spread[i]), 0.0, -np.cos(spread[i])])
        bones = np.cos(curls[i])[:, None] * sideways - np.sin(curls[i])[:, None] * (0, 1.0, 0)
        steps = np.cumsum(bones * FINGERS[i][:, None], 0)
        chain = KNUCKLES[i] + np.concatenate([np.zeros((1, 3)), steps])
        points |= {f"{name}{j + 1}": point for j, point in enumerate(chain)}
    return points
