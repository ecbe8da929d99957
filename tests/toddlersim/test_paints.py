"""Paints stick to their solids, repeat as they say, and light falls where it should."""

import numpy as np
import pytest

from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, solids
from nkjax.toddlersim.casting import Hits
from nkjax.toddlersim.looks import paints, patterns
from nkjax.toddlersim.looks.paints import Light, Paint
from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM

RED, GREEN, BLUE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.2), (0.0, 0.2, 1.0)
THREE = (RED, GREEN, BLUE)
WHITE_LAMP = Light(np.array([0.0, 0.0, 2.0]), (1.0, 1.0, 1.0), ((0.3,) * 3, (0.1,) * 3))


def hits_at(own_n3, solid=0, depth=1.0):
    """Make a picture of one row that sees points of solids face on."""
    own = np.asarray(own_n3, float)[None]
    shape = own.shape[:2]
    normal = np.broadcast_to([0.0, 0.0, -1.0], (*shape, 3))
    return Hits(np.full(shape, depth), np.broadcast_to(solid, shape).astype(np.int32), normal, own)


def one(kind, size=(1.0, 1.0, 1.0), paint=0):
    return solids.make(kind, np.zeros(3), np.eye(3), size, paint=paint)


def along(axis, length, count, start=0.0013):
    """Return points on an axis, within the middle of every other direction's repeat."""
    points = np.full((count, 3), 0.0211)
    points[:, axis] = start + np.arange(count) / count * length
    return points


@pytest.mark.parametrize("pattern", patterns.PATTERNS)
def test_a_paint_follows_its_solid(pattern):
    rng = np.random.default_rng(0)
    still = solids.join(one(CONE, (1.0, 0.4, 0.3)), one(BALL), one(BOX), one(BALL, paint=1))
    hits = hits_at(rng.uniform(-1, 1, (400, 3)), np.arange(400) % 4)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    elsewhere = solids.moved(still, turn, (3.0, -2.0, 1.0))
    painted = [Paint(pattern, THREE, 0.1, 20.0), Paint(pattern, (BLUE, RED), 0.2)]
    before, after = (paints.colours(hits, s, painted) for s in (still, elsewhere))
    assert before.dtype == np.float32 and before.tobytes() == after.tobytes()
    assert before.min() >= 0 and before.max() <= 1
    if pattern != "plain":
        assert len(np.unique(before[0, :, 0])) > 1


@pytest.mark.parametrize(
    "solid, axis", [(one(CONE), 0), (one(BALL), 2), (one(BOX, (1.2, 1.2, 1.2)), 2)]
)
@pytest.mark.parametrize(
    "turn, pitch, crossings", [(0.0, 0.1, 20), (0.0, 0.25, 8), (90.0, 0.1, 0), (60.0, 0.1, 10)]
)
def test_stripes_have_their_pitch_along_the_solid(solid, axis, turn, pitch, crossings):
    points = along(axis, 1.0, 4000)
    points[:, 0 if axis else 1] = 1.2 if solid.kind_p[0] == BOX else 0.0211
    rgb = paints.colours(hits_at(points), solid, [Paint("stripes", THREE, pitch, turn)])
    assert (np.diff(rgb[0, :, 0] > 0.5).sum()) == crossings
    pure = [np.abs(rgb[0] - np.float32(c)).max(-1) < 1e-5 for c in (RED, GREEN)]
    assert (pure[0] | pure[1]).mean() > 0.97


@pytest.mark.parametrize("pattern, axes", [("checks", 3), ("dots", 3), ("stripes", 1)])
def test_patterns_repeat_with_their_pitch_and_with_nothing_less(pattern, axes):
    points = np.random.default_rng(1).uniform(0, 0.5, (500, 3))
    paint = [Paint(pattern, (RED, GREEN), 0.25)]
    first = paints.colours(hits_at(points), one(CONE), paint)
    for axis in range(axes):
        step = np.eye(3)[axis] * 0.25
        again = paints.colours(hits_at(points + step), one(CONE), paint)
        half = paints.colours(hits_at(points + step / 2), one(CONE), paint)
        same = np.abs(first - again).max(-1) < 1e-3
        assert same.mean() > 0.99 and np.abs(first - half).mean() > 0.05


def test_noise_is_one_number_in_each_cell_smooth_between_and_even():
    cells = np.indices((40, 40, 3)).reshape(3, -1).astype(np.float32) - 20
    values = patterns.noise(cells)
    np.testing.assert_array_equal(values, patterns.cell_noise(cells))
    counts, _ = np.histogram(values, 10, (0, 1))
    assert abs(values.mean() - 0.5) < 0.02 and counts.min() > 0.07 * len(values)
    grid = values.reshape(40, 40, 3)
    for axis in (0, 1):
        near = np.corrcoef(np.delete(grid, 0, axis).ravel(), np.delete(grid, -1, axis).ravel())
        assert abs(near[0, 1]) < 0.06
    line = patterns.noise(np.stack([np.linspace(-3, 3, 6001, dtype=np.float32)] * 3))
    assert np.abs(np.diff(line)).max() < 0.006


@pytest.mark.parametrize("pattern", ("stripes", "checks", "dots", "speckle", "print"))
def test_what_is_smaller_than_a_pixel_melts_into_its_mean(pattern):
    points = np.random.default_rng(2).uniform(0, 1, (3000, 3))
    paint = [Paint(pattern, ((0.0,) * 3, (1.0,) * 3), 0.05)]
    sharp = paints.colours(hits_at(points), one(BALL), paint)
    far = paints.colours(hits_at(points), one(BALL), paint, pixel=0.1)
    assert np.ptp(far) < 0.12 and np.ptp(sharp) > 0.6
    assert abs(far.mean() - sharp.mean()) < 0.04


def test_a_room_has_paints_for_walls_floor_and_ceiling():
    half = (2.0, 3.0, 1.2)
    own = [(2, 0, 0.3), (-2, 1, -1), (1, 3, 0), (0, -3, 1), (1.9, 2.9, -1.2), (0, 0, 1.2)]
    plain = [Paint("plain", (c,)) for c in (BLUE, RED, GREEN, BLUE)]
    rgb = paints.colours(hits_at(own), one(ROOM, half, paint=1), plain)
    np.testing.assert_allclose(rgb[0], [RED] * 4 + [GREEN, BLUE], atol=1e-6)


def test_light_by_hand():
    camera = cameras.look_at((0.0, -1.0, 0.0), (0.0, 0.0, 0.0), 1.0, (1, 1))
    # A level surface a metre ahead, seen from its upper side, 4 m below the lamp.
    hits = Hits(np.ones((1, 1)), np.zeros((1, 1), np.int32), np.array([[[0.0, -1.0, 0.0]]]),
                np.zeros((1, 1, 3)))  # fmt: skip
    light = Light(np.array([0.0, 0.0, 4.0]), (0.8, 0.6, 0.4), ((0.3, 0.3, 0.5), (0.1,) * 3))
    matt, glossy = (Paint("plain", ((0.5, 0.5, 0.5),), gloss=g) for g in (0.0, 1.0))
    got = paints.shade(hits, one(BALL), [matt], camera, light, 1.0)
    # Paint 0.5^2; sky 0.3 (0.5) from above; half the lamp, as it is FALL_OFF away.
    np.testing.assert_allclose(got[0, 0] ** 2, 0.25 * np.array([0.7, 0.6, 0.7]), rtol=1e-5)
    dark = paints.shade(hits, one(BALL), [matt], camera, light, 0.0)
    np.testing.assert_allclose(dark[0, 0] ** 2, 0.25 * np.array([0.3, 0.3, 0.5]), rtol=1e-5)
    # The way half between lamp and eye is 45 degrees off the normal: cos^32 of that.
    shiny = paints.shade(hits, one(BALL), [glossy], camera, light, 1.0)
    more = np.array([0.8, 0.6, 0.4]) * 0.5 * 2.0**-16
    np.testing.assert_allclose(shiny[0, 0] ** 2 - got[0, 0] ** 2, more, atol=1e-6)
    below = paints.shade(hits._replace(normal_hw3=-hits.normal_hw3), one(BALL), [glossy], camera,
                         light, 1.0)  # fmt: skip
    np.testing.assert_allclose(below[0, 0] ** 2, 0.25 * np.full(3, 0.1), rtol=1e-5)


def test_a_mirror_shines_where_it_looks_half_way_between_lamp_and_eye():
    camera = cameras.look_at((0.0, -2.0, 1.0), (0.0, 0.0, 0.0), 60.0, (41, 41))
    floor = solids.make(BOX, (0.0, 0.0, -0.1), np.eye(3), (9.0, 9.0, 0.1))
    # As high as the eye and as far beyond: the middle of the picture is half way.
    light = Light(np.array([0.0, 2.0, 1.0]), (0.5,) * 3, ((0.1,) * 3,) * 2)
    hits = casting.cast(camera, floor)
    black = [Paint("plain", ((0.0,) * 3,), gloss=1.0)]
    glossy = paints.shade(hits, floor, black, camera, light, 1.0)
    row, column = np.unravel_index(glossy[..., 0].argmax(), (41, 41))
    assert column == 20 and abs(row - 20) <= 2  # nearer the lamp there is more light
    assert glossy[20, 20, 0] > 0.5 and glossy[20, 0, 0] < 0.05 and glossy[0, 20, 0] < 0.4


def test_where_nothing_is_there_is_sky():
    camera = cameras.look_at((0.0, -1.0, 0.0), (0.0, 0.0, 0.0), 5.0, (4, 3))
    nothing = casting.cast(camera, solids.none())
    rgb = paints.shade(nothing, solids.none(), (), camera, WHITE_LAMP, 1.0)
    np.testing.assert_allclose(rgb**2, 0.3, rtol=1e-5)
    ball = solids.make(BALL, (0.0, 0.0, 0.0), np.eye(3), 0.05)
    hits = casting.cast(camera, ball)
    striped = [Paint("stripes", THREE)]
    with np.errstate(invalid="raise", divide="raise"):
        shadow = paints.shadow_of(hits, ball, camera, WHITE_LAMP)
        rgb = paints.shade(hits, ball, striped, camera, WHITE_LAMP, shadow)
        assert (paints.colours(hits, ball, striped)[hits.solid_hw < 0] == 0).all()
    np.testing.assert_allclose(rgb[hits.solid_hw < 0] ** 2, 0.3, rtol=1e-5)


def test_shadow_blends_the_four_nearest_pixels_of_the_map():
    # The eye is at the lamp; its map has two px across where the picture has nine.
    wall = solids.make(BOX, (0.0, 2.0, 0.0), np.eye(3), (5.0, 1e-3, 5.0))
    eye = cameras.look_at((0.0, 0.0, 0.0), (0.0, 1.0, 0.0), 800.0, (9, 9))
    lamp = eye._replace(focal=100.0, size_wh=(2, 2))
    u, v = np.meshgrid(np.arange(9) / 8, np.arange(9) / 8)
    hits = casting.cast(eye, wall)
    corners = ((1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v)
    for at, share in enumerate(corners):
        depth = np.full(4, 1.0)
        depth[at] = np.inf
        got = paints.arrives(hits, eye, lamp, depth.reshape(2, 2))
        inner = (slice(1, -1),) * 2  # the rim lies on the edge of the map
        np.testing.assert_allclose(got[inner], share[inner], atol=0.02)


@pytest.mark.parametrize("size_wh", [(128, 96), (320, 240)])
def test_a_ball_darkens_the_floor_behind_it_and_nothing_beside(size_wh):
    lamp, middle, radius = np.array([0.9, 0.4, 2.3]), np.array([0.0, 0.0, 0.6]), 0.25
    room = solids.make(ROOM, (0.0, 0.0, 1.3), np.eye(3), (3.0, 3.0, 1.3))
    world = solids.join(room, solids.make(BALL, middle, np.eye(3), radius))
    camera = cameras.look_at((-1.5, -2.0, 1.4), (-0.2, 0.0, 0.1), size_wh[0] * 0.8, size_wh)
    light = WHITE_LAMP._replace(position_3=lamp)
    hits = casting.cast(camera, world)
    shadow = paints.shadow_of(hits, world, camera, light)
    grid = np.stack(np.meshgrid(np.arange(size_wh[0]), np.arange(size_wh[1])), -1)
    point = camera.position_3 + hits.depth_hw[..., None] * cameras.rays(camera, grid)
    floor = (hits.solid_hw == 0) & (point[..., 2] < 1e-6)
    way = point - lamp
    miss = np.linalg.norm(np.cross(way, middle - lamp), axis=-1) / np.linalg.norm(way, axis=-1)
    inside, outside = floor & (miss < radius - 0.03), floor & (miss > radius + 0.03)
    assert inside.sum() > 100 and outside.sum() > 1000
    assert (shadow[inside] == 0).all() and (shadow[outside] == 1).all()
    # The ball itself: lit where it faces the lamp, without stains.
    normal = hits.normal_hw3 @ camera.axes_33
    facing = (normal * -way).sum(-1) / np.linalg.norm(way, axis=-1)
    assert (shadow[(hits.solid_hw == 1) & (facing > 0.3)] == 1).all()
