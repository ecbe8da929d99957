"""The solids of a posed body: about 65 round cones and ellipsoids, each named by its segment."""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, poses
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Figure
from nkjax.toddlersim.solids import BALL, CONE, Solids

# Ellipsoids of the head, in head heights from its middle: place, semi-axes, segment.
HEAD = (
    ((-0.03, 0, 0.06), (0.47, 0.385, 0.44), "skull"),
    ((0.10, 0, -0.17), (0.33, 0.30, 0.33), "face"),
    ((0.41, 0, -0.17), (0.06, 0.05, 0.07), "nose"),
    ((0.375, 0, -0.29), (0.05, 0.10, 0.018), "upper_lip"),
    ((0.365, 0, -0.32), (0.05, 0.09, 0.02), "lower_lip"),
)
EYE, IRIS, EAR = (0.055, 0.06, 0.045), (0.03, 0.03, 0.03), (0.06, 0.04, 0.09)
ARM, LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")


def solids_of(body: Body, figure: Figure, segments=None) -> Solids:
    """Return the bare body's solids, world frame; segment_p says what each of them is.

    segments: names of those wanted, sides left out; None: all. The figure needs the joints of these
    parts alone, so that of stance.trunk_of is enough for chest, belly and pelvis.
    """
    radii, balls, bones = bodies.radii(body), [], []
    for names, build in _PARTS:
        if segments is None or not names.isdisjoint(segments):
            more_balls, more_bones = build(body, figure, radii)
            balls += more_balls
            bones += more_bones
    if segments is not None:
        balls, bones = ([row for row in rows if _bare(row[-1]) in segments]
                        for rows in (balls, bones))  # fmt: skip
    return solids.join(*([_balls(balls)] if balls else []), *([_cones(bones)] if bones else []))


def flesh_before(body: Body, keypoints) -> np.ndarray:
    """Return how much of its own body may lie before a joint that is still seen, metres (K,).

    keypoints: their names. Somewhat more than the radius there, for clothes and slanted views.
    """
    round_joint, trunk = bodies.radii(body), bodies.trunk_axes(body)
    fingers = ("thumb", "forefinger", "middle", "ring", "pinky")
    found = []
    for name in keypoints:
        side, part = (0 if name.startswith("left") else 1), name.split("_", 1)[-1]
        if part in ("nose", "eye", "ear"):
            radius = 0.08 * body.head
        elif part.startswith(fingers):
            radius = round_joint["finger"][side]
        else:
            radius = round_joint["wrist" if part == "hand_root" else part][side]
        if part == "hip":  # as deep as the trunk; a far hip is half a pelvis further away
            radius = 0.85 * max(trunk["belly"][0], trunk["pelvis"][0])
        elif part == "ankle":  # the instep and a shank that leans forward are in front of it
            radius *= 1.5
        found.append(1.3 * radius + 0.008)
    return np.array(found)


_SEGMENT = {name: i for i, name in enumerate(solids.SEGMENTS)}


def _bare(name) -> str:
    return name.removeprefix("left_").removeprefix("right_")


def _placed(centre_3, frame_33, placed) -> list:
    """Put ellipsoids (place in a part's frame, semi-axes, segment) into the world."""
    places, axes, names = zip(*placed, strict=True)
    centres = centre_3 + np.array(places, float) @ frame_33.T
    return [(centre, frame_33.T, half, name)
            for centre, half, name in zip(centres, axes, names, strict=True)]  # fmt: skip


def _balls(balls) -> Solids:
    """Make ellipsoids from (centre, frame, semi-axes, segment)."""
    centres, frames, axes, names = zip(*balls, strict=True)
    segments = [_SEGMENT[name] for name in names]
    return solids.make(BALL, np.array(centres), np.array(frames), np.array(axes, float), segments)


def _cones(bones) -> Solids:
    """Make round cones from (start, end, radius there, radius there, segment)."""
    starts, ends, a, b, names = zip(*bones, strict=True)
    starts = np.array(starts)
    axes = np.array(ends) - starts
    lengths = np.linalg.norm(axes, axis=1)
    frames = solids.frame_along(axes)
    sizes = np.stack([lengths, np.array(a), np.array(b)], 1)
    return solids.make(CONE, starts, frames, sizes, [_SEGMENT[name] for name in names])


def _head(body, figure, radii):
    height, frame, middle = body.head, figure.frames["head"], figure.joints["head"]
    narrow = poses.HEAD_SHAPE[body.kind]
    placed = [(height * narrow * place, height * narrow * axes, name)
              for place, axes, name in HEAD]  # fmt: skip
    if body.hair > 0.05:
        thick = 0.02 + 0.04 * body.hair
        axes = height * narrow * (0.45 + thick, 0.385 + thick, 0.44 + thick)
        placed.append((height * np.array([-0.09, 0, 0.09]), axes, "hair"))
        if body.hair > 0.55:  # down to the neck
            axes = height * narrow * (0.2, 0.34, 0.42)
            placed.append((height * np.array([-0.26, 0, -0.18]), axes, "hair"))
    for name in ("left", "right"):
        for part, axes in (("eye", EYE), ("ear", EAR)):
            own = frame.T @ (figure.joints[f"{name}_{part}"] - middle)
            placed.append((own, height * np.array(axes), part))
            if part == "eye":
                own = own + height * np.array([0.035, 0, 0])
                placed.append((own, height * np.array(IRIS), "iris"))
    neck = (figure.joints["neck"], middle - 0.15 * height * frame[:, 2],
            0.24 * height, 0.22 * height, "neck")  # fmt: skip
    return _placed(middle, frame, placed), [neck]


def _trunk(body, figure, radii):
    joints, frames, axes = figure.joints, figure.frames, bodies.trunk_axes(body)
    high = body.trunk
    chest = [((0, 0, 0.35 * high), axes["chest"], "chest")]
    belly = [((0.08 * axes["belly"][0], 0, 0.0), axes["belly"], "belly")]
    hips = radii["hip"]
    seat = [((-0.35 * hips[i], SIGN[i] * body.hips / 2, -0.1 * hips[i]), np.full(3, hips[i]),
             "pelvis") for i in (0, 1)]  # fmt: skip
    pelvis = [((0, 0, 0.12 * high), axes["pelvis"], "pelvis"), *seat]
    balls = _placed(joints["waist"], frames["chest"], chest + belly)
    balls += _placed(joints["pelvis"], frames["pelvis"], pelvis)
    root = joints["neck"] - 0.14 * high * frames["chest"][:, 2]
    round_shoulder = radii["shoulder"]
    yokes = [(root, joints[f"{name}_shoulder"], 1.9 * round_shoulder[i], round_shoulder[i],
              "chest") for i, name in enumerate(("left", "right"))]  # fmt: skip
    return balls, yokes


def _arms(body, figure, radii):
    bones = []
    for side, name in enumerate(("left", "right")):
        shoulder, elbow, wrist = (figure.joints[f"{name}_{part}"] for part in ARM)
        r = [radii[part][side] for part in ARM]
        bones += [(shoulder, elbow, r[0], r[1], f"{name}_upper_arm"),
                  (elbow, wrist, 1.05 * r[1], r[2], f"{name}_forearm")]  # fmt: skip
    return [], bones


def _legs(body, figure, radii):
    bones = []
    for side, name in enumerate(("left", "right")):
        hip, knee, ankle = (figure.joints[f"{name}_{part}"] for part in LEG)
        r = [radii[part][side] for part in LEG]
        calf = 0.7 * knee + 0.3 * ankle - 0.12 * r[1] * figure.frames[f"{name}_shank"][:, 0]
        bones += [(hip, knee, r[0], r[1], f"{name}_thigh"),
                  (knee, ankle, r[1], r[2], f"{name}_shank"),
                  (calf, ankle, 1.05 * r[1], 1.02 * r[2], f"{name}_shank")]  # fmt: skip
    return [], bones


def _feet(body, figure, radii):
    return [], _foot(figure, radii, 0) + _foot(figure, radii, 1)


def _hands(body, figure, radii):
    left, right = (_hand(body, figure, radii, side) for side in (0, 1))
    return left[0] + right[0], left[1] + right[1]


def _foot(figure, radii, side):
    name = ("left", "right")[side]
    parts = ("ankle", "heel", "big_toe", "small_toe")
    at = {part: figure.joints[f"{name}_{part}"] for part in parts}
    low = radii["heel"][side]
    ball = (at["big_toe"] + at["small_toe"]) / 2
    instep = 0.45 * at["ankle"] + 0.55 * ball
    bones = [
        (at["ankle"], at["heel"], radii["ankle"][side], low),
        (at["ankle"], instep, radii["ankle"][side], 0.75 * radii["ankle"][side]),
        (instep, ball, 0.75 * radii["ankle"][side], low),
        (at["heel"], at["big_toe"], low, low),
        (at["heel"], at["small_toe"], low, low),
        (at["big_toe"], at["small_toe"], low, low),
    ]
    return [(*bone, f"{name}_foot") for bone in bones]


def _hand(body, figure, radii, side):
    name, length = ("left", "right")[side], body.hand[side]
    segment = f"{name}_hand"
    finger, thumb = (radii[part][side] for part in ("finger", "thumb"))
    wrist, frame = figure.joints[f"{name}_wrist"], figure.frames[f"{name}_hand"]
    palm = [((0, 0, -0.27 * length), length * np.array([0.20, 0.085, 0.29]), segment)]
    bones = []
    for part in ("forefinger", "middle_finger", "ring_finger", "pinky_finger"):
        chain = [figure.joints[f"{name}_{part}{i}"] for i in (1, 2, 3, 4)]
        bones += [(*pair, finger, 0.95 * finger, segment)
                  for pair in zip(chain, chain[1:], strict=False)]  # fmt: skip
    chain = [figure.joints[f"{name}_thumb{i}"] for i in (1, 2, 3, 4)]
    bones += [(*pair, thumb, 0.9 * thumb, segment) for pair in zip(chain, chain[1:], strict=False)]
    round_wrist = radii["wrist"][side]
    bones.append((wrist, wrist + frame @ (0, 0, -0.2 * length), round_wrist, 0.1 * length, segment))
    return _placed(wrist, frame, palm), bones


# What each of these makes: segments, sides left out, and ellipsoids and bones as _balls and _cones
# take them.
_PARTS = (
    (frozenset(("skull", "face", "nose", "upper_lip", "lower_lip", "hair", "eye", "iris", "ear",
                "neck")), _head),
    (frozenset(("chest", "belly", "pelvis")), _trunk),
    (frozenset(("upper_arm", "forearm")), _arms),
    (frozenset(("thigh", "shank")), _legs),
    (frozenset(("foot",)), _feet),
    (frozenset(("hand",)), _hands),
)  # fmt: skip
