"""Toddlers walking, with the arms in high or medium guard.

Source: notes method 6.5, step widths 6.6.
"""

import numpy as np

from nkjax.toddlersim.people import acts, grasps, poses, stance
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import LEFT, RIGHT, Arm, Pose
from nkjax.toddlersim.people.stance import clipped

SIDES = (LEFT, RIGHT)


def high_guard_walk(rng: np.random.Generator, body: Body) -> Act:
    """Draw a new walker: hands at the shoulders or above, elbows out, short wide flat steps."""
    return stance.first_sound(body, lambda: _high_guard(rng, body))


def medium_guard_walk(rng: np.random.Generator, body: Body) -> Act:
    """Draw a walker of some months: hands at the waist, elbows bent, less wide and longer steps."""
    return stance.first_sound(body, lambda: _medium_guard(rng, body))


def _high_guard(rng, body):
    out = clipped(rng, 18, 8, 0, 38)
    gait = stance.Gait(
        width=clipped(rng, 1.8, 0.08, 1.62, 1.98) * body.hips,
        step=clipped(rng, 0.12, 0.02, 0.07, 0.17),
        stance=rng.uniform(0.6, 0.72), lift=rng.uniform(0.015, 0.06), strike=rng.uniform(0, 4),
        push=rng.uniform(0, 18), out_2=tuple(out + rng.normal(0, 3, 2)),
    )  # fmt: skip
    lean = clipped(rng, 8, 6, -4, 22)
    pose = toddle(rng, body, gait, lean, bends=rng.uniform(14, 30, 2), phase=rng.uniform(0, 1))
    return acts.act("high_guard_walk", pose._replace(arms=_both(_high_arm, rng, body, pose)))


def _medium_guard(rng, body):
    out = clipped(rng, 10, 7, -5, 26)
    gait = stance.Gait(
        width=clipped(rng, 1.3, 0.07, 1.16, 1.44) * body.hips, step=rng.uniform(0.18, 0.25),
        stance=rng.uniform(0.58, 0.68), lift=rng.uniform(0.015, 0.05), strike=rng.uniform(0, 12),
        push=rng.uniform(8, 35), out_2=tuple(out + rng.normal(0, 3, 2)),
    )  # fmt: skip
    lean = clipped(rng, 5, 5, -5, 18)
    pose = toddle(rng, body, gait, lean, bends=rng.uniform(9.5, 22, 2), phase=rng.uniform(0, 1))
    return acts.act("medium_guard_walk", pose._replace(arms=_both(medium_arm, rng, body, pose)))


def toddle(
    rng, body: Body, gait: stance.Gait, lean, bends, phase, heels_up=(0, 0), hike=0.0
) -> Pose:
    """Return a toddler walking, arms at rest: pelvis tilted and swaying over the gait's feet.

    lean: of the chest, forward, degrees; bends: least bend of the knees, degrees; phase: 0 to 1;
    heels_up: of each foot, throughout, degrees; hike: left hip over right one, degrees.
    """
    tilt, sway = lean * rng.uniform(0, 0.6), clipped(rng, 0, 4, -10, 10)
    # The weight goes to the side that carries alone: the left one in the middle of its stance.
    over = np.cos(2 * np.pi * (phase - gait.stance / 2))
    y = over * rng.uniform(0.05, 0.22) * gait.width + rng.normal(0, 0.004)
    turn = poses.turn_y(tilt) @ poses.turn_x(over * rng.uniform(-3, 6) + hike)
    spine = (lean - tilt, sway + 0.8 * hike, clipped(rng, 0, 8, -22, 22))
    x = rng.normal(0.2 * np.sin(np.radians(lean)) * -body.trunk, 0.01)
    pose = stance.carriage(x, y, turn, spine, look(rng), rng.uniform(0, 0.06, 2))
    knees = np.array(gait.out_2) + rng.normal(0, 4, 2)

    def put_feet(up):
        return stance.gait_feet(body, gait, phase, np.add(heels_up, up))

    return stance.stand_easy(body, pose, put_feet, bends, knees, rng.uniform(17, 26, 2))


def look(rng: np.random.Generator) -> np.ndarray:
    """Draw the neck_3 of a head that looks about, degrees."""
    turn = clipped(rng, 0, 26, -70, 70)
    return np.array([clipped(rng, -3, 13, -35, 38), clipped(rng, 0, 8, -25, 25), turn])


def _both(draw_arm, rng, body, pose):
    return tuple(draw_arm(rng, body, pose, side) for side in SIDES)


def _high_arm(rng, body, pose, side):
    figure = stance.trunk_of(body, pose)
    while True:
        shoulder = np.array([rng.uniform(-18, 32), rng.uniform(61, 89), rng.uniform(20, 110)])
        hand = grasps.open_hand(rng) if rng.random() < 0.6 else grasps.relaxed(rng)
        wrist = np.array([rng.normal(20, 22), rng.normal(-8, 14), rng.normal(0, 6)])
        arm = Arm(shoulder, rng.uniform(55, 135), np.clip(wrist, -45, (70, 32, 45)), hand)
        if stance.wrist_from_shoulder(body, figure, side, arm)[2] > -0.01:
            return arm


def medium_arm(rng: np.random.Generator, body: Body, pose: Pose, side) -> Arm:
    """Draw an arm in medium guard: elbow bent, wrist between hip and shoulder."""
    figure = stance.trunk_of(body, pose)
    name = stance.NAMES[side]
    drop = figure.joints[f"{name}_hip"][2] - figure.joints[f"{name}_shoulder"][2]
    while True:
        shoulder = np.array([rng.uniform(-25, 40), rng.uniform(14, 55), rng.uniform(-35, 40)])
        hand = grasps.relaxed(rng) if rng.random() < 0.7 else grasps.open_hand(rng)
        arm = Arm(shoulder, rng.uniform(55, 115), stance.loose_wrist(rng), hand)
        if 0.92 * drop < stance.wrist_from_shoulder(body, figure, side, arm)[2] < 0.2 * drop:
            return arm
