"""What colour each pixel of a picture is: paints that stick to their solids, light and shadow.

Shading works on linear light: the square of a colour, the root of the result, which is near enough
to sRGB. Everything per pixel is float32. Source: notes method 6.5.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting
from nkjax.toddlersim.camera import Camera
from nkjax.toddlersim.casting import Hits
from nkjax.toddlersim.looks import patterns
from nkjax.toddlersim.solids import BALL, CONE, NOBODY, ROOM, Solids

FLOOR, CEILING = 1, 2  # paints of a ROOM after that of its walls
FALL_OFF = 4.0  # metres at which a light is half as bright as close by
SHADOW_BIAS = 0.01  # metres along the normal, beside 1 px of the shadow map
SHADOW_MARGIN, SHADOW_SIDE = 0.3, 112  # metres around people; px of a small picture's shadow map


class Paint(NamedTuple):
    """How a solid is painted: a function of the point in the solid's own frame.

    pattern: one of patterns.PATTERNS; colours: one to three RGB in [0, 1]; pitch: metres, of one
    repeat; turn: degrees, of the pattern about the axis that looks at it; gloss: 0 matt ... 1 wet.
    Patterns run along a CONE (own x), up a BALL (own z), and over each face of a BOX or ROOM up
    from the floor (own z), or along own x where the face is level. The paint of a ROOM is that of
    its walls; the one after it is its floor's and the second after it its ceiling's.
    """

    pattern: str
    colours: tuple
    pitch: float = 0.1
    turn: float = 0.0
    gloss: float = 0.0


class Light(NamedTuple):
    """One lamp and the light from all around.

    position_3: world, metres; colour: RGB, linear; ambient: RGB from above and from below, linear.
    """

    position_3: np.ndarray
    colour: tuple
    ambient: tuple


def colours(hits: Hits, solids: Solids, paints, pixel=0.0) -> np.ndarray:
    """Return the paint (H, W, 3) float32 in [0, 1] that each pixel sees; black where there is none.

    pixel: width in metres of a pixel at 1 m of depth (1 / focal), over which patterns are averaged;
    0 is none.
    """
    rgb, _ = _painted(hits, solids, paints, pixel)
    return np.moveaxis(rgb, 0, -1)


def shade(hits: Hits, solids: Solids, paints, camera: Camera, light: Light, shadow_hw):
    """Return the picture (H, W, 3) float32 in [0, 1]: paints under a lamp and ambient light.

    shadow_hw: share of the lamp's light that arrives, as `shadow_of` says, or 1.0. Lambert,
    ambient between the floor's and the sky's, and Blinn-Phong gloss. A pixel that sees nothing has
    the colour of the sky.
    """
    rgb, gloss = _painted(hits, solids, paints, 1 / camera.focal)
    point = _points(hits, camera)
    normal = np.ascontiguousarray(np.moveaxis(hits.normal_hw3, -1, 0), np.float32)
    lamp = cameras.to_camera(camera, light.position_3).astype(np.float32)
    way = lamp[:, None, None] - point
    squared = _dot(way, way)
    way /= np.sqrt(squared)
    arrives = shadow_hw / (1 + squared / np.float32(FALL_OFF**2))
    lambert = np.maximum(_dot(normal, way), 0) * arrives
    # Half way between lamp and eye; the eye is at the camera's origin.
    way -= point / np.sqrt(np.maximum(_dot(point, point), np.float32(1e-6)))
    shine = np.maximum(_dot(normal, way), 0) / np.sqrt(_dot(way, way) + np.float32(1e-6))
    for _ in range(5):
        shine *= shine
    shine *= gloss * arrives
    up = camera.axes_33[:, 2].astype(np.float32)
    upward = _dot(up, normal) * np.float32(0.5) + np.float32(0.5)
    for channel, (plane, sky, ground, lit) in enumerate(
        zip(rgb, *np.asarray(light.ambient, np.float32), np.asarray(light.colour, np.float32),
            strict=True)
    ):  # fmt: skip
        plane *= plane
        plane *= ground + (sky - ground) * upward + lit * lambert
        plane += lit * shine
        rgb[channel] = np.where(hits.solid_hw < 0, sky, plane)
    return np.moveaxis(np.sqrt(np.clip(rgb, 0, 1, out=rgb), out=rgb), 0, -1)


def shadow_of(hits: Hits, solids: Solids, camera: Camera, light: Light) -> np.ndarray:
    """Return the share (H, W) float32 of a lamp's light that arrives at what each pixel sees.

    What is near the people throws shadows, all of it where there are none. See `arrives`.
    """
    things = Solids(*(field[solids.kind_p != ROOM] for field in solids))
    if not len(things.kind_p):
        return np.ones(hits.solid_hw.shape, np.float32)
    people = things.centre_p3[things.person_p != NOBODY]
    people = people if len(people) else things.centre_p3
    low, high = people.min(0), people.max(0)
    radius = np.clip(np.linalg.norm(high - low) / 2 + SHADOW_MARGIN, 0.6, 1.6)
    side = SHADOW_SIDE if max(camera.size_wh) < 256 else 2 * SHADOW_SIDE
    at_light = light_camera(light, (low + high) / 2, radius, side)
    return arrives(hits, camera, at_light, casting.depth_only(at_light, things))


def light_camera(light: Light, target_3, radius, side) -> Camera:
    """Return a camera of side x side px at a light that sees a ball of radius m about a point.

    One within the ball sees as much of it as it can. A light straight above sees from a hair aside.
    """
    place = np.array(light.position_3, float)
    if np.hypot(*(place - target_3)[:2]) < 1e-3:
        place[0] += 1e-3
    away = np.linalg.norm(place - target_3)
    focal = side / 2 * np.sqrt(max((away / radius) ** 2 - 1, 0.2))
    return cameras.look_at(place, target_3, focal, (side, side))


def arrives(hits: Hits, camera: Camera, at_light: Camera, light_depth_hw) -> np.ndarray:
    """Return the share (H, W) float32 of a lamp's light that its own depth map lets through.

    at_light: as `light_camera` made it; light_depth_hw: metres, what it sees first, inf where
    nothing. The four nearest px of that map are blended. What lies outside it is lit.
    """
    turn = (at_light.axes_33 @ camera.axes_33.T).astype(np.float32)
    shift = cameras.to_camera(at_light, camera.position_3).astype(np.float32)
    normal = np.moveaxis(hits.normal_hw3, -1, 0).astype(np.float32)
    point = _turned(turn, _points(hits, camera)) + shift[:, None, None]
    # Off the surface by its normal, else slanted surfaces shade themselves.
    off = np.maximum(point[2], 0.1) * np.float32(1 / at_light.focal) + np.float32(SHADOW_BIAS)
    point += _turned(turn, normal) * off
    side_x, side_y = at_light.size_wh
    middle = cameras.centre(at_light.size_wh).astype(np.float32)
    deep = np.maximum(point[2], np.float32(1e-3))
    x = point[0] * (np.float32(at_light.focal) / deep) + middle[0]
    y = point[1] * (np.float32(at_light.focal) / deep) + middle[1]
    inside = (point[2] > 0) & (x >= 0) & (y >= 0) & (x <= side_x - 1) & (y <= side_y - 1)
    x, y = np.clip(x, 0, side_x - 1.001), np.clip(y, 0, side_y - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    right, low = x - column, y - row
    at = row * np.int32(side_x) + column
    first = light_depth_hw.astype(np.float32).ravel()
    seen = [(np.take(first, at + step) >= deep).astype(np.float32)
            for step in (0, 1, side_x, side_x + 1)]  # fmt: skip
    above = seen[0] + (seen[1] - seen[0]) * right
    below = seen[2] + (seen[3] - seen[2]) * right
    return np.where(inside, above + (below - above) * low, np.float32(1))


def _painted(hits, solids, paints, pixel):
    """Return the paint (3, H, W) and its gloss (H, W)."""
    shape = hits.solid_hw.shape
    if not len(solids.kind_p):
        return np.zeros((3, *shape), np.float32), np.zeros(shape, np.float32)
    solid = np.maximum(hits.solid_hw.ravel(), 0).astype(np.intp)
    own = np.ascontiguousarray(hits.own_hw3.reshape(-1, 3).T, np.float32)
    paint = solids.paint_p.take(solid)
    inner = np.flatnonzero((solids.kind_p == ROOM).take(solid))
    if len(inner):
        face, side = _face(own[:, inner], solids.size_p3.take(solid[inner], 0))
        paint[inner] += np.where(face == 2, np.where(side, CEILING, FLOOR), 0)
    palette, pattern_q, pitch_q, turn_q, gloss_q = _tables(paints)
    rgb = palette[0].take(paint, 1)
    shape_of = np.array([0, 1, 2, 2])[solids.kind_p]  # CONE, BALL, flat faces
    code = (pattern_q * np.uint8(3)).take(paint) + shape_of.astype(np.uint8).take(solid)
    depth = np.where(hits.solid_hw < 0, 0, hits.depth_hw).ravel()
    facing = -hits.normal_hw3.reshape(-1, 3)[:, 2]
    cos_q, sin_q = np.cos(turn_q), np.sin(turn_q)
    for each in np.flatnonzero(np.bincount(code)):
        pattern, form = divmod(int(each), 3)
        if not pattern:
            continue  # plain
        at = np.flatnonzero(code == each)
        where = paint[at]
        x_dn = _coordinates(own.take(at, 1), form, solids.size_p3, solid[at])
        cos, sin, pitch = (numbers.take(where) for numbers in (cos_q, sin_q, pitch_q))
        x_dn[0], x_dn[1] = cos * x_dn[0] + sin * x_dn[1], cos * x_dn[1] - sin * x_dn[0]
        x_dn /= pitch
        width = depth.take(at) * pixel / np.maximum(facing.take(at), 0.25)
        second, third = patterns.weights(pattern, x_dn, width.astype(np.float32) / pitch)
        more = palette[1].take(where, 1) * second
        if third is not None:
            more += third * (palette[2].take(where, 1) - more)
        rgb[:, at] = palette[0].take(where, 1) + more
    gloss = gloss_q.take(paint)
    nothing = np.flatnonzero(hits.solid_hw.ravel() < 0)
    rgb[:, nothing], gloss[nothing] = 0, 0
    return rgb.reshape(3, *shape), gloss.reshape(shape)


def _tables(paints):
    """Return first colours and the ways to the others (3, RGB, Q), patterns, pitches, turns, gloss.

    Turns are in radians.
    """
    palette = np.empty((3, 3, len(paints)), np.float32)
    for q, paint in enumerate(paints):
        first = np.asarray(paint.colours[0], np.float32)
        palette[0, :, q] = first
        palette[1, :, q] = np.asarray(paint.colours[min(1, len(paint.colours) - 1)]) - first
        palette[2, :, q] = np.asarray(paint.colours[-1]) - first
    pattern = np.array([patterns.PATTERNS.index(paint.pattern) for paint in paints], np.uint8)
    numbers = np.array([(p.pitch, np.radians(p.turn), p.gloss) for p in paints], np.float32)
    return palette, pattern, *numbers.T


def _coordinates(own_3n, form, size_p3, solid_n):
    """Return pattern coordinates: (3, n) of round solids, (2, n) of flat faces, metres."""
    if form == CONE:
        return own_3n
    if form == BALL:
        return own_3n[::-1].copy()
    face, _ = _face(own_3n, size_p3.take(solid_n, 0))
    first = np.where(face == 2, own_3n[0], own_3n[2])
    second = np.where(face == 1, own_3n[0], own_3n[1])
    return np.stack([first, second])


def _face(own_3n, size_n3):
    """Return the axis (n,) that the face of a box at each point is across, and if it is above 0."""
    depth = np.abs(own_3n) / np.asarray(size_n3, np.float32).T
    level = (depth[2] >= depth[0]) & (depth[2] >= depth[1])
    face = np.where(level, 2, np.where(depth[1] > depth[0], 1, 0))
    return face, own_3n[2] > 0


def _points(hits, camera):
    """Return what each pixel sees (3, H, W) in the camera frame, metres; 0 where nothing."""
    width, height = camera.size_wh
    depth = np.where(hits.solid_hw < 0, 0, hits.depth_hw).astype(np.float32)
    middle = cameras.centre(camera.size_wh)
    point = np.empty((3, height, width), np.float32)
    point[0] = depth * ((np.arange(width) - middle[0]) / camera.focal).astype(np.float32)
    point[1] = depth * ((np.arange(height) - middle[1]) / camera.focal).astype(np.float32)[:, None]
    point[2] = depth
    return point


def _turned(turn_33, vectors_3hw):
    # No BLAS: its last bits may depend on the number of threads.
    return np.stack([_dot(row, vectors_3hw) for row in turn_33])


def _dot(a_3hw, b_3hw):
    return a_3hw[0] * b_3hw[0] + a_3hw[1] * b_3hw[1] + a_3hw[2] * b_3hw[2]
