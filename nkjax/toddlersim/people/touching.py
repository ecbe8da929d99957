"""Touching: how far places are from the surface of solids, and the balls that limbs are made of."""

from typing import NamedTuple

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

_BARE = [name.removeprefix("left_").removeprefix("right_") for name in solids.SEGMENTS]


class Surface(NamedTuple):
    """c round cones and b ellipsoids, ready to be measured from many places.

    axis_3c: direction of a cone; start_3c: where it starts (m), start_along_c and start_square_c:
    that along its axis, and its square. length_c, first_c: m; slope_c: how fast it gets thinner;
    lean_c: tangent of the angle of its side. turn_3x3b: takes points to the ellipsoids' own axes,
    over their semi-axes, axis by axis; middle_3b: there, of each; inverse_3b: one over the squares
    of the semi-axes.
    """

    axis_3c: np.ndarray
    start_3c: np.ndarray
    start_along_c: np.ndarray
    start_square_c: np.ndarray
    length_c: np.ndarray
    first_c: np.ndarray
    slope_c: np.ndarray
    lean_c: np.ndarray
    turn_3x3b: np.ndarray
    middle_3b: np.ndarray
    inverse_3b: np.ndarray


def of_segments(things: Solids, names) -> Solids:
    """Return the solids of these segments, sides left out of the names."""
    keep = np.array([name in names for name in _BARE])[things.segment_p]
    return Solids(*(field[keep] for field in things))


def surface(things: Solids) -> Surface:
    """Prepare the cones and ellipsoids among solids for `distance`."""
    cone, ball = things.kind_p == CONE, things.kind_p == BALL
    length, first, last = things.size_p3[cone].T
    slope, start, axis = (first - last) / length, things.centre_p3[cone], things.frame_p33[cone, 0]
    half = things.size_p3[ball]
    turn = (things.frame_p33[ball] / half[..., None]).transpose(1, 0, 2)
    middle = (turn * things.centre_p3[ball]).sum(-1).reshape(-1)
    return Surface(axis.T, start.T, (start * axis).sum(1), (start**2).sum(1), length, first, slope,
                   slope / np.sqrt(1 - slope**2), turn.reshape(-1, 3).T, middle,
                   1 / half.T**2)  # fmt: skip


def distance(points_n3, surface: Surface) -> np.ndarray:
    """Return how far points are from the nearest cone or ellipsoid, metres; negative within.

    Exact for cones, to first order (thus right near the surface) for ellipsoids.
    """
    # Matrix products and arrays (n, c) of one component: this is called thousands of times.
    nearest = np.full(len(points_n3), np.inf)
    if len(surface.first_c):
        nearest = _to_cones(points_n3, surface).min(1)
    if surface.inverse_3b.shape[1]:
        nearest = np.minimum(nearest, _to_balls(points_n3, surface).min(1))
    return nearest


def _to_cones(points, surface):
    x = points @ surface.axis_3c - surface.start_along_c
    off2 = (points * points).sum(1)[:, None] - 2 * (points @ surface.start_3c)
    rho2 = np.maximum(off2 + surface.start_square_c - x * x, 0)
    # The ball within the cone that is nearest.
    along = np.minimum(np.maximum(x - surface.lean_c * np.sqrt(rho2), 0), surface.length_c)
    x -= along
    return np.sqrt(rho2 + x * x) - surface.first_c + surface.slope_c * along


def _to_balls(points, surface):
    scaled = points @ surface.turn_3x3b - surface.middle_3b
    scaled *= scaled
    x, y, z = scaled.reshape(len(points), 3, -1).transpose(1, 0, 2)
    k0 = np.sqrt(x + y + z)
    a, b, c = surface.inverse_3b
    return k0 * (k0 - 1) / np.maximum(np.sqrt(a * x + b * y + c * z), 1e-9)


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


def onto(surface: Surface, inside_3, ways_n3) -> tuple[np.ndarray, np.ndarray]:
    """Come from far away, against each way, to the surface: return the places and normals there.

    inside_3: a point within, metres; ways_n3: directions, of any length.
    """
    ways = ways_n3 / np.linalg.norm(ways_n3, axis=1, keepdims=True)
    far = np.full(len(ways), 0.45)
    for _ in range(6):
        far -= distance(inside_3 + far[:, None] * ways, surface)
    places = inside_3 + far[:, None] * ways
    step = 1e-4 * np.concatenate([np.eye(3), -np.eye(3)])
    around = distance((places[:, None] + step).reshape(-1, 3), surface).reshape(-1, 2, 3)
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
    places, radii = _along((hip, knee, ankle, toes), sizes)
    calf = 0.7 * knee + 0.3 * ankle - 0.12 * sizes[1] * shank[:, 0]  # as flesh has it
    return np.append(places, calf[None], 0), np.append(radii, 1.05 * sizes[1])


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
