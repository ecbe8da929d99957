"""Rooms stand on their floors, leave the middle free and look different for test people."""

import colorsys

import numpy as np
import pytest

from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, solids
from nkjax.toddlersim.looks import furniture, paints, rooms
from nkjax.toddlersim.looks.rooms import Piece
from nkjax.toddlersim.solids import BALL, BOX, CONE, ROOM

KINDS = [(kind, held) for kind in ("adult", "toddler", "atypical") for held in (False, True)]
CENTRE, CLEAR = np.array([0.7, -0.4]), 1.1


def draw(kind, held_out, seed, centre=CENTRE, clear=CLEAR):
    return rooms.draw_room(np.random.default_rng(seed), kind, held_out, centre, clear)


def surface(one, count=4000):
    """Return points of the world on one solid, from what it is by definition."""
    rng = np.random.default_rng(0)
    way = rng.normal(size=(count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    size = one.size_p3[0]
    if one.kind_p[0] == CONE:
        share = rng.integers(0, 2, (count, 1))
        own = share * [[size[0], 0, 0]] + way * np.where(share, size[2], size[1])
    elif one.kind_p[0] == BALL:
        own = way * size
    else:
        own = rng.choice([-1, 1], (count, 3)) * size  # corners
    return own @ one.frame_p33[0] + one.centre_p3[0]


def each(found):
    return [solids.Solids(*(field[i : i + 1] for field in found)) for i in range(len(found.kind_p))]


def test_bounds_hold_the_surface_and_are_tight():
    rng = np.random.default_rng(1)
    for kind, size in ((CONE, (0.5, 0.2, 0.1)), (BALL, (0.3, 0.1, 0.2)), (BOX, (0.3, 0.1, 0.2))):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        one = solids.make(kind, rng.normal(size=3), turn, size)
        low, high = furniture.bounds(one)
        points = surface(one, 40000)
        assert (points >= low - 1e-9).all() and (points <= high + 1e-9).all()
        np.testing.assert_allclose([points.min(0), points.max(0)], [low[0], high[0]], atol=2e-3)


def floats(found):
    """Return solids that are held by nothing: neither the floor, a wall, nor what is held."""
    low, high = furniture.bounds(found)
    room = found.kind_p == ROOM
    wall_low, wall_high = (b[room][0] if room.any() else b.min(0) - 9 for b in (low, high))
    slack = 0.004
    held = room | (low[:, 2] < slack)
    held |= ((low - wall_low)[:, :2] < slack).any(1) | ((wall_high - high)[:, :2] < slack).any(1)
    touch = ((low[:, None] <= high[None] + slack) & (high[:, None] >= low[None] - slack)).all(-1)
    touch[:, room] = False
    for _ in range(8):
        held |= (touch & held[None]).any(1)
    return np.flatnonzero(~held)


@pytest.mark.parametrize("kind, held_out", KINDS)
def test_a_room_is_as_wide_and_high_as_its_row_says(kind, held_out):
    look = rooms.LOOKS[kind, held_out]
    sizes = np.array([2 * draw(kind, held_out, seed).solids.size_p3[0] for seed in range(60)])
    for sides, (least, most) in ((sizes[:, :2], look.width), (sizes[:, 2], look.height)):
        assert least <= sides.min() and sides.max() <= most
        # All of the range is used.
        assert np.ptp(sides) > 0.9 * (most - least)


@pytest.mark.parametrize("kind, held_out", KINDS)
def test_nothing_floats_sinks_leaves_the_room_or_stands_in_the_middle(kind, held_out):
    for seed in range(40):
        room = draw(kind, held_out, seed)
        found = room.solids
        assert found.kind_p[0] == ROOM and (found.kind_p == ROOM).sum() == 1
        assert 8 <= len(found.kind_p) <= rooms.MOST
        low, high = furniture.bounds(found)
        assert low[0, 2] == 0
        assert (low >= low[0] - 1e-3).all() and (high <= high[0] + 1e-3).all()
        assert not len(floats(found)), (kind, held_out, seed, floats(found))
        for one in each(found)[1:]:
            points = surface(one, 300)
            if points[:, 2].max() > 0.01:  # not a rug
                near = np.linalg.norm(points[:, :2] - CENTRE, axis=1).min()
                assert near > min(CLEAR, rooms.LEAST_TO_WALL) - 0.03
                if not _at_wall(one, low[0], high[0]):
                    assert near > CLEAR - 1e-6
        assert (low[0, :2] < CENTRE - 1).all() and (high[0, :2] > CENTRE + 1).all()
        lamp = room.light.position_3
        assert (lamp > low[0]).all() and (lamp < high[0]).all() and lamp[2] > 2
        assert np.hypot(*(lamp[:2] - CENTRE)) > 0.3


def _at_wall(one, low, high):
    least, most = furniture.bounds(one)
    return min((least[0] - low)[:2].min(), (high - most[0])[:2].min()) < 0.03


@pytest.mark.parametrize("kind, held_out", KINDS)
def test_colours_are_colours_and_every_solid_has_its_paint(kind, held_out):
    for seed in range(20):
        room = draw(kind, held_out, seed)
        assert room.solids.paint_p[0] == 0
        assert set(room.solids.paint_p) <= set(range(len(room.paints)))
        assert (room.solids.paint_p[1:] >= 3).all()  # walls, floor and ceiling are the room's
        for paint in room.paints:
            numbers = np.array(paint.colours)
            assert numbers.shape[1] == 3 and numbers.min() >= 0 and numbers.max() <= 1
        light = np.array([room.light.colour, *room.light.ambient])
        assert light.shape == (3, 3) and light.min() > 0


def test_joining_keeps_every_solid_its_paint():
    rng = np.random.default_rng(2)
    pieces = [rooms.draw_occluder(rng, "toddler", False) for _ in range(5)]
    whole = rooms.join(*pieces, Piece(solids.none(), ()))
    paints_of = [piece.paints[p] for piece in pieces for p in piece.solids.paint_p]
    assert [whole.paints[p] for p in whole.solids.paint_p] == paints_of
    assert rooms.join().paints == () and len(rooms.join().solids.kind_p) == 0


@pytest.mark.parametrize("kind", ["adult", "toddler"])
def test_occluders_stand_on_the_floor_around_the_origin(kind):
    rng = np.random.default_rng(3)
    heights = []
    for _ in range(80):
        piece = rooms.draw_occluder(rng, kind, False)
        low, high = furniture.bounds(piece.solids)
        assert -1e-9 < low[:, 2].min() < 1e-6 and not len(floats(piece.solids))
        assert (low.min(0)[:2] < 0).all() and (high.max(0)[:2] > 0).all()
        heights.append(high[:, 2].max())
        assert set(piece.solids.paint_p) <= set(range(len(piece.paints)))
    assert 0.1 < min(heights) and max(heights) < 1.1


def test_a_room_does_not_depend_on_where_it_is_and_the_same_state_draws_the_same():
    here, there = draw("toddler", False, 5), draw("toddler", False, 5, CENTRE + (3, 2))
    shift = there.solids.centre_p3 - here.solids.centre_p3
    np.testing.assert_allclose(shift, np.broadcast_to((3, 2, 0), shift.shape), atol=1e-9)
    assert here.paints == there.paints
    again = draw("toddler", False, 5)
    for one, other in zip(here.solids, again.solids, strict=True):
        assert one.tobytes() == other.tobytes()
    assert here.light.position_3.tobytes() == again.light.position_3.tobytes()


@pytest.mark.parametrize("kind", ["adult", "toddler"])
def test_rooms_of_test_people_look_different(kind):
    def walls_and_floors(held_out):
        found = [draw(kind, held_out, seed).paints for seed in range(150)]
        hue = np.array([colorsys.rgb_to_hsv(*p[1].colours[0])[0] for p in found])
        return np.exp(2j * np.pi * hue).mean(), np.array([p[1].pattern for p in found])

    (hue, pattern), (other_hue, other) = (walls_and_floors(held_out) for held_out in (False, True))
    assert np.cos(np.angle(hue * np.conj(other_hue))) < 0.3
    assert (other == "checks").mean() > 0.2 and not (pattern == "checks").any()
    assert (pattern == "planks").mean() > 0.25 and not (other == "planks").any()


def test_a_room_can_be_looked_at_from_its_middle():
    room = draw("toddler", False, 6)
    camera = cameras.look_at((*CENTRE, 0.8), (3.0, -2.0, 0.6), 60.0, (64, 48))
    hits = casting.cast(camera, room.solids)
    assert (hits.solid_hw >= 0).all() and (hits.depth_hw > CLEAR - 0.1).any()
    shadow = paints.shadow_of(hits, room.solids, camera, room.light)
    rgb = paints.shade(hits, room.solids, room.paints, camera, room.light, shadow)
    assert rgb.min() >= 0 and rgb.max() <= 1 and 0.1 < rgb.mean() < 0.95
