"""Hands: how they rest, open, close, and hold a thing; and the thing, in the place they hold it.

Source: notes method 6.5. Lengths are in hand lengths unless said. Thumbs were searched for: those
that pass through neither fingers nor palm.
"""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, poses
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import FINGERS, KNUCKLES, THUMB, THUMB_ROOT, Figure, Hand
from nkjax.toddlersim.solids import BALL, BOX, Solids

GRASPS = ("palmar", "radial", "pincer")
NAMES = ("forefinger", "middle_finger", "ring_finger", "pinky_finger")


PRESSED = 0.075  # how near the bones of a thumb and a finger may come

PRESSED_IN = 0.0008  # m that a toy is into the flesh of each fingertip

# ---- hands ----


def relaxed(rng: np.random.Generator) -> Hand:
    """Draw a hand at rest: fingers half bent, more so to the little one, thumb beside the palm."""
    knuckle = rng.uniform(8, 40) + np.array([0, 4, 8, 12]) + rng.normal(0, 4, 4)
    bend = rng.uniform(12, 45) + np.array([0, 2, 4, 6]) + rng.normal(0, 4, 4)
    thumb = rng.uniform([28, 32, 2, 2], [62, 47, 24, 24])
    return _hand(knuckle, bend, rng.normal(2, 2, 4), thumb)


def open_hand(rng: np.random.Generator) -> Hand:
    """Draw an open, spread hand, as in high guard or before a fall."""
    knuckle = np.clip(rng.normal(4, 8) + rng.normal(0, 4, 4), -12, 25)
    bend = rng.uniform(0, 16) + rng.uniform(0, 8, 4)
    spread = rng.uniform([6, 0, 4, 8], [18, 2, 12, 24])
    return _hand(knuckle, bend, spread, rng.uniform([0, 38, 0, 0], [35, 60, 15, 15]))


def flat_hand(rng: np.random.Generator) -> Hand:
    """Draw a hand that lies flat on a surface, fingers straight, thumb to the side."""
    spread = rng.uniform([4, 0, 2, 6], [16, 2, 12, 22])
    bend = rng.uniform(0, 5, 4)
    return _hand(rng.uniform(-2, 3, 4), bend, spread, rng.uniform([0, 35, 0, 0], [12, 62, 15, 15]))


def fist(rng: np.random.Generator, thumb_in: bool) -> Hand:
    """Draw a fist; the thumb in the palm, under the fingers, or outside on them."""
    return _clear(lambda: _fist(rng, thumb_in))


def _fist(rng, thumb_in):
    if thumb_in:
        knuckle, bend = rng.uniform([46, 64], [60, 80])
        thumb = rng.uniform([108, 42, 14, 12], [132, 58, 40, 40])
    else:
        knuckle, bend = rng.uniform([64, 76], [82, 94])
        thumb = rng.uniform([86, 60, 12, 18], [110, 72, 32, 54])
    knuckle, bend = knuckle + rng.normal(0, 1.5, 4), bend + rng.normal(0, 1.5, 4)
    return _hand(knuckle, bend, rng.uniform(0, 2, 4), thumb)


def palmar(rng: np.random.Generator) -> Hand:
    """Draw a whole hand closed round a thing; thumb along the fingers or beside the palm."""
    return _clear(lambda: _palmar(rng))


def _palmar(rng):
    knuckle = rng.uniform(37, 55) + np.array([0, 2, 4, 6]) + rng.normal(0, 2.5, 4)
    bend = rng.uniform(44, 62) + np.array([0, 1, 2, 3]) + rng.normal(0, 2.5, 4)
    beside = rng.random() < 0.4
    if beside:
        thumb = rng.uniform([3, 26, 2, 2], [32, 38, 16, 16])
    else:
        thumb = rng.uniform([76, 54, 12, 14], [104, 72, 42, 50])
    return _hand(knuckle, bend, rng.uniform(0, 2, 4), thumb)


def radial(rng: np.random.Generator) -> Hand:
    """Draw a hand whose thumb faces index and middle finger, with room for a small toy between."""
    knuckle, bend = rng.uniform(42, 58), rng.uniform(26, 40)
    other = rng.uniform([62, 70], [82, 88], (2, 2))
    knuckles = np.array([knuckle, knuckle + rng.normal(0, 2), *other[:, 0]])
    bends = np.array([bend, bend + rng.uniform(4, 8), *other[:, 1]])
    fingers = np.stack([knuckles, bends, [0, 0, 0, 0]], 1)
    tips = [_tip(i, fingers[i]) for i in (0, 1)]
    room = rng.uniform(0.24, 0.36)  # from bone to bone
    way = _pad(fingers[0], rng.uniform(-45, -30), rng.uniform(0, 15))
    place = (tips[0] + tips[1]) / 2 + room * way
    return Hand(fingers, _thumb_to(place, rng.uniform(0.6, 1.0)))


def pincer(rng: np.random.Generator) -> Hand:
    """Draw a hand whose tips of thumb and index finger nearly meet, the other fingers off."""
    apart = rng.uniform([8, 14], [36, 44])
    knuckles = np.array([rng.uniform(44, 60), *(apart[0] + rng.normal(0, 4, 3) + (8, 5, 0))])
    bends = np.array([rng.uniform(34, 48), *(apart[1] + rng.normal(0, 4, 3))])
    fingers = np.stack([knuckles, bends, [rng.uniform(0, 6), 0, 2, 5]], 1)
    room = rng.uniform(0.165, 0.185)  # both tips and a crumb
    way = _pad(fingers[0], rng.uniform(-45, -20), rng.uniform(-5, 15))
    place = _tip(0, fingers[0]) + room * way
    return Hand(fingers, _thumb_to(place, rng.uniform(0.6, 1.0)))


def _hand(knuckle, bend, spread, thumb) -> Hand:
    bend = np.maximum(bend, 0)
    return Hand(np.stack(np.broadcast_arrays(knuckle, bend, spread), 1), np.asarray(thumb, float))


def _clear(draw) -> Hand:
    """Draw until the thumb passes through no finger; flesh may be pressed."""
    while True:
        hand = draw()
        at = poses.hand_points(hand)
        thumb = _along(np.array([[at[f"thumb{i}"] for i in (2, 3, 4)]]))
        fingers = _along(np.array([[at[f"{name}{i}"] for i in (1, 2, 3, 4)] for name in NAMES]))
        if np.linalg.norm(thumb[:, None] - fingers, axis=-1).min() > PRESSED:
            return hand


def _along(chains) -> np.ndarray:
    """Return five places along every bone of chains (n, joints, 3)."""
    t = np.linspace(0, 1, 5)[:, None, None, None]
    return ((1 - t) * chains[:, :-1] + t * chains[:, 1:]).reshape(-1, 3)


def _tip(finger, angles_3) -> np.ndarray:
    """Return where the tip of a finger is, in the frame of a left hand."""
    knuckle, bend, spread = np.radians(angles_3)
    spread = spread * (1, 0, -1, -1)[finger]
    curls, lengths = knuckle + np.array([0, bend, 1.6 * bend]), FINGERS[finger]
    along, off = lengths @ np.cos(curls), lengths @ np.sin(curls)
    return KNUCKLES[finger] + (along * np.sin(spread), -off, -along * np.cos(spread))


def _pad(angles_3, more, to_thumb) -> np.ndarray:
    """Return the direction that the pad of a fingertip faces.

    more: degrees by which it is turned as by bending further; to_thumb: degrees to the thumb.
    """
    curl = np.radians(angles_3[0] + 1.6 * angles_3[1] + more)
    side = np.radians(to_thumb)
    flat = np.cos(side)
    return np.array([np.sin(side), -np.cos(curl) * flat, np.sin(curl) * flat])


def _thumb_to(place_3, last) -> np.ndarray:
    """Return the angles that bring the tip of the thumb to a place, `last` joint over middle."""
    way = place_3 - THUMB_ROOT
    bends = np.linspace(0, 80, 81)
    turned = np.radians(-np.outer(bends, [0, 1, 1 + last]))
    ends = np.exp(1j * turned) @ THUMB
    bend = np.interp(np.linalg.norm(way), np.abs(ends)[::-1], bends[::-1])
    end = np.exp(1j * np.radians(-bend * np.array([0, 1, 1 + last]))) @ THUMB
    along = np.arctan2(np.hypot(way[0], way[1]), -way[2]) - np.angle(end)
    opposition = np.degrees(np.arctan2(-way[1], way[0]))
    return np.array([opposition, np.degrees(along), bend, last * bend])


# Where the hollow of a closed hand may have its middle.
HOLLOW_Y, HOLLOW_Z = np.linspace(-0.34, -0.10, 17), np.linspace(-0.64, -0.40, 15)

GRASP = {"palmar": palmar, "radial": radial, "pincer": pincer}


# ---- what they hold ----


def toy_in(rng: np.random.Generator, body: Body, figure: Figure, side, grasp: str) -> Solids:
    """Draw what a hand holds with one of GRASPS: solids of nobody, paint 0, in the world.

    A stick, ball or brick in the palm (palmar) or between the tips of thumb, index and middle
    finger (radial); a bead or crumb between the tips of thumb and index finger (pincer).
    """
    name = ("left", "right")[side]
    frame = figure.frames[f"{name}_hand"]
    tip = {part: figure.joints[f"{name}_{part}4"] for part in ("thumb", *NAMES)}
    finger, thumb = (bodies.radii(body)[part][side] for part in ("finger", "thumb"))
    if grasp == "palmar":
        return _in_palm(rng, body, figure, side)
    against = np.array([tip[part] for part in NAMES[: 1 if grasp == "pincer" else 2]])
    way = tip["thumb"] - against.mean(0)
    apart = ((tip["thumb"] - against) @ way).min() / np.linalg.norm(way)
    way = way / np.linalg.norm(way)
    size = apart - finger - thumb + 2 * PRESSED_IN
    middle = tip["thumb"] - (thumb - PRESSED_IN + size / 2) * way
    axes = solids.frame_along(way)
    if grasp == "pincer":
        return solids.make((BALL, BOX)[rng.integers(2)], middle, axes, size / 2)
    shape = rng.integers(3)
    if shape == 2:  # a stick that points out of the hand, to the side of the thumb
        out = rng.uniform(0.2, 1.5) * frame[:, 0] - frame[:, 2]
        out = out - (out @ way) * way
        return _stick(rng, middle, out, size / 2, body.hand[side] * np.array([0.2, 1.5]))
    halves = size / 2 * np.array([1.0, *rng.uniform(1.0, 1.8, 2)])
    return solids.make((BALL, BOX)[shape], middle, axes, halves if shape else size / 2)


def _in_palm(rng, body, figure, side) -> Solids:
    """Draw a thing that fills the hollow of a closed hand, lying across the palm."""
    name, length = ("left", "right")[side], body.hand[side]
    frame, wrist = figure.frames[f"{name}_hand"], figure.joints[f"{name}_wrist"]
    sign = poses.SIGN[side]
    chain = np.array([figure.joints[f"{name}_{part}{i}"] for part in NAMES for i in (1, 2, 3, 4)])
    own = ((chain - wrist) @ frame * (1, sign, 1)).reshape(4, 4, 3) / length
    # The largest circle between palm and fingers, in the plane in which they bend.
    bones = _along(own)[:, 1:]
    inside = np.stack(np.meshgrid(HOLLOW_Y, HOLLOW_Z), -1).reshape(-1, 2)
    room = np.linalg.norm(inside[:, None] - bones, axis=-1).min(1) - 0.055
    room = np.minimum(room, -0.075 - inside[:, 0])
    best = room.argmax()
    y, z = inside[best]
    middle = wrist + length * (frame @ (own[1:3, 0, 0].mean(), sign * y, z))
    radius = np.clip(room[best], 0.03, 0.16) * length
    shape = rng.integers(3)
    if shape == 2:
        along = frame[:, 0] + rng.normal(0, 0.1) * frame[:, 2]
        return _stick(rng, middle, along, radius, length * np.array([1.5, 1.5]))
    if shape == 0:
        return solids.make(BALL, middle, np.eye(3), radius)
    halves = radius * np.array([rng.uniform(1.5, 3.5), 0.8, 0.8])
    return solids.make(BOX, middle, frame.T, halves)


def _stick(rng, middle, along, radius, longest_2) -> Solids:
    """Draw a stick through a place, at most so long to either side, metres."""
    along = along / np.linalg.norm(along)
    back, front = rng.uniform(0.4, 1.0, 2) * longest_2
    return solids.cone(middle - back * along, middle + front * along, radius, radius)
