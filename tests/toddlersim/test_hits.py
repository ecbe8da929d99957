"""Closed forms of ray hits against hand-computed numbers and against marching along the ray."""

import numpy as np
import pytest

from nkjax.toddlersim.hits import grown, hit_depths, outward
from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM

# Length, first and second radius: a capsule, both ways of tapering, almost a ball, a fingertip.
CONES = [(1, 0.2, 0.2), (1, 0.4, 0.1), (0.8, 0.05, 0.5), (0.31, 0.4, 0.1), (0.015, 0.005, 0.004)]


def columns(values):
    return np.asarray(values, float).reshape(-1, 3).T


def one(kind, origin, direction, size):
    return hit_depths(kind, columns(origin), columns(direction), columns(size))[0]


def random_rays(seed, reach, count=1500):
    """Rays from four reaches away, many of them towards the solid at the origin."""
    rng = np.random.default_rng(seed)
    origin = rng.normal(size=(3, count))
    origin *= 4 * reach / np.linalg.norm(origin, axis=0)
    aim = rng.uniform(-0.5, 0.5, (3, count)) * reach
    return origin, (aim - origin) * rng.uniform(0.1, 3, count)


def cone_distance(point, size):
    """Distance to the union of all balls between the ends: smallest over the axis by thirds."""
    length, first, second = size

    def to_ball(at):
        across = np.hypot(point[1], point[2])
        return np.hypot(point[0] - at, across) - (first + (second - first) * at / length)

    low, high = np.zeros(point.shape[1]), np.full(point.shape[1], float(length))
    for _ in range(70):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        nearer = to_ball(left) < to_ball(right)
        low, high = np.where(nearer, low, left), np.where(nearer, right, high)
    return to_ball((low + high) / 2)


def marched(origin, direction, distance, far, steps=120):
    """Sphere tracing: t after stepping by the distance to the surface; inf if it went past."""
    length = np.linalg.norm(direction, axis=0)
    t = np.zeros(origin.shape[1])
    for _ in range(steps):
        gap = distance(origin + t * direction)
        t = np.where(t * length > far, np.inf, t + gap / length)
        t = np.where(np.isfinite(t), t, 2 * far / length)
    gap = distance(origin + t * direction)
    return np.where(t * length > far, np.nan, t), gap


@pytest.mark.parametrize("size", CONES)
def test_round_cones_are_where_sphere_tracing_finds_them(size):
    reach = size[0] + max(size[1:])
    origin, direction = random_rays(0, reach)
    got = hit_depths(CONE, origin, direction, columns(size))
    want, gap = marched(origin, direction, lambda p: cone_distance(p, size), 9 * reach)
    arrived = np.abs(gap) < 1e-9 * reach
    assert (arrived & np.isfinite(got)).sum() > 150 and np.isnan(want).sum() > 50
    # Rays that graze the surface need more steps than there are: neither here nor there.
    grazing = ~arrived & np.isfinite(want)
    assert grazing.sum() < 30
    np.testing.assert_array_equal(np.isnan(got)[~grazing], np.isnan(want)[~grazing])
    metres = (got - want) * np.linalg.norm(direction, axis=0)
    assert np.abs(metres[arrived]).max() < 1e-5 * min(1, reach)


@pytest.mark.parametrize("size", CONES)
def test_normals_of_round_cones_are_the_gradient_of_the_distance(size):
    reach = size[0] + max(size[1:])
    origin, direction = random_rays(1, reach)
    t = hit_depths(CONE, origin, direction, columns(size))
    hit = (origin + t * direction)[:, np.isfinite(t)]
    got = outward(CONE, hit, direction[:, np.isfinite(t)], columns(size))
    step = 1e-5 * reach
    for axis in range(3):
        shift = np.zeros((3, 1))
        shift[axis] = step
        slope = cone_distance(hit + shift, size) - cone_distance(hit - shift, size)
        np.testing.assert_allclose(got[axis], slope / (2 * step), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 0.3, 0.1), (1, 0.1, 0.3), (1, 0.2, 0.2)])
@pytest.mark.parametrize("off", [0.0, 0.05])
def test_rays_along_the_axis_enter_at_the_ends(size, off):
    length, first, second = size
    ahead = one(CONE, (-5, off, 0), (1, 0, 0), size)
    back = one(CONE, (5, 0, off), (-1, 0, 0), size)
    # Beside the axis the ends are the balls' as long as the side is not met before: off is small.
    assert ahead == pytest.approx(5 - np.sqrt(first**2 - off**2), abs=1e-12)
    assert back == pytest.approx(5 - length - np.sqrt(second**2 - off**2), abs=1e-12)
    assert np.isnan(one(CONE, (-5, 0.31, 0), (1, 0, 0), size))


@pytest.mark.parametrize("still", [0.0, -0.0])
def test_rays_across_a_cone_meet_its_side(still):
    # sin = 0.2, so 0.5 m along the axis the side is (0.3 - 0.5 sin) / cos from it.
    radius = 0.2 / np.sqrt(0.96)
    assert one(CONE, (0.5, -2, 0), (still, 1, 0), (1, 0.3, 0.1)) == pytest.approx(2 - radius)
    assert one(CONE, (0.5, 0, 2), (still, 0, -4), (1, 0.3, 0.1)) == pytest.approx((2 - radius) / 4)
    radius = 0.2 / np.sqrt(0.96)
    assert one(CONE, (0.5, -2, 0), (still, 1, 0), (1, 0.1, 0.3)) == pytest.approx(2 - radius)


def test_a_line_into_the_tip_of_the_infinite_cone_is_not_lost():
    """Rounding there decides between two equal roots; 1 / 3 and 0.7 are not exact."""
    rng = np.random.default_rng(2)
    first, second = rng.uniform(0.2, 0.5, 500), rng.uniform(0.01, 0.19, 500)
    size = np.stack([rng.uniform(0.6, 2, 500), first, second])
    axis = np.stack([np.full(500, -0.7), np.zeros(500), np.zeros(500)])
    origin = np.stack([rng.uniform(4, 5, 500), np.zeros(500), np.zeros(500)])
    got = hit_depths(CONE, origin, axis, size)
    np.testing.assert_allclose(got * 0.7, origin[0] - size[0] - second, atol=1e-6)


@pytest.mark.parametrize("kind, size", [
    (CONE, (0.015, 0.002, 0.0015)), (BALL, (0.002, 0.003, 0.001)), (BOX, (0.002, 0.003, 0.001))
])  # fmt: skip
def test_small_solids_are_hit_as_well_from_far(kind, size):
    """The same rays from 6 cm and from 4 m away: as far apart as the starts are."""
    origin, direction = random_rays(6, 0.015)
    unit = direction / np.linalg.norm(direction, axis=0)
    near = hit_depths(kind, origin, unit, columns(size))
    far = hit_depths(kind, origin - 4 * unit, unit, columns(size))
    met = np.isfinite(near)
    assert met.sum() > 50 and (np.isfinite(far) == met).all()
    np.testing.assert_allclose(far[met] - 4, near[met], atol=1e-7)


def test_ellipsoids_are_met_where_their_equation_holds():
    half = np.array([[0.5], [0.2], [0.02]])
    origin, direction = random_rays(3, 0.5)

    def inside(t):
        return (((origin + t * direction) / half) ** 2).sum(0)

    t = hit_depths(BALL, origin, direction, half)
    met = np.isfinite(t)
    assert 300 < met.sum() < 1200
    np.testing.assert_allclose(inside(t)[met], 1, atol=1e-9)
    # Entering: it was outside just before, and comes inside after, unless it only grazes.
    assert (inside(t - 1e-6)[met] > 1).all() and (inside(t + 1e-7)[met] < 1).mean() > 0.99
    nearest = np.min([inside(s) for s in np.linspace(0, 60, 6001)], axis=0)
    assert (nearest[~met] > 1).all()
    hit = (origin + t * direction)[:, met]
    got = outward(BALL, hit, direction[:, met], half)
    gradient = hit / half**2
    np.testing.assert_allclose(got, gradient / np.linalg.norm(gradient, axis=0), atol=1e-9)


@pytest.mark.parametrize("origin, direction, depth, normal", [
    ((-4, 0.5, 0.1), (1, 0, 0), 3, (-1, 0, 0)),
    ((4, 0.5, 0.1), (-2, 0, 0), 1.5, (1, 0, 0)),
    ((0.5, 5, 0), (0, -1, 0.05), 3, (0, 1, 0)),
    ((-3, 0, 1.3), (2, 0, -1), 1, (-1, 0, 0)),  # at (-1, 0, 0.3), on the edge of the top
    ((-3, 0, 1.4), (2, 0, -1), 1.1, (0, 0, 1)),  # over the edge: at (-0.8, 0, 0.3)
    ((-3, 0, 2.4), (2, 0, -1), np.nan, None),  # passes above the far edge
    ((-4, 2.1, 0), (1, 0, 0), np.nan, None),
])  # fmt: skip
def test_boxes_are_met_where_worked_out_by_hand(origin, direction, depth, normal):
    size = (1, 2, 0.3)
    got = one(BOX, origin, direction, size)
    np.testing.assert_allclose(got, depth, atol=1e-12)
    if normal:
        hit = columns(np.array(origin) + got * np.array(direction))
        found = outward(BOX, hit, columns(direction), columns(size))[:, 0]
        on_edge = origin == (-3, 0, 1.3)
        assert found.tolist() == list(normal) or (on_edge and found.tolist() == [0, 0, 1])


@pytest.mark.parametrize("direction, depth, normal", [
    ((1, 0.2, 0), 3, (-1, 0, 0)), ((-1, 0.2, 0), 3, (1, 0, 0)), ((0.5, 1, 0), 1, (0, -1, 0)),
    ((0.1, 0.2, -1), 2.3, (0, 0, 1)), ((0.1, 0.2, 2), 0.15, (0, 0, -1)),
])  # fmt: skip
def test_rooms_are_left_where_worked_out_by_hand(direction, depth, normal):
    """From (0, 1, 1) in a room of half sides 3, 2 and 1.3."""
    got = one(ROOM, (0, 1, 1), direction, (3, 2, 1.3))
    assert got == pytest.approx(depth)
    hit = columns(np.array((0, 1, 1)) + got * np.array(direction))
    found = outward(ROOM, hit, columns(direction), columns((3, 2, 1.3)))[:, 0]
    assert found.tolist() == list(normal)


@pytest.mark.parametrize("kind, size", [(BALL, (1, 2, 3)), (CONE, (3, 1, 1)), (BOX, (1, 2, 3))])
def test_solids_behind_are_entered_before_the_start(kind, size):
    assert one(kind, (9, 0, 0), (1, 0, 0), size) < -5
    assert one(kind, (0.1, 0, 0), (1, 0, 0), size) == pytest.approx(-1.1)


@pytest.mark.parametrize("kind, size", [
    (CONE, (1, 0.4, 0.1)), (BALL, (0.5, 0.2, 0.02)), (BOX, (0.5, 0.2, 0.02)), (ROOM, (1, 2, 3))
])  # fmt: skip
def test_a_grown_solid_holds_what_is_within_the_margin(kind, size):
    """A line that meets the solid, shifted by the margin, meets the grown one."""
    origin, direction = random_rays(4, 1.0, 4000)
    met = np.isfinite(hit_depths(kind, origin, direction, columns(size)))
    shift = np.random.default_rng(5).normal(size=(3, 4000))
    shift *= 0.1 / np.linalg.norm(shift, axis=0)
    size = [np.asarray(half)[None] for half in grown(kind, columns(size)[:, 0], 0.1)]
    kept = np.isfinite(hit_depths(kind, origin + shift, direction, size))
    assert met.sum() > 100 and kept[met].all()
