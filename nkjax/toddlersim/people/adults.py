"""Adults: walking with a narrow base and arm swing, standing, reaching, sitting on a chair.

Every function draws an act near the origin, facing roughly along x, floor at z = 0.
Source: notes method 6.5, step widths 6.6.
"""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, grasps, poses, reaching, stance
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import LEFT, RIGHT, SIGN, Arm, Pose
from nkjax.toddlersim.people.stance import clipped
from nkjax.toddlersim.solids import BOX, Solids

SIDES = (LEFT, RIGHT)


def walk(rng: np.random.Generator, body: Body) -> Act:
    """Draw a walking adult: narrow base, long steps from heel to toe, arms against the legs."""
    return stance.first_sound(body, lambda: _walk(rng, body))


def _walk(rng, body):
    phase, out = rng.uniform(0, 1), clipped(rng, 7, 5, -4, 18)
    gait = stance.Gait(
        width=_base(rng, body), step=rng.uniform(0.35, 0.45) * body.stature,
        stance=rng.uniform(0.58, 0.64), lift=rng.uniform(0.01, 0.04), strike=rng.uniform(12, 26),
        push=rng.uniform(42, 62), out_2=tuple(out + rng.normal(0, 2, 2)),
    )  # fmt: skip
    lean, swing = clipped(rng, 3, 3, -4, 11), np.cos(2 * np.pi * (phase - 0.02))
    over = np.cos(2 * np.pi * (phase - gait.stance / 2))
    tilt = lean * rng.uniform(0.2, 0.8)
    turn = poses.turn_y(tilt) @ poses.turn_x(over * rng.uniform(0, 5))
    # Chest turns with the arms: left shoulder ahead as the right leg is.
    spine = (lean - tilt, over * rng.normal(0, 2), swing * rng.uniform(2, 10) + rng.normal(0, 3))
    neck = _look(rng) - (0, 0, 0.7 * spine[2])
    y = over * rng.uniform(0.05, 0.2) * gait.width
    pose = stance.carriage(rng.normal(0.0, 0.01), y, turn, spine, neck)
    knees = np.array(gait.out_2) + rng.normal(0, 2, 2)
    pose = stance.stand_easy(body, pose, lambda up: stance.gait_feet(body, gait, phase, up),
                             rng.uniform(9.5, 16, 2), knees, rng.uniform(12, 20, 2))  # fmt: skip
    middle, amount = rng.normal(2, 4), rng.uniform(8, 30)
    arms = []
    for side in SIDES:
        flexion = middle - SIGN[side] * swing * amount * rng.uniform(0.8, 1.2)
        shoulder = np.array([flexion, rng.uniform(4, 14), rng.uniform(-25, 10)])
        elbow = rng.uniform(6, 28) + 0.5 * max(0.0, flexion)
        arms.append(Arm(shoulder, elbow, stance.loose_wrist(rng), grasps.relaxed(rng)))
    return acts.act("walk", pose._replace(arms=tuple(arms)))


def _base(rng, body):
    """Draw how far apart the ankles are, metres."""
    return clipped(rng, 0.6, 0.06, 0.47, 0.73) * body.hips


def _look(rng):
    turn = clipped(rng, 0, 24, -65, 65)
    return np.array([clipped(rng, 4, 11, -25, 38), clipped(rng, 0, 6, -20, 20), turn])


# ---- standing ----


def stand(rng: np.random.Generator, body: Body) -> Act:
    """Draw a standing adult, the weight on one leg or both; arms hang, or do any of _ARMS."""
    return stance.first_sound(body, lambda: _stand(rng, body))


def _stand(rng, body):
    lean = clipped(rng, 2, 3, -5, 12)
    pose = _upright(rng, body, lean, (rng.normal(0, 4), rng.normal(0, 10)))
    return acts.act("stand", pose._replace(arms=_arms(rng, body, pose)))


def _upright(rng, body, lean, side_and_turn, bends=(9.5, 13)) -> Pose:
    """Return somebody standing, arms at rest; lean: of pelvis and spine together, degrees."""
    width, over = _base(rng, body), rng.uniform(-1, 1)  # 1: all weight on the left leg
    tilt = lean * rng.uniform(0.2, 0.7)
    turn = poses.turn_y(tilt) @ poses.turn_x(over * rng.uniform(-1, 6))
    spine = (lean - tilt, side_and_turn[0] + 2.5 * over, side_and_turn[1])
    # What leans forward has its hips behind the feet.
    x = 0.03 - 0.35 * body.trunk * np.sin(np.radians(lean)) + rng.normal(0, 0.012)
    pose = stance.carriage(x, over * rng.uniform(0.1, 0.5) * width, turn, spine, _look(rng),
                           rng.uniform(0, 0.03, 2))  # fmt: skip
    ahead, feet, outs = rng.normal(0, 0.05), [], clipped(rng, 11, 7, -3, 30) + rng.normal(0, 5, 2)
    for side in SIDES:
        x, y = SIGN[side] * ahead, SIGN[side] * width / 2
        feet.append(stance.foot_at(body, side, x, y, outs[side]))
    return stance.stand_on(body, pose, feet, rng.uniform(*bends, 2), outs + rng.normal(0, 3, 2))


def _arms(rng, body, pose):
    """Draw what the arms of somebody standing do, each side for itself unless crossed."""
    if rng.random() < 0.12:
        return _crossed(rng, body, pose)
    kinds = rng.choice(len(_ARMS), 2, p=_SHARES)
    if rng.random() < 0.5:
        kinds[:] = kinds[0]
    return tuple(_ARMS[kinds[side]](rng, body, pose, side) for side in SIDES)


def _hanging(rng, body, pose, side):
    shoulder = np.array([rng.normal(3, 7), rng.uniform(5, 18), rng.uniform(-35, 15)])
    return Arm(shoulder, rng.uniform(4, 32), stance.loose_wrist(rng), grasps.relaxed(rng))


def _akimbo(rng, body, pose, side):
    """The fist on the side of the pelvis, the elbow out."""
    figure, wide = stance.trunk_of(body, pose), bodies.trunk_axes(body)["pelvis"][1]
    out = wide + 0.045 * body.stature + rng.uniform(-0.01, 0.03)
    own = (rng.uniform(-0.05, 0.03), SIGN[side] * out, rng.uniform(0.08, 0.18))
    wrist = pose.place_3 + pose.turn_33 @ own
    elbow = (rng.uniform(-0.8, 0.1), SIGN[side], rng.uniform(-0.1, 0.3))
    hand = grasps.fist(rng, thumb_in=False)
    arm = reaching.reach_arm(body, figure, side, wrist, elbow, hand, None)
    turn = (rng.uniform(0, 80), rng.uniform(-15, 40), rng.uniform(-15, 15))
    return arm._replace(wrist_3=np.array(turn))


def _raised(rng, body, pose, side):
    """The hand up, as in waving, or before the chest, as in talking."""
    shoulder = np.array([rng.uniform(0, 80), rng.uniform(6, 48), rng.uniform(-30, 50)])
    hand = grasps.open_hand(rng) if rng.random() < 0.5 else grasps.relaxed(rng)
    return Arm(shoulder, rng.uniform(60, 135), stance.loose_wrist(rng), hand)


_ARMS, _SHARES = (_hanging, _akimbo, _raised), (0.55, 0.2, 0.25)


def _crossed(rng, body, pose):
    """The forearms across the belly, one over the other."""
    figure, axes = stance.trunk_of(body, pose), bodies.trunk_axes(body)
    upper, arms = int(rng.integers(2)), []
    deep, chest = max(axes["chest"][0], axes["belly"][0]), figure.frames["chest"]
    for side in SIDES:
        first = side == upper
        ahead, up = (0.09, 0.3) if first else (0.05, 0.1)
        own = (deep + ahead + rng.uniform(0, 0.03), -SIGN[side] * rng.uniform(-0.02, 0.06),
               up * body.trunk + rng.uniform(-0.01, 0.02))  # fmt: skip
        elbow = (rng.uniform(-0.5, 0.1), SIGN[side] * rng.uniform(0.4, 1), -1)
        arm = reaching.reach_arm(body, figure, side, figure.joints["waist"] + chest @ own, elbow,
                                 grasps.relaxed(rng), None)  # fmt: skip
        turn = (rng.uniform(0, 60), rng.uniform(-5, 30), rng.uniform(-10, 10))
        arms.append(arm._replace(wrist_3=np.array(turn)))
    return tuple(arms)


# ---- reaching ----


def reach(rng: np.random.Generator, body: Body) -> Act:
    """Draw a standing adult who reaches up, forward or down, and may hold something."""
    return stance.first_sound(body, lambda: _reach(rng, body))


def _reach(rng, body):
    height = rng.uniform(-1, 1)  # down to up
    low = max(0.0, -height)
    lean = rng.uniform(0, 18) + 62 * low * rng.uniform(0.6, 1) if low else rng.uniform(-6, 14)
    bends = (9.5, 13 + 50 * low)
    pose = _upright(rng, body, lean, (rng.normal(0, 6), rng.normal(0, 14)), bends)
    pose = pose._replace(neck_3=pose.neck_3 - (0.3 * lean * low + 15 * max(0.0, height), 0, 0))
    reaching_2 = rng.random(2) < 0.35
    reaching_2[rng.integers(2)] = True
    arms = [_out(rng, body, pose, side, height) if reaching_2[side] else
            _hanging(rng, body, pose, side) for side in SIDES]  # fmt: skip
    holding = int(rng.integers(2))
    if rng.random() < 0.5 or not reaching_2[holding]:
        return acts.act("reach", pose._replace(arms=tuple(arms)))
    grasp = grasps.GRASPS[rng.integers(len(grasps.GRASPS))]
    arms[holding] = arms[holding]._replace(hand=grasps.GRASP[grasp](rng))
    pose = pose._replace(arms=tuple(arms))
    toy = grasps.toy_in(rng, body, poses.pose_body(body, pose), holding, grasp)
    return acts.act("reach", pose, grasp, toy=toy)


def _out(rng, body, pose, side, height):
    """Draw an arm stretched out, down (height -1) to up (1)."""
    figure = stance.trunk_of(body, pose)
    slope = np.radians(np.clip(70 * height + rng.normal(0, 12), -80, 85))
    aside = np.radians(rng.uniform(-20, 55)) * SIGN[side]
    way = np.array([np.cos(slope) * np.cos(aside), np.cos(slope) * np.sin(aside), np.sin(slope)])
    far = rng.uniform(0.72, 0.98) * (body.upper_arm[side] + body.forearm[side])
    wrist = figure.joints[f"{stance.NAMES[side]}_shoulder"] + far * way
    elbow = (-0.4, SIGN[side] * rng.uniform(0.1, 1), -rng.uniform(0.3, 1))
    hand = grasps.open_hand(rng) if rng.random() < 0.5 else grasps.relaxed(rng)
    arm = reaching.reach_arm(body, figure, side, wrist, elbow, hand, None)
    return arm._replace(wrist_3=stance.loose_wrist(rng))


# ---- sitting ----


def sit(rng: np.random.Generator, body: Body) -> Act:
    """Draw an adult on a chair or stool: thighs about level, feet on the floor."""
    return stance.first_sound(body, lambda: _sit(rng, body))


def _sit(rng, body):
    lean, outs = rng.uniform(-16, 28), rng.uniform(0, 24) + rng.normal(0, 4, 2)
    tilt = lean * rng.uniform(0.3, 1) if lean > 0 else lean
    turn = poses.turn_y(tilt) @ poses.turn_x(rng.normal(0, 1.5))
    spine = (lean - tilt + rng.uniform(0, 14), rng.normal(0, 5), rng.normal(0, 9))
    pose = stance.carriage(0, 0, turn, spine, _look(rng), rng.uniform(0, 0.03, 2))
    feet = []
    for side in SIDES:
        # Hips flexed so that the thighs are level: knees as far ahead as a thigh is long.
        x = body.thigh[side] * np.cos(np.radians(outs[side])) + rng.uniform(-0.1, 0.14)
        y = SIGN[side] * (body.hips / 2 + rng.uniform(-0.02, 0.16))
        feet.append(stance.foot_at(body, side, x, y, outs[side]))
    high = body.foot_height + np.mean(body.shank) + rng.uniform(-0.03, 0.02)
    pose = pose._replace(place_3=np.array([0, 0, high]))
    pose = stance.with_legs(body, pose, feet, outs + rng.normal(0, 4, 2), knees_up=1.0)
    if rng.random() < 0.12:
        arms = _crossed(rng, body, pose)
    else:
        lap = rng.random(2) < 0.75
        arms = tuple((_on_lap if lap[side] else _raised)(rng, body, pose, side) for side in SIDES)
    return acts.act("sit", pose._replace(arms=arms), things=_chair(rng, body, pose, lean))


def _on_lap(rng, body, pose, side):
    """The hand over its thigh."""
    figure = poses.pose_body(body, pose)
    name, along = stance.NAMES[side], rng.uniform(0.35, 0.85)
    hip, knee = figure.joints[f"{name}_hip"], figure.joints[f"{name}_knee"]
    radii = bodies.radii(body)
    round_thigh = (1 - along) * radii["hip"][side] + along * radii["knee"][side]
    up = round_thigh + radii["wrist"][side] + rng.uniform(0, 0.05)
    wrist = (1 - along) * hip + along * knee + (0, SIGN[side] * rng.uniform(-0.03, 0.03), up)
    elbow = (-rng.uniform(0.2, 1), SIGN[side] * rng.uniform(0.2, 1), -rng.uniform(0, 0.5))
    trunk, hand = stance.trunk_of(body, pose), grasps.relaxed(rng)
    arm = reaching.reach_arm(body, trunk, side, wrist, elbow, hand, None)
    ahead = stance.as_forearm(trunk, side, arm, rng.uniform(-15, 15), rng.uniform(-5, 20))
    frame = stance.hand_frame(side, ahead, (0, -SIGN[side] * rng.uniform(0, 0.8), -1))
    return reaching.reach_arm(body, trunk, side, wrist, elbow, hand, frame)


def _chair(rng, body, pose, lean) -> Solids:
    """Draw a stool (solid or on legs) or a chair under somebody, its back clear of theirs."""
    radii, axes = bodies.radii(body), bodies.trunk_axes(body)
    figure = poses.pose_body(body, pose)
    # The bottom's lowest flesh presses a little into the seat.
    middle = pose.place_3[2] + 0.1 * body.trunk * pose.turn_33[2, 2]
    own = radii["hip"][0] * np.array([-0.35, 0, -0.1])
    top = min(middle - np.linalg.norm(pose.turn_33[2] * axes["pelvis"]),
              pose.place_3[2] + pose.turn_33[2] @ own - radii["hip"][0]) + 0.004  # fmt: skip
    shins = [figure.joints[f"{name}_{part}"][0]
             for name in stance.NAMES for part in ("knee", "ankle")]  # fmt: skip
    front = min(0.3, min(shins) - radii["knee"][0] - 0.03)
    back = -axes["pelvis"][0] - rng.uniform(0.03, 0.1)
    wide, thick = rng.uniform(0.19, 0.27), rng.uniform(0.012, 0.03)
    deep, middle = (front - back) / 2, (front + back) / 2
    kind = rng.integers(3)
    if kind == 0:
        return solids.make(BOX, (middle, 0, top / 2), np.eye(3), (deep, wide, top / 2))
    boxes = [((middle, 0, top - thick), (deep, wide, thick))]
    half, leg = (top - 2 * thick) / 2, rng.uniform(0.012, 0.025)
    boxes += [((middle + x * (deep - leg), y * (wide - leg), half), (leg, leg, half))
              for x in (-1, 1) for y in (-1, 1)]  # fmt: skip
    if kind == 2:
        spine = min(figure.joints[part][0] for part in ("left_shoulder", "right_shoulder", "waist"))
        behind = min(back, spine - 1.1 * max(axes["chest"][0], axes["belly"][0])) - 0.02
        tall = rng.uniform(0.16, 0.28)
        boxes.append(((behind, 0, top + tall), (0.012, wide, tall)))
    centres, sizes = zip(*boxes, strict=True)
    return solids.make(BOX, centres, np.eye(3), sizes)
