"""Where a ray enters a solid, and which way the surface looks there: closed forms.

Vectors come as three arrays, of components along the solid's own axes (solids.py), that broadcast
with each other: numpy is fastest on whole arrays of one component. A ray is origin + t * direction
with a direction of any length, and t is in its units. Only + - * / and sqrt are used, which are
rounded the same everywhere, so results do not depend on how the work is cut up.
"""

import numpy as np

from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM


def hit_depths(kind, origin, direction, size) -> np.ndarray:
    """Return t (...) where lines enter solids of one kind: NaN if never, below 0 if behind.

    origin, size: metres; direction: metres per unit of t. ROOM gives where lines leave the box. A
    line that runs exactly within the plane of a face of a box passes it.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return HIT_DEPTHS[kind](origin, direction, size)


def outward(kind, own, direction, size) -> np.ndarray:
    """Return unit normals (3, ...), own axes, at hits `own` of rays: outwards, of ROOM inwards."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return OUTWARD[kind](own, direction, size)


def grown(kind, size, margin) -> tuple:
    """Return the size of solids of one kind that hold everything within margin (metres) of these.

    The distance to an ellipsoid has no closed form; scaling it until its thinnest axis has grown by
    the margin is enough.
    """
    if kind == CONE:
        return size[0], size[1] + margin, size[2] + margin
    if kind == BALL:
        scale = 1 + margin / np.minimum(np.minimum(size[0], size[1]), size[2])
        return tuple(half * scale for half in size)
    return tuple(half + margin for half in size)


def _cone(origin, direction, size):
    # With sin = (first - second radius) / length, the side is where, `rise` metres along the axis
    # from the circle in which it touches the first ball, ball and side are equally far:
    #   cos^2 (|p|^2 - radius^2) = rise^2   for   0 <= rise <= length cos^2.
    # The line's parameter starts where it passes the first ball's centre most closely: numbers stay
    # small, and a finger of 4 mm can be told apart at 4 m.
    ox, (length, first, second) = origin[0], size
    dx = direction[0]
    sin = (first - second) / length
    cos2 = 1 - sin * sin
    dd, od, oo = _dot(direction, direction), _dot(origin, direction), _dot(origin, origin)
    first_c = oo - first * first
    closest = -od / dd
    excess = first_c + closest * od
    rise = closest * dx + (ox - first * sin)
    a = cos2 * dd - dx * dx
    minus_b = dx * rise
    inner = dd * (rise * rise) - a * excess
    # A line steeper than the side always meets it, be it in the tip: rounding must not deny it.
    inner = np.where(a <= 0, np.maximum(inner, 0), inner)
    root = np.sqrt(cos2 * inner)
    # Of both roots only the one where the line goes inwards, without cancelling.
    q = minus_b + np.copysign(root, minus_b)
    side = np.where(q < 0, q / a, (cos2 * excess - rise * rise) / q)
    rise = rise + side * dx
    # A line that comes along the axis from within the widening cone enters through the wide ball.
    along = (a <= 0) & (dx * sin >= 0)
    at_second = np.where(along, dx < 0, rise > length * cos2)
    on_side = (rise >= 0) & ~at_second & ~along
    od = np.where(at_second, od - length * dx, od)
    c = np.where(at_second, oo - (2 * ox - length) * length - second * second, first_c)
    ball = -(od + np.sqrt(od * od - dd * c)) / dd
    return np.where(on_side, closest + side, ball)


def _ball(origin, direction, size):
    origin = [o / half for o, half in zip(origin, size, strict=True)]
    direction = [d / half for d, half in zip(direction, size, strict=True)]
    dd, od = _dot(direction, direction), _dot(origin, direction)
    return -(od + np.sqrt(od * od - dd * (_dot(origin, origin) - 1))) / dd


def _slabs(origin, direction, size):
    """Return per axis where lines enter and leave the slab between two faces of a box."""
    for o, d, half in zip(origin, direction, size, strict=True):
        inverse = 1 / d
        one, other = (-half - o) * inverse, (half - o) * inverse
        yield np.minimum(one, other), np.maximum(one, other)


def _inside(origin, direction, size):
    (x, x_end), (y, y_end), (z, z_end) = _slabs(origin, direction, size)
    start = np.maximum(np.maximum(x, y), z)
    end = np.minimum(np.minimum(x_end, y_end), z_end)
    return start, end


def _box(origin, direction, size):
    start, end = _inside(origin, direction, size)
    return np.where(start <= end, start, np.nan)


def _room(origin, direction, size):
    start, end = _inside(origin, direction, size)
    return np.where(start <= end, end, np.nan)


def _cone_outward(own, direction, size):
    length, first, second = size
    sin = (first - second) / length
    share = (own[0] - first * sin) / (1 - sin * sin)
    return _unit(own[0] - np.clip(share, 0, length), own[1], own[2])


def _ball_outward(own, direction, size):
    return _unit(*(o / (half * half) for o, half in zip(own, size, strict=True)))


def _box_outward(own, direction, size):
    # The ray has just passed the face that it entered last: the others lie further behind it.
    faces = zip(own, direction, size, strict=True)
    return _facing([-(half + o * np.sign(d)) / np.abs(d) for o, d, half in faces], direction)


def _room_outward(own, direction, size):
    # It is about to pass the face that it leaves first.
    faces = zip(own, direction, size, strict=True)
    return _facing([(o * np.sign(d) - half) / np.abs(d) for o, d, half in faces], direction)


def _facing(order, direction):
    """Return the normal, against the ray, of the axis whose order (three arrays) is largest."""
    x, y, z = order
    is_x = (x >= y) & (x >= z)
    is_y = ~is_x & (y >= z)
    chosen = np.stack([is_x, is_y, ~is_x & ~is_y])
    return np.where(chosen, -np.sign(np.stack(direction)), 0.0)


def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(x, y, z):
    inverse = 1 / np.sqrt(x * x + y * y + z * z)
    return np.stack([x * inverse, y * inverse, z * inverse])


HIT_DEPTHS = {CONE: _cone, BALL: _ball, BOX: _box, ROOM: _room}
OUTWARD = {CONE: _cone_outward, BALL: _ball_outward, BOX: _box_outward, ROOM: _room_outward}
