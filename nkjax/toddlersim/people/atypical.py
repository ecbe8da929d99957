"""Gaits that no typical toddler shows, for tests alone: on the toes, scissoring, hemiplegic arm.

Every function draws an act near the origin, the toddler facing roughly along x, floor at z = 0.
Source: notes method 6.5. What sets them apart is measured in their tests.
"""

import numpy as np

from nkjax.toddlersim.people import acts, grasps, stance
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import LEFT, RIGHT, SIGN, Arm
from nkjax.toddlersim.people.stance import Gait, clipped
from nkjax.toddlersim.people.walking import medium_arm, toddle

SIDES = (LEFT, RIGHT)


def toe_walking(rng: np.random.Generator, body: Body) -> Act:
    """Draw a toddler walking on the toes of both feet, no heel near the floor."""
    return stance.first_sound(body, lambda: _on_toes(rng, body))


def _on_toes(rng, body):
    out = clipped(rng, 4, 8, -12, 20)
    gait = Gait(
        width=rng.uniform(0.7, 1.35) * body.hips, step=rng.uniform(0.1, 0.22),
        stance=rng.uniform(0.56, 0.66), lift=rng.uniform(0.01, 0.05), strike=0.0,
        push=rng.uniform(0, 12), out_2=tuple(out + rng.normal(0, 3, 2)),
    )  # fmt: skip
    heels_up = rng.uniform(28, 48) + np.clip(rng.normal(0, 3, 2), -3, 6)
    pose = toddle(rng, body, gait, clipped(rng, 6, 5, -5, 20), rng.uniform(9.5, 24, 2),
                  rng.uniform(0, 1), heels_up)  # fmt: skip
    draw_arm = (medium_arm, _low_arm)[rng.integers(2)]
    arms = tuple(draw_arm(rng, body, pose, side) for side in SIDES)
    return acts.act("toe_walking", pose._replace(arms=arms))


def _low_arm(rng, body, pose, side) -> Arm:
    """Draw an arm that hangs or swings a little."""
    shoulder = np.array([rng.uniform(-22, 25), rng.uniform(10, 32), rng.uniform(-35, 20)])
    return Arm(shoulder, rng.uniform(8, 50), stance.loose_wrist(rng), grasps.relaxed(rng))


def scissor_gait(rng: np.random.Generator, body: Body) -> Act:
    """Draw a toddler whose thighs press together and turn in, so that the feet cross the middle."""
    return stance.first_sound(body, lambda: _scissor(rng, body))


def _scissor(rng, body):
    inward = rng.uniform(6, 26)
    gait = Gait(
        width=rng.uniform(-0.75, 0.28) * body.hips, step=rng.uniform(0.14, 0.24),
        stance=rng.uniform(0.6, 0.72), lift=rng.uniform(0.0, 0.03), strike=0.0,
        push=rng.uniform(0, 20), out_2=tuple(-inward + rng.normal(0, 4, 2)),
    )  # fmt: skip
    # Some stand on the toes of one foot or both.
    heels_up = rng.uniform(0, 26, 2) * (rng.random(2) < 0.6)
    pose = toddle(rng, body, gait, clipped(rng, 10, 6, -4, 24), rng.uniform(14, 34, 2),
                  rng.uniform(0, 1), heels_up)  # fmt: skip
    arms = tuple(_balancing_arm(rng) for _ in SIDES)
    return acts.act("scissor_gait", pose._replace(arms=arms))


def _balancing_arm(rng) -> Arm:
    shoulder = np.array([rng.uniform(-20, 40), rng.uniform(32, 80), rng.uniform(-20, 70)])
    hand = grasps.open_hand(rng) if rng.random() < 0.5 else grasps.fist(rng, thumb_in=False)
    return Arm(shoulder, rng.uniform(20, 100), stance.loose_wrist(rng), hand)


def hemiplegic_arm(rng: np.random.Generator, body: Body) -> Act:
    """Draw a walking toddler, one arm drawn up, wrist bent, thumb in the fist; that leg stiff."""
    return stance.first_sound(body, lambda: _hemiplegic(rng, body))


def _hemiplegic(rng, body):
    stiff = int(rng.integers(2))
    outs = np.array([clipped(rng, 10, 7, -5, 26) for _ in SIDES])
    outs[stiff] -= rng.uniform(5, 20)
    gait = Gait(
        width=rng.uniform(1.05, 1.6) * body.hips, step=rng.uniform(0.1, 0.2),
        stance=rng.uniform(0.58, 0.7), lift=rng.uniform(0.005, 0.025), strike=rng.uniform(0, 3),
        push=rng.uniform(4, 20), out_2=tuple(outs),
    )  # fmt: skip
    heels_up, bends = np.zeros(2), rng.uniform(9.5, 14, 2)
    heels_up[stiff] = rng.uniform(7, 17)
    # A leg on its toes is longer, and will not bend: that hip is hiked.
    raised = 0.66 * body.foot[stiff] * np.sin(np.radians(heels_up[stiff])) / body.hips
    hike = SIGN[stiff] * min(np.degrees(np.arcsin(raised)) * rng.uniform(0.9, 1.2), 14)
    lean, phase = clipped(rng, 6, 5, -5, 18), rng.uniform(0, 1)
    pose = toddle(rng, body, gait, lean, bends, phase, heels_up, hike)
    # The trunk leans a little to the side that works.
    pose = pose._replace(spine_3=pose.spine_3 - (0, SIGN[stiff] * rng.uniform(0, 8), 0))
    other = (medium_arm, _low_arm)[rng.integers(2)]
    arms = [_drawn_up(rng) if side == stiff else other(rng, body, pose, side) for side in SIDES]
    return acts.act("hemiplegic_arm", pose._replace(arms=tuple(arms)))


def _drawn_up(rng) -> Arm:
    shoulder = np.array([rng.uniform(-5, 40), rng.uniform(2, 22), rng.uniform(-62, -22)])
    wrist = np.array([rng.uniform(45, 95), rng.uniform(42, 70), rng.uniform(-25, 5)])
    return Arm(shoulder, rng.uniform(92, 138), wrist, grasps.fist(rng, thumb_in=True))
