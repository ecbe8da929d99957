"""Toddlers on the floor who move as typical ones here never do; for tests alone (notes method 6.5).

Each lies outside the typical postures by a measure that its function names and a test checks.
"""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import acts, bodies, flesh, floor, grasps, poses, reaching, touching
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Leg
from nkjax.toddlersim.people.stance import (
    INTO_THINGS,
    NAMES,
    TRIES,
    carriage,
    clipped,
    first_sound,
    hand_frame,
    into_things,
    sound,
    trunk_of,
)
from nkjax.toddlersim.people.supports import (
    ankle_height,
    heading,
    leg_on_floor,
    level_frame,
    look_about,
)

TRUNK = ("chest", "belly", "pelvis")


# ---- asymmetric crawling ----


def asymmetric_crawl(rng: np.random.Generator, body: Body) -> Act:
    """Draw a hitching crawl: one foot planted, knee up, or one leg tucked under, the other dragged.

    Typical crawlers have both knees on the floor or both off it, bent alike: here one knee is on
    the floor and the other 8 cm above it or more, or their flexions differ by 75 degrees or more.
    """
    side, planted = rng.integers(2), rng.random() < 0.55
    one = _planted if planted else _tucked
    return first_sound(body, lambda: one(rng, body, side))


def _planted(rng, body, side) -> Act | None:
    """Plant one foot beside the other knee, which is dragged."""
    other, thigh, knee = 1 - side, body.thigh[1 - side], bodies.radii(body)["knee"][1 - side]
    ahead, aside = thigh * rng.uniform([-0.72, -0.05], [-0.1, 0.35])
    height = knee + np.sqrt(thigh**2 - ahead**2 - aside**2)
    roll, reach = SIGN[side] * rng.uniform(-2, 9), rng.uniform(0.92, 0.99)
    pose = floor.prone(rng, body, height, roll, reach, 0.4, rng.uniform(25, 50))
    figure = trunk_of(body, pose)
    dragged = floor.knee_down(rng, body, figure, other, ahead, aside)
    way, sign = level_frame(figure.frames["pelvis"]), SIGN[side]
    place = body.thigh[side] * np.array([rng.uniform(-0.1, 0.6), sign * rng.uniform(0.3, 0.9), 0])
    foot = way @ poses.turn_z(sign * rng.uniform(25, 75)) @ poses.turn_y(rng.uniform(0, 25))
    ankle = figure.joints[f"{NAMES[side]}_hip"] + way @ place
    ankle[2] = ankle_height(body, side, foot)
    knee_to = way @ (rng.uniform(0.3, 0.8), sign, rng.uniform(0.8, 1.6))
    up = reaching.reach_leg(body, figure, side, ankle, knee_to, foot)
    return _hitch(rng, body, pose, side, up, dragged, least_rise=0.08)


def _tucked(rng, body, side) -> Act | None:
    """Sit low over one leg folded under the body, the other trailing behind."""
    other = 1 - side
    radii = bodies.radii(body)
    height = radii["knee"][side] + rng.uniform(0.4, 0.62) * body.thigh[side]
    roll, reach = SIGN[side] * rng.uniform(-8, 4), rng.uniform(0.86, 0.99)
    pose = floor.prone(rng, body, height, roll, reach, 0.4, rng.uniform(-5, 25))
    figure = trunk_of(body, pose)
    aside = body.thigh[side] * rng.uniform(0, 0.4)
    rise = figure.joints[f"{NAMES[side]}_hip"][2] - radii["knee"][side]
    ahead = np.sqrt(max(body.thigh[side] ** 2 - rise**2 - aside**2, 0))
    under = floor.knee_down(rng, body, figure, side, ahead, aside)
    trailing = _trailing_leg(rng, body, figure, other, rng.uniform(0.9, 0.985))
    return _hitch(rng, body, pose, side, under, trailing, least_bend=75)


def _hitch(rng, body, pose, side, leg, dragged, least_rise=None, least_bend=None) -> Act | None:
    if dragged is None or (least_bend and leg.knee - dragged.knee < least_bend):
        return None
    pose = pose._replace(legs=(leg, dragged) if side == 0 else (dragged, leg))
    if acts.beyond_range(pose):
        return None
    knees = poses.pose_body(body, pose).joints
    rise = knees[f"{NAMES[side]}_knee"][2] - knees[f"{NAMES[1 - side]}_knee"][2]
    if least_rise and rise < least_rise:
        return None
    for _ in range(4):  # hands far apart may not reach the floor
        uneven = rng.uniform(0.05, 0.35) * np.array([1, -1]) * rng.choice([-1, 1])
        found = floor.on_hands(rng, body, pose, "asymmetric_crawl", uneven, 0.05)
        if found is not None:
            return found
    return None


def _trailing_leg(rng, body, figure, side, share) -> Leg | None:
    """Let a leg lie behind, stretched to a share of its length."""
    way, hip = level_frame(figure.frames["pelvis"]), figure.joints[f"{NAMES[side]}_hip"]
    sign, long = SIGN[side], body.thigh[side] + body.shank[side]
    flat = np.sqrt((share * long) ** 2 - (hip[2] - 0.03) ** 2)
    ankle = hip + flat * (way @ heading(180 - sign * rng.uniform(-4, 22)))
    knee_to = way @ (0, sign, rng.uniform(-0.2, 0.3))
    foot = rng.normal([-58, 0, 8], [8, 8, 10])
    return leg_on_floor(body, figure, side, ankle[:2], knee_to, foot)


# ---- commando drag ----


def commando_drag(rng: np.random.Generator, body: Body) -> Act:
    """Draw a child that drags itself on its belly by the forearms, legs trailing.

    Typical crawlers keep the trunk off the floor and the pelvis of typical sitters is upright: here
    the trunk is within 1 cm of the floor and the pelvis faces down (pitched over 60 degrees).
    """
    return first_sound(body, lambda: _commando(rng, body))


def _commando(rng, body) -> Act | None:
    turn = poses.turn_z(rng.normal(0, 8)) @ poses.turn_x(rng.normal(0, 4))
    turn = turn @ poses.turn_y(rng.uniform(86, 97))
    spine = (rng.uniform(-25, -5), *np.clip(rng.normal(0, [8, 6]), -20, 20))
    neck = look_about(rng, rng.uniform(-50, -22))
    neck[0] = np.clip(neck[0], -68, -12)
    pose = carriage(0, 0, turn, spine, neck, rng.uniform(0, 0.1, 2))
    trunk = flesh.solids_of(body, trunk_of(body, pose), TRUNK)
    deep = rng.uniform(0.002, 0.007)
    pose = pose._replace(place_3=np.array([0, 0, -touching.bottom(trunk) - deep]))
    figure = trunk_of(body, pose)
    legs = [_trailing_leg(rng, body, figure, i, 1 - 0.3 * rng.beta(1, 3)) for i in (0, 1)]
    pulls = rng.integers(2)
    arms = [_on_forearm(rng, body, figure, i, i == pulls) for i in (0, 1)]
    if None in arms or None in legs:
        return None
    return acts.act("commando_drag", pose._replace(legs=tuple(legs), arms=tuple(arms)))


def _on_forearm(rng, body, figure, side, pulls) -> Arm | None:
    """Lay a forearm on the floor; the one that pulls is further ahead."""
    sign, radii = SIGN[side], bodies.radii(body)
    way, shoulder = level_frame(figure.frames["chest"]), figure.joints[f"{NAMES[side]}_shoulder"]
    drop = shoulder[2] - radii["elbow"][side]
    if not 0 < drop < 0.98 * body.upper_arm[side]:
        return None
    flat = np.sqrt(body.upper_arm[side] ** 2 - drop**2)
    outwards = rng.uniform(5, 60) if pulls else rng.uniform(40, 115)
    elbow = shoulder + flat * (way @ heading(sign * outwards)) - (0, 0, drop)
    towards = way @ heading(sign * rng.uniform(-65, 15))
    along = body.forearm[side] * towards
    wrist = elbow + along
    wrist[2] = radii["wrist"][side] + 0.002
    hand = grasps.flat_hand(rng) if rng.random() < 0.5 else grasps.fist(rng, False)
    frame = hand_frame(side, towards + (0, 0, rng.uniform(0, 0.1)), (0, 0, -1))
    arm = reaching.reach_arm(body, figure, side, wrist, elbow - (shoulder + wrist) / 2, hand, frame)
    return arm._replace(wrist_3=np.clip(arm.wrist_3, [-95, -80, -25], [100, 40, 20]))


# ---- persistent palmar grasp ----


def persistent_palmar(rng: np.random.Generator, body: Body) -> Act:
    """Draw a sitting child that reaches for a bead with a fist, thumb in the palm, wrist bent.

    The bead is on the floor or on a low block; the toy is the bead, which the hand cannot take.
    Typical sitters bend neither wrist over 36 degrees to the palm; here both are at 40 to 70.
    """
    # In an order, as not every body can sit in every way.
    kinds = rng.choice(floor.SITS, 4, replace=False, p=[0.5, 0.2, 0.15, 0.15])
    draws = iter(np.repeat(kinds, TRIES // len(kinds)))
    return floor.first_of(lambda: _fisted(rng, body, next(draws)))


def _fisted(rng, body, kind) -> Act | None:
    pose = floor.seated(rng, body, kind, clipped(rng, 0, 9, -20, 20), rng.uniform(8, 48))
    if pose is None or acts.beyond_range(pose):
        return None
    figure, busy = trunk_of(body, pose), rng.integers(2)
    hands = [grasps.fist(rng, True) for _ in NAMES]
    for _ in range(5):
        arms = [_fist_arm(rng, body, figure, side, side == busy, hands[side]) for side in (0, 1)]
        found = acts.act("persistent_palmar", pose._replace(arms=tuple(arms)), "persistent_palmar")
        if sound(body, found):
            whole = poses.pose_body(body, found.pose)
            things, toy = _bead(rng, whole, busy)
            fits = into_things(body, whole, things) <= INTO_THINGS
            return found._replace(things=things, toy=toy) if fits else None
    return None


def _fist_arm(rng, body, figure, side, reaches, hand) -> Arm:
    sign, long = SIGN[side], body.upper_arm[side] + body.forearm[side]
    way, shoulder = level_frame(figure.frames["chest"]), figure.joints[f"{NAMES[side]}_shoulder"]
    out = way @ (-0.5, sign * rng.uniform(0.4, 1.5), rng.uniform(-0.6, 0.2))
    if reaches:
        ahead, aside = rng.uniform([0.35, -0.5], [0.95, 0.25])
        place = shoulder + long * (way @ (ahead, sign * aside, 0))
        place[2] = rng.uniform(0.5, 1.6) * body.hand[side]
    else:
        flat = rng.uniform(0.3, 0.75) * heading(sign * rng.uniform(-35, 45))
        place = shoulder + long * (way @ (flat - (0, 0, rng.uniform(0.1, 0.7))))
    arm = reaching.reach_arm(body, figure, side, place, out, hand, None)
    return arm._replace(wrist_3=rng.uniform([10, 40, -12], [95, 70, 10]))


def _bead(rng, figure, side) -> tuple[solids.Solids, solids.Solids]:
    """Put a bead under the knuckles of a hand, on the floor or on a block if there is room."""
    at = figure.joints[f"{NAMES[side]}_middle_finger2"]
    radius = rng.uniform(0.004, 0.007)
    away = heading(rng.uniform(0, 360)) * rng.uniform(0.005, 0.03)
    low = min(figure.joints[f"{NAMES[side]}_{part}"][2] for part in
              [f"{finger}{i}" for finger in grasps.NAMES for i in (1, 2, 3, 4)])  # fmt: skip
    top, things = low - 2 * radius - 0.012, solids.none()
    if top > 0.03 and rng.random() < 0.7:
        half = [*rng.uniform(0.03, 0.12, 2), top / 2]
        things = solids.make(solids.BOX, [at[0], at[1], top / 2], np.eye(3), half)
    else:
        top = 0.0
    middle = at * (1, 1, 0) + away + (0, 0, top + radius)
    return things, solids.make(solids.BALL, middle, np.eye(3), radius)
