"""The camera against numbers worked out by hand."""

import numpy as np
import pytest

from nkjax.toddlersim import camera as cameras

# At (0, 0, 1), looking along x: right is -y, down is -z. The middle of 101 x 81 px is (50, 40).
LEVEL = cameras.look_at((0, 0, 1), (3, 0, 1), 100, (101, 81))


def random_camera(rng, size_wh=(96, 128)):
    return cameras.look_at(
        rng.uniform(-1, 1, 3), rng.uniform(2, 3, 3), rng.uniform(50, 200), size_wh,
        rng.uniform(-180, 180),
    )  # fmt: skip


def test_a_point_lands_where_worked_out_by_hand():
    px, depth = cameras.project(LEVEL, (2, -0.5, 1.25))
    np.testing.assert_allclose(px, (50 + 100 * 0.5 / 2, 40 - 100 * 0.25 / 2), atol=1e-12)
    assert depth == pytest.approx(2)
    np.testing.assert_allclose(cameras.to_camera(LEVEL, (2, -0.5, 1.25)), (0.5, -0.25, 2))


def test_a_camera_that_looks_down_sees_the_horizon_above_its_middle():
    # Forward (1, 0, -1) / sqrt 2, down (-1, 0, -1) / sqrt 2; the point is (2, 0, -1) away.
    camera = cameras.look_at((0, 0, 1), (1, 0, 0), 100, (101, 81))
    px, depth = cameras.project(camera, (2, 0, 0))
    np.testing.assert_allclose(px, (50, 40 - 100 / 3), atol=1e-12)
    assert depth == pytest.approx(3 / np.sqrt(2))


@pytest.mark.parametrize(
    "roll, off_middle", [(90, (12.5, 25)), (-90, (-12.5, -25)), (180, (-25, 12.5))]
)
def test_roll_turns_the_picture_clockwise(roll, off_middle):
    """Without roll the point lies 25 px right of and 12.5 px above the middle."""
    camera = cameras.look_at((0, 0, 1), (3, 0, 1), 100, (101, 81), roll)
    px, depth = cameras.project(camera, (2, -0.5, 1.25))
    np.testing.assert_allclose(px - (50, 40), off_middle, atol=1e-12)
    assert depth == pytest.approx(2)


def test_a_small_roll_moves_what_is_up_to_the_right():
    camera = cameras.look_at((0, 0, 1), (3, 0, 1), 100, (101, 81), 30)
    px, _ = cameras.project(camera, (2, 0, 1.25))
    np.testing.assert_allclose(px - (50, 40), (6.25, -10.825318), atol=1e-6)


def test_points_at_or_behind_the_camera_have_no_pixel():
    px, depth = cameras.project(LEVEL, [(-1, 0, 1), (0, 1, 1), (1, 0, 1)])
    assert np.isnan(px[:2]).all() and np.isfinite(px[2]).all()
    np.testing.assert_allclose(depth, (-1, 0, 1), atol=1e-12)


def test_rays_advance_one_metre_of_depth_and_return_to_their_pixel():
    rng = np.random.default_rng(0)
    for _ in range(20):
        camera = random_camera(rng)
        pixels, depth = rng.uniform(-20, 150, (50, 2)), rng.uniform(0.1, 9, 50)
        ray = cameras.rays(camera, pixels)
        np.testing.assert_allclose(ray @ camera.axes_33[2], 1, atol=1e-12)
        got, got_depth = cameras.project(camera, camera.position_3 + depth[:, None] * ray)
        np.testing.assert_allclose(got, pixels, atol=1e-8)
        np.testing.assert_allclose(got_depth, depth, atol=1e-12)


def test_axes_are_a_right_handed_turn_and_the_target_is_in_the_middle():
    rng = np.random.default_rng(1)
    for _ in range(20):
        position, target = rng.uniform(-1, 1, 3), rng.uniform(2, 3, 3)
        camera = cameras.look_at(position, target, 80, (96, 128), rng.uniform(-180, 180))
        np.testing.assert_allclose(camera.axes_33 @ camera.axes_33.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(camera.axes_33) == pytest.approx(1)
        px, depth = cameras.project(camera, target)
        np.testing.assert_allclose(px, (47.5, 63.5), atol=1e-9)
        assert depth == pytest.approx(np.linalg.norm(target - position))
