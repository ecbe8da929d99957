"""Toddlers on their feet: cruising, squatting, falling.

Every function draws an act near the origin, the toddler facing roughly along x, floor at z = 0.
Source: notes method 6.5.
"""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, grasps, poses, reaching, stance
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import LEFT, RIGHT, SIGN
from nkjax.toddlersim.people.stance import clipped
from nkjax.toddlersim.people.walking import look, medium_arm
from nkjax.toddlersim.solids import BOX, Solids

SIDES = (LEFT, RIGHT)
TABLE, BLOCK, RAIL = range(3)
MOST_PALMAR = 35.0  # degrees that a wrist is bent by who leans on it


# ---- cruising ----


def cruise(rng: np.random.Generator, body: Body) -> Act:
    """Draw a toddler walking sideways along furniture, one hand or both on its top."""
    return stance.first_sound(body, lambda: _cruise(rng, body))


def _cruise(rng, body):
    both = rng.random() < 0.65
    free = None if both else int(rng.integers(2))
    # With one hand free the toddler turns to that side, to walk along.
    yaw = rng.normal(0, 7) if both else SIGN[free] * rng.uniform(-5, 40)
    lean = rng.uniform(0, 16)
    turn = poses.turn_y(lean * rng.uniform(0, 0.8)) @ poses.turn_x(rng.normal(0, 3))
    turn = poses.turn_z(yaw) @ turn
    spine = (lean * rng.uniform(0, 1), rng.normal(0, 5), -0.4 * yaw + rng.normal(0, 7))
    neck = look(rng) + (5, 0, rng.choice([-1, 1]) * rng.uniform(0, 15))
    pose = stance.carriage(0, 0, turn, spine, neck, rng.uniform(0, 0.12, 2))
    pose = stance.stand_on(body, pose, _sidestep(rng, body, turn), rng.uniform(9.5, 28, 2),
                           rng.uniform(0, 25, 2) + yaw * np.array([1, -1]))  # fmt: skip
    kind = rng.choice(3)
    top = rng.uniform(0.50, 0.69) * body.stature
    edge = _front(body, pose, kind) + rng.uniform(0.004, 0.04)
    pose = _hands_on(rng, body, pose, edge, top, free)
    if pose is None:
        return None
    return acts.act("cruise", pose, things=_furniture(rng, edge, top, kind))


def _sidestep(rng, body, turn):
    """Draw feet of somebody stepping sideways under the pelvis, one perhaps off the floor."""
    middle, width = rng.normal(0, 0.012), rng.uniform(1.0, 2.2) * body.hips
    swinging, lift = int(rng.integers(2)), max(0.0, rng.uniform(-0.03, 0.05))
    feet = []
    for side in SIDES:
        x, y = turn[:2, :2] @ (middle + rng.normal(0, 0.018), SIGN[side] * width / 2)
        out = rng.uniform(-2, 28) + SIGN[side] * np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
        up = lift if side == swinging else 0.0
        pitch = rng.uniform(0, 15) if up or rng.random() < 0.2 else 0.0
        feet.append(stance.foot_at(body, side, x, y, out, pitch, up))
    return feet


def _front(body, pose, kind):
    """Return x of what is first at the furniture: the belly, and at a block knees and toes."""
    figure, axes, radii = poses.pose_body(body, pose), bodies.trunk_axes(body), bodies.radii(body)
    joints, deepest = figure.joints, max(axis[0] for axis in axes.values())
    front = [joints["waist"][0] + deepest, joints["pelvis"][0] + deepest]
    if kind == BLOCK:
        for part in ("knee", "big_toe", "small_toe"):
            front += [joints[f"{name}_{part}"][0] + radii[part][0] for name in stance.NAMES]
    return max(front)


def _furniture(rng, edge, top, kind) -> Solids:
    """Draw a table, a block (sofa, chest) or a rail on posts with its edge along y at x = edge."""
    wide, middle = rng.uniform(0.35, 0.9), rng.uniform(-0.15, 0.15)
    deep = {TABLE: rng.uniform(0.15, 0.35), BLOCK: rng.uniform(0.15, 0.4), RAIL: 0.06}[kind]
    thick = top / 2 if kind == BLOCK else rng.uniform(0.01, 0.025)
    boxes = [((edge + deep, middle, top - thick), (deep, wide, thick))]
    if kind != BLOCK:
        half, leg = (top - 2 * thick) / 2, rng.uniform(0.01, 0.025)
        for x in (edge + leg, edge + 2 * deep - leg) if kind == TABLE else (edge + deep,):
            for y in (middle - wide + leg, middle + wide - leg):
                boxes.append(((x, y, half), (leg, leg, half)))
    centres, sizes = zip(*boxes, strict=True)
    return solids.make(BOX, centres, np.eye(3), sizes)


def _hands_on(rng, body, pose, edge, top, free):
    """Lay the hands on a top whose edge is at x = edge, the free one in guard; None if too far."""
    figure, arms, aims = stance.trunk_of(body, pose), [None, None], {}
    for side in SIDES:
        if side == free:
            arms[side] = medium_arm(rng, body, pose, side)
            continue
        shoulder = figure.joints[f"{stance.NAMES[side]}_shoulder"]
        aside, down = rng.uniform(-0.05, 0.1), shoulder[2] - top - 0.03
        far = rng.uniform(0.7, 0.96) * (body.upper_arm[side] + body.forearm[side])
        x = shoulder[0] + np.sqrt(max(far**2 - aside**2 - down**2, 0))
        # On the top, but not further in than a rail is deep.
        x = np.clip(x, edge + rng.uniform(0, 0.02), edge + rng.uniform(0.03, 0.07))
        place = np.array([x, shoulder[1] + SIGN[side] * aside, top + 0.03])
        elbow = (rng.uniform(-1, -0.2), SIGN[side] * rng.uniform(0.3, 1), rng.uniform(-0.8, 0))
        hand = grasps.flat_hand(rng) if rng.random() < 0.7 else grasps.open_hand(rng)
        arm = reaching.reach_arm(body, figure, side, place, elbow, hand, None)
        ahead = stance.as_forearm(figure, side, arm, rng.uniform(-18, 18), rng.uniform(6, 28))
        frame = stance.hand_frame(side, ahead, (0, 0, -1))
        arms[side] = reaching.reach_arm(body, figure, side, place, elbow, hand, frame)
        aims[side] = (place, elbow, hand, frame)
    joints = poses.pose_body(body, pose._replace(arms=tuple(arms))).joints
    for side, (place, *rest) in aims.items():
        place = place + (0, 0, top - _lowest_of_hand(body, joints, side))
        far = np.linalg.norm(place - figure.joints[f"{stance.NAMES[side]}_shoulder"])
        if far > 0.99 * (body.upper_arm[side] + body.forearm[side]):
            return None
        arms[side] = reaching.reach_arm(body, figure, side, place, *rest)
        if arms[side].wrist_3[1] > MOST_PALMAR:
            return None
    return pose._replace(arms=tuple(arms))


def _lowest_of_hand(body, joints, side):
    """Return the height of the lowest flesh of wrist, palm and fingers, metres."""
    radii, name = bodies.radii(body), stance.NAMES[side]
    finger, wrist = radii["finger"][side], joints[f"{name}_wrist"][2] - radii["wrist"][side]
    bones = [place[2] for key, place in joints.items()
             if key.startswith(name) and key[-1] in "1234"]  # fmt: skip
    return min(wrist, min(bones) - 1.2 * finger)


# ---- low down ----


def squat(rng: np.random.Generator, body: Body) -> Act:
    """Draw a toddler squatting at play: feet flat, bottom near the heels, a hand near the floor."""
    return stance.first_sound(body, lambda: _squat(rng, body))


def _squat(rng, body):
    width, out = rng.uniform(1.4, 2.6) * body.hips, rng.uniform(16, 45)
    feet = [stance.foot_at(body, side, rng.normal(0, 0.012), SIGN[side] * width / 2,
                           out + rng.normal(0, 5)) for side in SIDES]  # fmt: skip
    high = 1.15 * bodies.radii(body)["hip"][0] + rng.uniform(0.025, 0.09)
    tilt, bent = rng.uniform(0, 22), rng.uniform(14, 44)
    turn = poses.turn_y(tilt) @ poses.turn_x(rng.normal(0, 3))
    spine = (bent, rng.normal(0, 6), rng.normal(0, 10))
    neck = look(rng) * (1, 0.7, 0.8) + (-0.35 * (tilt + bent) + 8, 0, 0)
    pose = stance.carriage(0, rng.normal(0, 0.008), turn, spine, neck, rng.uniform(0, 0.08, 2))
    pose = pose._replace(place_3=pose.place_3 + (0, 0, high))
    knees = (out + rng.uniform(-2, 12, 2), rng.uniform(0.8, 2.5))
    pose = _behind_feet(body, pose, feet, knees, wanted=rng.uniform(11, 24))
    playing = int(rng.integers(2))
    arms = [_down_to(rng, body, pose, side, low=side == playing) for side in SIDES]
    pose = pose._replace(arms=tuple(arms))
    joints = poses.pose_body(body, pose).joints
    low = [_lowest_of_hand(body, joints, side) for side in SIDES]
    if min(low) < -0.002 or low[playing] > 0.065:
        return None
    return acts.act("squat", pose)


def _behind_feet(body, pose, feet, knees, wanted):
    """Move a pelvis to where the shanks lean by the wanted angle over flat feet, on average."""
    back = -0.45 * body.thigh[0]
    step = 0.05 * body.thigh[0]
    for _ in range(3):
        places = (pose.place_3 + (x, 0, 0) for x in (back, back + step))
        moved = [stance.with_legs(body, pose._replace(place_3=place), feet, *knees)
                 for place in places]  # fmt: skip
        lean, more = (np.mean([leg.ankle_3[0] for leg in one.legs]) for one in moved)
        if abs(lean - wanted) < 3:
            break
        slope = max((more - lean) / step, 50.0)
        back += np.clip((wanted - lean) / slope, -0.05, 0.05)
    return moved[0]


def _down_to(rng, body, pose, side, low):
    """Draw an arm that reaches forward: fingers near the floor, or between it and the knees."""
    tips = rng.uniform(0.018, 0.05) if low else rng.uniform(0.02, 0.24)
    x, y = rng.uniform(0.13, 0.25), pose.place_3[1] + SIGN[side] * rng.uniform(-0.02, 0.1)
    elbow = (rng.uniform(-0.4, 0.4), SIGN[side] * rng.uniform(0.2, 1), rng.uniform(0, 0.8))
    hand = (grasps.relaxed, grasps.open_hand, grasps.palmar)[rng.integers(3)](rng)
    figure, height = stance.trunk_of(body, pose), tips + 0.07
    shoulder = figure.joints[f"{stance.NAMES[side]}_shoulder"]
    length = 0.97 * (body.upper_arm[side] + body.forearm[side])
    for _ in range(2):  # the second time as much higher as this forearm lets the fingers hang
        across = np.array([x, y]) - shoulder[:2]
        room = np.sqrt(max(length**2 - (shoulder[2] - height) ** 2, 0))
        at = shoulder[:2] + across * min(1, room / np.linalg.norm(across))
        arm = reaching.reach_arm(body, figure, side, (*at, height), elbow, hand, None)
        _, fore = stance.frames_of_arm(figure, side, arm)
        height = tips + 0.9 * body.hand[side] * max(fore[2, 2], 0)
    wrist = stance.loose_wrist(rng)
    # Who picks something up does not hold the fingers up.
    wrist[1] = abs(wrist[1]) if low else wrist[1]
    return arm._replace(wrist_3=wrist)


def fall(rng: np.random.Generator, body: Body) -> Act:
    """Draw a toddler losing balance: trunk tilted 25 to 60 degrees, arms thrown out."""
    return stance.first_sound(body, lambda: _fall(rng, body))


def _fall(rng, body):
    towards, tilt = rng.uniform(-180, 180), rng.uniform(25.5, 59.5)
    chest = stance.tilted(towards, tilt) @ poses.turn_z(rng.normal(0, 10))
    turn = stance.tilted(towards + rng.normal(0, 15), tilt * rng.uniform(0.35, 1.0))
    spine = poses.ball_angles(turn.T @ chest, 1.0) * (-1, -1, 1)
    pose = stance.carriage(0, 0, turn, spine, look(rng) * (1, 1, 0.6), rng.uniform(0, 0.12, 2))
    back = np.cos(np.radians(towards))  # 1 forward, -1 backward
    seated = back < -0.3 and rng.random() < 0.5
    pose = _sit_down(rng, body, pose) if seated else _stagger(rng, body, pose, towards)
    arms = tuple(_thrown(rng, body, pose, side, towards) for side in SIDES)
    return acts.act("fall", pose._replace(arms=arms))


def _stagger(rng, body, pose, towards):
    """Put one or both feet on the floor behind the falling trunk."""
    way = poses.turn_z(towards)[:2, 0]
    hip = pose.place_3[:2] - way * rng.uniform(0.03, 0.3) * (body.thigh[0] + body.shank[0])
    swinging, both = int(rng.integers(2)), rng.random() < 0.5
    outs, bends = rng.uniform(-5, 28, 2), rng.uniform(12, 85) + rng.normal(0, 4, 2)
    knees = outs + rng.normal(0, 4, 2)
    places, lifts, pitches = [], [], []
    for side in SIDES:
        lifts.append(0.0 if both or side != swinging else rng.uniform(0.01, 0.12))
        places.append(hip + (rng.normal(0, 0.04), SIGN[side] * rng.uniform(0.4, 1.3) * body.hips))
        pitches.append(way[0] * rng.uniform(0, 30 if way[0] > 0 else 22))
        if lifts[side]:  # a step that would save it
            places[side] = places[side] + way * rng.uniform(-0.05, 0.18)

    def put_feet(heels_up):
        up = pitches + heels_up
        return [stance.foot_at(body, side, *places[side], outs[side], up[side], lifts[side])
                for side in SIDES]  # fmt: skip

    return stance.stand_easy(body, pose, put_feet, bends, knees, rng.uniform(8, 24, 2))


def _sit_down(rng, body, pose):
    """Let the bottom come to the floor, or nearly, the heels on it in front."""
    radii = bodies.radii(body)
    pose = pose._replace(place_3=np.array([0, 0, 1.5 * radii["hip"][0] + rng.uniform(0, 0.08)]))
    far, outs = rng.uniform(0.45, 0.85) * (body.thigh[0] + body.shank[0]), rng.uniform(0, 30, 2)
    feet = []
    for side in SIDES:
        x, y = far + rng.normal(0, 0.03), SIGN[side] * rng.uniform(0.5, 1.6) * body.hips
        feet.append(stance.foot_at(body, side, x, y, outs[side], -rng.uniform(0, 30)))
    return stance.with_legs(body, pose, feet, outs)


def _thrown(rng, body, pose, side, towards):
    """Draw an arm thrown out to where the body falls, to its own side, up or down."""
    figure, sign = stance.trunk_of(body, pose), SIGN[side]
    shoulder = figure.joints[f"{stance.NAMES[side]}_shoulder"]
    length = body.upper_arm[side] + body.forearm[side]
    while True:
        way = poses.turn_z(towards)[:, 0] * rng.uniform(0.1, 1.0)
        way = way + (rng.uniform(0, 0.4), sign * rng.uniform(0.2, 1.1), rng.uniform(-0.9, 0.6))
        wrist = shoulder + rng.uniform(0.75, 0.97) * length * way / np.linalg.norm(way)
        wrist[2] = max(wrist[2], rng.uniform(0.03, 0.08))
        elbow = (rng.uniform(-1, 0), sign * rng.uniform(0.1, 1), rng.uniform(-1, 0.3))
        arm = reaching.reach_arm(body, figure, side, wrist, elbow, grasps.open_hand(rng), None)
        if stance.bearable(arm.shoulder_3):
            break
    pronation, palmar = clipped(rng, 30, 25, -30, 85), clipped(rng, -25, 18, -65, 20)
    return arm._replace(wrist_3=np.array([pronation, palmar, clipped(rng, 0, 8, -20, 20)]))
