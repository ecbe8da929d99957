"""Furniture and toys: pieces of a few solids that stand on the floor at the origin.

Metres, z up; the front of a piece looks along +x. Cloth, wood and plastic are paints of a piece's
own; joining pieces renumbers them.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import solids as shapes
from nkjax.toddlersim.looks.clothes import colour
from nkjax.toddlersim.looks.paints import Paint
from nkjax.toddlersim.solids import BALL, BOX, CONE, Solids

# Own axes of a cone that stands upright.
UPRIGHT = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
BRIGHT = (0.0, 1.0), (0.45, 0.9), (0.6, 1.0)
MUTED = (0.0, 1.0), (0.05, 0.35), (0.25, 0.75)
WOOD = (0.05, 0.11), (0.2, 0.6), (0.3, 0.85)


class Piece(NamedTuple):
    """Solids and the paints (tuple) that their paint_p counts from 0."""

    solids: Solids
    paints: tuple[Paint, ...]


def join(*pieces: Piece) -> Piece:
    """Put pieces into one, in order, each with its own paints."""
    found, paints = [], ()
    for piece in pieces:
        found.append(piece.solids._replace(paint_p=piece.solids.paint_p + len(paints)))
        paints += tuple(piece.paints)
    return Piece(shapes.join(*found) if found else shapes.none(), paints)


def placed(piece: Piece, x, y, turn, z=0.0) -> Piece:
    """Put a piece at a place of the floor (or z above it), turned by degrees, left is positive."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    turn_33 = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return piece._replace(solids=shapes.moved(piece.solids, turn_33, (x, y, z)))


def bounds(solids: Solids) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest corner (P, 3) of each solid, world, metres."""
    size, frame = solids.size_p3, solids.frame_p33
    flat = np.einsum("pi,pij->pj", size, np.abs(frame))
    oval = np.sqrt(np.einsum("pi,pij->pj", size**2, frame**2))
    reach = np.where((solids.kind_p == BALL)[:, None], oval, flat)
    far = solids.centre_p3 + size[:, :1] * frame[:, 0]
    near_radius, far_radius = size[:, 1:2], size[:, 2:3]
    is_cone = (solids.kind_p == CONE)[:, None]
    low = np.minimum(solids.centre_p3 - near_radius, far - far_radius)
    high = np.maximum(solids.centre_p3 + near_radius, far + far_radius)
    return (np.where(is_cone, low, solids.centre_p3 - reach),
            np.where(is_cone, high, solids.centre_p3 + reach))  # fmt: skip


def boxes(rows) -> Solids:
    """Make boxes from (centre, half sides, paint)."""
    return _made(BOX, rows, np.eye(3))


def balls(rows) -> Solids:
    """Make upright ellipsoids from (centre, semi-axes, paint)."""
    return _made(BALL, rows, np.eye(3))


def posts(rows) -> Solids:
    """Make upright round cones from (middle of the lower ball, (length, radii), paint)."""
    return _made(CONE, rows, UPRIGHT)


def sofa(rng, colours) -> Piece:
    """Draw a sofa or armchair; colours: ranges of HSV of its cloth."""
    width, deep = rng.uniform(0.45, 1.0), rng.uniform(0.38, 0.45)
    seat, back, arm = rng.uniform(0.18, 0.22), rng.uniform(0.35, 0.45), rng.uniform(0.06, 0.1)
    found = boxes([
        ((0, 0, seat), (deep, width, seat), 0),
        ((-deep + 0.1, 0, 2 * seat + back / 2), (0.1, width, back / 2), 0),
        ((0, width - arm, 1.3 * seat + 0.06), (deep, arm, 1.3 * seat + 0.06), 0),
        ((0, arm - width, 1.3 * seat + 0.06), (deep, arm, 1.3 * seat + 0.06), 0),
    ])  # fmt: skip
    cushion = (0.24 - deep, rng.uniform(-0.5, 0.5) * (width - 0.4), 2 * seat + 0.17)
    found = shapes.join(found, balls([(cushion, (0.1, 0.2, 0.18), 1)]))
    paints = cloth(rng, colours, "speckle", 0.012), cloth(rng, colours, "stripes", 0.06)
    return Piece(found, paints)


def table(rng, height, half) -> Piece:
    """Draw a table of a height and half sides (x, y), on four legs."""
    thick, leg = 0.018, rng.uniform(0.02, 0.035)
    corners = [(sx * (half[0] - 0.06), sy * (half[1] - 0.06), leg)
               for sx in (-1, 1) for sy in (-1, 1)]  # fmt: skip
    legs = posts([(corner, (height - 2.5 * leg, leg, leg), 0) for corner in corners])
    top = boxes([((0, 0, height - thick), (*half, thick), 0)])
    return Piece(shapes.join(top, legs), (wood(rng),))


def shelf(rng, colours) -> Piece:
    """Draw a shelf with its back to a wall and a few things on its boards."""
    deep, width, high = rng.uniform(0.12, 0.2), rng.uniform(0.3, 0.7), rng.uniform(0.4, 1.0)
    boards = int(rng.integers(2, 4))
    rows = [((0, side * (width - 0.01), high), (deep, 0.012, high), 0) for side in (-1, 1)]
    rows.append(((0.01 - deep, 0, high), (0.008, width, high), 0))
    levels = np.linspace(0.012, 2 * high - 0.012, boards + 1)
    rows += [((0, 0, level), (deep, width, 0.012), 0) for level in levels]
    for at, level in enumerate(levels[:-1]):
        room = (levels[1] - levels[0]) / 2 - 0.03
        wide, tall = rng.uniform(0.06, 0.7) * width, rng.uniform(0.5, 1) * room
        y = rng.uniform(-1, 1) * (width - wide - 0.03)
        rows.append(((0, y, level + 0.012 + tall), (deep * 0.8, wide, tall), 1 + at % 2))
    stuff = tuple(cloth(rng, colours, "stripes", rng.uniform(0.05, 0.12), 90) for _ in range(2))
    return Piece(boxes(rows), (wood(rng), *stuff))


def crate(rng, colours, low=0.12, high=0.3) -> Piece:
    """Draw a closed box; low, high: range of its half sides."""
    half = rng.uniform(low, high, 3)
    pattern = ("plain", "checks", "planks", "print")[rng.integers(4)]
    return Piece(boxes([((0, 0, half[2]), half, 0)]), (cloth(rng, colours, pattern, 0.12),))


def lamp(rng) -> Piece:
    """Draw a standing lamp."""
    high = rng.uniform(1.2, 1.6)
    found = posts([((0, 0, 0.02), (high, 0.016, 0.012), 0), ((0, 0, high), (0.22, 0.17, 0.1), 1)])
    foot = boxes([((0, 0, 0.012), (0.13, 0.13, 0.012), 0)])
    shade = Paint("plain", ((1.0, 0.96, 0.82),))
    return Piece(shapes.join(found, foot), (Paint("plain", ((0.2, 0.2, 0.2),), gloss=0.4), shade))


def stool(rng, colours) -> Piece:
    """Draw a stool with a round seat on three legs."""
    high, wide = rng.uniform(0.28, 0.5), rng.uniform(0.15, 0.2)
    seat = balls([((0, 0, high - 0.035), (wide, wide, 0.035), 1)])
    around = np.radians((90, 210, 330))
    feet = [(0.7 * wide * np.cos(a), 0.7 * wide * np.sin(a), 0.016) for a in around]
    legs = posts([(foot, (high - 0.06, 0.016, 0.02), 0) for foot in feet])
    return Piece(shapes.join(seat, legs), (wood(rng), cloth(rng, colours, "plain", 0.1)))


def ball(rng, colours, low=0.06, high=0.16) -> Piece:
    """Draw a ball; low, high: range of its radius."""
    radius = rng.uniform(low, high)
    pattern = ("plain", "stripes", "dots", "checks")[rng.integers(4)]
    paint = cloth(rng, colours, pattern, radius * rng.uniform(0.5, 1.2))._replace(gloss=0.35)
    return Piece(balls([((0, 0, radius), (radius,) * 3, 0)]), (paint,))


def tower(rng, colours, most=5) -> Piece:
    """Draw bricks on top of each other, each a little aside."""
    count, half = int(rng.integers(1, most + 1)), rng.uniform(0.025, 0.06)
    aside = rng.uniform(-0.3, 0.3, (count, 2)) * half
    rows = [((*aside[i], half * (2 * i + 1)), (half,) * 3, i % 3) for i in range(count)]
    return Piece(boxes(rows), tuple(cloth(rng, colours, "plain", 0.1) for _ in range(3)))


def plush(rng, colours, size) -> Piece:
    """Draw a sitting plush animal, size metres high."""
    unit = size / 2
    rows = [((0, 0, 0.5 * unit), (0.45 * unit, 0.5 * unit, 0.5 * unit), 0)]
    rows.append(((0.1 * unit, 0, 1.32 * unit), (0.42 * unit, 0.45 * unit, 0.4 * unit), 0))
    rows.append(((0.45 * unit, 0, 1.22 * unit), (0.18 * unit, 0.2 * unit, 0.16 * unit), 1))
    for side in (-1, 1):
        ear, leg = (0.1, 0.2, 0.22), (0.32, 0.18, 0.18)
        rows.append(((0, side * 0.35 * unit, 1.76 * unit), np.array(ear) * unit, 0))
        rows.append(((0.5 * unit, side * 0.32 * unit, 0.18 * unit), np.array(leg) * unit, 0))
    fur = colour(rng, *colours)
    paints = Paint("speckle", (fur, tuple(0.7 * c for c in fur)), 0.012)
    return Piece(balls(rows), (paints, Paint("plain", (tuple(0.4 + 0.6 * c for c in fur),))))


def slab(rng, half, thick, paint: Paint) -> Piece:
    """Lay a rug or mat on the floor: half sides (x, y) and thickness."""
    return Piece(boxes([((0, 0, thick / 2), (*half, thick / 2), 0)]), (paint,))


def panel(rng, half, low, paint: Paint) -> Piece:
    """Stand a picture, window or door against a wall behind it: half sides (y, z), lower edge."""
    return Piece(boxes([((0.012, 0, low + half[1]), (0.012, *half), 0)]), (paint,))


def bars(rng) -> Piece:
    """Draw the parallel bars of a motor lab."""
    high, long, apart = rng.uniform(0.45, 0.8), rng.uniform(0.8, 1.2), rng.uniform(0.25, 0.35)
    ends = [(sx * apart, sy * long) for sx in (-1, 1) for sy in (-1, 1)]
    legs = posts([((x, y, 0.025), (high - 0.05, 0.025, 0.025), 0) for x, y in ends])
    rails = [shapes.cone((x, -long, high), (x, long, high), 0.022, 0.022, paint=1)
             for x in (-apart, apart)]  # fmt: skip
    metal = Paint("plain", ((0.75, 0.76, 0.78),), gloss=0.6)
    return Piece(shapes.join(legs, *rails), (metal, wood(rng)))


def cloth(rng, colours, pattern, pitch, turn=0.0) -> Paint:
    """Draw the colours of a paint from ranges of HSV."""
    first = colour(rng, *colours)
    second, third = (colour(rng, *colours) for _ in range(2))
    if pattern in ("speckle", "planks"):
        second = tuple(0.8 * c for c in first)
    return Paint(pattern, (first, second, third), float(pitch), turn, 0.05)


def wood(rng) -> Paint:
    """Draw wood: strands of a brown and a darker one."""
    first = colour(rng, *WOOD)
    return Paint("strands", (first, tuple(0.8 * c for c in first)), 0.03, gloss=0.15)


def _made(kind, rows, frame):
    centres, sizes, paints = zip(*rows, strict=True)
    return shapes.make(kind, centres, frame, np.array(sizes, float), paint=paints)
