"""Rooms to be in: walls, floor, furniture and toys away from the middle of the scene, and a lamp.

Rooms, furniture and colours differ between domains and between people that are trained and tested
on. Source: notes method 6.5.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import solids as shapes
from nkjax.toddlersim.looks import furniture
from nkjax.toddlersim.looks.clothes import choose, colour
from nkjax.toddlersim.looks.furniture import BRIGHT, MUTED, Piece, bounds, join, placed
from nkjax.toddlersim.looks.paints import Light, Paint
from nkjax.toddlersim.solids import ROOM, Solids

MOST = 25  # solids
LEAST_TO_WALL = 1.0  # metres from the middle of the scene
TRIES = 12


class Look(NamedTuple):
    """What a room is drawn from.

    width, height: of the room, metres; wall: ranges of HSV; floor_hue, floor_value: ranges; floors:
    (pattern, odds); stuff: ranges of HSV of furniture and toys; pieces: (name, odds); warmth: range
    of the lamp's colour, 0 bluish ... 1 reddish; lamp, ambient: ranges of their strength.
    """

    width: tuple
    height: tuple
    wall: tuple
    floor_hue: tuple
    floor_value: tuple
    floors: tuple
    stuff: tuple
    pieces: tuple
    warmth: tuple
    lamp: tuple
    ambient: tuple


# Colours of furniture and toys in test rooms: another share of the hues.
BRIGHT_TEST = (0.35, 0.95), (0.5, 0.85), (0.55, 0.95)
MUTED_TEST = (0.2, 0.65), (0.15, 0.5), (0.2, 0.7)
PLAY = (("sofa", 0.1), ("table", 0.12), ("shelf", 0.12), ("crate", 0.14), ("lamp", 0.04),
        ("ball", 0.16), ("tower", 0.18), ("plush", 0.14))  # fmt: skip
LAB = (("bars", 0.12), ("crate", 0.2), ("table", 0.14), ("stool", 0.14), ("ball", 0.18),
       ("shelf", 0.12), ("tower", 0.1))  # fmt: skip
LIVING = (("sofa", 0.25), ("table", 0.25), ("shelf", 0.2), ("crate", 0.14), ("lamp", 0.1),
          ("stool", 0.06))  # fmt: skip
LOOKS = {
    ("toddler", False): Look(
        (4.0, 6.5), (2.4, 2.7), ((0.05, 0.3), (0.05, 0.35), (0.75, 0.98)),
        (0.05, 0.12), (0.45, 0.85),
        (("planks", 0.5), ("speckle", 0.3), ("tiles", 0.2)), BRIGHT, PLAY,
        (0.4, 0.9), (0.9, 1.4), (0.3, 0.5),
    ),
    ("toddler", True): Look(
        (4.5, 7.5), (2.5, 2.9), ((0.45, 0.85), (0.08, 0.4), (0.6, 0.92)), (0.3, 0.7), (0.35, 0.75),
        (("checks", 0.4), ("tiles", 0.4), ("plain", 0.2)), BRIGHT_TEST, PLAY,
        (0.1, 0.5), (0.7, 1.2), (0.22, 0.42),
    ),
    ("adult", False): Look(
        (6.0, 9.0), (2.5, 3.0), ((0.0, 1.0), (0.0, 0.15), (0.6, 0.95)), (0.04, 0.12), (0.3, 0.75),
        (("planks", 0.4), ("speckle", 0.4), ("tiles", 0.2)), MUTED, LIVING,
        (0.2, 0.8), (0.8, 1.4), (0.25, 0.45),
    ),
    ("adult", True): Look(
        (6.0, 9.5), (2.6, 3.0), ((0.2, 0.6), (0.1, 0.35), (0.45, 0.85)), (0.5, 0.75), (0.3, 0.65),
        (("checks", 0.3), ("tiles", 0.4), ("plain", 0.3)), MUTED_TEST, LIVING,
        (0.0, 0.5), (0.7, 1.2), (0.2, 0.4),
    ),
}  # fmt: skip
TOYS = {
    False: (("plain", 0.5), ("stripes", 0.35), ("dots", 0.15)),
    True: (("plain", 0.35), ("checks", 0.35), ("dots", 0.3)),
}
# Motor labs and playrooms that nothing is trained in.
LOOKS["atypical", False] = LOOKS["atypical", True] = LOOKS["toddler", True]._replace(
    wall=((0.5, 0.65), (0.02, 0.2), (0.7, 0.95)), pieces=LAB, lamp=(0.9, 1.4)
)


class Room(NamedTuple):
    """A room without people: its solids, their paints (tuple, counted from 0) and its light."""

    solids: Solids
    paints: tuple[Paint, ...]
    light: Light


def draw_room(rng: np.random.Generator, kind: str, held_out: bool, centre_2, clear) -> Room:
    """Draw a room of kind 'adult', 'toddler' or 'atypical' around a place of the floor.

    held_out: for test subjects; centre_2: metres, the middle of the scene; clear: metres around it
    that hold nothing but flat rugs, at most about 1.5: what finds no place is left out. The first
    solid is the ROOM; there are about 14 ... MOST of them.
    """
    look = LOOKS[kind, held_out]
    shell, low, high = _shell(rng, look, np.asarray(centre_2, float), clear)
    pieces, taken = [shell], []
    pieces.append(_rug(rng, look, centre_2, low, high))
    pieces.append(_on_the_wall(rng, look, low, high))
    count = 1 + sum(len(piece.solids.kind_p) for piece in pieces[1:])
    wanted = int(rng.integers(14, MOST - 1))
    for _ in range(TRIES):
        if count >= wanted:
            break
        piece = _draw(rng, choose(rng, look.pieces), look)
        if count + len(piece.solids.kind_p) > MOST:
            continue
        found = _find_place(rng, piece, low, high, centre_2, clear, taken)
        if found is not None:
            pieces.append(placed(piece, *found[:3]))
            taken.append(found)
            count += len(piece.solids.kind_p)
    made = join(*pieces)
    return Room(made.solids, made.paints, _light(rng, look, centre_2, low, high))


def painted(rng: np.random.Generator, things: Solids, kind: str, held_out: bool) -> Piece:
    """Paint furniture that comes without paints, each solid one of three of a room of that kind."""
    look = LOOKS[kind, held_out]
    paints = (furniture.wood(rng), furniture.cloth(rng, look.stuff, "speckle", 0.012),
              furniture.cloth(rng, look.stuff, "plain", 0.1))  # fmt: skip
    count = len(things.kind_p)
    return Piece(things._replace(paint_p=rng.integers(len(paints), size=count)), paints)


def painted_toy(rng: np.random.Generator, toy: Solids, held_out: bool) -> Piece:
    """Paint a toy that comes without paints, all of it the same."""
    size = float(np.ptp(np.concatenate(bounds(toy)), axis=0).max()) if len(toy.kind_p) else 0.1
    pattern = choose(rng, TOYS[held_out])
    colours = BRIGHT_TEST if held_out else BRIGHT
    paint = furniture.cloth(rng, colours, pattern, size / 3)._replace(gloss=0.25)
    return Piece(toy._replace(paint_p=np.zeros_like(toy.paint_p)), (paint,))


def draw_occluder(rng: np.random.Generator, kind: str, held_out: bool) -> Piece:
    """Draw a thing that stands on the floor at the origin, to be put before a person.

    kind: of the room; an adult's things are larger.
    """
    colours = LOOKS[kind, held_out].stuff
    grown = 1.6 if kind == "adult" else 1.0
    what = rng.integers(5)
    if what == 0:
        return furniture.crate(rng, colours, 0.1 * grown, 0.22 * grown)
    if what == 1:
        return furniture.stool(rng, colours)
    if what == 2:
        return furniture.ball(rng, colours, 0.1 * grown, 0.2 * grown)
    if what == 3:
        half = rng.uniform(0.2, 0.4, 2) * grown
        return furniture.table(rng, rng.uniform(0.3, 0.45) * grown, half)
    return furniture.plush(rng, colours, rng.uniform(0.25, 0.5) * grown)


def _shell(rng, look, centre, clear):
    """Return the ROOM and its corners (x, y) and height."""
    half = np.array([rng.uniform(*look.width), rng.uniform(*look.width)]) / 2
    height = rng.uniform(*look.height)
    spare = np.maximum(half - max(LEAST_TO_WALL, clear), 0)
    middle = centre + rng.uniform(-1, 1, 2) * spare
    wall, floor = colour(rng, *look.wall), colour(rng, look.floor_hue, (0.1, 0.5), look.floor_value)
    pattern = choose(rng, look.floors)
    tint = rng.uniform(0.7, 0.92)
    pitch = {"planks": 0.14, "speckle": 0.02, "tiles": 0.3, "checks": 0.6}.get(pattern, 0.5)
    darker = tuple(tint * c for c in floor)
    gloss = 0.0 if pattern == "speckle" else float(rng.uniform(0.05, 0.3))
    papered = choose(rng, (("plain", 0.7), ("stripes", 0.15), ("print", 0.15)))
    paints = (
        Paint(papered, (wall, tuple(0.92 * c for c in wall)), 0.25, 90.0),
        Paint(pattern, (floor, darker, tuple(0.5 * c for c in floor)),
              pitch * rng.uniform(0.8, 1.3), 90.0 * rng.integers(2), gloss),
        Paint("plain", ((0.93, 0.93, 0.92),)),
    )  # fmt: skip
    room = shapes.make(ROOM, (*middle, height / 2), np.eye(3), (*half, height / 2))
    return Piece(room, paints), middle - half, np.array([*(middle + half), height])


def _rug(rng, look, centre_2, low, high):
    """Lay a rug or mat somewhere below the scene, thin: who stands there stands on the floor."""
    half = rng.uniform(0.6, 1.1, 2)
    at = np.clip(centre_2 + rng.normal(0, 0.5, 2), low + half + 0.02, high[:2] - half - 0.02)
    pattern = ("plain", "checks", "stripes", "print")[rng.integers(4)]
    paint = furniture.cloth(rng, look.stuff, pattern, rng.uniform(0.15, 0.4))
    return placed(furniture.slab(rng, half, 0.004, paint._replace(gloss=0.0)), *at, 0.0)


def _on_the_wall(rng, look, low, high):
    """Hang pictures and a window or door on walls, one to a wall."""
    made = []
    for turn in rng.permutation(4)[: rng.integers(2, 5)]:
        along = high[1] - low[1] if turn % 2 == 0 else high[0] - low[0]
        what = rng.integers(3)
        if what == 0:
            half, foot = (rng.uniform(0.4, 0.8), 0.5), 0.9
            paint = Paint("tiles", ((0.85, 0.93, 1.0), (0.95, 0.98, 1.0), (0.97,) * 3), 0.5)
        elif what == 1:
            half, foot = (0.45, 1.0), 0.0
            paint = furniture.wood(rng)
        else:
            half, foot = rng.uniform(0.2, 0.4, 2), 1.1
            paint = furniture.cloth(rng, look.stuff, "print", 0.2)
        aside = rng.uniform(-1, 1) * (along / 2 - half[0] - 0.05)
        x, y, angle = _by_wall(turn, aside, 0.0, low, high)
        made.append(placed(furniture.panel(rng, half, foot, paint), x, y, angle))
    return join(*made)


def _draw(rng, name, look):
    draws = {
        "sofa": lambda: furniture.sofa(rng, look.stuff),
        "table": lambda: furniture.table(rng, rng.uniform(0.4, 0.75), rng.uniform(0.3, 0.55, 2)),
        "shelf": lambda: furniture.shelf(rng, look.stuff),
        "crate": lambda: furniture.crate(rng, look.stuff),
        "lamp": lambda: furniture.lamp(rng),
        "stool": lambda: furniture.stool(rng, look.stuff),
        "ball": lambda: furniture.ball(rng, look.stuff),
        "tower": lambda: furniture.tower(rng, look.stuff),
        "plush": lambda: furniture.plush(rng, look.stuff, rng.uniform(0.25, 0.5)),
        "bars": lambda: furniture.bars(rng),
    }
    return draws[name]()


def _find_place(rng, piece, low, high, centre_2, clear, taken):
    """Return a free place (x, y, turn, radius) of the floor, or None after a few tries.

    Furniture with a back stands at a wall, small things anywhere.
    """
    least, most = bounds(piece.solids)
    radius = np.linalg.norm(np.maximum(-least.min(0), most.max(0))[:2])
    for _ in range(TRIES):
        if radius > 0.3:
            turn = int(rng.integers(4))
            along = high[1] - low[1] if turn % 2 == 0 else high[0] - low[0]
            side = max(-least[:, 1].min(), most[:, 1].max()) + 0.03
            aside = rng.uniform(-1, 1) * max(along / 2 - side, 0)
            x, y, angle = _by_wall(turn, aside, 0.03 - least[:, 0].min(), low, high)
        else:
            x, y = rng.uniform(low + radius + 0.03, high[:2] - radius - 0.03)
            angle = rng.uniform(0, 360)
        far = np.hypot(x - centre_2[0], y - centre_2[1]) - radius >= clear
        if far and all(np.hypot(x - a, y - b) > radius + other for a, b, _, other in taken):
            return x, y, angle, radius
    return None


def _by_wall(turn, aside, before, low, high):
    """Return place and turn of a piece that stands before wall 0 ... 3, aside of its middle."""
    middle = (low + high[:2]) / 2
    half = (high[:2] - low) / 2 - before
    angle = np.radians(90 * turn)
    forward, left = (np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))
    away = half[0] if turn % 2 == 0 else half[1]
    x, y = middle - away * np.array(forward) + aside * np.array(left)
    return x, y, 90.0 * turn


def _light(rng, look, centre_2, low, high):
    angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 2.0)
    at = centre_2 + away * np.array([np.cos(angle), np.sin(angle)])
    at = np.clip(at, low + 0.1, high[:2] - 0.1)
    height = rng.uniform(0.85, 0.97) * high[2]
    warm = rng.uniform(*look.warmth)
    tint = np.array([0.88 + 0.2 * warm, 0.97, 1.1 - 0.3 * warm])
    lamp, ambient = rng.uniform(*look.lamp), rng.uniform(*look.ambient)
    sky = ambient * (0.5 + 0.5 * tint)
    ground = ambient * rng.uniform(0.35, 0.6) * np.array([1.05, 1.0, 0.92])
    return Light(np.array([*at, height]), tuple(lamp * tint), (tuple(sky), tuple(ground)))
