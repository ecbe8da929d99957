"""What a person does: a pose, what is leaned on or held, who holds; and whether it can be."""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import Figure, Pose
from nkjax.toddlersim.solids import Solids

FLOOR_SLACK = 0.012  # m that something may sink into the floor: skin gives way
OVERLAP = 0.35  # of a limb's radius that may be within another part: flesh gives way

# Degrees. Passive range of 2 to 8 years olds (CDC), means of both sexes + 15 % (notes method 6.6);
# rows without a source there: abduction, rotation, wrist and forearm (textbook values).
RANGES = {
    "hip_flexion": (-31, 162), "hip_abduction": (-35, 75), "knee": (-5, 176),
    "dorsiflexion": (-76, 29), "inversion": (-40, 45), "foot_turn": (-40, 40),
    "shoulder_flexion": (-75, 206), "elbow": (-8, 176), "palmar_flexion": (-85, 95),
    "radial_deviation": (-45, 35), "pronation": (-105, 105),
    "spine_forward": (-35, 75), "spine_left": (-45, 45), "spine_turn": (-45, 45),
    "neck_forward": (-70, 60), "neck_left": (-50, 50), "neck_turn": (-85, 85),
}  # fmt: skip


class NotSound(RuntimeError):
    """No draw of many gave a pose that can be: of these people another one may."""


class Act(NamedTuple):
    """posture, grasp: what they are called. things: furniture and floor that the pose leans on.

    toy: what the hand holds, empty where nothing. holder: the adult who holds the child, if any.
    All in the world, floor at z = 0, near the origin. Paints of things and toy are not chosen yet.
    forward_3: where the person walks or faces, along the floor.
    """

    posture: str
    grasp: str
    pose: Pose
    things: Solids
    toy: Solids
    holder: tuple[Body, Pose] | None
    forward_3: np.ndarray


def act(posture: str, pose: Pose, grasp="none", things=None, toy=None, holder=None) -> Act:
    """Make an act of somebody who faces +x; what is not given is not there."""
    empty, forward = solids.none(), np.array([1.0, 0, 0])
    return Act(posture, grasp, pose, things or empty, toy or empty, holder, forward)


def lowest(body: Body, figure: Figure) -> float:
    """Return the height of the lowest point of the flesh, metres."""
    places, radii, _ = _balls(body, figure)
    return float((places[:, 2] - radii).min())


def beyond_range(pose: Pose) -> list[str]:
    """Name the joints that are bent beyond RANGES, with the angle."""
    angles = {}
    for part, three in (("spine", pose.spine_3), ("neck", pose.neck_3)):
        angles |= {f"{part}_{way}": three[i] for i, way in enumerate(("forward", "left", "turn"))}
    for side, leg in zip(("left", "right"), pose.legs, strict=True):
        angles |= {
            f"{side} hip_flexion": _flexion(leg.hip_3), f"{side} hip_abduction": leg.hip_3[1],
            f"{side} knee": leg.knee, f"{side} dorsiflexion": leg.ankle_3[0],
            f"{side} inversion": leg.ankle_3[1], f"{side} foot_turn": leg.ankle_3[2],
        }  # fmt: skip
    for side, arm in zip(("left", "right"), pose.arms, strict=True):
        angles |= {
            f"{side} shoulder_flexion": _flexion(arm.shoulder_3), f"{side} elbow": arm.elbow,
            f"{side} pronation": arm.wrist_3[0], f"{side} palmar_flexion": arm.wrist_3[1],
            f"{side} radial_deviation": arm.wrist_3[2],
        }  # fmt: skip
    found = []
    for name, angle in angles.items():
        low, high = RANGES[name.split()[-1]]
        if not low <= angle <= high:
            found.append(f"{name} {angle:.0f}")
    return found


def _flexion(ball_3) -> float:
    """Return flexion in (-180, 180]; with the limb near sideways it means nothing, and is 0."""
    return 0.0 if abs(ball_3[1]) > 75 else float((ball_3[0] + 90) % 360 - 90)


def overlaps(body: Body, figure: Figure) -> list[str]:
    """Name the pairs of parts of one body that are inside each other by more than OVERLAP."""
    places, radii, names = _balls(body, figure)
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    slack = OVERLAP * np.minimum(radii[:, None], radii[None])
    bad = np.argwhere(apart < radii[:, None] + radii[None] - slack)
    return [f"{names[a]} in {names[b]}" for a, b in bad
            if a < b and not _neighbours(names[a], names[b])]  # fmt: skip


def _neighbours(a, b) -> bool:
    if a == b:
        return True
    near = {frozenset(pair) for pair in (
        ("head", "trunk"), ("upper_arm", "forearm"), ("upper_arm", "trunk"), ("forearm", "hand"),
        ("trunk", "thigh"), ("thigh", "shank"), ("shank", "foot"))}  # fmt: skip
    side_a, part_a = a.split(".") if "." in a else ("", a)
    side_b, part_b = b.split(".") if "." in b else ("", b)
    touching = {"thigh", "shank", "foot"}  # legs lie on each other
    if side_a and side_b and side_a != side_b:
        return part_a == part_b and part_a in touching
    if frozenset((part_a, part_b)) == frozenset(("thigh", "shank")):
        return True
    return frozenset((part_a, part_b)) in near


def _balls(body, figure):
    """Fill the body with balls: places (n, 3), radii (n,), names such as left.forearm or trunk."""
    joints, frames, rows = figure.joints, figure.frames, []
    radii, axes = bodies.radii(body), bodies.trunk_axes(body)

    def along(name, a, b, radius_a, radius_b, count):
        for t in np.linspace(0, 1, count):
            rows.append((name, (1 - t) * a + t * b, (1 - t) * radius_a + t * radius_b))

    for name, centre, up in (("chest", "waist", 0.36), ("belly", "waist", 0.02),
                             ("pelvis", "pelvis", 0.10)):  # fmt: skip
        frame = frames["pelvis" if name == "pelvis" else "chest"]
        middle = joints[centre] + up * body.trunk * frame[:, 2]
        deep, wide, _ = axes[name]
        for y in (-1, 0, 1):
            rows.append(("trunk", middle + y * (wide - deep) * frame[:, 1], deep))
    for x, z, radius in ((0, 0.04, 0.42), (0.08, -0.17, 0.31)):  # skull, face
        place = joints["head"] + body.head * (frames["head"] @ (x, 0, z))
        rows.append(("head", place, radius * body.head))
    for i, side in enumerate(("left", "right")):
        at = {part: joints[f"{side}_{part}"] for part in
              ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe", "heel", "small_toe",
               "middle_finger1", "middle_finger4")}  # fmt: skip
        r = {part: values[i] for part, values in radii.items()}
        along(f"{side}.upper_arm", at["shoulder"], at["elbow"], r["shoulder"], r["elbow"], 4)
        along(f"{side}.forearm", at["elbow"], at["wrist"], r["elbow"], r["wrist"], 5)
        along(f"{side}.hand", at["wrist"], at["middle_finger1"], r["wrist"], 1.6 * r["finger"], 3)
        tip = at["middle_finger4"]
        along(f"{side}.hand", at["middle_finger1"], tip, 1.5 * r["finger"], r["finger"], 2)
        along(f"{side}.thigh", at["hip"], at["knee"], r["hip"], r["knee"], 5)
        along(f"{side}.shank", at["knee"], at["ankle"], r["knee"], r["ankle"], 5)
        for toe in ("big_toe", "small_toe"):
            along(f"{side}.foot", at["heel"], at[toe], r["heel"], r["heel"], 3)
    names, places, sizes = zip(*rows, strict=True)
    return np.array(places), np.array(sizes), names
