"""Making, joining and moving solids."""

import numpy as np
import pytest

from nkjax.toddlersim import solids

QUARTER = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y, y to -x


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -2, 0), (0, 0, 3), (0.2, -0.5, 0.9), (1, 1, 1)])
def test_a_frame_along_an_axis_is_right_handed(axis):
    frame = solids.frame_along(axis)
    np.testing.assert_allclose(frame[0], np.array(axis) / np.linalg.norm(axis), atol=1e-12)
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(frame) == pytest.approx(1)


def test_a_cone_runs_from_one_end_to_the_other():
    cone = solids.cone((1, 2, 3), (1, 2, 5), 0.4, 0.1, segment=4, paint=7)
    np.testing.assert_allclose(cone.size_p3, [(2, 0.4, 0.1)])
    end = cone.frame_p33[0] @ (np.array((1, 2, 5)) - cone.centre_p3[0])
    np.testing.assert_allclose(end, (2, 0, 0), atol=1e-12)
    assert (cone.kind_p, cone.segment_p, cone.paint_p) == (solids.CONE, 4, 7)


def test_moved_takes_every_point_of_a_solid_along():
    box = solids.make(solids.BOX, (1, 2, 3), solids.frame_along((1, 1, 0)), (1, 2, 3))
    moved = solids.moved(box, QUARTER, (10, 20, 30))
    # (1, 2, 3) turned is (-2, 1, 3); its first axis (1, 1, 0) turned is (-1, 1, 0).
    np.testing.assert_allclose(moved.centre_p3, [(8, 21, 33)])
    np.testing.assert_allclose(moved.frame_p33[0, 0], np.array((-1, 1, 0)) / np.sqrt(2), atol=1e-12)
    point = np.array((0.3, -0.4, 0.5))
    before = box.frame_p33[0] @ (point - box.centre_p3[0])
    after = moved.frame_p33[0] @ (QUARTER @ point + (10, 20, 30) - moved.centre_p3[0])
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_join_keeps_the_order_and_none_adds_nothing():
    first = solids.make(solids.BALL, [(0, 0, 0), (1, 0, 0)], np.eye(3), 1.0, person=2)
    second = solids.cone((0, 0, 0), (0, 0, 1), 0.1, 0.1)
    both = solids.join(first, solids.none(), second)
    assert both.kind_p.tolist() == [solids.BALL, solids.BALL, solids.CONE]
    assert both.person_p.tolist() == [2, 2, solids.NOBODY]
    assert both.frame_p33.shape == (3, 3, 3) and both.size_p3.shape == (3, 3)


def test_made_solids_share_no_memory():
    made = solids.make(solids.BALL, [(0, 0, 0), (1, 0, 0)], np.eye(3), (1.0, 2.0, 3.0))
    made.size_p3[0] = 9
    made.frame_p33[0] = 0
    np.testing.assert_allclose(made.size_p3[1], (1, 2, 3))
    np.testing.assert_allclose(made.frame_p33[1], np.eye(3))
