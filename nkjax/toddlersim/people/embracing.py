"""Arms laid round a child: of many ways to reach it, one that goes through nobody."""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.people import acts, bodies, poses, reaching, touching
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Figure, Hand, Pose
from nkjax.toddlersim.people.stance import NAMES, hand_frame, trunk_of
from nkjax.toddlersim.people.touching import Surface
from nkjax.toddlersim.solids import Solids

TRIES = 2
MOST = 24  # ways of all, the best, that are looked at closely
PLACES, ANGLES = 10, 8  # places on the child, directions of the fingers, and of the elbow
TOUCH = 0.016  # m: no deeper, and no further away
DEEPEST = 0.0115  # m, of a finger
PALM = 0.085  # thickness of half the palm over the length of the hand


class Ways(NamedTuple):
    """n ways to lay a hand. wrist_n3, elbow_n3: m. fingers_n3, palm_n3, elbow_to_n3: directions."""

    wrist_n3: np.ndarray
    elbow_n3: np.ndarray
    fingers_n3: np.ndarray
    palm_n3: np.ndarray
    elbow_to_n3: np.ndarray


def embrace(rng: np.random.Generator, adult: Body, pose: Pose, own: Surface, child: Figure,
            child_solids: Solids, way: str, side) -> Pose | None:  # fmt: skip
    """Lay one arm of the adult under the child, the other hand on its back or chest.

    own: the adult without arms. way: one of holding.WAYS; side: where a child on the hip
    is. None where no way was found.
    """
    below = side if way == "hip" else rng.integers(2)
    seat = touching.surface(touching.of_segments(child_solids, ("pelvis", "thigh")))
    back = touching.surface(touching.of_segments(child_solids, ("chest", "belly")))
    whole, figure = touching.surface(child_solids), trunk_of(adult, pose)
    front = -1.0 if way in ("hip", "front") else 1.0  # of the child, away from the adult
    pelvis, chest = child.frames["pelvis"], child.frames["chest"]
    up = child.joints["neck"] - child.joints["waist"]
    heart = child.joints["waist"] + rng.uniform(0, 0.3) * up
    # A child on the hip is held from the side that is the adult's front.
    hold_at = (-0.4, 0.9 * SIGN[side], 0) if way == "hip" else (front, 0, 0)
    arms = [None, None]
    for tried in range(TRIES):
        if tried and way != "hip":
            below = 1 - below
        under = rng.normal([0.5 * front, 0, -1], [0.25, 0.35, 0.1], (PLACES, 3)) @ pelvis.T
        spots = touching.onto(seat, child.joints["pelvis"], under)
        arms[below] = _lay(rng, adult, figure, below, spots, own, whole, True)
        if arms[below] is not None:
            break
    for _ in range(TRIES if arms[below] else 0):
        away = rng.normal(hold_at, [0.25, 0.45, 0.25], (PLACES, 3)) @ chest.T
        spots = touching.onto(back, heart, away)
        arms[1 - below] = _lay(rng, adult, figure, 1 - below, spots, own, whole, False)
        if arms[1 - below] is not None:
            return pose._replace(arms=tuple(arms))
    return None


def _lay(rng, adult, figure, side, spots, own, child, carries):
    """Reach one of these spots with the palm; carries: the forearm has to touch the child too."""
    ways = _ways(rng, adult, figure, side, spots)
    cost = _cost(adult, figure, side, ways, own, child, carries)
    best = np.argsort(cost)[: min(MOST, np.isfinite(cost).sum())]
    if not len(best):
        return None
    hand = Hand(np.stack([rng.uniform(4, 16, 4), rng.uniform(4, 20, 4), rng.uniform(0, 8, 4)], 1),
                rng.uniform([5, 20, 2, 2], [30, 45, 15, 15]))  # fmt: skip
    ways = Ways(*(part[best] for part in ways))
    frames = np.array([hand_frame(side, *pair)
                       for pair in zip(ways.fingers_n3, ways.palm_n3, strict=True)])  # fmt: skip
    for i in np.flatnonzero(_touches(adult, side, ways, hand, frames, child)):
        wrist, elbow_to = ways.wrist_n3[i], ways.elbow_to_n3[i]
        arm = reaching.reach_arm(adult, figure, side, wrist, elbow_to, hand, frames[i])
        if _in_range(arm):
            return arm
    return None


def _ways(rng, adult, figure, side, spots) -> Ways:
    """List every pairing of spot, direction of the fingers and direction of the elbow."""
    places, normals = spots
    # Fingers point inwards and ahead, more or less, as forearms before the trunk do.
    turns = np.radians(rng.uniform(-12, 12, (PLACES, 1)) + np.linspace(-85, 85, ANGLES))
    inwards = figure.frames["chest"] @ (0.5, -SIGN[side], 0)
    first = inwards - (normals @ inwards)[:, None] * normals
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    fingers = np.cos(turns)[..., None] * first[:, None] + np.sin(turns)[..., None] * second[:, None]
    long, shoulder = adult.hand[side], figure.joints[f"{NAMES[side]}_shoulder"]
    palms = places + (PALM * long + 0.008) * normals
    wrists = (palms[:, None] - 0.35 * long * fingers).reshape(-1, 3)
    way, apart = wrists - shoulder, np.linalg.norm(wrists - shoulder, axis=1)
    # The elbow is on a circle about the line from shoulder to wrist.
    upper, lower = adult.upper_arm[side], adult.forearm[side]
    along = (upper**2 - lower**2 + apart**2) / (2 * apart)
    out = np.sqrt(np.maximum(upper**2 - along**2, 0))
    line = way / apart[:, None]
    down = np.array([-0.2, 0, -1.0]) - line * (line @ [-0.2, 0, -1.0])[:, None]
    down /= np.linalg.norm(down, axis=1, keepdims=True)
    across = np.cross(line, down)
    turns = np.radians(rng.uniform(-10, 10) + np.linspace(-100, 100, ANGLES))
    to = np.cos(turns)[:, None, None] * down + np.sin(turns)[:, None, None] * across
    elbows = shoulder + along[:, None] * line + out[:, None] * to
    elbows[:, apart > 0.985 * (upper + lower)] = np.nan
    palm = np.repeat(-normals, ANGLES, 0)

    def every(part):
        return np.broadcast_to(part, to.shape).reshape(-1, 3)

    return Ways(every(wrists), every(elbows), every(fingers.reshape(-1, 3)), every(palm), every(to))


def _cost(adult, figure, side, ways, own, child, carries) -> np.ndarray:
    """Return how bad ways are (n,), infinite through somebody or with the wrist bent too far."""
    shoulder = figure.joints[f"{NAMES[side]}_shoulder"]
    line = (ways.wrist_n3 - ways.elbow_n3) / adult.forearm[side]
    bent = (line * ways.fingers_n3).sum(1)
    # A wrist bends much further to the palm and the back of the hand than to its sides.
    sideways = np.abs((line * np.cross(ways.fingers_n3, ways.palm_n3)).sum(1))
    # Not round the adult's own back.
    ahead = (np.stack([ways.elbow_n3, ways.wrist_n3]) - shoulder) @ figure.frames["chest"][:, 0]
    fine = (bent > 0.35) & (sideways < 0.5) & (ahead[0] > -0.2) & (ahead[1] > -0.1)
    cost, chosen = np.full(len(bent), np.inf), np.flatnonzero(fine)
    if not len(chosen):
        return cost
    elbow, wrist = ways.elbow_n3[chosen], ways.wrist_n3[chosen]
    t = np.array([0.1, 0.4, 0.7, 1.0])[:, None, None]
    upper = shoulder + np.array([0.45, 0.75])[:, None, None] * (elbow - shoulder)
    balls = np.concatenate([elbow + t * (wrist - elbow), upper])
    thick, thin = (bodies.radii(adult)[part][side] for part in ("elbow", "wrist"))
    radii = np.append(thick + t[:, 0, 0] * (thin - thick), [thick, thick])
    gaps = [touching.distance(balls.reshape(-1, 3), some).reshape(6, -1) - radii[:, None]
            for some in (child, own)]  # fmt: skip
    gaps[1][4:] += 0.02  # an upper arm is pressed to the chest
    far_off = 20 * np.abs(gaps[0][:4].min(0)) if carries else 0
    free = (gaps[0].min(0) > -TOUCH) & (gaps[1].min(0) > -0.025)
    cost[chosen] = np.where(free, 1 - bent[chosen] + far_off, np.inf)
    return cost


def _in_range(arm) -> bool:
    for name, angle in (("pronation", arm.wrist_3[0]), ("palmar_flexion", arm.wrist_3[1]),
                        ("radial_deviation", arm.wrist_3[2]), ("elbow", arm.elbow)):  # fmt: skip
        low, high = acts.RANGES[name]
        if not low <= angle <= high:
            return False
    return True


def _touches(adult, side, ways, hand, frames, child) -> np.ndarray:
    """Return for which ways (n,) the hand lies on the child, neither it nor the forearm deep in it.

    frames: of the hands, (n, 3, 3).
    """
    radii, t = bodies.radii(adult), np.linspace(0, 1, 10)[:, None]
    thick, thin = 1.05 * radii["elbow"][side], radii["wrist"][side]
    elbow, wrist = ways.elbow_n3[:, None], ways.wrist_n3[:, None]
    joints = np.array(list(poses.hand_points(hand).values())) * (1, SIGN[side], 1)
    long = adult.hand[side]
    palm, fingers = (wrist + long * own @ frames.transpose(0, 2, 1)
                     for own in (np.array([[0, 0, -0.2]]), joints))  # fmt: skip
    places = np.concatenate([elbow + t * (wrist - elbow), palm, fingers], 1)
    gaps = touching.distance(places.reshape(-1, 3), child).reshape(len(frames), -1)
    bone = np.append(thick + t[:, 0] * (thin - thick), 0.1 * long)
    fore = (gaps[:, :11] - bone).min(1)
    gap = gaps[:, 11:].min(1) - radii["thumb"][side]
    return (fore > -TOUCH) & (gap > -DEEPEST) & (gap < TOUCH)
