"""Touching: how far places are from the surface of solids, and the balls that limbs are made of."""

import numpy as np

from nkjax.toddlersim import solids
from nkjax.toddlersim.people import bodies, poses
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.people.poses import SIGN, Arm, Figure, Leg
from nkjax.toddlersim.people.stance import NAMES
from nkjax.toddlersim.solids import BALL, CONE, Solids

_T = np.linspace(0, 1, 5)[:, None]
# Directions all round, as evenly as the golden angle puts them.
_HEIGHTS = 1 - (2 * np.arange(72) + 1) / 72
_TURNS = np.arange(72) * np.pi * (3 - np.sqrt(5))
_ROUND = np.stack([np.sqrt(1 - _HEIGHTS**2) * np.cos(_TURNS),
                   np.sqrt(1 - _HEIGHTS**2) * np.sin(_TURNS), _HEIGHTS], 1)  # fmt: skip


def of_segments(things: Solids, names) -> Solids:
    """Return the solids of these segments, sides left out of the names."""
    wanted = [i for i, name in enumerate(solids.SEGMENTS)
              if name.removeprefix("left_").removeprefix("right_") in names]  # fmt: skip
    return Solids(*(field[np.isin(things.segment_p, wanted)] for field in things))


def distance(points_n3, things: Solids) -> np.ndarray:
    """Return how far points are from the nearest cone or ellipsoid, metres; negative within.

    Exact for cones, to first order (thus right near the surface) for ellipsoids.
    """
    found = [np.full(len(points_n3), np.inf)]
    for kind, to in ((CONE, _to_cones), (BALL, _to_balls)):
        some = things.kind_p == kind
        if some.any():
            off = points_n3[None] - things.centre_p3[some][:, None]
            own = off @ things.frame_p33[some].transpose(0, 2, 1)
            found.append(to(own, things.size_p3[some][:, None]).min(0))
    return np.min(found, 0)


def _to_cones(own, size):
    x, rho = own[..., 0], np.hypot(own[..., 1], own[..., 2])
    length, first, last = size[..., 0], size[..., 1], size[..., 2]
    slope = (first - last) / length
    flat = np.sqrt(1 - slope**2)
    along = flat * x - slope * rho
    side = rho * flat + x * slope - first
    before, after = np.hypot(rho, x) - first, np.hypot(rho, x - length) - last
    return np.where(along < 0, before, np.where(along > flat * length, after, side))


def _to_balls(own, size):
    scaled = own / size
    k0 = np.sqrt((scaled**2).sum(-1))
    k1 = np.sqrt(((scaled / size) ** 2).sum(-1))
    return k0 * (k0 - 1) / np.maximum(k1, 1e-9)


def bottom(things: Solids) -> float:
    """Return the height of the lowest point of balls, cones and boxes, metres."""
    low = np.inf
    for kind, centre, frame, size in zip(*things[:4], strict=True):
        if kind == CONE:
            deep = max(size[1], size[2] - size[0] * frame[0, 2])
        elif kind == BALL:
            deep = np.linalg.norm(size * frame[:, 2])
        else:
            deep = size @ np.abs(frame[:, 2])
        low = min(low, centre[2] - deep)
    return float(low)


def skin(things: Solids) -> np.ndarray:
    """Return points (n, 3) on the surface of the ellipsoids among solids."""
    _, centres, frames, sizes, *_ = (field[things.kind_p == BALL] for field in things)
    return (centres[:, None] + (_ROUND * sizes[:, None]) @ frames).reshape(-1, 3)


def onto(things: Solids, inside_3, ways_n3) -> tuple[np.ndarray, np.ndarray]:
    """Come from far away, against each way, to the surface: return the places and normals there.

    inside_3: a point within, metres; ways_n3: directions, of any length.
    """
    ways = ways_n3 / np.linalg.norm(ways_n3, axis=1, keepdims=True)
    far = np.full(len(ways), 0.45)
    for _ in range(6):
        far -= distance(inside_3 + far[:, None] * ways, things)
    places = inside_3 + far[:, None] * ways
    step = 1e-4 * np.concatenate([np.eye(3), -np.eye(3)])
    around = distance((places[:, None] + step).reshape(-1, 3), things).reshape(-1, 2, 3)
    normals = around[:, 0] - around[:, 1]
    return places, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def leg_balls(body: Body, figure: Figure, side, leg: Leg) -> tuple[np.ndarray, np.ndarray]:
    """Return balls (n, 3) and (n,) of a leg that hangs on this figure's pelvis."""
    name, r = NAMES[side], bodies.radii(body)
    thigh = figure.frames["pelvis"] @ poses.ball_joint(leg.hip_3, SIGN[side])
    shank = thigh @ poses.turn_y(leg.knee)
    foot = shank @ poses.ankle(leg.ankle_3, SIGN[side])
    hip = figure.joints[f"{name}_hip"]
    knee = hip - body.thigh[side] * thigh[:, 2]
    ankle = knee - body.shank[side] * shank[:, 2]
    toes = ankle + foot @ poses.foot_points(body, side)["big_toe"]
    sizes = [r[part][side] for part in ("hip", "knee", "ankle", "heel")]
    return _along((hip, knee, ankle, toes), sizes)


def arm_balls(body: Body, figure: Figure, side, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
    """Return balls (n, 3) and (n,) of an arm that hangs on this figure's shoulder."""
    name, r = NAMES[side], bodies.radii(body)
    upper = figure.frames["chest"] @ poses.ball_joint(arm.shoulder_3, SIGN[side])
    fore = upper @ poses.turn_y(-arm.elbow)
    hand = fore @ poses.wrist(arm.wrist_3, SIGN[side])
    shoulder = figure.joints[f"{name}_shoulder"]
    elbow = shoulder - body.upper_arm[side] * upper[:, 2]
    wrist = elbow - body.forearm[side] * fore[:, 2]
    tips = wrist - 0.85 * body.hand[side] * hand[:, 2]
    sizes = [r[part][side] for part in ("shoulder", "elbow", "wrist", "finger")]
    return _along((shoulder, elbow, wrist, tips), sizes)


def _along(chain, sizes):
    places = [a + _T * (b - a) for a, b in zip(chain, chain[1:], strict=False)]
    radii = [a + _T[:, 0] * (b - a) for a, b in zip(sizes, sizes[1:], strict=False)]
    return np.concatenate(places), np.concatenate(radii)
