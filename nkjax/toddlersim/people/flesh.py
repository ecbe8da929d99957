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
    ((0.41, 0, -0.13), (0.06, 0.05, 0.06), "nose"),
    ((0.378, 0, -0.275), (0.05, 0.10, 0.018), "upper_lip"),
    ((0.374, 0, -0.305), (0.05, 0.09, 0.02), "lower_lip"),
)
EYE, IRIS, EAR = (0.055, 0.06, 0.045), (0.03, 0.03, 0.03), (0.06, 0.04, 0.09)


def solids_of(body: Body, figure: Figure) -> Solids:
    """Return the bare body's solids, world frame; segment_p says what each of them is."""
    made = [_head(body, figure), _trunk(body, figure)]
    for side in (0, 1):
        made += [_limbs(body, figure, side), _foot(body, figure, side), _hand(body, figure, side)]
    return solids.join(*made)


def flesh_before(body: Body, keypoints) -> np.ndarray:
    """Return how much of its own body may lie before a joint that is still seen, metres (K,).

    keypoints: their names. Somewhat more than the radius there, for clothes and slanted views.
    """
    round_joint = bodies.radii(body)
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
        found.append(1.3 * radius + 0.008)
    return np.array(found)


def _segment(name) -> int:
    return solids.SEGMENTS.index(name)


def _balls(centre_3, frame_33, placed) -> Solids:
    """Make ellipsoids at places (x, y, z) of a part's frame, from (place, semi-axes, segment)."""
    places, axes, names = zip(*placed, strict=True)
    centres = centre_3 + np.array(places, float) @ frame_33.T
    segments = [_segment(name) for name in names]
    return solids.make(BALL, centres, frame_33.T, np.array(axes, float), segments)


def _cones(bones) -> Solids:
    """Make round cones from (start, end, radius there, radius there, segment)."""
    starts, ends, a, b, names = zip(*bones, strict=True)
    axes = np.array(ends) - np.array(starts)
    lengths = np.linalg.norm(axes, axis=1)
    frames = solids.frame_along(axes)
    sizes = np.stack([lengths, np.array(a), np.array(b)], 1)
    return solids.make(CONE, np.array(starts), frames, sizes, [_segment(name) for name in names])


def _head(body, figure):
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
    return solids.join(_balls(middle, frame, placed), _cones([neck]))


def _trunk(body, figure):
    joints, frames, axes = figure.joints, figure.frames, bodies.trunk_axes(body)
    high = body.trunk
    chest = [((0, 0, 0.35 * high), axes["chest"], "chest")]
    belly = [((0.08 * axes["belly"][0], 0, 0.0), axes["belly"], "belly")]
    hips = bodies.radii(body)["hip"]
    seat = [((-0.35 * hips[i], SIGN[i] * body.hips / 2, -0.1 * hips[i]), np.full(3, hips[i]),
             "pelvis") for i in (0, 1)]  # fmt: skip
    pelvis = [((0, 0, 0.12 * high), axes["pelvis"], "pelvis"), *seat]
    made = [_balls(joints["waist"], frames["chest"], chest + belly)]
    made.append(_balls(joints["pelvis"], frames["pelvis"], pelvis))
    root = joints["neck"] - 0.14 * high * frames["chest"][:, 2]
    round_shoulder = bodies.radii(body)["shoulder"]
    yokes = [(root, joints[f"{name}_shoulder"], 1.9 * round_shoulder[i], round_shoulder[i],
              "chest") for i, name in enumerate(("left", "right"))]  # fmt: skip
    return solids.join(*made, _cones(yokes))


def _limbs(body, figure, side):
    name, radii = ("left", "right")[side], bodies.radii(body)
    joints = {part: figure.joints[f"{name}_{part}"]
              for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}  # fmt: skip
    r = {part: radii[part][side] for part in joints}
    calf_at = 0.7 * joints["knee"] + 0.3 * joints["ankle"]
    calf_at = calf_at - 0.12 * r["knee"] * figure.frames[f"{name}_shank"][:, 0]
    bones = [
        (joints["shoulder"], joints["elbow"], r["shoulder"], r["elbow"], "upper_arm"),
        (joints["elbow"], joints["wrist"], 1.05 * r["elbow"], r["wrist"], "forearm"),
        (joints["hip"], joints["knee"], r["hip"], r["knee"], "thigh"),
        (joints["knee"], joints["ankle"], r["knee"], r["ankle"], "shank"),
        (calf_at, joints["ankle"], 1.05 * r["knee"], 1.02 * r["ankle"], "shank"),
    ]
    return _cones([(*bone[:4], f"{name}_{bone[4]}") for bone in bones])


def _foot(body, figure, side):
    name, radii = ("left", "right")[side], bodies.radii(body)
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
    return _cones([(*bone, f"{name}_foot") for bone in bones])


def _hand(body, figure, side):
    name, length = ("left", "right")[side], body.hand[side]
    segment = f"{name}_hand"
    finger, thumb = (bodies.radii(body)[part][side] for part in ("finger", "thumb"))
    wrist, frame = figure.joints[f"{name}_wrist"], figure.frames[f"{name}_hand"]
    palm = [((0, 0, -0.27 * length), length * np.array([0.20, 0.085, 0.29]), segment)]
    bones = []
    for part in ("forefinger", "middle_finger", "ring_finger", "pinky_finger"):
        chain = [figure.joints[f"{name}_{part}{i}"] for i in (1, 2, 3, 4)]
        bones += [(*pair, finger, 0.95 * finger, segment)
                  for pair in zip(chain, chain[1:], strict=False)]  # fmt: skip
    chain = [figure.joints[f"{name}_thumb{i}"] for i in (1, 2, 3, 4)]
    bones += [(*pair, thumb, 0.9 * thumb, segment) for pair in zip(chain, chain[1:], strict=False)]
    round_wrist = bodies.radii(body)["wrist"][side]
    bones.append((wrist, wrist + frame @ (0, 0, -0.2 * length), round_wrist, 0.1 * length, segment))
    return solids.join(_balls(wrist, frame, palm), _cones(bones))
