"""Cast rays at solids: what each pixel sees, and which joints are seen.

A picture is cut into blocks, those into tiles, those into pixels. What a tile can see is found with
one ray through its middle, at solids grown by how wide its beam can be: a few solids are left for
each, and only those meet the rays of its pixels.
"""

from typing import NamedTuple

import numpy as np

from nkjax.toddlersim.camera import Camera, centre, project
from nkjax.toddlersim.hits import grown, hit_depths, outward
from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM, Solids

BLOCK, TILE = 32, 8  # px
CHUNK = 512  # pairs of a solid and a tile whose rays are cast at once: what a cache holds
PIXELS = 16384  # as many surfaces at once
NEAR = 1e-6  # nothing is seen nearer, metres
SAME = 1e-9  # no difference, metres: two limbs share the ball of their joint, up to rounding


class Hits(NamedTuple):
    """What the ray through each pixel centre meets first.

    depth_hw: metres along the optical axis, float64, inf where nothing is. solid_hw: index, int32,
    -1 where nothing is. normal_hw3: unit, camera frame (x right, y down, z forward), towards the
    camera, 0 where nothing is. own_hw3: the hit in the solid's own frame, metres.
    """

    depth_hw: np.ndarray
    solid_hw: np.ndarray
    normal_hw3: np.ndarray
    own_hw3: np.ndarray


class _Views(NamedTuple):
    """P solids as one camera has them, each in its own frame, components first.

    turn_33p: own axes by camera axes, so that own = origin + turn @ camera frame. far_p: depth of
    the furthest point, metres.
    """

    kind_p: np.ndarray
    origin_3p: np.ndarray
    turn_33p: np.ndarray
    size_3p: np.ndarray
    far_p: np.ndarray


def cast(camera: Camera, solids: Solids) -> Hits:
    """Cast a ray through each pixel; of solids equally near, the first counts. See Hits."""
    views = _views(camera, solids)
    depth_hw, solid_hw = _nearest(camera, views)
    return Hits(depth_hw, solid_hw, *_surfaces(camera, views, depth_hw, solid_hw))


def depth_only(camera: Camera, solids: Solids) -> np.ndarray:
    """Return depth_hw as `cast` does, without the surfaces: the shadow map of a light."""
    return _nearest(camera, _views(camera, solids))[0]


def first_hits(origin_3, points_n3, solids: Solids) -> tuple[np.ndarray, np.ndarray]:
    """Return what is met first from a place towards points (n, 3), metres, world.

    The fraction (n,) of the way to the point, which lies at 1, inf if nothing is met; and the index
    (n,) of the solid, -1 for none.
    """
    away_3n = (np.asarray(points_n3, float) - origin_3).T
    count = len(solids.kind_p)
    fraction_pn = np.full((count + 1, away_3n.shape[1]), np.inf)
    origin_3p = _turned(solids.frame_p33, origin_3 - solids.centre_p3)
    for kind, p in _by_kind(solids, np.arange(count)):
        frame = np.moveaxis(solids.frame_p33[p], 0, -1)[..., None]
        direction = [x * away_3n[0] + y * away_3n[1] + z * away_3n[2] for x, y, z in frame]
        t = hit_depths(kind, origin_3p[:, p, None], direction, solids.size_p3.T[:, p, None])
        fraction_pn[p] = np.where(t > NEAR, t, np.inf)
    solid_n = fraction_pn.argmin(0)
    fraction_n = fraction_pn[solid_n, np.arange(len(solid_n))]
    return fraction_n, np.where(np.isfinite(fraction_n), solid_n, -1)


def visible_joints(camera: Camera, solids: Solids, joints_k3, flesh_k, person) -> np.ndarray:
    """Return bool (k,): is the first surface towards a joint that of its own flesh, or none?

    joints_k3: metres, world. flesh_k: how much of `person` may lie before the joint, metres along
    the ray. Whatever else is nearer than the joint hides it; the picture's edges do not.
    """
    fraction_k, solid_k = first_hits(camera.position_3, joints_k3, solids)
    way_k = np.linalg.norm(np.asarray(joints_k3, float) - camera.position_3, axis=-1)
    before_k = fraction_k < 1
    depth_k = np.where(before_k, (1 - np.minimum(fraction_k, 1)) * way_k, 0)
    own_k = np.append(solids.person_p, -1)[solid_k] == person
    return ~before_k | (own_k & (depth_k <= np.asarray(flesh_k) + SAME))


def keypoints(camera: Camera, solids: Solids, joints_k3, flesh_k, person) -> np.ndarray:
    """Return (k, 3): px x, y and v = 2 seen, 1 hidden, 0 outside the picture, then x = y = 0.

    The picture spans the centres of its pixels. joints_k3, flesh_k, person: see visible_joints.
    """
    px_k2, _ = project(camera, joints_k3)
    last = np.asarray(camera.size_wh) - 1
    inside_k = ((px_k2 >= 0) & (px_k2 <= last)).all(-1)  # not NaN, as they are behind the camera
    v_k = 1 + visible_joints(camera, solids, joints_k3, flesh_k, person)
    labelled_k3 = np.concatenate([px_k2, v_k[:, None]], -1)
    return np.where(inside_k[:, None], labelled_k3, 0.0)


def _views(camera: Camera, solids: Solids) -> _Views:
    turn_p33 = (solids.frame_p33[:, :, None] * camera.axes_33).sum(-1)
    origin_3p = _turned(solids.frame_p33, camera.position_3 - solids.centre_p3)
    forward_p3, size_p3 = turn_p33[:, :, 2], solids.size_p3
    depth_p = ((solids.centre_p3 - camera.position_3) * camera.axes_33[2]).sum(-1)
    extent_p = np.abs(forward_p3 * size_p3).sum(-1)
    ball_p = np.sqrt(((forward_p3 * size_p3) ** 2).sum(-1))
    cone_p = np.maximum(size_p3[:, 1], forward_p3[:, 0] * size_p3[:, 0] + size_p3[:, 2])
    kind_p = solids.kind_p
    far_p = depth_p + np.select([kind_p == CONE, kind_p == BALL], [cone_p, ball_p], extent_p)
    turn_33p = np.ascontiguousarray(np.moveaxis(turn_p33, 0, -1))
    return _Views(kind_p, origin_3p, turn_33p, np.ascontiguousarray(size_p3.T), far_p)


def _turned(frame_p33, vectors_p3):
    """Return vectors of the world along each solid's own axes (3, p)."""
    return np.ascontiguousarray((frame_p33 * vectors_p3[:, None]).sum(-1).T)


def _slopes(camera: Camera):
    """Return x per metre of depth for each column, and y for each row."""
    width, height = camera.size_wh
    middle = centre(camera.size_wh)
    return ((np.arange(width) - middle[0]) / camera.focal,
            (np.arange(height) - middle[1]) / camera.focal)  # fmt: skip


def _direction(turn, x, y):
    """Return camera rays (x, y, 1) along own axes, as three arrays; turn: (3, 3, ...)."""
    return [row[0] * x + row[1] * y + row[2] for row in turn]


def _nearest(camera: Camera, views: _Views):
    """Return depth and solid (h, w) of the first hits."""
    width, height = camera.size_wh
    across, down = -(-width // TILE), -(-height // TILE)
    depth = np.full((down * across, TILE * TILE), np.inf)
    solid = np.full((down * across, TILE * TILE), -1, np.int32)
    solid_n, x_n, y_n = _tiles_that_see(camera, views)
    tile_n = (y_n // TILE) * across + x_n // TILE
    order = np.argsort(tile_n, kind="stable")
    solid_n, x_n, y_n, tile_n = (values[order] for values in (solid_n, x_n, y_n, tile_n))
    ends = np.append(np.flatnonzero(np.diff(tile_n, prepend=-1)), len(tile_n))
    # A tile is never cut in two: all of its solids meet in one chunk.
    cuts = ends[np.searchsorted(ends, np.arange(0, len(tile_n), CHUNK))]
    cuts = np.unique(np.append(cuts, len(tile_n)))
    for start, end in zip(cuts[:-1], cuts[1:], strict=True):
        part = slice(start, end)
        t = _tile_depths(camera, views, solid_n[part], x_n[part], y_n[part])
        tiles, depths, solids = _first_in_tiles(t, solid_n[part], tile_n[part])
        depth[tiles], solid[tiles] = depths, solids
    shape = (down, across, TILE, TILE)
    return tuple(
        tiles.reshape(shape).swapaxes(1, 2).reshape(down * TILE, across * TILE)[:height, :width]
        for tiles in (depth, solid)
    )


def _tile_depths(camera, views, solid_n, x_n, y_n):
    """Return t (n, pixels of a tile) of one solid each, for tiles with upper left px x, y."""
    middle = centre(camera.size_wh)
    y, x = np.divmod(np.arange(TILE * TILE), TILE)
    x = (x + (x_n - middle[0])[:, None]) / camera.focal
    y = (y + (y_n - middle[1])[:, None]) / camera.focal
    t = np.empty(x.shape)
    for kind, rows in _by_kind(views, solid_n):
        origin, turn, size = (own[..., None] for own in _chosen(views, solid_n[rows]))
        t[rows] = hit_depths(kind, origin, _direction(turn, x[rows], y[rows]), size)
    return np.where(t > NEAR, t, np.inf)


def _first_in_tiles(t, solid_n, tile_n):
    """Return the tiles there are, and depth and solid of each of their pixels.

    t: (n, pixels of a tile), pairs sorted by tile_n, then by solid_n.
    """
    starts_n = np.diff(tile_n, prepend=-1) > 0
    starts = np.flatnonzero(starts_n)
    depth = np.minimum.reduceat(t, starts, axis=0)
    nearest = t <= depth[np.cumsum(starts_n) - 1] + SAME
    nobody = np.iinfo(np.int32).max
    solid = np.where(nearest, solid_n[:, None].astype(np.int32), nobody)
    solid = np.minimum.reduceat(solid, starts, axis=0)
    return tile_n[starts], depth, np.where(np.isfinite(depth), solid, -1)


def _tiles_that_see(camera: Camera, views: _Views):
    """Return pairs (n,) of a solid and the upper left px x, y of a tile that may see it."""
    width, height = camera.size_wh
    middle = centre(camera.size_wh)
    y, x, solid = np.meshgrid(
        np.arange(0, height, BLOCK), np.arange(0, width, BLOCK), np.flatnonzero(views.far_p > 0),
        indexing="ij",
    )  # fmt: skip
    solid, x, y = solid.ravel(), x.ravel(), y.ravel()
    for side, parts in ((BLOCK, BLOCK // TILE), (TILE, 1)):
        # Rays part with depth; no further than to a corner at the solid's far end.
        margin = views.far_p[solid] * ((side - 1) / np.sqrt(2) / camera.focal)
        kept = np.zeros(len(solid), bool)
        for kind, rows in _by_kind(views, solid):
            origin, turn, size = _chosen(views, solid[rows])
            direction = _direction(
                turn,
                (x[rows] + (side - 1) / 2 - middle[0]) / camera.focal,
                (y[rows] + (side - 1) / 2 - middle[1]) / camera.focal,
            )
            size = grown(kind, size, margin[rows])
            kept[rows] = ~np.isnan(hit_depths(kind, origin, direction, size))
        solid, x, y = solid[kept], x[kept], y[kept]
        step = np.arange(parts) * TILE
        solid = np.repeat(solid, parts * parts)
        x = (x[:, None, None] + step).repeat(parts, 1).ravel()
        y = (y[:, None, None] + step[:, None]).repeat(parts, 2).ravel()
    seen = (x < width) & (y < height)
    return solid[seen], x[seen], y[seen]


def _by_kind(solids, solid_n):
    """Yield each kind there is, and which of the chosen solids (n,) are of it."""
    kind_n = solids.kind_p[solid_n]
    for kind in (CONE, BALL, BOX, ROOM):
        rows = np.flatnonzero(kind_n == kind)
        if len(rows):
            yield kind, rows


def _chosen(views, solid_n):
    """Return origin, turn and size of the solids (n,), components first."""
    return tuple(own.take(solid_n, -1) for own in (views.origin_3p, views.turn_33p, views.size_3p))


def _surfaces(camera, views, depth_hw, solid_hw):
    """Return normals, camera frame, and own hits (h, w, 3); 0 where nothing is."""
    depth_n, solid_n = depth_hw.ravel(), solid_hw.ravel()
    normal_n3, own_n3 = np.zeros((len(depth_n), 3)), np.zeros((len(depth_n), 3))
    right, down = _slopes(camera)
    seen_n = np.flatnonzero(solid_n >= 0)
    for start in range(0, len(seen_n), PIXELS):
        some = seen_n[start : start + PIXELS]
        for kind, rows in _by_kind(views, solid_n[some]):
            n = some[rows]
            origin, turn, size = _chosen(views, solid_n[n])
            row, column = np.divmod(n, len(right))
            direction = _direction(turn, right[column], down[row])
            own = [o + depth_n[n] * d for o, d in zip(origin, direction, strict=True)]
            out = outward(kind, own, direction, size)
            for i in range(3):
                own_n3[n, i] = own[i]
                normal_n3[n, i] = turn[0, i] * out[0] + turn[1, i] * out[1] + turn[2, i] * out[2]
    return normal_n3.reshape(*depth_hw.shape, 3), own_n3.reshape(*depth_hw.shape, 3)
