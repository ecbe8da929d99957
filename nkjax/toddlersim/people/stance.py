"""People on their feet: feet on the floor, legs that reach them, arms, and whether all is sound."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.people import acts, bodies, poses, reaching
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Figure, Hand, Leg, Pose
from nkjax.toddlersim.solids import Solids

TRIES = 60
NAMES = ("left", "right")
# A knee less bent is straighter than reaching.STRAIGHT allows, and its foot would leave its place.
LEAST_BEND = 9.5
INTO_THINGS = 0.008  # m that flesh may be pressed in by furniture
_REST_ARM = Arm(np.zeros(3), 0.0, np.zeros(3), Hand(np.zeros((4, 3)), np.zeros(4)))
_REST_LEG = Leg(np.zeros(3), 0.0, np.zeros(3))


class Foot(NamedTuple):
    """ankle_3: metres, world; frame_33: columns the foot's own axes in the world."""

    ankle_3: np.ndarray
    frame_33: np.ndarray


class Gait(NamedTuple):
    """How somebody walks along x. width: between the ankles, metres; step: metres; stance: share of
    a stride that a foot is down; lift: of the swinging foot, metres; strike: toes up as the heel
    lands, push: heel up as the toes leave, out_2: how far each foot is turned out, degrees.
    """

    width: float
    step: float
    stance: float
    lift: float
    strike: float
    push: float
    out_2: tuple[float, float]


def clipped(rng: np.random.Generator, mean, deviation, low, high) -> float:
    """Draw from a normal distribution, again until it is between low and high."""
    while True:
        value = rng.normal(mean, deviation)
        if low <= value <= high:
            return float(value)


# ---- feet and legs ----


def foot_at(body: Body, side, x, y, out, pitch=0.0, lift=0.0, roll=0.0) -> Foot:
    """Put a foot down, its ankle over (x, y) metres when it is flat.

    out: turned outwards, degrees; pitch: heel up about the toes, or, negative, toes up about the
    heel, degrees; lift: of its lowest point over the floor, metres; roll: inversion, degrees.
    """
    points = poses.foot_points(body, side)
    turned = poses.turn_z(SIGN[side] * out)
    frame = turned @ poses.turn_y(pitch) @ poses.turn_x(SIGN[side] * roll)
    pivot = points["big_toe" if pitch > 0 else "heel"] * (1, 0, 1)
    rolled = turned @ (pivot - poses.turn_y(pitch) @ pivot)
    radius = bodies.radii(body)["heel"][side]
    height = lift + radius - min((frame @ own)[2] for own in points.values())
    # Only along x: the ankles stay as far apart as they were meant to be.
    return Foot(np.array([x + rolled[0], y, height]), frame)


def gait_feet(body: Body, gait: Gait, phase, heels_up=(0.0, 0.0)) -> tuple[Foot, Foot]:
    """Return the feet at a phase of the stride, 0 to 1, the left heel landing at 0; pelvis at 0, 0.

    heels_up: degrees by which each heel is up beyond what the gait asks for.
    """
    feet = []
    for side in (poses.LEFT, poses.RIGHT):
        x, pitch, lift = _step(gait, (phase + 0.5 * side) % 1)
        y = SIGN[side] * gait.width / 2
        pitch = pitch + heels_up[side]
        feet.append(foot_at(body, side, x, y, gait.out_2[side], pitch, lift))
    return tuple(feet)


def _step(gait, phase):
    """Return where a foot is along x, its pitch and lift, at its own phase of the stride."""
    ahead, behind = 0.5 * gait.step, (0.5 - 2 * gait.stance) * gait.step
    if phase < gait.stance:
        u = phase / gait.stance
        pitch = -gait.strike * max(0.0, 1 - u / 0.15) + gait.push * max(0.0, (u - 0.6) / 0.4) ** 1.5
        return ahead + u * (behind - ahead), pitch, 0.0
    u = (phase - gait.stance) / (1 - gait.stance)
    pitch = gait.push * max(0.0, 1 - u / 0.5) ** 1.5 - gait.strike * max(0.0, (u - 0.6) / 0.4)
    return behind + (3 - 2 * u) * u**2 * (ahead - behind), pitch, gait.lift * np.sin(np.pi * u)


def carriage(x, y, turn_33, spine_3, neck_3, shrug_2=(0.0, 0.0)) -> Pose:
    """Return a pose with limbs at rest and the middle of the hips over (x, y), height still 0."""
    return Pose(np.array([x, y, 0.0]), turn_33, np.asarray(spine_3, float),
                np.asarray(neck_3, float), np.asarray(shrug_2, float),
                (_REST_ARM, _REST_ARM), (_REST_LEG, _REST_LEG))  # fmt: skip


def trunk_of(body: Body, pose: Pose) -> Figure:
    """Return what limbs hang from: hips, waist, neck, shoulders, frames of pelvis and chest."""
    chest = pose.turn_33 @ poses.spine(pose.spine_3)
    joints, frames = {"pelvis": pose.place_3}, {"pelvis": pose.turn_33, "chest": chest}
    joints["waist"] = pose.place_3 + 0.3 * body.trunk * pose.turn_33[:, 2]
    joints["neck"] = joints["waist"] + 0.7 * body.trunk * chest[:, 2]
    for side, name in enumerate(NAMES):
        hip = SIGN[side] * body.hips / 2 * pose.turn_33[:, 1]
        joints[f"{name}_hip"] = pose.place_3 + hip
        joints[f"{name}_shoulder"] = poses.shoulder(
            body, joints, frames, pose.shrug_2[side], SIGN[side]
        )
    return Figure(joints, frames)


def stand_on(body: Body, pose: Pose, feet, bends, knees_out) -> Pose:
    """Give a pose its legs, and the height at which no knee is bent less than `bends`, degrees.

    knees_out: how far each knee points outwards of x, degrees.
    """
    figure, heights = trunk_of(body, pose), []
    for side, name in enumerate(NAMES):
        hip, bend = figure.joints[f"{name}_hip"], np.radians(max(bends[side], LEAST_BEND))
        upper, lower = body.thigh[side], body.shank[side]
        reach = upper**2 + lower**2 + 2 * upper * lower * np.cos(bend)
        across = ((feet[side].ankle_3 - hip)[:2] ** 2).sum()
        heights.append(feet[side].ankle_3[2] - hip[2] + np.sqrt(max(reach - across, 0)))
    pose = pose._replace(place_3=pose.place_3 + (0, 0, min(heights)))
    return with_legs(body, pose, feet, knees_out)


def stand_easy(body: Body, pose: Pose, put_feet, bends, knees_out, most_up_2) -> Pose:
    """Stand as stand_on does; where an ankle would bend up too far the heel leaves the floor.

    put_feet: from how far each heel is to be up, degrees, to the feet; most_up_2: dorsiflexion.
    """
    heels_up = np.zeros(2)
    for _ in range(4):
        standing = stand_on(body, pose, put_feet(heels_up), bends, knees_out)
        over = np.array([leg.ankle_3[0] for leg in standing.legs]) - most_up_2
        if (over <= 0).all():
            break
        heels_up = heels_up + 1.2 * np.maximum(over, 0)
    return standing


def with_legs(body: Body, pose: Pose, feet, knees_out, knees_up=0.0) -> Pose:
    """Give a pose the legs that reach the feet from where its pelvis is; knees_out: see stand_on.

    knees_up: how much they point upwards for as much as they point to the front.
    """
    figure = trunk_of(body, pose)
    legs = []
    for side in (poses.LEFT, poses.RIGHT):
        knee_to = poses.turn_z(SIGN[side] * knees_out[side]) @ (1, 0, knees_up)
        ankle, frame = feet[side]
        legs.append(reaching.reach_leg(body, figure, side, ankle, knee_to, frame))
    return pose._replace(legs=tuple(legs))


def tilted(towards, angle) -> np.ndarray:
    """Return the turn by which something upright leans towards a direction in the floor plane.

    towards: degrees, 0 along x, 90 along y; angle: from the vertical, degrees.
    """
    return poses.turn_z(towards) @ poses.turn_y(angle) @ poses.turn_z(-towards)


# ---- arms ----


def loose_wrist(rng: np.random.Generator) -> np.ndarray:
    """Draw the wrist_3 of a hand that does nothing in particular, degrees."""
    pronation, palmar = clipped(rng, 25, 25, -50, 90), clipped(rng, 5, 14, -40, 35)
    return np.array([pronation, palmar, clipped(rng, 0, 7, -20, 20)])


def wrist_from_shoulder(body: Body, figure: Figure, side, arm: Arm) -> np.ndarray:
    """Return where the wrist is from the shoulder, metres, world axes; figure: as of trunk_of."""
    upper, fore = frames_of_arm(figure, side, arm)
    return -body.upper_arm[side] * upper[:, 2] - body.forearm[side] * fore[:, 2]


def frames_of_arm(figure: Figure, side, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of upper arm and forearm, pronation aside; figure: as of trunk_of."""
    upper = figure.frames["chest"] @ poses.ball_joint(arm.shoulder_3, SIGN[side])
    return upper, upper @ poses.turn_y(-arm.elbow)


def as_forearm(figure: Figure, side, arm: Arm, aside, down) -> np.ndarray:
    """Return the direction of fingers that point about where the forearm does, seen from above.

    aside: degrees to the left of it; down: degrees below the horizon. figure: as of trunk_of.
    """
    _, fore = frames_of_arm(figure, side, arm)
    heading = np.degrees(np.arctan2(-fore[1, 2], -fore[0, 2])) + aside
    return (poses.turn_z(heading) @ poses.turn_y(down))[:, 0]


def bearable(shoulder_3) -> bool:
    """Return whether a shoulder can be like that: not too far behind, nor turned too far."""
    flexion, abduction, rotation = shoulder_3
    low, high = acts.RANGES["shoulder_flexion"]
    return abs(abduction) > 75 or (low <= (flexion + 90) % 360 - 90 <= high and abs(rotation) < 110)


def hand_frame(side, fingers_3, palm_3) -> np.ndarray:
    """Return the frame of a hand whose fingers point one way, the palm about another."""
    z = -np.asarray(fingers_3, float) / np.linalg.norm(fingers_3)
    y = -SIGN[side] * np.asarray(palm_3, float)
    y = y - (y @ z) * z
    y /= np.linalg.norm(y)
    return np.stack([poses.cross(y, z), y, z], 1)


# ---- soundness ----


def first_sound(body: Body, draw: Callable[[], Act | None]) -> Act:
    """Return the first draw that can be: in range, not in itself, the floor or the furniture.

    draw: may return None for one that went wrong. Raises NotSound after TRIES of them.
    """
    for _ in range(TRIES):
        act = draw()
        if act is not None and sound(body, act):
            return act
    raise acts.NotSound(f"none of {TRIES} draws was sound; last: {act and act.posture}")


def sound(body: Body, act: Act) -> bool:
    """Return whether a body can do this act; the cheapest questions come first."""
    if acts.beyond_range(act.pose):
        return False
    figure = poses.pose_body(body, act.pose)
    if acts.lowest(body, figure) < -acts.FLOOR_SLACK:
        return False
    return (
        into_legs(body, figure) <= 0
        and into_things(body, figure, act.things) <= INTO_THINGS
        and not acts.overlaps(body, figure)
    )


def into_legs(body: Body, figure: Figure) -> float:
    """Return by how much more the shanks or feet are in each other than flesh gives, metres."""
    sides = []
    for side in NAMES:
        bones = [(a, b) for a, b in _BONES if a in ("knee", "heel")]
        sides.append(_balls(body, figure, side, bones))
    (left, left_radius), (right, right_radius) = sides
    apart = np.linalg.norm(left[:, None] - right[None], axis=-1)
    least = np.minimum(left_radius[:, None], right_radius[None])
    room = left_radius[:, None] + right_radius[None] - acts.OVERLAP * least
    return float((room - apart).max())


_BONES = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
          ("heel", "big_toe"), ("heel", "small_toe"))  # fmt: skip
_ALONG = np.linspace(0, 1, 9)[:, None]


def _balls(body, figure, side, bones):
    """Fill the bones of a side with balls: places (n, 3), radii (n,)."""
    radii, which = bodies.radii(body), NAMES.index(side)
    start, end = (np.array([figure.joints[f"{side}_{bone[i]}"] for bone in bones]) for i in (0, 1))
    first, last = (np.array([radii[bone[i]][which] for bone in bones]) for i in (0, 1))
    places = start[None] + _ALONG[..., None] * (end - start)[None]
    return places.reshape(-1, 3), (first + _ALONG * (last - first)).reshape(-1)


def into_things(body: Body, figure: Figure, things: Solids) -> float:
    """Return how deep limbs, hands, trunk or head are in boxes, metres."""
    if not len(things.kind_p):
        return -np.inf
    sides = [_balls(body, figure, side, _BONES) for side in NAMES]
    joints, frames, axes = figure.joints, figure.frames, bodies.trunk_axes(body)
    trunk = np.concatenate([
        middle + np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]) * axes[part][:2] @ frames[of][:, :2].T
        for part, of, middle in (
            ("pelvis", "pelvis", joints["pelvis"] + 0.1 * body.trunk * frames["pelvis"][:, 2]),
            ("belly", "chest", joints["waist"]),
            ("chest", "chest", joints["waist"] + 0.36 * body.trunk * frames["chest"][:, 2]),
        )
    ])  # fmt: skip
    hands = np.array([place for name, place in joints.items() if name[-1] in "1234"])
    finger = np.full(len(hands), bodies.radii(body)["finger"][0])
    head = np.array([0.42 * body.head])
    places = np.concatenate([*(side[0] for side in sides), trunk, hands, joints["head"][None]])
    radii = np.concatenate([*(side[1] for side in sides), 0 * trunk[:, 0], finger, head])
    own = np.einsum("pij,pnj->pni", things.frame_p33, places[None] - things.centre_p3[:, None])
    beyond = np.abs(own) - things.size_p3[:, None]
    outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
    distance = outside + np.minimum(beyond.max(-1), 0)
    return float((radii - distance).max())
